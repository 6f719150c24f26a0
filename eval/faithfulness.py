"""Are explanations faithful? What becomes of each user's best recommendation without the events that explain it.

An explainer puts the user's events in an order. They are deleted one by one; after each the user is summarized and
folded in anew, so that the item's score is exact. The score over that before any deletion, averaged over 0 to 10
deletions, is the area under the deletion curve (Samek et al. 2017, arXiv 1509.06321): the smaller, the better the
explainer knows what the score rests on. The insertion curve starts without the events that the model uses, and adds
them in the same order (Petsiuk et al. 2018, arXiv 1806.07421): the larger the area, the better. Claims stay as they
are. Only events that the model uses are put in order, by every explainer.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from eval.fused import Fused
from eval.interactions import Bools, Floats, Interactions, Ints
from eval.world import Matrix
from recommend.explaining import explain
from recommend.foldin import Folded
from recommend.history import Events, History, summarize
from recommend.ranking import rank_of, top_k

STEPS = 10
LIST = 10
"""Length of the list that the item is recommended in."""
OURS, RANDOM = "parts", "random"


class Case(NamedTuple):
    """A user's best recommendation.

    Attributes:
        events: Of the user.
        history: That summarizes them.
        folded: The user.
        row: Of the item.
        used: `(n,)`, places of the events that the model uses.
    """

    events: Events
    history: History
    folded: Folded
    row: int
    used: Ints


Explainer = Callable[[Case], Floats]
"""From a case to how much each event that is used matters, `(n,)`."""


def first_choice(model: Fused, known: Interactions, user: int) -> Case:
    """Find the best item that is new to a user, and what it rests on."""
    starts = known.starts()
    part = slice(starts[user], starts[user + 1])
    rows = known.item[part]
    events = Events.told([str(n) for n in range(len(rows))], rows, known.weight[part])
    history, folded = _fold(model, events, user)
    best = top_k(model.fitted.factors @ folded.vector, 1, np.unique(rows))
    return Case(events, history, folded, int(best[0]), np.flatnonzero(history.item >= 0))


class Walk(NamedTuple):
    """The recommended item after 0, 1, ... events have been deleted, or added.

    Attributes:
        scores: `(steps + 1,)`, its score over that with all events.
        ranks: `(steps + 1,)`, its rank, from 1, among the items that are new to the user with all events.
    """

    scores: Floats
    ranks: Ints


def delete(model: Fused, case: Case, user: int, order: Ints, steps: int = STEPS) -> Walk:
    """Delete events one by one, the first of the order first; after the last nothing changes any more."""
    return _walk(model, case, user, order[:steps], np.zeros(len(case.events.rows), dtype=np.bool_), steps)


def insert(model: Fused, case: Case, user: int, order: Ints, steps: int = STEPS) -> Walk:
    """Start without the events that the model uses, and add them one by one, the first of the order first."""
    gone = np.zeros(len(case.events.rows), dtype=np.bool_)
    gone[case.used] = True
    return _walk(model, case, user, order[:steps], gone, steps)


def _walk(model: Fused, case: Case, user: int, order: Ints, gone: Bools, steps: int) -> Walk:
    """Turn events, one after another, from gone to there or the other way."""
    seen, factors = np.unique(case.events.rows), model.fitted.factors
    item = factors[case.row].astype(np.float64)
    scores, ranks = [], []
    for place in (-1, *order.tolist()):
        if place >= 0:
            gone[place] = not gone[place]
        folded = _fold(model, case.events.without(gone), user)[1] if gone.any() else case.folded
        scores.append(folded.score(item))
        ranks.append(rank_of(factors @ folded.vector, case.row, seen))
    missing = steps + 1 - len(scores)
    return Walk(
        np.array(scores + scores[-1:] * missing) / case.folded.score(item),
        np.array(ranks + ranks[-1:] * missing, dtype=np.int64),
    )


def fewest_deleted(walk: Walk, k: int = LIST) -> int:
    """Return after how many deletions the item has left the top `k`; one more than were tried if it has not.

    >>> fewest_deleted(Walk(np.ones(4), np.array([1, 4, 11, 9]))), fewest_deleted(Walk(np.ones(2), np.array([1, 2])))
    (2, 2)
    """
    left = np.flatnonzero(walk.ranks > k)
    return int(left[0]) if len(left) else len(walk.ranks)


def area(curve: Floats) -> float:
    """Return the area under a curve by the trapezoid rule, over its number of steps.

    >>> area(np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float(np.trapezoid(curve) / (len(curve) - 1))


def by_parts(model: Fused) -> Explainer:
    """Order events by their parts of the score."""

    def matter(case: Case) -> Floats:
        reasons = explain(case.folded, case.history, case.events, model.fitted.factors[case.row], {})
        return reasons.events[case.used]

    return matter


def by_cosine(vectors: Matrix) -> Explainer:
    """Order events by the cosine of their items with the recommended one.

    Args:
        vectors: `(m, d)`, of the items.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled = vectors / np.where(length > 0, length, 1.0)
    return lambda case: np.asarray(scaled[case.events.rows[case.used]] @ scaled[case.row], dtype=np.float64)


def at_random(rng: np.random.Generator) -> Explainer:
    """Order events at random."""
    return lambda case: rng.random(len(case.used))


def all_explainers(model: Fused, texts: Matrix, seeds: Iterable[int]) -> dict[str, list[Explainer]]:
    """Return ours and those to compare it with; the random one once for each seed."""
    return {
        OURS: [by_parts(model)],
        "cosine of factors": [by_cosine(model.fitted.factors)],
        "cosine of texts": [by_cosine(texts - texts.mean(axis=0))],
        RANDOM: [at_random(np.random.default_rng(seed)) for seed in seeds],
    }


def _fold(model: Fused, events: Events, user: int) -> tuple[History, Folded]:
    history = summarize(events, model.fold_in.parameters)
    own = slice(*np.searchsorted(model.owner, [user, user + 1]))
    return history, model.fold_in(history.taste(model.claims[own]))
