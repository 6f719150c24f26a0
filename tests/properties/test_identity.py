"""The identity of events: golden ids, and what may and may not change them."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.ingest.identity import (
    EventContent,
    RepeatCounter,
    base_id,
    canonical_event,
    event_ids,
    repeat_id,
)

GOLDEN = [
    (
        EventContent("u1", "i1", "rating", 1_700_000_000_000_000, 4.0),
        b'{"item_id":"i1","source":"default","ts":1700000000000000,"type":"rating","user_id":"u1","value":4.0}',
        "893eed0052b61487a19187189102fa87e7bbe72bb6efb3623f2b772c472935f9",
    ),
    (
        EventContent("u1", None, "search", 0, None, "caf\u00e9 \U0001f3ac"),
        '{"source":"default","text":"caf\u00e9 \U0001f3ac","ts":0,"type":"search","user_id":"u1"}'.encode(),
        "64ea60f4d4192f4066ad91407bf574cc4a8e5995f7f8e632bcaf5d4966907222",
    ),
    (
        EventContent('a"b\\c\n', "", "view", 1, 1e-7),
        b'{"item_id":"","source":"default","ts":1,"type":"view","user_id":"a\\"b\\\\c\\n","value":1e-7}',
        "d505088be6f2d5457a7985d1ae0d586ba501d623aeca7b8a0e209b22bdb99354",
    ),
]
contents = st.builds(
    EventContent,
    st.text(min_size=1),
    st.none() | st.text(),
    st.sampled_from(["view", "rating"]),
    st.integers(0, 2**53),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.text(),
)


@pytest.mark.parametrize(("event", "canonical", "golden"), GOLDEN)
def test_golden(event, canonical, golden):
    assert canonical_event("default", event) == canonical
    assert base_id("default", event) == golden


def test_golden_repeat():
    base = base_id("default", GOLDEN[0][0])
    assert repeat_id(base, 0) == base
    assert repeat_id(base, 2) == hashlib.sha256(f"{base}:2".encode()).hexdigest()
    assert repeat_id(base, 1) == "565d83f13eff1ea95b50f7e3727bb6965d1d3dcb60591a13c023f814dd96326f"


@settings(deadline=None)
@given(contents)
def test_canonical_form_is_sorted_json_without_absent_fields(event):
    fields = json.loads(canonical_event("shop", event))
    assert list(fields) == sorted(fields)
    expected = {**event._asdict(), "source": "shop"}
    assert fields == {name: value for name, value in expected.items() if value is not None}


@settings(deadline=None)
@given(contents, contents)
def test_ids_agree_only_for_the_same_content(one, other):
    same = canonical_event("s", one) == canonical_event("s", other)
    assert (base_id("s", one) == base_id("s", other)) == same
    assert base_id("s", one) != base_id("t", one)


def test_minus_zero_and_integers_are_one_float():
    ids = {base_id("s", EventContent("u", "i", "rating", 0, value)) for value in (0, 0.0, -0.0)}
    assert len(ids) == 1


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6) | st.just(2**64 - 1), max_size=30), max_size=12),
)
def test_ordinals_count_earlier_rows_however_the_file_is_cut(batches):
    counter = RepeatCounter()
    seen: dict[int, int] = {}
    for batch in batches:
        expected = []
        for prefix in batch:
            expected.append(seen.get(prefix, 0))
            seen[prefix] = expected[-1] + 1
        assert counter.ordinals(np.array(batch, dtype=np.uint64)).tolist() == expected


def test_runs_stay_few():
    counter = RepeatCounter()
    rng = np.random.default_rng(0)
    for _ in range(200):
        counter.ordinals(rng.integers(0, 2**64, 100, dtype=np.uint64))
    assert len(counter._runs) <= 9
    assert sum(map(len, counter._runs)) == 20_000


@settings(deadline=None)
@given(st.lists(contents, max_size=20), st.integers(1, 7))
def test_ids_do_not_depend_on_batches_and_are_distinct(events, size):
    events = events + events[:3]
    whole = event_ids("s", events, RepeatCounter())
    repeats = RepeatCounter()
    parts = [event_ids("s", events[at : at + size], repeats) for at in range(0, len(events), size)]
    assert [event_id for part in parts for event_id in part] == whole
    assert len(set(whole)) == len(whole)
