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


def rank(
    scores: npt.NDArray[np.floating],
    relevant: sps.csr_matrix,
    excluded: sps.csr_matrix | None,
    k: int,
    rng: np.random.Generator,
) -> Hits:
    """Rank all items for each user, and look which of the first `k` are relevant.

    Args:
        scores: `(b, m)`; an item with the score -inf is never recommended.
        relevant: `(b, m)`, not zero where an item is relevant.
        excluded: `(b, m)`, not zero for items that are not ranked, those already seen for example; an excluded item
            is not relevant either.
        k: Number of ranks; ranks beyond the number of items hold nothing.
        rng: For the order of equal scores, which is random for each user by itself.

    Raises:
        ValueError: k is below 1, the shapes differ, or a score is nan.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    shapes = {scores.shape, relevant.shape, scores.shape if excluded is None else excluded.shape}
    if len(shapes) > 1:
        raise ValueError(f"the shapes differ: {sorted(shapes)}")
    if np.isnan(scores).any():
        raise ValueError("a score is nan")
    users, items = scores.shape
    wanted = relevant.toarray().astype(np.bool_)
    # In a random order of the columns, a sort that sees nothing but the scores takes equal ones at random.
    order = rng.permuted(np.broadcast_to(np.arange(items), (users, items)), axis=1)
    loss = -np.asarray(scores, dtype=np.float64)
    if excluded is not None:
        left_out = excluded.toarray().astype(np.bool_)
        loss[left_out] = np.inf
        wanted &= ~left_out
    loss = np.take_along_axis(loss, order, axis=1)
    first = np.argpartition(loss, min(k, items) - 1, axis=1)[:, :k] if items else order
    loss = np.take_along_axis(loss, first, axis=1)
    ranked = np.argsort(loss, axis=1)
    top = np.take_along_axis(np.take_along_axis(order, first, axis=1), ranked, axis=1)
    found = np.zeros((users, k), dtype=np.bool_)
    shown = np.take_along_axis(loss, ranked, axis=1) < np.inf
    found[:, : top.shape[1]] = np.take_along_axis(wanted, top, axis=1) & shown
    return Hits(found, np.count_nonzero(wanted, axis=1).astype(np.int64))


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
    best = np.append(0.0, np.cumsum(discounts))[np.minimum(hits.relevant, k)]
    return _or_nan(hits.found @ discounts / np.where(best > 0, best, 1.0), hits)


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
