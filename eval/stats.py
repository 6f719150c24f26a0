"""Is one recommender better than another? Paired tests over users, and the correction for many comparisons."""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from eval.interactions import Floats, Ints

BATCH = 10_000_000  # numbers that the bootstrap holds at a time
FEW, TINY = 13, 1e-9  # up to so many users all signs are tried; sums of ranks are equal up to this
DECIMALS = 12  # differences are equal up to the rounding of their means over seeds


class Comparison(NamedTuple):
    """How the first of two differs from the second.

    Attributes:
        difference: Mean over users of the first's metric less the second's.
        low: Lower end of its 95 % interval.
        high: Upper end.
        wilcoxon: Two-sided p-value of Wilcoxon's signed-rank test.
        t: Two-sided p-value of the paired t-test.
        users: Number of users compared.
    """

    difference: float
    low: float
    high: float
    wilcoxon: float
    t: float
    users: int


def compare(first: Floats, second: Floats, seed: int = 0, resamples: int = 10_000, level: float = 0.95) -> Comparison:
    """Compare two recommenders by a metric of the same users under the same seeds.

    The unit of the tests is the user: a user's differences are averaged over the seeds, so that more seeds make a
    user's figure steadier but the sample no larger. The interval is a percentile bootstrap over users (Efron 1979).

    Args:
        first: `(seeds, users)` or `(users,)`; nan where a user has no figure under a seed.
        second: Likewise, nan in the same places.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
        level: Of the interval.

    Raises:
        ValueError: The shapes or the places of nan differ, or fewer than two users have a figure.
    """
    if first.shape != second.shape or (np.isnan(first) != np.isnan(second)).any():
        raise ValueError("both must have figures for the same users under the same seeds")
    differences = user_differences(first, second)
    if len(differences) < 2:  # noqa: PLR2004
        raise ValueError("a test needs two users or more")
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=resamples, confidence_level=level, method="percentile",
        batch=max(1, BATCH // len(differences)), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Comparison(
        float(differences.mean()),
        float(interval.low),
        float(interval.high),
        wilcoxon=wilcoxon(differences),
        t=_t_test(differences),
        users=len(differences),
    )


class Pooled(NamedTuple):
    """A ratio over all events of all users, with its 95 % interval over users."""

    value: float
    low: float
    high: float


def pooled(
    amounts: Floats, weights: Floats, user: Ints, root: int = 1, seed: int = 0, resamples: int = 2_000
) -> Pooled:
    """Return `(sum amounts / sum weights) ** (1 / root)` with a percentile bootstrap over users (Efron 1979).

    Args:
        amounts: `(n,)`, such as squared errors, or weighted clicks.
        weights: `(n,)`, such as 1 for each, with a sum above 0.
        user: `(n,)`, codes of at least two users: a user's events are drawn together.
        root: 2 for the root of a mean of squares.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
    """
    _, place = np.unique(user, return_inverse=True)
    sums, sizes = (np.bincount(place, weights=each) for each in (amounts, weights))

    def ratio(total: Any, size: Any, axis: int = -1) -> Any:
        size = size.sum(axis=axis)
        return (total.sum(axis=axis) / np.where(size > 0, size, 1.0)) ** (1.0 / root)

    interval = stats.bootstrap(
        (sums, sizes), ratio, n_resamples=resamples, paired=True, vectorized=True, method="percentile",
        batch=max(1, BATCH // len(sums)), rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Pooled(float(ratio(sums, sizes)), float(interval.low), float(interval.high))


def user_differences(first: Floats, second: Floats) -> Floats:
    """Return each user's mean difference over the seeds where the user has figures; others are left out.

    >>> user_differences(np.array([[1.0, 0.5, np.nan], [0.0, np.nan, np.nan]]), np.zeros((2, 3)) * [1, 1, np.nan])
    array([0.5, 0.5])
    """
    differences = np.atleast_2d(first - second)
    known = ~np.isnan(differences)
    seeds = known.sum(axis=0)
    sums = np.where(known, differences, 0.0).sum(axis=0)
    return np.asarray(sums[seeds > 0] / seeds[seeds > 0])


def holm(p_values: Floats) -> Floats:
    """Adjust p-values for the number of tests (Holm 1979), `(n,)` to `(n,)`.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3)
    array([0.03, 0.06, 0.06])
    """
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return adjusted


def wilcoxon(differences: Floats) -> float:
    """Return the two-sided p-value of the signed-rank test (Wilcoxon 1945), over all signs where there are few users.

    Users without a difference say nothing. Scipy does the same, but where differences tie it goes through the signs one
    by one.

    Args:
        differences: `(users,)`, without nan.
    """
    told = differences.round(DECIMALS)
    told = told[told != 0]
    if not (count := len(told)):
        return 1.0
    if count > FEW:
        return float(stats.wilcoxon(told).pvalue)
    ranks = stats.rankdata(np.abs(told))
    signs = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    off = np.abs(signs @ ranks - ranks.sum() / 2)
    return float(np.mean(off >= abs(ranks[told > 0].sum() - ranks.sum() / 2) - TINY))


def _t_test(differences: Floats) -> float:
    rounded = differences.round(DECIMALS)
    if np.ptp(rounded) == 0:  # without spread, t is infinite
        return 0.0 if rounded.any() else 1.0
    return float(stats.ttest_1samp(rounded, 0.0).pvalue)
