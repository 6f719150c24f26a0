"""What recommended lists are like, whether or not they hit: how much of the catalogue, how popular, how varied.

A list is a row of `(b, k)` codes of items, the best first, -1 where there is none (`eval.metrics.best`).
"""

import numpy as np
import numpy.typing as npt

from agent.catalogue import unit
from eval.interactions import Floats, Ints


def exposure(lists: Ints, n_items: int) -> Ints:
    """Count how often each item is recommended, `(n_items,)`."""
    return np.bincount(lists[lists >= 0], minlength=n_items).astype(np.int64)


def coverage(lists: Ints, n_items: int) -> float:
    """Return the share of the catalogue that is recommended to anyone (Ge et al. 2010).

    >>> coverage(np.array([[0, 1], [1, 2]]), n_items=4)
    0.75
    """
    return float(np.count_nonzero(exposure(lists, n_items)) / n_items)


def gini(lists: Ints, n_items: int) -> float:
    """Return the Gini index of how often items are recommended: 0 if all alike, near 1 if always the same few.

    `sum_j (2 j - m - 1) e_j / (m sum e)` over the m items' exposures e in ascending order, j from 1.

    >>> gini(np.array([[0, 1], [2, 3]]), n_items=4), gini(np.array([[0], [0]]), n_items=4)
    (0.0, 0.75)
    """
    counts = np.sort(exposure(lists, n_items))
    places = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float(places @ counts / (n_items * max(int(counts.sum()), 1)))


def novelty(lists: Ints, users_of: Floats, n_users: int) -> Floats:
    """Return the mean surprise of each list: `-log2` of the share of users who have an item (Vargas, Castells 2011).

    Args:
        lists: `(b, k)`.
        users_of: `(m,)`, users who have each item in training; an item of nobody counts as one of a single user.
        n_users: In training.

    Returns:
        `(b,)`, bits; nan for an empty list.

    >>> novelty(np.array([[0, 1]]), np.array([4.0, 1.0]), n_users=4)
    array([1.])
    """
    return _mean(-np.log2(np.maximum(users_of, 1.0) / n_users)[np.maximum(lists, 0)], lists)


def diversity(lists: Ints, vectors: npt.NDArray[np.floating]) -> Floats:
    """Return 1 less the mean cosine of the pairs in each list (intra-list diversity; Ziegler et al. 2005).

    Args:
        lists: `(b, k)`.
        vectors: `(m, d)`, of the items.

    Returns:
        `(b,)`; nan for a list of fewer than two.

    >>> diversity(np.array([[0, 1], [0, 2]]), np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))
    array([1., 0.])
    """
    units = unit(vectors)[np.maximum(lists, 0)] * (lists >= 0)[:, :, None]
    count = (lists >= 0).sum(axis=1)
    pairs = np.where(count > 1, count * (count - 1), np.nan)
    return np.asarray(1.0 - (np.square(units.sum(axis=1)).sum(axis=1) - count) / pairs, dtype=np.float64)


def popularity_lift(lists: Ints, users_of: Floats, likes: npt.NDArray[np.bool_]) -> Floats:
    """Return by how much more popular each list is than what the user likes (Abdollahpouri et al. 2019).

    `(list - history) / history`, both the mean number of users who have the item; 0 is no popularity bias.

    Args:
        lists: `(b, k)`.
        users_of: `(m,)`, users who have each item in training.
        likes: `(b, m)`, what each user likes in training.

    Returns:
        `(b,)`; nan for an empty list or history.

    >>> popularity_lift(np.array([[0]]), np.array([30.0, 10.0]), np.array([[True, True]]))
    array([0.5])
    """
    count = likes.sum(axis=1)
    history = (likes @ users_of) / np.where(count > 0, count, np.nan)
    return np.asarray(_mean(users_of[np.maximum(lists, 0)], lists) / np.where(history > 0, history, np.nan) - 1.0)


def _mean(values: Floats, lists: Ints) -> Floats:
    there = lists >= 0
    count = there.sum(axis=1)
    return np.asarray((values * there).sum(axis=1) / np.where(count > 0, count, np.nan))
