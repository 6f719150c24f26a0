"""Recommended lists: by hand, and within their bounds for any lists."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval import lists
from eval.lists import coverage, diversity, exposure, gini, novelty, popularity_lift

LISTS = np.array([[0, 1, 2], [0, 1, -1], [0, -1, -1], [-1, -1, -1]])


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(lists)
    assert result.attempted >= 5
    assert result.failed == 0


def test_what_is_not_there_is_not_shown() -> None:
    assert exposure(LISTS, 4).tolist() == [3, 2, 1, 0]
    assert coverage(LISTS, 4) == 0.75


def test_gini_by_hand() -> None:
    # Exposures 0, 1, 2, 3 of four: (-3 * 0 - 1 * 1 + 1 * 2 + 3 * 3) / (4 * 6).
    assert gini(LISTS, 4) == pytest.approx(10 / 24)
    assert gini(np.full((2, 2), -1), 4) == 0.0


def test_novelty_by_hand() -> None:
    # Of 8 users 8, 4 and none (counted as 1) have the items: 0, 1 and 3 bits.
    found = novelty(LISTS, np.array([8.0, 4.0, 0.0, 2.0]), 8)
    assert found[:3] == pytest.approx([4 / 3, 0.5, 0.0])
    assert np.isnan(found[3])


def test_diversity_by_hand() -> None:
    # Cosines 0, .8 and .6: 1 - 1.4 / 3.
    vectors = np.array([[5.0, 0.0], [0.0, 2.0], [0.8, 0.6], [1.0, 1.0]])
    found = diversity(LISTS, vectors)
    assert found[:2] == pytest.approx([1 - 1.4 / 3, 1.0], abs=1e-6)
    assert np.isnan(found[2:]).all()


def test_popularity_lift_by_hand() -> None:
    likes = np.array([[False, False, True, True], [True, False, False, False], [False] * 4, [True] * 4])
    found = popularity_lift(LISTS, np.array([9.0, 6.0, 3.0, 3.0]), likes)
    assert found[:2] == pytest.approx([6 / 3 - 1, 7.5 / 9 - 1])
    assert np.isnan(found[2:]).all()  # nothing liked, nothing recommended


@given(arrays(np.int64, (5, 3), elements=st.integers(-1, 6)))
def test_bounds(found: np.ndarray) -> None:
    assert 0 <= gini(found, 7) <= 1
    assert 0 <= coverage(found, 7) <= 1
    assert coverage(found, 7) * 7 == len(set(found[found >= 0].tolist()))
