"""Ranking metrics: by hand, against irspack's evaluator, and for any ranking."""

import doctest

import numpy as np
import pytest
import scipy.sparse as sps
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from irspack import Evaluator
from sklearn.metrics import roc_auc_score

from eval import metrics
from eval.metrics import METRICS, Hits, auc, best, hits_of, mean, measure, rank, sampled, stack

RNG = np.random.default_rng


def sparse(*rows: list[int]) -> sps.csr_matrix:
    return sps.csr_matrix(np.array(rows, dtype=bool))


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(metrics)
    assert result.attempted >= 8
    assert result.failed == 0


def test_a_ranking_by_hand() -> None:
    # Best first: 3 (seen), 1, 4, 0, 2. Relevant are 1, 0 and 2; of the first three of 1, 4, 0 two are hits.
    hits = rank(np.array([[2.0, 4.0, 1.0, 5.0, 3.0]]), sparse([1, 1, 1, 0, 0]), sparse([0, 0, 0, 1, 0]), 3, RNG(0))
    assert hits.found.tolist() == [[True, False, True]]
    found = {name: float(values[0]) for name, values in measure(hits).items()}
    assert found == pytest.approx({
        "ndcg": (1 + 1 / 2) / (1 + 1 / np.log2(3) + 1 / 2),  # discounts of the ranks: 1, 1 / log2(3), 1 / log2(4)
        "recall": 2 / 3,
        "hit": 1.0,
        "precision": 2 / 3,
        "map": (1 / 1 + 2 / 3) / 3,
        "mrr": 1.0,
    })  # fmt: skip


def test_fewer_ranks_are_the_first_ones() -> None:
    hits = Hits(np.array([[False, True, True]]), np.array([2]))
    assert hits.at(1).found.tolist() == [[False]]
    assert hits.at(2).found.tolist() == [[False, True]]


def test_who_wants_nothing_is_left_out_of_the_mean() -> None:
    hits = rank(np.array([[1.0, 2.0], [1.0, 2.0]]), sparse([0, 1], [0, 0]), None, 1, RNG(0))
    for values in measure(hits).values():
        assert values[0] == 1.0
        assert np.isnan(values[1])
        assert mean(values) == 1.0
    assert np.isnan(mean(np.array([np.nan])))


def test_what_is_excluded_is_not_relevant() -> None:
    hits = rank(np.array([[1.0, 2.0, 3.0]]), sparse([1, 0, 1]), sparse([0, 0, 1]), 3, RNG(0))
    assert hits.relevant.tolist() == [1]
    assert hits.found.tolist() == [[False, True, False]]


def test_what_has_no_score_is_never_found() -> None:
    hits = rank(np.array([[-np.inf, 0.0]]), sparse([1, 0]), None, 5, RNG(0))
    assert hits.relevant.tolist() == [1]
    assert hits.found.tolist() == [[False] * 5]


def test_the_scores_stay_as_they_were() -> None:
    scores = np.array([[1.0, 2.0]])
    rank(scores, sparse([1, 0]), sparse([0, 1]), 1, RNG(0))
    assert scores.tolist() == [[1.0, 2.0]]


def test_equal_scores_come_in_random_order() -> None:
    # One of eight equal items is relevant: it is found among the first two a quarter of the time (sd .004).
    relevant = sps.csr_matrix(np.tile(np.eye(8, dtype=bool)[5], (10_000, 1)))
    hits = rank(np.zeros((10_000, 8)), relevant, None, 2, RNG(0))
    assert hits.found.any(axis=1).mean() == pytest.approx(0.25, abs=0.02)
    assert hits.found[:, 0].mean() == pytest.approx(0.125, abs=0.015)
    again = rank(np.zeros((10_000, 8)), relevant, None, 2, RNG(0))
    assert (again.found == hits.found).all()


def test_a_better_score_beats_the_random_order() -> None:
    scores = np.tile([0.0, 0.0, 1e-9, 0.0], (100, 1))
    hits = rank(scores, sps.csr_matrix(np.tile([False, False, True, False], (100, 1))), None, 1, RNG(0))
    assert hits.found.all()


def test_batches_are_put_together() -> None:
    one = Hits(np.array([[True]]), np.array([1]))
    two = Hits(np.array([[False], [True]]), np.array([2, 0]))
    both = stack([one, two])
    assert both.found.ravel().tolist() == [True, False, True]
    assert both.relevant.tolist() == [1, 2, 0]


@pytest.mark.parametrize("k", [0, -1])
def test_no_ranks_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="k must be"):
        rank(np.zeros((1, 2)), sparse([0, 1]), None, k, RNG(0))


def test_other_shapes_and_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        rank(np.zeros((1, 2)), sparse([0, 1, 1]), None, 1, RNG(0))
    with pytest.raises(ValueError, match="nan"):
        rank(np.array([[0.0, np.nan]]), sparse([0, 1]), None, 1, RNG(0))


@pytest.mark.parametrize("k", [1, 5, 20, 60])
def test_irspack_says_the_same(k: int) -> None:
    rng = RNG(k)
    scores = rng.normal(size=(200, 60))
    seen = rng.random((200, 60)) < 0.2
    relevant = (rng.random((200, 60)) < 0.15 * rng.random((200, 1))) & ~seen  # some users want nothing
    evaluator = Evaluator(
        sps.csr_matrix(relevant.astype(float)), cutoff=k, masked_interactions=sps.csr_matrix(seen), n_threads=1
    )
    theirs = evaluator.get_score_from_score_matrix(scores)
    hits = rank(scores, sps.csr_matrix(relevant), sps.csr_matrix(seen), k, rng)
    assert (hits.relevant == 0).any()
    for name in ("ndcg", "recall", "hit", "map"):
        assert mean(METRICS[name](hits)) == pytest.approx(theirs[name], abs=1e-9)
    ranked = np.minimum(k, (~seen).sum(axis=1))
    assert mean(metrics.precision(hits) * k / ranked) == pytest.approx(theirs["precision"], abs=1e-9)


def test_irspack_can_divide_recall_by_fewer() -> None:
    scores, relevant = np.array([[3.0, 2.0, 1.0]]), sparse([1, 1, 1])
    capped = Evaluator(relevant.astype(float), cutoff=2, recall_with_cutoff=True, n_threads=1)
    assert capped.get_score_from_score_matrix(scores)["recall"] == 1.0
    assert mean(metrics.recall(rank(scores, relevant, None, 2, RNG(0)))) == pytest.approx(2 / 3)


tables = st.tuples(st.integers(1, 5), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape, elements=st.integers(-3, 3).map(float)),
        arrays(np.bool_, shape),
        arrays(np.bool_, shape),
    )
)


@given(tables, st.integers(1, 12), st.integers(0, 9))
def test_bounds(table: tuple[np.ndarray, np.ndarray, np.ndarray], k: int, seed: int) -> None:
    scores, relevant, seen = table
    hits = rank(scores, sps.csr_matrix(relevant), sps.csr_matrix(seen), k, RNG(seed))
    wanted = (relevant & ~seen).sum(axis=1)
    assert (hits.relevant == wanted).all()
    assert (hits.found.sum(axis=1) <= np.minimum(wanted, k)).all()
    if k >= scores.shape[1]:
        assert (hits.found.sum(axis=1) == wanted).all()
    for values in measure(hits).values():
        assert (np.isnan(values) == (wanted == 0)).all()
        known = values[wanted > 0]
        assert ((known >= 0) & (known <= 1 + 1e-12)).all()


@given(tables, st.integers(1, 12), st.integers(0, 9))
def test_nothing_beats_the_relevant_first(table: tuple[np.ndarray, np.ndarray, np.ndarray], k: int, seed: int) -> None:
    _, relevant, seen = table
    hits = rank(relevant.astype(float), sps.csr_matrix(relevant), sps.csr_matrix(seen), k, RNG(seed))
    known = hits.relevant > 0
    for name in ("ndcg", "hit", "mrr"):
        assert METRICS[name](hits)[known] == pytest.approx(1.0)


def test_the_best_items_by_hand() -> None:
    scores = np.array([[1.0, 4.0, 3.0], [-np.inf, 0.0, 1.0]])
    top = best(scores, sparse([0, 1, 0], [0, 0, 0]), 4, RNG(0))
    assert top.tolist() == [[2, 0, -1, -1], [2, 1, -1, -1]]
    hits = hits_of(top, sparse([1, 1, 0], [1, 0, 0]), sparse([0, 1, 0], [0, 0, 0]))
    assert hits.found.tolist() == [[False, True, False, False], [False] * 4]
    assert hits.relevant.tolist() == [1, 1]
    with pytest.raises(ValueError, match="shapes"):
        hits_of(top, sparse([1, 1, 0]), None)


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = RNG(3)
    scores = rng.integers(0, 9, (50, 40)).astype(float)  # with many ties
    seen = rng.random((50, 40)) < 0.2
    relevant = rng.random((50, 40)) < 0.3
    found = auc(scores, sps.csr_matrix(relevant), sps.csr_matrix(seen))
    for user in range(50):
        among = ~seen[user]
        assert found[user] == pytest.approx(roc_auc_score(relevant[user, among], scores[user, among]))


def test_the_area_without_a_pair_is_unknown() -> None:
    found = auc(np.ones((3, 2)), sparse([0, 0], [1, 1], [1, 0]))
    assert np.isnan(found[:2]).all()
    assert found[2] == 0.5


def test_a_sample_keeps_the_relevant_and_so_many_others() -> None:
    rng = RNG(0)
    relevant = sps.csr_matrix(np.eye(20, 50, dtype=bool))
    seen = sps.csr_matrix((rng.random((20, 50)) < 0.5) & ~relevant.toarray())
    drawn = np.zeros((20, 50))
    for seed in range(200):
        left = ~sampled(relevant, seen, 9, RNG(seed)).toarray()
        assert (left.sum(axis=1) == 10).all()
        assert left[relevant.toarray()].all()
        assert not left[seen.toarray()].any()
        drawn += left
    others = ~relevant.toarray() & ~seen.toarray()
    expected = 200 * 9 / others.sum(axis=1, keepdims=True)
    assert (np.abs(drawn - expected)[others] < 5 * np.sqrt(expected * np.ones((20, 50)))[others]).all()
    assert (~sampled(relevant, seen, 99, RNG(0)).toarray() == (others | relevant.toarray())).all()


def test_a_sample_makes_figures_higher() -> None:
    # Random scores: the item is among the first 10 of 1,000 in 1 % of the cases, of 100 in 10 %.
    relevant, nothing = sps.csr_matrix(np.eye(400, 1000, dtype=bool)), sps.csr_matrix((400, 1000))
    scores = RNG(0).random((400, 1000))
    full = mean(metrics.hit(rank(scores, relevant, nothing, 10, RNG(1))))
    some = mean(metrics.hit(rank(scores, relevant, sampled(relevant, nothing, 99, RNG(1)), 10, RNG(1))))
    assert full == pytest.approx(0.01, abs=0.02)
    assert some == pytest.approx(0.1, abs=0.06)
