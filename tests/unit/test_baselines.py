"""Baselines, by hand and against irspack."""

import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import given
from hypothesis import strategies as st
from irspack import DenseSLIMRecommender

from eval.baselines import (
    Scorer,
    ease,
    frequent_category,
    item_knn,
    markov_chain,
    popularity,
    text_centroid,
    with_fallback,
)
from eval.interactions import Interactions


def matrix(*rows: list[float]) -> sps.csr_matrix:
    return sps.csr_matrix(np.array(rows, dtype=float))


def random_log(seed: int = 0, users: int = 40, items: int = 12) -> sps.csr_matrix:
    rng = np.random.default_rng(seed)
    return sps.csr_matrix((rng.random((users, items)) < 0.3) * rng.uniform(0.2, 1.0, (users, items)))


TRAIN = matrix([1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0.5, 0])


def chain(*walks: list[int], n_items: int) -> Interactions:
    """Each walk is one user's items in order."""
    user = np.concatenate([np.full(len(walk), u) for u, walk in enumerate(walks)])
    item = np.concatenate([np.array(walk) for walk in walks])
    time = np.arange(len(item), dtype=float)
    return Interactions(user, item, time, np.ones(len(item)), np.full(len(item), np.nan), len(walks), n_items)


def test_popularity_counts_users() -> None:
    assert popularity(TRAIN)(matrix([0, 0, 0, 0], [0, 1, 0, 0])).tolist() == [[3, 2, 1, 0]] * 2


def test_item_knn_adds_up_cosines() -> None:
    # Columns a = (1, 1, 1), b = (1, 1, 0), c = (0, 0, .5): cos(a, b) = 2 / sqrt(6), cos(a, c) = 1 / sqrt(3), b and c 0.
    ab, ac = 2 / np.sqrt(6), 1 / np.sqrt(3)
    scores = item_knn(TRAIN, threads=1)(matrix([1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 2, 0]))
    assert scores == pytest.approx(np.array([[0, ab, ac, 0], [ab + ac, 0, 0, 0], [2 * ac, 0, 0, 0]]), abs=1e-5)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_each_item_speaks_for_its_nearest(neighbours: int) -> None:
    log = random_log()
    each = sps.identity(12, format="csr")
    full, near = item_knn(log, 100, threads=1)(each), item_knn(log, neighbours, threads=1)(each)
    for item in range(12):
        assert set(np.flatnonzero(near[item])) == set(np.argsort(-full[item])[:neighbours])


def test_ease_of_two_items_by_hand() -> None:
    # X'X + I = [[3, 2], [2, 3]]; its inverse is [[3, -2], [-2, 3]] / 5, so each predicts the other by 2 / 3.
    both = matrix([1, 1], [1, 1])
    assert ease(both, ridge=1.0)(matrix([1, 0], [0, 3])) == pytest.approx(np.array([[0, 2 / 3], [2, 0]]))


@pytest.mark.parametrize("ridge", [1.0, 30.0])
def test_ease_is_what_irspack_computes(ridge: float) -> None:
    log = random_log()
    theirs = DenseSLIMRecommender(log, reg=ridge).learn().get_score(np.arange(40))
    assert ease(log, ridge)(log) == pytest.approx(np.asarray(theirs), abs=1e-4)  # theirs is in single precision


def test_ease_minimizes_its_loss() -> None:
    # Stationary off the diagonal: the gradient X'(XB - X) + ridge B is zero there.
    log, ridge = random_log(1), 5.0
    weights = ease(log, ridge)(sps.identity(12, format="csr"))
    dense = log.toarray()
    gradient = dense.T @ (dense @ weights - dense) + ridge * weights
    np.fill_diagonal(gradient, 0.0)
    assert np.abs(gradient).max() < 1e-9
    assert (np.diag(weights) == 0).all()


def test_the_text_centroid_by_hand() -> None:
    # The mean is (5, 5); centred and of unit length the texts lie in the four directions.
    vectors = np.array([[8.0, 5.0], [2.0, 5.0], [5.0, 9.0], [5.0, 1.0]])
    scores = text_centroid(vectors)(matrix([1, 0, 0, 0], [1, 0, 1, 0], [3, 0, 1, 0], [0, 0, 0, 0]))
    assert scores == pytest.approx(
        np.array([[1, -1, 0, 0], [0.5, -0.5, 0.5, -0.5], [0.75, -0.75, 0.25, -0.25], [0, 0, 0, 0]])
    )


def test_the_most_frequent_category_comes_first() -> None:
    # Items 0, 1, 2 are of category 0, items 2, 3 of category 1; users who have them: 1, 3, 2, 4.
    train = matrix([0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1])
    score = frequent_category(train, matrix([1, 0], [1, 0], [1, 1], [0, 1]))
    rankings = [
        np.argsort(-row).tolist()
        for row in score(matrix([1, 1, 0, 0], [0, 0, 0, 9], [1, 1, 0, 9], [1, 0, 0, 1], [0, 0, 0, 0]))
    ]
    assert rankings == [
        [1, 2, 0, 3],  # category 0 twice
        [3, 2, 1, 0],  # category 1
        [1, 2, 0, 3],  # category 0 twice, category 1 once, however heavy
        [3, 1, 2, 0],  # both as often: all items, by popularity
        [3, 1, 2, 0],  # none: by popularity
    ]


def test_a_new_user_gets_the_fallback() -> None:
    score = with_fallback(text_centroid(np.eye(4)), popularity(TRAIN))
    scores = score(matrix([0, 0, 0, 0], [1, 0, 0, 0]))
    assert scores[0].tolist() == [3, 2, 1, 0]
    assert scores[1] == pytest.approx(text_centroid(np.eye(4))(matrix([1, 0, 0, 0]))[0])


def test_a_chain_by_hand() -> None:
    # After 0 came 1, 1, 2. Of 7 events 0 has 3, 1 and 2 have 2 each. With a prior worth 7: (n + 3, 2, 2) / (3 + 7).
    score = markov_chain(chain([0, 1], [0, 1], [0, 2, 2], n_items=4), smoothing=7.0)
    assert score(np.array([0])) == pytest.approx(np.array([[3, 2 + 2, 2 + 1, 0]]) / 10)
    assert score(np.array([1])) == pytest.approx(np.array([[3, 2, 2, 0]]) / 7)  # nothing followed: popularity
    assert score(np.array([2])) == pytest.approx(np.array([[3, 2, 2 + 1, 0]]) / 8)
    assert score(np.array([-1, 0]))[0] == pytest.approx(np.array([3, 2, 2, 0]) / 7)


def test_a_chain_does_not_run_from_user_to_user() -> None:
    score = markov_chain(chain([0, 1], [2, 3], n_items=4), smoothing=1e-9)
    assert score(np.array([0]))[0] == pytest.approx([0, 1, 0, 0], abs=1e-6)
    assert score(np.array([1]))[0] == pytest.approx([0.25] * 4)


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=4), st.floats(0.1, 100))
def test_a_chain_gives_probabilities(walks: list[list[int]], smoothing: float) -> None:
    scores = markov_chain(chain(*walks, n_items=5), smoothing)(np.arange(-1, 5))
    assert (scores >= 0).all()
    assert scores.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "scorer",
    [
        popularity(random_log()),
        item_knn(random_log(), threads=1),
        ease(random_log()),
        text_centroid(np.random.default_rng(0).normal(size=(12, 5))),
        frequent_category(random_log(), random_log(2, users=12, items=3)),
    ],
    ids=["popularity", "item_knn", "ease", "text_centroid", "frequent_category"],
)
def test_every_scorer_scores_each_history_by_itself(scorer: Scorer) -> None:
    histories = random_log(3, users=7)
    together = scorer(histories)
    assert together.shape == (7, 12)
    assert together.dtype == np.float64
    assert np.isfinite(together).all()
    apart = np.concatenate([scorer(histories[[row]]) for row in range(7)])
    assert together == pytest.approx(apart)
    assert scorer(histories[:0]).shape == (0, 12)
