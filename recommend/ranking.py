"""Ranking: the best items by score, an item's rank, and control of diversity. Equal scores go by the smaller row."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.floating]

ROUNDING = 1e-6
"""Of float32, in which all items are scored, relative; a smaller difference is none."""


def eligible(count: int, excluded: Ints, allowed: Bools | None = None) -> Bools:
    """Tell which of `count` items may be recommended, `(count,)`."""
    mask = np.ones(count, dtype=np.bool_) if allowed is None else allowed.copy()
    mask[excluded] = False
    return mask


def top_k(scores: Numbers, k: int, excluded: Ints, allowed: Bools | None = None) -> Ints:
    """Return the rows of the highest scores, the highest first.

    Args:
        scores: `(m,)`.
        k: How many are wanted; all there are if fewer, none for less than 1.
        excluded: Rows that are left out.
        allowed: `(m,)`, which rows may be returned at all; None for all.
    """
    rows = np.flatnonzero(eligible(len(scores), excluded, allowed))
    k = min(k, len(rows))
    if k <= 0:
        return np.zeros(0, dtype=np.int64)
    values = scores[rows]
    least = values[np.argpartition(values, len(rows) - k)[len(rows) - k]]
    above = np.flatnonzero(values > least)
    best = np.concatenate([above, np.flatnonzero(values == least)[: k - len(above)]])
    return np.asarray(rows[best[np.lexsort((best, -values[best]))]], dtype=np.int64)


def rank_of(scores: Numbers, row: int, excluded: Ints, allowed: Bools | None = None) -> int:
    """Return the rank, from 1, that an item has among those that may be recommended; itself is one of them.

    >>> rank_of(np.array([0.5, 0.9, 0.5]), 2, excluded=np.array([1]))
    2
    """
    before = scores > scores[row]
    before[:row] |= scores[:row] == scores[row]
    return 1 + int(np.count_nonzero(before & eligible(len(scores), excluded, allowed)))


class Diversified(NamedTuple):
    """Chosen rows in their new order, and the rank that each had before, from 1."""

    rows: Ints
    before: Ints


def diversify(
    rows: Ints, scores: Numbers, vectors: Numbers, k: int, weight: float, near: float | None = None
) -> Diversified:
    """Choose items that differ from one another, by maximal marginal relevance (Carbonell and Goldstein 1998).

    The next item is the one with the highest `(1 - weight) relevance - weight max_chosen cosine`, relevance being the
    score scaled to [0, 1] over the candidates.

    Args:
        rows: `(n,)`, candidates, the best first.
        scores: `(n,)`, theirs.
        vectors: `(n, d)`, theirs.
        k: How many are wanted.
        weight: Of diversity, in [0, 1]; 0 leaves the order as it is.
        near: Cosine from which an item is a near-duplicate of a chosen one: it then comes after all others. None
            puts none back.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    relevance = (scores - scores.min(initial=np.inf)) / max(float(np.ptp(scores)), 1e-12) if len(rows) else scores
    closest = np.full(len(rows), -np.inf)
    open_ = np.ones(len(rows), dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(k, len(rows)):
        value = (1.0 - weight) * relevance - (weight * np.maximum(closest, -1.0) if chosen else 0.0)
        fresh = open_ if near is None else open_ & (closest < near)
        chosen.append(int(np.argmax(np.where(fresh if fresh.any() else open_, value, -np.inf))))
        open_[chosen[-1]] = False
        closest = np.maximum(closest, units @ units[chosen[-1]])
    places = np.array(chosen, dtype=np.int64)
    return Diversified(rows[places], places + 1)
