"""Ranking metrics, one value per user, from a full ranking of all items that are not excluded.

A metric takes `Hits` and returns `(b,)`: nan for a user to whom nothing is relevant, who is left out of `mean`.
Relevance is binary. `hit`, `recall`, `ndcg` and `average_precision` are what irspack's `Evaluator` calls hit, recall
(with its default `recall_with_cutoff=False`; with True it divides by `min(k, relevant)`), ndcg and map. `precision`
differs only where fewer than `k` items are left to rank: irspack divides by their number.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sps
from scipy.stats import rankdata

from eval.interactions import Bools, Floats, Ints


class Hits(NamedTuple):
    """What was found at which rank.

    Attributes:
        found: `(b, k)`, whether the item at each rank is relevant.
        relevant: `(b,)`, number of relevant items.
    """

    found: Bools
    relevant: Ints

    def at(self, k: int) -> "Hits":
        """Return the hits of the first `k` ranks."""
        return Hits(self.found[:, :k], self.relevant)


def best(scores: npt.NDArray[np.floating], excluded: sps.csr_matrix | None, k: int, rng: np.random.Generator) -> Ints:
    """Find the best items of each user.

    Args:
        scores: `(b, m)`; an item with the score -inf is never recommended.
        excluded: `(b, m)`, not zero for items that are not ranked, those already seen for example.
        k: Number of ranks.
        rng: For the order of equal scores, which is random for each user by itself.

    Returns:
        `(b, k)`, codes of items, the best first; -1 where there is none left.

    Raises:
        ValueError: k is below 1, the shapes differ, or a score is nan.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if excluded is not None and excluded.shape != scores.shape:
        raise ValueError(f"the shapes differ: {scores.shape} and {excluded.shape}")
    if np.isnan(scores).any():
        raise ValueError("a score is nan")
    users, items = scores.shape
    # In a random order of the columns, a sort that sees nothing but the scores takes equal ones at random.
    order = rng.permuted(np.broadcast_to(np.arange(items), (users, items)), axis=1)
    loss = -np.asarray(scores, dtype=np.float64)
    if excluded is not None:
        loss[excluded.toarray().astype(np.bool_)] = np.inf
    loss = np.take_along_axis(loss, order, axis=1)
    first = np.argpartition(loss, min(k, items) - 1, axis=1)[:, :k] if items else order
    loss = np.take_along_axis(loss, first, axis=1)
    ranked = np.argsort(loss, axis=1)
    top = np.take_along_axis(np.take_along_axis(order, first, axis=1), ranked, axis=1)
    found = np.full((users, k), -1, dtype=np.int64)
    found[:, : top.shape[1]] = np.where(np.take_along_axis(loss, ranked, axis=1) < np.inf, top, -1)
    return found


def hits_of(top: Ints, relevant: sps.csr_matrix, excluded: sps.csr_matrix | None) -> Hits:
    """Look which of the best items are relevant.

    Args:
        top: `(b, k)`, from `best`.
        relevant: `(b, m)`, not zero where an item is relevant.
        excluded: `(b, m)`, as of `best`; an excluded item is not relevant either.

    Raises:
        ValueError: The shapes differ.
    """
    if len(top) != relevant.shape[0] or (excluded is not None and excluded.shape != relevant.shape):
        raise ValueError(f"the shapes differ: {len(top)} users, {relevant.shape}")
    wanted = relevant.toarray().astype(np.bool_)
    if excluded is not None:
        wanted &= ~excluded.toarray().astype(np.bool_)
    found = np.take_along_axis(wanted, np.maximum(top, 0), axis=1) & (top >= 0) if wanted.size else top >= 0
    return Hits(found, np.count_nonzero(wanted, axis=1).astype(np.int64))


def rank(
    scores: npt.NDArray[np.floating],
    relevant: sps.csr_matrix,
    excluded: sps.csr_matrix | None,
    k: int,
    rng: np.random.Generator,
) -> Hits:
    """Rank all items for each user, and look which of the first `k` are relevant: `best` and `hits_of`."""
    if scores.shape != relevant.shape:
        raise ValueError(f"the shapes differ: {scores.shape} and {relevant.shape}")
    return hits_of(best(scores, excluded, k, rng), relevant, excluded)


def sampled(relevant: sps.csr_matrix, excluded: sps.csr_matrix, count: int, rng: np.random.Generator) -> sps.csr_matrix:
    """Leave only the relevant items and a few random others to be ranked: "1 + 99" with one relevant item and 99.

    Such figures are higher than those of a full ranking, and may order recommenders differently: the sample blurs the
    top of the list, where they differ most (Krichene and Rendle 2020, doi:10.1145/3394486.3403226).

    Args:
        relevant: `(b, m)`.
        excluded: `(b, m)`, of the full ranking; none of the others is drawn from them.
        count: Of the others; all there are if fewer.
        rng: That draws them, evenly and without replacement.

    Returns:
        `(b, m)`, what is excluded now.
    """
    wanted, out = (matrix.toarray().astype(np.bool_) for matrix in (relevant, excluded))
    draws = np.where(wanted | out, np.inf, rng.random(wanted.shape))
    drawn = (np.argsort(np.argsort(draws, axis=1), axis=1) < count) & np.isfinite(draws)
    return sps.csr_matrix(~(drawn | (wanted & ~out)))


def auc(scores: npt.NDArray[np.floating], relevant: sps.csr_matrix, excluded: sps.csr_matrix | None = None) -> Floats:
    """Return how often a relevant item stands before one that is not: the area under the ROC curve, by user.

    `(R - n (n + 1) / 2) / (n (m - n))`: R adds up the ranks, from the lowest score, of the n relevant of m items, equal
    scores sharing their mean rank (Mann and Whitney 1947). It looks at the whole ranking, so it has no `k`.

    Args:
        scores: `(b, m)`.
        relevant: `(b, m)`, not zero where an item is relevant.
        excluded: `(b, m)`, not zero for items that are not ranked.

    Returns:
        `(b,)`; nan where nothing, or everything, is relevant.

    >>> auc(np.array([[3.0, 2.0, 2.0, 1.0]]), sps.csr_matrix([[1, 1, 0, 0]]))
    array([0.875])
    """
    wanted = relevant.toarray().astype(np.bool_)
    ranked = np.ones_like(wanted) if excluded is None else ~excluded.toarray().astype(np.bool_)
    found = np.full(len(wanted), np.nan)
    for user, (values, good, among) in enumerate(zip(scores, wanted, ranked, strict=True)):
        mine = good[among]
        n, m = int(mine.sum()), int(among.sum())
        if 0 < n < m:
            found[user] = (rankdata(values[among])[mine].sum() - n * (n + 1) / 2) / (n * (m - n))
    return found


def stack(parts: Iterable[Hits]) -> Hits:
    """Put the hits of batches of users together; all have the same `k`."""
    found, relevant = zip(*parts, strict=True)
    return Hits(np.concatenate(found), np.concatenate(relevant))


def hit(hits: Hits) -> Floats:
    """Return 1 where any of the `k` is relevant, else 0.

    >>> hit(Hits(np.array([[False, True], [False, False]]), np.array([3, 1])))
    array([1., 0.])
    """
    return _or_nan(hits.found.any(axis=1).astype(np.float64), hits)


def recall(hits: Hits) -> Floats:
    """Return the share of the relevant items that is found; below 1 at best where more than `k` are relevant.

    >>> recall(Hits(np.array([[True, True], [True, False]]), np.array([4, 1])))
    array([0.5, 1. ])
    """
    return _or_nan(hits.found.sum(axis=1) / np.maximum(hits.relevant, 1), hits)


def precision(hits: Hits) -> Floats:
    """Return the share of the `k` ranks that hold a relevant item.

    >>> precision(Hits(np.array([[False, True], [False, False]]), np.array([3, 0])))
    array([0.5, nan])
    """
    return _or_nan(hits.found.sum(axis=1) / hits.found.shape[1], hits)


def ndcg(hits: Hits) -> Floats:
    """Return the discounted gain over that of the best ranking: `sum found(r) / log2(r + 1)`, ranks r from 1.

    Järvelin and Kekäläinen 2002, with binary gain.

    >>> ndcg(Hits(np.array([[True, True, False], [False, True, False]]), np.array([2, 1]))).round(3)
    array([1.   , 0.631])
    """
    k = hits.found.shape[1]
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.append(0.0, np.cumsum(discounts))[np.minimum(hits.relevant, k)]
    return _or_nan(hits.found @ discounts / np.where(ideal > 0, ideal, 1.0), hits)


def average_precision(hits: Hits) -> Floats:
    """Return the mean, over all relevant items, of the precision at the rank of each; 0 for those not found.

    >>> average_precision(Hits(np.array([[True, False, True]]), np.array([2]))).round(3)
    array([0.833])
    """
    ranks = np.arange(1, hits.found.shape[1] + 1)
    precisions = np.cumsum(hits.found, axis=1) / ranks
    return _or_nan((precisions * hits.found).sum(axis=1) / np.maximum(hits.relevant, 1), hits)


def reciprocal_rank(hits: Hits) -> Floats:
    """Return 1 over the rank of the first relevant item, 0 if none is among the `k`.

    >>> reciprocal_rank(Hits(np.array([[False, True, True], [False, False, False]]), np.array([2, 1])))
    array([0.5, 0. ])
    """
    first = np.argmax(hits.found, axis=1) + 1.0
    return _or_nan(np.where(hits.found.any(axis=1), 1.0 / first, 0.0), hits)


METRICS: dict[str, Callable[[Hits], Floats]] = {
    "ndcg": ndcg,
    "recall": recall,
    "hit": hit,
    "precision": precision,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def measure(hits: Hits) -> dict[str, Floats]:
    """Return every metric by its name, `(b,)` each."""
    return {name: metric(hits) for name, metric in METRICS.items()}


def mean(values: Floats) -> float:
    """Return the mean over the users to whom something is relevant; nan if there are none.

    >>> mean(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _or_nan(values: npt.ArrayLike, hits: Hits) -> Floats:
    return np.where(hits.relevant > 0, values, np.nan)
