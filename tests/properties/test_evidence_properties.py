"""What holds of the evidence arithmetic and the themes for every log."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent.catalogue import ItemSet, count_attributes, unit
from agent.evidence import EvidenceSettings, confidence, support, trend, weigh
from agent.themes import Theme, Themes, UserLog, cluster, find_themes
from store.records import Item

SETTINGS = EvidenceSettings(half_life_days=30.0)
YEAR = 365 * 86_400
CATEGORIES = ("crime", "jazz", "garden")


class Row(NamedTuple):
    item: str | None
    kind: str
    value: float | None
    time: int


def item_set(n: int = 24) -> ItemSet:
    """Items around three axes, each with its category."""
    rng = np.random.default_rng(7)
    vectors = unit(np.eye(8)[np.arange(n) % 3] + 0.25 * rng.standard_normal((n, 8)))
    found = [
        Item(item_id=f"i{k}", title=f"T{k}", categories=(CATEGORIES[k % 3],), attributes={"year": 1950 + k})
        for k in range(n)
    ]
    others = [Item(item_id=f"o{k}", title="Other", categories=("other",)) for k in range(3 * n)]
    return ItemSet({item.item_id: item for item in found}, vectors, count_attributes([*found, *others]))


ITEMS = item_set()
rows = st.builds(
    Row,
    st.none() | st.sampled_from(sorted(ITEMS.items)),
    st.sampled_from([*SETTINGS.types, "unheard of"]),
    st.none() | st.floats(-10, 10),
    st.integers(0, YEAR),
)
row_lists = st.lists(rows, max_size=40)
long_lists = st.lists(rows, min_size=20, max_size=60)
negative_rows = rows.map(lambda row: row._replace(kind="dislike"))
neutral_rows = rows.map(lambda row: row._replace(kind="rating", value=3.0))


def log_of(events: list[Row]) -> UserLog:
    """In order of (time, event id), as the store gives them."""
    ordered = sorted(enumerate(events), key=lambda pair: (pair[1].time, pair[0]))
    found = [row for _, row in ordered]
    return UserLog(
        user_id="u",
        event_ids=[f"e{n}" for n, _ in ordered],
        items=[row.item for row in found],
        types=[row.kind for row in found],
        values=[row.value for row in found],
        times=np.array([row.time for row in found], dtype=np.float64),
        offsets=[None] * len(found),
    )


def everything(found: Themes) -> tuple[Theme, ...]:
    return (*found.interests, *found.dislikes)


@given(row_lists, st.integers(0, 2 * YEAR))
def test_weights_lie_within_one(events: list[Row], as_of: int) -> None:
    log = log_of(events)
    found = weigh(log.types, log.values, log.times, float(as_of), SETTINGS)
    assert np.all(np.abs(found.decayed) <= np.abs(found.undecayed))
    assert np.all(np.abs(found.undecayed) <= 1)
    assert np.all(np.sign(found.decayed) == np.sign(found.undecayed))
    if np.any(found.undecayed):
        assert np.abs(found.undecayed).max() == 1.0


@given(st.lists(st.integers(0, 10 * YEAR), min_size=2, max_size=20), st.integers(0, YEAR))
def test_decay_is_monotone_and_halves(ages: list[int], shift: int) -> None:
    as_of = 10.0 * YEAR
    times = as_of - np.array(sorted(ages), dtype=np.float64)
    kinds = ["like"] * len(ages)
    found = weigh(kinds, [None] * len(ages), times, as_of, SETTINGS).decayed
    assert np.all(np.diff(found) <= 0)
    later = weigh(kinds, [None] * len(ages), times, as_of + shift, SETTINGS).decayed
    np.testing.assert_allclose(later, found * 2.0 ** (-shift / 86_400 / 30), rtol=1e-9)


@given(long_lists, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_order_of_input_does_not_matter(events: list[Row], seed: int) -> None:
    """Events of distinct times: sorted, they are the same log."""
    events = [row._replace(time=row.time // 100 * 100 + n) for n, row in enumerate(events)]
    shuffled = [events[k] for k in np.random.default_rng(seed).permutation(len(events))]
    one, two = find_themes(log_of(events), ITEMS, SETTINGS), find_themes(log_of(shuffled), ITEMS, SETTINGS)
    assert described(one) == described(two)


def described(found: Themes) -> list[tuple[object, ...]]:
    return [
        (
            t.polarity,
            t.events.tolist(),
            t.counter.tolist(),
            t.members,
            t.examples,
            t.telling,
            t.strength,
            t.trend,
        )
        for t in everything(found)
    ]


@given(row_lists | long_lists)
@settings(max_examples=150, deadline=None)
def test_what_holds_of_themes(events: list[Row]) -> None:
    log = log_of(events)
    found = find_themes(log, ITEMS, SETTINGS)
    assert described(found) == described(find_themes(log, ITEMS, SETTINGS))
    assert sum(t.strength for t in found.interests) <= 1 + 1e-9
    assert sum(t.strength for t in found.dislikes) >= -1 - 1e-9
    used = [row for t in everything(found) for row in (*t.events.tolist(), *t.counter.tolist())]
    assert len(used) == len(set(used))
    for theme in everything(found):
        sign = 1 if theme.polarity == "positive" else -1
        mine = np.concatenate([theme.events, theme.counter])
        weights = sign * found.weights.decayed
        assert np.all(weights[theme.events] > 0)
        assert np.all(weights[theme.counter] < 0)
        assert np.all(np.diff(weights[theme.events]) <= 0)
        assert support(weights[mine], found.weights.explicit[mine]).holds()
        assert 0 < sign * theme.strength <= 1 + 1e-9
        assert 0 < theme.confidence < 1
        assert {log.items[row] for row in theme.events} == set(theme.members)
        assert set(theme.examples) <= set(theme.members)
        assert 1 <= len(set(theme.examples)) == len(theme.examples) <= 6
    strengths = [abs(t.strength) for t in found.interests]
    assert strengths == sorted(strengths, reverse=True)


@given(st.lists(negative_rows, max_size=25))
@settings(max_examples=30, deadline=None)
def test_all_negative_logs(events: list[Row]) -> None:
    found = find_themes(log_of(events), ITEMS, SETTINGS)
    assert found.interests == ()
    assert sum(t.strength for t in found.dislikes) >= -1 - 1e-9


@given(st.lists(neutral_rows, max_size=10) | st.lists(rows, max_size=1))
@settings(max_examples=40, deadline=None)
def test_logs_that_say_nothing(events: list[Row]) -> None:
    assert everything(find_themes(log_of(events), ITEMS, SETTINGS)) == ()


@given(st.integers(1, 80), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_labels_cover_every_row(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = cluster(unit(rng.standard_normal((n, 5))), rng.integers(1, 9, n).astype(np.float64))
    assert sorted(set(labels.tolist())) == list(range(labels.max() + 1))
    assert labels.shape == (n,)
    assert labels.max() < 12


unit_floats = st.floats(-1, 1)


@given(st.lists(unit_floats, max_size=30), unit_floats)
def test_confidence_rises_with_support(weights: list[float], one_more: float) -> None:
    assume(abs(one_more) > 1e-6)
    before, after = confidence(np.array(weights)), confidence(np.array([*weights, one_more]))
    assert 0 <= after <= 1
    assert (after > before) if one_more > 0 else (after < before)


@given(st.lists(st.booleans(), max_size=60))
def test_trend_of_all_is_steady(member: list[bool]) -> None:
    n = len(member)
    times = np.linspace(0, 30 * 86_400, n)
    whole = trend(np.ones(n, dtype=bool), times)
    assert whole == ("steady" if n >= 20 else None)
    assert (trend(np.array(member, dtype=bool), times) is None) is (n < 20)


def test_the_strategies_reach_both_signs() -> None:
    """The properties above say little if no log has themes."""
    events = [Row(f"i{3 * k}", "like", None, k) for k in range(6)]
    events += [Row(f"i{3 * k + 1}", "dislike", None, 9 + k) for k in range(4)]
    found = find_themes(log_of(events), ITEMS, SETTINGS)
    assert {t.polarity for t in everything(found)} == {"positive", "negative"}
    assert sum(t.strength for t in everything(found)) == pytest.approx(0.0)
