"""The test for drift: what it notices, how it is calibrated and measured."""

import doctest

import numpy as np
import pytest

from agent.catalogue import unit
from eval import detecting, drifting
from eval.detecting import NOISE, Monitored, Segments, first_alarm, statistic
from eval.drifting import Watched, calibrate, notice


def monitored(groups: list[int], per_visit: int = 2, known: int = 20, k: int = 5) -> Monitored:
    """Events of groups that are told apart without error, so many in a visit."""
    sure = np.log(np.where(np.eye(k) > 0, (1 - NOISE) * k + NOISE, NOISE))
    rows = np.arange(len(groups))
    return Monitored(sure[groups], rows // per_visit, rows < known)


def test_a_new_interest_is_noticed_and_the_old_ones_are_not() -> None:
    old = [0, 0, 1, 1] * 15
    steady = statistic(monitored(old))
    moved = statistic(monitored(old[:40] + [3, 3] * 10))
    assert np.array_equal(steady[:40], moved[:40])  # nothing is known in advance
    assert steady.max() < 3
    assert moved[40:].max() > 6
    assert (np.diff(moved[40:48]) > 0).all()


def test_nothing_is_raised_on_what_is_known() -> None:
    user = monitored([0] * 20 + [3] * 20)
    values = statistic(user)
    assert (values[:20] == 0).all()
    assert values[20] > 0


def test_a_visit_counts_once() -> None:
    """Ten events of a new interest in one visit say less than in five."""
    one = statistic(monitored([0, 1] * 10 + [3] * 10, per_visit=10))
    five = statistic(monitored([0, 1] * 10 + [3] * 10, per_visit=2))
    assert one[-1] < five.max()


def test_the_first_visit_by_hand() -> None:
    """Two visits to group 0 are known, the prior is 1/2 each; one event of group 1 follows."""
    sure = np.log(np.where(np.eye(2) > 0, 0.8 * 2 + 0.2, 0.2))
    user = Monitored(sure[[0, 0, 1]], np.array([0, 1, 2]), np.array([True, True, False]))
    seen = np.array([0.5, 0.5])
    for _ in range(2):
        seen = seen + seen / seen.sum() * [1.8, 0.2] / (seen / seen.sum() @ [1.8, 0.2])
    expected = seen / seen.sum() @ [0.2, 1.8]
    assert statistic(user)[2] == pytest.approx(np.log(0.2 + 0.8 * 1.8 / expected))


def test_segments_are_found_and_densities_are_relative_to_the_catalogue() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(np.repeat(np.eye(8), 20, axis=0) + 0.1 * rng.standard_normal((160, 8)))
    segments = Segments.of(vectors, np.random.default_rng(1))
    assert segments.centroids.shape == (8, 8)
    densities = np.exp(segments.log_densities(vectors))
    assert densities.mean(axis=0) == pytest.approx(np.ones(8))
    assert (np.bincount(densities.argmax(axis=1)) == 20).all()
    with pytest.raises(ValueError, match="5 items make no segments: at least 8 are needed"):
        Segments.of(vectors[:5], np.random.default_rng(1))


def test_delays_and_false_alarms_by_hand() -> None:
    def at(*values: float) -> np.ndarray:
        return np.array(values)

    watched = [
        Watched(at(0, 1, 9, 9, 0, 9), None),  # two false alarms
        Watched(at(0, 0, 0, 0), None),
        Watched(at(0, 0, 9, 9), 2),  # at once
        Watched(at(0, 0, 1, 1, 9), 2),
        Watched(at(0, 0, 1), 1),  # never
        Watched(at(9, 0, 9), 2),  # too early
        Watched(at(0, 0), 2),  # the log ends with the drift
    ]
    noticed = notice(watched, 8.0)
    assert (noticed.delays.tolist(), noticed.early, noticed.false, noticed.events) == ([1.0, 3.0, np.inf], 1, 2, 10)
    assert (noticed.median, noticed.per_thousand) == (3.0, 200.0)
    assert first_alarm(np.zeros(3), 1.0) is None


def test_the_threshold_is_the_lowest_that_keeps_the_rate() -> None:
    rng = np.random.default_rng(0)
    watched = [Watched(rng.exponential(1.0, 500), None) for _ in range(20)] + [Watched(np.full(9, 99.0), 0)]
    threshold = calibrate(watched, 1.0)
    assert notice(watched[:-1], threshold).per_thousand <= 1.0 < notice(watched[:-1], threshold - 0.25).per_thousand
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        calibrate(watched[-1:], 1.0)


def test_the_worked_examples_hold() -> None:
    for module in (detecting, drifting):
        found = doctest.testmod(module)
        assert (found.failed, found.attempted > 0) == (0, True)
