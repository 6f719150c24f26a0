"""Can a profile alone foretell what a user will like? It ranks what they have not met; their later likes are found.

Of three scorers, none of which sees an event:

- *text*: `sum_c s_c (e(c) - mean) . (e(i) - mean)`, from the claims' texts and strengths `s_c`;
- *factors*: `sum_c s_c f(c) . y_i`, where `y` are the factors of plain iALS over everyone's events before their cuts,
  and `f(c)` is the mean factor of the items that the claim cites;
- *popularity* and *most frequent category*: what any ranking must beat.

Full ranking: all items but those met before the cut, NDCG@10 and recall@10. 1+99: each later like among 99 items that
the user has met neither before nor after; NDCG@10 of the one, mean over likes. Sampling flatters whoever ranks in
part by popularity (Krichene and Rendle 2020): beside the full ranking, not instead.

*Tags* are set against the categories of the later likes: precision and recall at k, of the tags that are categories,
beside the user's most frequent categories and everyone's.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sps

from agent.catalogue import unit
from eval import metrics
from eval.baselines import frequent_category, popularity
from eval.interactions import Floats, Interactions, Ints
from eval.profiles.specific import by_user
from eval.profiles.writing import Metric, Written
from eval.world import Claims, World

K, SAMPLED = 10, 99
TAGS_AT = (3, 5)

METRICS = {
    "ndcg@10": Metric("Discounted gain of the later likes among the first 10, over that of the best ranking."),
    "recall@10": Metric("Share of the later likes among the first 10."),
    "ndcg@10, 1+99": Metric("NDCG@10 of each later like among 99 items drawn at random; flatters popularity."),
} | {
    f"tag {name}@{k}": Metric(f"Share of {of}.")
    for k in TAGS_AT
    for name, of in (
        ("precision", f"the first {k} categories foretold that later likes have"),
        ("recall", f"the later likes' categories that are among the first {k} foretold"),
    )
}


def by_text(claims: Claims, world: World) -> Floats:
    """Score all items for all users by the texts of claims, `(users, m)`."""
    mean = world.texts.mean(axis=0)
    tastes = np.zeros((len(world.user_ids), world.texts.shape[1]))
    np.add.at(tastes, claims.owner, claims.strengths[:, None] * (claims.vectors - mean))
    return np.asarray(tastes @ unit(world.texts - mean).T.astype(np.float64))


def by_factors(written: Sequence[Written], world: World, factors: Floats) -> Floats:
    """Score all items for all users by the mean factors of what claims cite, `(users, m)`; factors are `(m, k)`."""
    row = {item.item_id: n for n, item in enumerate(world.items)}
    tastes = np.zeros((len(world.user_ids), factors.shape[1]))
    for one in written:
        item_of = dict(zip(one.log.event_ids, one.log.items, strict=True))
        for claim in one.claims:
            items = [item_of.get(piece.event_id) for piece in claim.evidence]
            if rows := [row[key] for key in items if key is not None and key in row]:
                tastes[one.code] += claim.strength * factors[rows].mean(axis=0)
    return np.asarray(tastes @ factors.T)


def by_baselines(past: Interactions, categories: sps.csr_matrix) -> dict[str, Floats]:
    """Score all items for all users without a profile, `(users, m)` by name of the baseline."""
    likes = past.take(past.weight > 0).matrix()
    return {
        "popularity": popularity(likes)(likes),
        "most frequent category": frequent_category(likes, categories)(likes),
    }


def rank(scores: Floats, past: Interactions, later: Interactions, users: Ints, seed: int) -> dict[str, Floats]:
    """Rank the unseen items by scores `(users, m)`.

    Args:
        scores: Of all users.
        past: What is known, and so not ranked.
        later: What is asked for: the likes among it.
        users: Codes of those who are measured.
        seed: Of the order of equal scores and of the items that are drawn.

    Returns:
        By metric `(n_users,)`, nan for users who are not measured or have no later like.
    """
    likes = later.take(later.weight > 0).matrix()
    seen = past.matrix()
    hits = metrics.rank(scores[users], likes[users], seen[users], K, np.random.default_rng(seed))
    drawn = one_of_many(scores, likes, (seen + later.matrix()).tocsr(), seen, users, np.random.default_rng(seed))
    found = {"ndcg@10": metrics.ndcg(hits), "recall@10": metrics.recall(hits), "ndcg@10, 1+99": drawn}
    return {name: _spread(values, users, past.n_users) for name, values in found.items()}


def one_of_many(
    scores: Floats,
    likes: sps.csr_matrix,
    met: sps.csr_matrix,
    seen: sps.csr_matrix,
    users: Ints,
    rng: np.random.Generator,
) -> Floats:
    """Rank each later like among 99 items that the user never met; returns the mean NDCG@10 of each user.

    The one relevant item at rank r, equals counted half, gains `1 / log2(r + 1)` for r up to 10, else 0.

    Args:
        scores: `(n, m)`.
        likes: `(n, m)`, later likes; those that were seen before do not count.
        met: `(n, m)`, all items that a user has met, before or later.
        seen: `(n, m)`, those met before.
        users: Rows that are measured.
        rng: Of the items that are drawn.
    """
    found = np.full(len(users), np.nan)
    for n, user in enumerate(users.tolist()):
        wanted = np.setdiff1d(likes[user].indices, seen[user].indices)
        free = np.setdiff1d(np.arange(scores.shape[1]), met[user].indices)
        if not len(wanted) or len(free) < SAMPLED:
            continue
        others = scores[user][np.stack([rng.choice(free, SAMPLED, replace=False) for _ in wanted])]
        own = scores[user][wanted][:, None]
        ranks = 1.0 + (others > own).sum(axis=1) + 0.5 * (others == own).sum(axis=1)
        found[n] = np.where(ranks <= K, 1.0 / np.log2(ranks + 1.0), 0.0).mean()
    return found


def foretold(predicted: Sequence[int], real: set[int]) -> dict[str, float]:
    """Set categories, the likeliest first, against those of later likes: precision and recall at each k.

    Fewer than k predictions lower the precision only if they are wrong; none at all has none.

    >>> {name: round(v, 2) for name, v in foretold([4, 7, 1, 2], {4, 1, 9}).items()}
    {'tag precision@3': 0.67, 'tag recall@3': 0.67, 'tag precision@5': 0.5, 'tag recall@5': 0.67}
    """
    found = {}
    for k in TAGS_AT:
        right = len(set(predicted[:k]) & real)
        found[f"tag precision@{k}"] = right / len(predicted[:k]) if len(predicted) else float("nan")
        found[f"tag recall@{k}"] = right / len(real) if real else float("nan")
    return found


def tags(
    written: Sequence[Written],
    past: Interactions,
    later: Interactions,
    categories: sps.csr_matrix,
    names: Sequence[str],
) -> dict[str, dict[str, Floats]]:
    """Set tags against later categories, beside two baselines.

    Args:
        written: The profiles.
        past: What is known.
        later: What is foretold: the categories of the likes among it.
        categories: `(m, c)`.
        names: `c` names of categories.

    Returns:
        By subject and metric, `(n_users,)`, nan where there is none.
    """
    code = {name: n for n, name in enumerate(names)}
    likes, after = (events.take(events.weight > 0).matrix() for events in (past, later))
    own = np.asarray((likes @ categories).toarray())
    everyone = np.argsort(-own.sum(axis=0), kind="stable").tolist()
    real = np.asarray((after @ categories).toarray()) > 0
    found: dict[str, dict[str, Floats]] = {}
    for one in written:
        wanted = set(np.flatnonzero(real[one.code]).tolist())
        if not wanted:
            continue
        frequent = [c for c in np.argsort(-own[one.code], kind="stable").tolist() if own[one.code][c] > 0]
        predicted: Mapping[str, Sequence[int]] = {
            "tags": [code[tag.name] for tag in one.profile.tags if tag.field == "category" and tag.name in code],
            "own most frequent categories": frequent,
            "everyone's most frequent categories": everyone,
        }
        for subject, guesses in predicted.items():
            for metric, value in foretold(guesses, wanted).items():
                by_metric = found.setdefault(subject, {})
                by_metric.setdefault(metric, np.full(past.n_users, np.nan))[one.code] = value
    return found


def category_matrix(world: World) -> tuple[sps.csr_matrix, list[str]]:
    """Return which items have which category, `(m, c)`, and the categories' names."""
    names = sorted({name for item in world.items for name in item.categories})
    code = {name: n for n, name in enumerate(names)}
    cells = [(row, code[name]) for row, item in enumerate(world.items) for name in set(item.categories)]
    rows, columns = np.array(cells, dtype=np.int64).reshape(-1, 2).T
    return sps.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(world.items), len(names))), names


def percentiles(scores: Floats, past: Interactions, later: Interactions) -> tuple[Floats, Ints]:
    """Return how far up each later like of a new item stands among the items that were not met before.

    Args:
        scores: `(users, m)`.
        past: What is known.
        later: What is looked for.

    Returns:
        `(n,)`, the share of the unmet items that it outranks, equals counted half (so the mean over likes is nearly
        the area under the ROC curve, and .5 is chance); and `(n,)`, the places of these likes in `later`.
    """
    seen = past.matrix()
    values, places = [], []
    starts = later.starts()
    for user in np.unique(later.user).tolist():
        unmet = np.setdiff1d(np.arange(later.n_items), seen[user].indices)
        mine = np.arange(starts[user], starts[user + 1])
        mine = mine[(later.weight[mine] > 0) & np.isin(later.item[mine], unmet)]
        ordered = np.sort(scores[user][unmet])
        own = scores[user][later.item[mine]]
        below = (np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")) / 2 - 0.5
        values.append(below / max(len(unmet) - 1, 1))
        places.append(mine)
    if not values:
        return np.zeros(0), np.zeros(0, dtype=np.int64)
    return np.concatenate(values), np.concatenate(places)


def auc(scores: Floats, past: Interactions, later: Interactions) -> Floats:
    """Return the mean percentile of each user's later likes, `(n_users,)`; nan for those without any."""
    values, places = percentiles(scores, past, later)
    return by_user(values, later.user[places], later.n_users)


def _spread(values: Floats, users: Ints, count: int) -> Floats:
    found = np.full(count, np.nan)
    found[users] = values
    return found
