"""Does a claim say what sets its items apart? Its items must be told from others by its words alone.

After GISTBench's Interest Specificity (arXiv 2603.29112; formulas only), with an embedder in the place of its judge:
at most 5 of the items that a claim rests on are put among others of the catalogue, 50 in all. The items are ranked by
the cosine of their texts with the claim's words, from which the titles of examples have been taken; items whose title
the words still hold are not drawn. With `b` backing items, *specificity* is the share of them among the first `b`:
by chance `b / 50`, that is .1 for five.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agent.catalogue import readable_title, unit
from agent.contract import Claim
from agent.embedder import Embedder
from eval.interactions import Floats, Ints
from eval.profiles.writing import Metric, Written
from eval.world import Matrix, World

BACKING, SHOWN = 5, 50
_CHUNK = 512

METRICS = {
    "specificity": Metric("Share of at most 5 items behind a claim that are ranked first among 50 by its words alone; "
                          "mean over a user's claims. By chance at most .1."),
}  # fmt: skip


class Lineup(NamedTuple):
    """Items to be told apart: `(q, 50)` rows, the backing ones first, and `(q,)` how many those are."""

    rows: Ints
    backing: Ints


def told_apart(words: Matrix, items: Matrix, lineup: Lineup, rng: np.random.Generator) -> Floats:
    """Rank each line-up by cosine, equals at random; returns the share of backing items among the first `b`, `(q,)`.

    >>> items = np.eye(4, dtype=np.float32)
    >>> lineup = Lineup(np.array([[0, 1, 2, 3]]), np.array([2]))
    >>> told_apart(np.array([[0.9, 0.0, 0.5, 0.1]], dtype=np.float32), items, lineup, np.random.default_rng(0))
    array([0.5])

    Args:
        words: `(q, d)`, unit vectors of what the claims say.
        items: `(m, d)`, unit vectors.
        lineup: Of each claim.
        rng: Of the order of equals.
    """
    found = np.zeros(len(words))
    places = np.arange(lineup.rows.shape[1])
    for start in range(0, len(words), _CHUNK):
        part = slice(start, start + _CHUNK)
        cosines = np.einsum("qd,qnd->qn", words[part], items[lineup.rows[part]])
        order = np.lexsort((rng.random(cosines.shape), -cosines), axis=1)
        backing = lineup.backing[part, None]
        first = (order < backing) & (places[None, :] < backing)
        found[part] = first.sum(axis=1) / lineup.backing[part]
    return found


def measure(written: Sequence[Written], world: World, embedder: Embedder, seed: int) -> Floats:
    """Measure the specificity of profiles, `(users,)`; nan for users without a claim.

    Args:
        written: The profiles.
        world: Whose items are told apart.
        embedder: Of words.
        seed: Of the items that are drawn, and of the order of equals.
    """
    rng = np.random.default_rng(seed)
    row = {item.item_id: n for n, item in enumerate(world.items)}
    titles = [readable_title(item.title).casefold() for item in world.items]
    owner, words, rows, counts = [], [], [], []
    for one in written:
        item_of = dict(zip(one.log.event_ids, one.log.items, strict=True))
        for claim in one.claims:
            said = one.words(claim)
            behind = _behind(claim, item_of, row)
            drawn = rng.permutation([n for n in behind if titles[n] not in said.casefold()])[:BACKING]
            if not len(drawn) or len(behind) + SHOWN > len(row):
                continue
            chances = np.ones(len(row))
            chances[behind] = 0.0
            others = rng.choice(len(row), SHOWN - len(drawn), replace=False, p=chances / chances.sum())
            owner.append(one.code)
            words.append(said)
            rows.append(np.concatenate([drawn, others]))
            counts.append(len(drawn))
    if not words:
        return np.full(len(world.user_ids), np.nan)
    mean = world.texts.mean(axis=0)
    lineup = Lineup(np.stack(rows).astype(np.int64), np.array(counts, dtype=np.int64))
    shares = told_apart(unit(embedder.embed(words) - mean), unit(world.texts - mean), lineup, rng)
    return by_user(shares, np.array(owner, dtype=np.int64), len(world.user_ids))


def by_user(values: Floats, owner: Ints, users: int) -> Floats:
    """Return the mean of each user's values, `(users,)`; nan for those without any.

    >>> by_user(np.array([1.0, 0.0, 0.5]), np.array([0, 0, 2]), 3)
    array([0.5, nan, 0.5])
    """
    counts = np.bincount(owner, minlength=users).astype(np.float64)
    sums = np.bincount(owner, weights=values, minlength=users)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _behind(claim: Claim, item_of: dict[str, str | None], row: dict[str, int]) -> list[int]:
    """Return the rows of the items that a claim cites."""
    found = {item_of.get(piece.event_id) for piece in claim.evidence}
    return sorted(row[key] for key in found if key is not None and key in row)
