"""The evidence arithmetic, against values worked out by hand (docs: the table of formulas)."""

import numpy as np
import pytest
from scipy.stats import beta

from agent.contract import Trend
from agent.evidence import (
    SECONDS_PER_DAY,
    EventType,
    EvidenceSettings,
    Support,
    confidence,
    raw_weight,
    support,
    trend,
    weigh,
)

SETTINGS = EvidenceSettings(half_life_days=10.0)
DAY = SECONDS_PER_DAY


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("rating", 5.0, 1.0),
        ("rating", 4.0, 0.5),
        ("rating", 3.0, 0.0),
        ("rating", 2.0, -0.5),
        ("rating", 1.0, -1.0),
        ("rating", 9.0, 1.0),  # out of range: bounded
        ("rating", -7.0, -1.0),
        ("rating", None, 0.0),  # a rating without a value says nothing
        ("play", 0.25, 0.125),
        ("play", 1.7, 0.5),
        ("play", -1.0, 0.0),
        ("play", None, 0.5),  # counts whole
        ("view", 99.0, 0.2),  # its value is ignored
        ("dislike", None, -1.0),
        ("skip", None, -0.3),
    ],
)
def test_raw_weight(kind: str, value: float | None, expected: float) -> None:
    assert raw_weight(SETTINGS.types[kind], value, SETTINGS) == pytest.approx(expected)


def test_a_scale_of_ones_own() -> None:
    ten = EvidenceSettings(neutral=5.0, best=10.0)
    assert raw_weight(ten.types["rating"], 7.5, ten) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_is_a_number(value: float) -> None:
    for kind in ("rating", "play"):
        assert -1 <= raw_weight(SETTINGS.types[kind], value, SETTINGS) <= 1


def test_weigh_scales_by_the_strongest_and_decays() -> None:
    types = ["view", "play", "skip", "wave"]  # 0.2, 0.5 * 0.8 = 0.4, -0.3; nobody knows what a wave is
    times = np.array([0.0, 10.0, 20.0, 20.0]) * DAY
    found = weigh(types, [None, 0.8, None, None], times, 20 * DAY, SETTINGS)
    np.testing.assert_allclose(found.undecayed, [0.5, 1.0, -0.75, 0.0])
    np.testing.assert_allclose(found.decayed, [0.5 / 4, 1.0 / 2, -0.75, 0.0])
    assert found.explicit.tolist() == [False, False, False, False]


def test_the_strongest_may_be_negative() -> None:
    found = weigh(["view", "return"], [None, None], np.zeros(2), 0.0, SETTINGS)
    np.testing.assert_allclose(found.undecayed, [0.25, -1.0])
    assert found.explicit.tolist() == [False, True]


def test_events_after_as_of_are_of_age_zero() -> None:
    found = weigh(["like", "like"], [None, None], np.array([0.0, 30.0]) * DAY, 10 * DAY, SETTINGS)
    np.testing.assert_allclose(found.decayed, [0.5, 1.0])


@pytest.mark.parametrize(("types", "values"), [([], []), (["rating"] * 3, [3.0, 3.0, None])])
def test_nothing_to_weigh(types: list[str], values: list[float | None]) -> None:
    found = weigh(types, values, np.zeros(len(types)), 0.0, SETTINGS)
    assert found.decayed.tolist() == [0.0] * len(types)


def test_weigh_wants_one_value_for_each_event() -> None:
    with pytest.raises(ValueError, match="zip"):
        weigh(["like", "like"], [None], np.zeros(2), 0.0, SETTINGS)


@pytest.mark.parametrize(
    ("implicit", "explicit", "negative", "holds"),
    [
        (3, 0, 0.0, True),
        (2, 0, 0.0, False),
        (0, 2, 0.0, True),
        (0, 1, 0.0, False),
        (1, 1, 0.0, False),
        (2, 1, 0.0, True),
        (9, 9, 3.99, True),  # 3.99 / 9.99 < 0.4
        (9, 9, 4.0, False),  # exactly 0.4 is not below it
        (9, 9, 4.01, False),
        (0, 0, 0.0, False),
    ],
)
def test_support_holds(implicit: int, explicit: int, negative: float, holds: bool) -> None:  # noqa: FBT001
    assert Support(implicit, explicit, 6.0, negative).holds() is holds


def test_the_bound_on_negatives_is_a_setting() -> None:
    assert Support(3, 0, 6.0, 2.0).holds(0.3)
    assert not Support(3, 0, 6.0, 2.0).holds(0.25)
    assert not Support(3, 0, 0.0, 0.0).holds()


def test_support_counts_positive_events_and_sums_both_signs() -> None:
    weights = np.array([0.5, 0.25, -0.3, 1.0, 0.0, -0.1])
    explicit = np.array([False, True, True, True, True, False])
    found = support(weights, explicit)
    assert found[:3] == (1, 2, 1.75)
    assert found.negative == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("weights", "plus", "minus"),
    [
        ([1.0] * 10, 10.0, 0.0),
        ([1.0, 1.0, -1.0], 2.0, 1.0),
        ([0.5, 0.25, -0.125], 0.75, 0.125),
        ([3.0, -2.0], 1.0, 1.0),  # each at most 1
        ([], 0.0, 0.0),
        ([0.0], 0.0, 0.0),
        ([-1.0] * 5, 0.0, 5.0),
    ],
)
def test_confidence_is_the_beta_quantile(weights: list[float], plus: float, minus: float) -> None:
    expected = beta.ppf(0.05, 1 + plus, 1 + minus)
    assert confidence(np.array(weights)) == pytest.approx(expected, rel=1e-9)


def test_confidence_by_hand() -> None:
    # Beta(1, 1) is uniform; the distribution function of Beta(1 + n, 1) is x^(n + 1).
    assert confidence(np.array([])) == pytest.approx(0.05)
    assert confidence(np.ones(3)) == pytest.approx(0.05 ** (1 / 4))


def log_of(n: int, members: list[int], days: float = 30.0) -> tuple[np.ndarray, np.ndarray]:
    """Membership of `n` events over some days."""
    member = np.zeros(n, dtype=bool)
    member[members] = True
    return member, np.linspace(0, days * DAY, n)


# Of 20 events the last 10 are recent, so that the ratio is (now + 0.5) / (before + 0.5).
@pytest.mark.parametrize(
    ("n", "members", "expected"),
    [
        (20, [0, 1, 10, 11], "steady"),  # 2.5 / 2.5
        (20, [0, 10, 11], "rising"),  # 2.5 / 1.5 = 1.67
        (20, [0, 1, 10, 11, 12], "steady"),  # 3.5 / 2.5 = 1.4
        (20, [0, 1, 2, 3, 10, 11, 12, 13, 14, 15], "steady"),  # 6.5 / 4.5 = 1.44
        (20, [0, 10], "steady"),
        (20, [0], "fading"),  # 0.5 / 1.5
        (20, [0, 1, 10], "fading"),  # 1.5 / 2.5 = 0.6 < 2/3
        (20, [0, 1, 2, 10, 11], "steady"),  # 2.5 / 3.5 = 0.71
        (20, [10, 11, 19], "new"),
        (20, [9, 10, 11, 19], "rising"),
        (100, [79, 80], "rising"),  # recent are 20: (1.5 / 20.5) / (1.5 / 80.5) = 3.9
        (100, [80, 81], "new"),
        (100, [*range(40), *range(80, 95)], "rising"),  # (15.5 / 20.5) / (40.5 / 80.5) = 1.503
        (100, [*range(27), *range(80, 90)], "steady"),  # (10.5 / 20.5) / (27.5 / 80.5) = 1.4993
        (100, [*range(26), *range(80, 84)], "steady"),  # (4.5 / 20.5) / (26.5 / 80.5) = 0.66682
        (100, [*range(32), *range(80, 85)], "fading"),  # (5.5 / 20.5) / (32.5 / 80.5) = 0.6645
    ],
)
def test_trend(n: int, members: list[int], expected: Trend) -> None:
    assert trend(*log_of(n, members)) == expected


@pytest.mark.parametrize(
    ("n", "days", "told"), [(19, 30.0, False), (20, 6.99, False), (20, 7.0, True), (0, 0.0, False)]
)
def test_no_trend_of_a_short_log(n: int, days: float, told: bool) -> None:  # noqa: FBT001
    assert (trend(*log_of(n, list(range(n)), days)) is not None) is told


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="half_life"):
        EvidenceSettings.model_validate({"half_life": 3})
    with pytest.raises(ValueError, match="greater than 0"):
        EvidenceSettings(half_life_days=0)


def test_every_default_type_lies_within_bounds() -> None:
    types = EvidenceSettings().types
    assert all(-1 <= kind.weight <= 1 and kind.weight for kind in types.values())
    assert not [name for name, kind in types.items() if kind.intent and kind.weight < 0]
    assert EventType(weight=1).explicit is False
