"""Baselines that every recommender must be measured against.

Each learns from a training matrix `(users, items)` of weights of at least 0 and returns a `Scorer`, which scores all
items for any histories, also of users that it has not seen. `markov_chain` needs the order of events and takes each
user's last item in the place of a history.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sps
from irspack import CosineKNNRecommender
from scipy.linalg import cho_factor, cho_solve

from agent.catalogue import unit
from eval.interactions import Floats, Interactions, Ints

Scorer = Callable[[sps.csr_matrix], Floats]
"""From histories `(b, m)` to scores `(b, m)`."""


def popularity(train: sps.csr_matrix) -> Scorer:
    """Score each item by the number of users who have it."""
    counts = _users_of(train)
    return lambda histories: np.tile(counts, (histories.shape[0], 1))


def with_fallback(scorer: Scorer, fallback: Scorer) -> Scorer:
    """Score by the fallback where a history is empty: most baselines say nothing of a new user."""

    def score(histories: sps.csr_matrix) -> Floats:
        empty = np.asarray((histories != 0).sum(axis=1)).ravel() == 0
        return np.where(empty[:, None], fallback(histories), scorer(histories))

    return score


def item_knn(
    train: sps.csr_matrix,
    neighbours: int = 100,
    shrinkage: float = 0.0,
    weighting: Literal["NONE", "TF_IDF", "BM_25"] = "NONE",
    threads: int | None = None,
) -> Scorer:
    """Score each item by its cosine with the items of the history, summed; irspack's `CosineKNNRecommender`.

    Args:
        train: `(users, items)`.
        neighbours: Nearest items that each item of a history speaks for.
        shrinkage: Added to the product of the norms.
        weighting: Of the training matrix, before cosines are taken.
        threads: As many as there are cores unless given.
    """
    model = CosineKNNRecommender(
        train,
        shrinkage=shrinkage,
        normalize=True,
        top_k=neighbours + 1,  # irspack takes the item itself for its nearest, and drops it afterwards
        feature_weighting=weighting,
        n_threads=threads,
    ).learn()
    similarity = sps.csr_matrix(model.W)
    return lambda histories: np.asarray((histories @ similarity).toarray(), dtype=np.float64)


def ease(train: sps.csr_matrix, ridge: float = 500.0) -> Scorer:
    """Score by the linear autoencoder without self-similarity, in closed form (EASE; Steck 2019, arXiv 1905.03375).

    `P = (X'X + ridge I)^-1`, `B_ij = -P_ij / P_jj` off the diagonal and 0 on it; scores are histories times `B`. Takes
    memory for `m^2` numbers and time for `m^3`.
    """
    gram = np.asarray((train.T @ train).toarray(), dtype=np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    inverse = cho_solve(cho_factor(gram), np.eye(len(gram)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return lambda histories: np.asarray(histories @ weights, dtype=np.float64)


def text_centroid(vectors: npt.NDArray[np.floating]) -> Scorer:
    """Score each item by its text's product with the mean text of the history.

    Args:
        vectors: `(m, d)`, embeddings of the items' texts, which are centred on their mean and scaled to unit length.

    Returns:
        A scorer that weights the items of a history by its entries, and gives 0 to all for an empty one.
    """
    texts = unit(vectors - vectors.mean(axis=0)).astype(np.float64)

    def score(histories: sps.csr_matrix) -> Floats:
        totals = np.asarray(histories.sum(axis=1), dtype=np.float64).reshape(-1, 1)
        centroids = np.asarray(histories @ texts) / np.where(totals > 0, totals, 1.0)
        return np.asarray(centroids @ texts.T)

    return score


def frequent_category(train: sps.csr_matrix, categories: sps.csr_matrix) -> Scorer:
    """Score the items of the history's most frequent category first; within them and after them, the popular ones.

    Args:
        train: `(users, items)`.
        categories: `(items, c)`, not zero where the item is of the category. Of equally frequent ones, all count.
    """
    counts = _users_of(train)
    belongs = (categories != 0).astype(np.float64).tocsr()

    def score(histories: sps.csr_matrix) -> Floats:
        met = np.asarray(((histories != 0).astype(np.float64) @ belongs).toarray())
        most = (met == met.max(axis=1, initial=0.0, keepdims=True)) & (met > 0)
        first = np.asarray(belongs @ most.T.astype(np.float64)).T > 0
        return np.asarray(first * (counts.max(initial=0.0) + 1.0) + counts)

    return score


def markov_chain(train: Interactions, smoothing: float = 10.0) -> Callable[[Ints], Floats]:
    """Score by a first-order Markov chain over each user's consecutive items, smoothed by popularity.

    `P(i | l) = (n_li + smoothing p_i) / (n_l + smoothing)`: `n_li` counts how often item i came right after item l,
    `n_l` sums over i, and `p_i` is the item's share of all interactions (Dirichlet smoothing; Zhai and Lafferty 2004).

    Args:
        train: Of all users; ties in time stand in the order that is given.
        smoothing: Number of observations that the prior is worth; more than 0.

    Returns:
        From each user's last item `(b,)`, -1 where there is none, to probabilities `(b, m)`.
    """
    follows = train.user[1:] == train.user[:-1]
    steps = train.item[:-1][follows], train.item[1:][follows]
    counts = sps.csr_matrix((np.ones(len(steps[0])), steps), shape=(train.n_items, train.n_items))
    share = np.bincount(train.item, minlength=train.n_items) / max(len(train), 1)

    def score(last: Ints) -> Floats:
        seen = np.asarray(counts[np.maximum(last, 0)].toarray()) * (last >= 0)[:, None]
        return np.asarray((seen + smoothing * share) / (seen.sum(axis=1, keepdims=True) + smoothing))

    return score


def _users_of(train: sps.csr_matrix) -> Floats:
    return np.asarray((train != 0).sum(axis=0), dtype=np.float64).ravel()
