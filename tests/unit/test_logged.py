"""Impressions: what came of them, and off-policy estimates against the truth of a simulated policy."""

import doctest
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from eval import logged
from eval.logged import WINDOW, impressions, off_policy
from eval.stats import pooled
from store.records import Event

START = datetime(2025, 1, 1, tzinfo=UTC)


def event(kind: str, item: str | None, minutes: float, **context: object) -> Event:
    at = START + timedelta(minutes=minutes)
    return Event(event_id=f"{kind}{minutes}", user_id="u", item_id=item, type=kind, ts=at, context=context)


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(logged)
    assert result.attempted >= 3
    assert result.failed == 0


def test_an_outcome_belongs_to_the_last_impression_of_its_item() -> None:
    late = WINDOW / 60 + 20
    first = [
        event("click", "a", 0),
        event("impression", "a", 1, propensity=0.5),
        event("impression", "b", 2, propensity=0.25),
        event("click", "b", 3),
        event("impression", "b", 4),
        event("search", None, 5),
        event("purchase", "b", 6),
        event("click", "a", late),
    ]
    found = impressions(
        [first, [], [event("impression", "c", 0, propensity=2.0), event("impression", "c", 1, propensity=True)]]
    )
    assert found.user.tolist() == [0, 0, 0, 2, 2]
    assert found.item == ["a", "b", "b", "c", "c"]
    assert found.clicked.tolist() == [False, True, False, False, False]
    assert found.converted.tolist() == [False, False, True, False, False]
    assert found.propensity[:2].tolist() == [0.5, 0.25]
    assert np.isnan(found.propensity[2:]).all()  # none given, and none that is a probability
    assert len(impressions([[]]).item) == 0


def test_estimates_by_hand() -> None:
    # Weights 2, 1 and 0 (of .5 / .25, .5 / .5, 0 / .25).
    found = off_policy(np.array([1.0, 0.0, 1.0]), np.array([0.25, 0.5, 0.25]), np.array([0.5, 0.5, 0.0]))
    assert found.ips == pytest.approx(2 / 3)
    assert found.snips == pytest.approx(2 / 3)
    assert found.effective == pytest.approx(9 / 5)
    clipped = off_policy(np.array([1.0, 0.0]), np.array([0.1, 0.5]), np.array([1.0, 0.5]), clip=3.0)
    assert (clipped.ips, clipped.snips) == pytest.approx((1.5, 0.75))
    with pytest.raises(ValueError, match="propensities"):
        off_policy(np.ones(1), np.zeros(1), np.ones(1))
    with pytest.raises(ValueError, match="impressions"):
        off_policy(np.zeros(0), np.zeros(0), np.zeros(0))


def test_estimates_find_the_rate_of_a_policy_that_was_not_run() -> None:
    # Four items with known click rates, shown by a skewed policy; the target prefers the best one.
    rng = np.random.default_rng(0)
    rates, logging, target = (
        np.array([0.05, 0.1, 0.2, 0.4]),
        np.array([0.6, 0.2, 0.1, 0.1]),
        np.array([0.1, 0.1, 0.1, 0.7]),
    )
    shown = rng.choice(4, 40_000, p=logging)
    clicks = (rng.random(40_000) < rates[shown]).astype(float)
    found = off_policy(clicks, logging[shown], target[shown])
    assert clicks.mean() == pytest.approx(rates @ logging, abs=0.01)
    assert found.ips == pytest.approx(rates @ target, abs=0.02)  # .315; three standard errors are .017
    assert found.snips == pytest.approx(rates @ target, abs=0.02)
    assert found.effective == pytest.approx(40_000 / np.sum(target**2 / logging), rel=0.05)
    same = off_policy(clicks, logging[shown], logging[shown])
    assert same.ips == pytest.approx(clicks.mean())
    assert same.effective == pytest.approx(40_000)


def test_pooled_rates_have_intervals_over_users() -> None:
    user = np.repeat(np.arange(200), 5)
    amounts = (np.arange(1000) % 5 == 0).astype(float)
    found = pooled(amounts, np.ones(1000), user)
    assert found == pytest.approx((0.2, 0.2, 0.2))  # every user alike
    skewed = pooled(np.where(user < 40, 1.0, 0.0), np.ones(1000), user)
    assert skewed.value == pytest.approx(0.2)
    # 200 users, not 1,000 events: the standard error is .028.
    assert (skewed.low, skewed.high) == pytest.approx((0.145, 0.255), abs=0.01)
    assert pooled(np.array([4.0, 4.0]), np.ones(2), np.array([0, 1]), root=2).value == 2.0
