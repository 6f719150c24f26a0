"""Paired tests over users, with p-values worked by hand."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import PermutationMethod, binom, wilcoxon
from scipy.stats import t as student

from eval import stats
from eval.stats import compare, holm, user_differences


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(stats)
    assert result.attempted >= 2
    assert result.failed == 0


def test_five_users_by_hand() -> None:
    # Differences 1 to 5: all signs agree in 2 of 32 cases; mean 3, standard error sqrt(2.5 / 5), 4 degrees of freedom.
    found = compare(np.array([2.0, 4.0, 6.0, 8.0, 10.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.difference == 3.0
    assert found.users == 5
    assert found.wilcoxon == pytest.approx(2 / 32)
    assert found.t == pytest.approx(2 * student.sf(3 / np.sqrt(0.5), df=4))
    assert found.t == pytest.approx(0.0132, abs=5e-5)  # t = 4.243; from a table


def test_seeds_are_averaged_before_the_users_are_tested() -> None:
    # The means over the seeds are 1 and 3, whichever way the seeds scatter.
    first = np.array([[0.0, 5.0], [2.0, 1.0]])
    found = compare(first, np.zeros((2, 2)))
    once = compare(np.array([1.0, 3.0]), np.zeros(2))
    assert found == once
    assert found.users == 2
    repeated = compare(np.tile([1.0, 3.0], (50, 1)), np.zeros((50, 2)))
    assert repeated.t == once.t  # more seeds are not more users


def test_a_user_counts_under_the_seeds_that_have_figures() -> None:
    first = np.array([[1.0, np.nan, 2.0], [np.nan, np.nan, 4.0]])
    second = np.where(np.isnan(first), np.nan, 0.0)
    assert user_differences(first, second).tolist() == [1.0, 3.0]
    assert compare(first, second).users == 2


def test_the_interval_is_that_of_the_mean() -> None:
    # 400 users, of whom 100 gain 1: the mean is .25, and the 2.5 % quantile that of Binomial(400, .25) / 400.
    first = np.repeat([1.0, 0.0], [100, 300])
    found = compare(first, np.zeros(400))
    low, high = binom.ppf([0.025, 0.975], 400, 0.25) / 400
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.005)
    assert compare(first, np.zeros(400), seed=0) == found
    narrow = compare(first, np.zeros(400), level=0.5)
    assert found.low < narrow.low < 0.25 < narrow.high < found.high


def test_no_difference_is_no_evidence() -> None:
    found = compare(np.ones(8), np.ones(8))
    assert found == (0.0, 0.0, 0.0, 1.0, 1.0, 8)


def test_the_same_difference_for_all() -> None:
    found = compare(np.full(8, 0.3), np.full(8, 0.1))
    assert found.wilcoxon == pytest.approx(2 / 2**8)
    assert found.t == 0.0
    assert (found.low, found.high) == pytest.approx((0.2, 0.2))


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="same users"):
        compare(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="same users"):
        compare(np.array([0.0, np.nan, 1.0]), np.array([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="two users"):
        compare(np.array([1.0, np.nan]), np.array([0.0, np.nan]))


def test_holm_by_hand() -> None:
    # Sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1, which may not fall below the one before.
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.zeros(0)).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_and_bonferroni(values: list[float]) -> None:
    raw = np.array(values)
    adjusted = holm(raw)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(len(raw) * raw, 1.0)).all()
    order = np.argsort(raw)
    assert (np.diff(adjusted[order]) >= 0).all()


@settings(deadline=None, max_examples=20)  # scipy tries all signs where few users tie
@given(st.lists(st.floats(-1, 1).map(lambda v: round(v, 2)), min_size=2, max_size=30))
def test_swapping_turns_the_sign_alone(values: list[float]) -> None:
    differences, zero = np.array(values), np.zeros(len(values))
    ahead, behind = compare(differences, zero, resamples=200), compare(zero, differences, resamples=200)
    assert behind.difference == pytest.approx(-ahead.difference)
    assert (behind.low, behind.high) == pytest.approx((-ahead.high, -ahead.low))
    assert (behind.wilcoxon, behind.t) == pytest.approx((ahead.wilcoxon, ahead.t))
    assert ahead.low <= ahead.high


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=8).filter(lambda values: np.count_nonzero(values) > 1))
def test_few_users_have_the_p_value_of_all_signs(values: list[int]) -> None:
    differences = np.array(values, dtype=float)
    found = compare(differences, np.zeros(len(values)), resamples=50)
    left = differences[differences != 0]
    exact = wilcoxon(left, method=PermutationMethod(n_resamples=np.inf))
    assert found.wilcoxon == pytest.approx(exact.pvalue)
