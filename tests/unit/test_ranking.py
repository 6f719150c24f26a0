"""Top k, ranks and diversity, by hand and against sorting."""

import numpy as np
import pytest

from recommend.ranking import diversify, rank_of, top_k

SCORES = np.array([0.2, 0.9, 0.5, 0.9, 0.5, 0.1])
NOBODY = np.zeros(0, dtype=np.int64)


@pytest.mark.parametrize(
    ("k", "excluded", "allowed", "expected"),
    [
        (3, [], None, [1, 3, 2]),
        (4, [], None, [1, 3, 2, 4]),
        (3, [1], None, [3, 2, 4]),
        (2, [1, 1, 3], None, [2, 4]),
        (9, [], [0, 2, 4, 5], [2, 4, 0, 5]),
        (2, [2], [0, 2, 5], [0, 5]),
        (0, [], None, []),
        (-1, [], None, []),
        (1_000_000, [], None, [1, 3, 2, 4, 0, 5]),
        (3, range(6), None, []),
        (3, [], [], []),
    ],
)
def test_the_best_come_first_and_equal_scores_by_row(k, excluded, allowed, expected) -> None:
    mask = None if allowed is None else np.isin(np.arange(6), allowed)
    assert top_k(SCORES, k, np.array(excluded, dtype=np.int64), mask).tolist() == expected


def test_top_k_is_what_sorting_gives_even_with_many_ties() -> None:
    rng = np.random.default_rng(0)
    for k in (1, 7, 50):
        scores = rng.integers(0, 12, 200).astype(np.float32)
        excluded = rng.choice(200, 30, replace=False)
        order = [row for row in np.lexsort((np.arange(200), -scores)) if row not in excluded]
        found = top_k(scores, k, excluded)
        assert found.tolist() == order[:k]
        assert [rank_of(scores, row, excluded) for row in found] == list(range(1, k + 1))


def test_nothing_is_changed_in_what_is_given() -> None:
    scores, allowed = SCORES.copy(), np.ones(6, dtype=bool)
    top_k(scores, 2, np.array([1]), allowed)
    rank_of(scores, 2, np.array([1]), allowed)
    assert allowed.all()
    assert (scores == SCORES).all()


def test_the_rank_of_an_item_that_is_left_out_is_the_one_it_would_have() -> None:
    assert rank_of(SCORES, 3, NOBODY) == 2
    assert rank_of(SCORES, 3, np.array([3])) == 2
    assert rank_of(SCORES, 3, np.array([1])) == 1
    assert rank_of(SCORES, 0, NOBODY, np.isin(np.arange(6), [2, 5])) == 2


ROWS = np.array([40, 41, 42, 43])
BEST_FIRST = np.array([1.0, 0.9, 0.8, 0.0])
# The second is nearly the first; the third and the fourth stand across.
VECTORS = np.array([[2.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 3.0]])


def test_without_weight_the_order_stays() -> None:
    found = diversify(ROWS, BEST_FIRST, VECTORS, 3, 0.0)
    assert found.rows.tolist() == [40, 41, 42]
    assert found.before.tolist() == [1, 2, 3]


def test_what_is_like_a_chosen_item_comes_later() -> None:
    # Second place: .5 * .9 - .5 * .995 for 41 against .5 * .8 - 0 for 42.
    found = diversify(ROWS, BEST_FIRST, VECTORS, 3, 0.5)
    assert found.rows.tolist() == [40, 42, 41]
    assert found.before.tolist() == [1, 3, 2]


def test_a_near_duplicate_comes_after_all_others() -> None:
    found = diversify(ROWS, BEST_FIRST, VECTORS, 4, 0.0, near=0.99)
    assert found.rows.tolist() == [40, 42, 41, 43]  # nothing else is left when 41 comes; it is better than 43
    assert diversify(ROWS, BEST_FIRST, VECTORS, 2, 0.0, near=0.99).rows.tolist() == [40, 42]
    assert diversify(ROWS, BEST_FIRST, VECTORS, 2, 0.0, near=0.999).rows.tolist() == [40, 41]


def test_edges_of_diversity() -> None:
    assert diversify(ROWS[:0], BEST_FIRST[:0], VECTORS[:0], 3, 0.5).rows.tolist() == []
    assert diversify(ROWS, BEST_FIRST, VECTORS, 0, 0.5).rows.tolist() == []
    assert sorted(diversify(ROWS, BEST_FIRST, VECTORS, 99, 1.0).rows) == ROWS.tolist()
    flat = diversify(ROWS, np.ones(4), np.zeros((4, 2)), 4, 0.3)
    assert flat.rows.tolist() == ROWS.tolist()
