"""Estimates, worked by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from agent.costs import Prices, estimate
from store.since import Written

START = datetime(2025, 1, 1, tzinfo=UTC)


def account(again: int, tokens_in: int, tokens_out: int, calls: int, begin: float, seconds: float) -> Written:
    at = START + timedelta(seconds=begin)
    return Written(bool(again), tokens_in, tokens_out, calls, at, at + timedelta(seconds=seconds))


def test_without_a_past_it_rests_on_measured_defaults() -> None:
    found = estimate(10, 0, [], "llm")
    assert found.profiles == 10
    assert found.tokens_in > 10_000
    assert found.cost is None
    assert "measured" in found.rests_on[0]
    assert estimate(10, 0, [], "template").tokens_in == 0


def test_it_rests_on_the_latest_profiles_and_on_how_they_ran_side_by_side() -> None:
    # 20 whole ones of 8 s, four at a time (five rounds from 0 to 40 s); then, after an hour, 20 that went on, of 1 s,
    # one after another: 160 + 20 s of work in 40 + 20 s, so three at a time.
    whole = [account(0, 1_000, 100, 6, 8 * (n // 4), 8) for n in range(20)]
    further = [account(1, 200, 20, 1, 3_600 + n, 1) for n in range(20)]
    found = estimate(30, 60, [*further, *whole], "llm", Prices(2.0, 10.0))
    assert (found.profiles, found.calls) == (90, 30 * 6 + 60)
    assert (found.tokens_in, found.tokens_out) == (30_000 + 12_000, 3_000 + 1_200)
    assert found.seconds == pytest.approx((30 * 8 + 60 * 1) / 3)
    assert found.cost == pytest.approx((42_000 * 2 + 4_200 * 10) / 1e6)
    assert found.rests_on == (
        "whole profiles: the 20 such profiles",
        "profiles that go on: the 20 such profiles",
    )


def test_where_there_are_few_of_a_kind_all_are_taken() -> None:
    accounts = [account(0, 100, 10, 2, n, 1) for n in range(15)] + [account(1, 300, 30, 4, n, 1) for n in (20,)]
    accounts += [account(1, 300, 30, 4, 30 + n, 1) for n in range(14)]
    found = estimate(1, 1, accounts, "llm")
    assert (found.calls, found.tokens_in, found.tokens_out) == (6, 400, 40)
    assert "measured" in estimate(1, 0, accounts[:19], "llm").rests_on[0]


def test_nothing_costs_nothing() -> None:
    found = estimate(0, 0, [], "llm", Prices(1.0, 1.0))
    assert (found.profiles, found.calls, found.tokens_in, found.seconds, found.cost) == (0, 0, 0, 0, 0)
    assert found.rests_on == ()
