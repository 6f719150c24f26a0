"""Times in files: every form gives the same moment the fast way and the slow way."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.ingest.times import EPOCH, parse_time, parse_times

S = 1_700_000_000
CASES = [
    ("1700000000", S * 10**6, None),
    ("1700000000000", S * 10**6, None),
    ("1700000000000000", S * 10**6, None),
    ("1700000000.25", S * 10**6 + 250_000, None),
    ("1.7e9", S * 10**6, None),
    ("-1", -1_000_000, None),
    ("99999999999", 99_999_999_999_000_000, None),
    ("100000000000", 100_000_000_000_000, None),
    ("99999999999999", 99_999_999_999_999_000, None),
    ("100000000000000", 100_000_000_000_000, None),
    ("2023-11-14T22:13:20", S * 10**6, None),
    ("2023-11-14 22:13:20", S * 10**6, None),
    ("2023-11-14T22:13:20Z", S * 10**6, None),
    ("2023-11-14T22:13:20+00:00", S * 10**6, 0),
    ("2023-11-14T23:43:20.5+01:30", S * 10**6 + 500_000, 90),
    ("2023-11-14T17:13:20.123456789-05:00", S * 10**6 + 123_456, -300),
    ("2023-11-14T23:13:20+0100", S * 10**6, 60),
    ("2023-11-14", 1_699_920_000_000_000, None),
    ("2023-11-14T22:13", 1_699_999_980_000_000, None),
]
WRONG = [
    "yesterday",
    "2023-02-30T00:00:00",
    "2023-11-14T25:00:00",
    "2023-11-14T22:13:60",
    "2023-11-14T22:13:20+24:00",
    "2023-11-14T22:13:20+01:00:30",
    "NaN",
    "1e999",
    "-9223372036854775808",
    "9" * 40,
    "14/11/2023",
]


@pytest.mark.parametrize(("text", "ts", "offset"), CASES)
def test_forms(text, ts, offset):
    assert parse_time(text) == (ts, offset)
    fast = parse_times(pl.Series([text, None, "x"])).row(0)
    assert fast in ((ts, offset), (None, None))
    assert parse_times(pl.Series([text])).row(0) in ((ts, offset), (None, None))


@pytest.mark.parametrize("text", [case[0] for case in CASES[:3] + CASES[10:16]])
def test_common_forms_take_the_fast_way(text):
    assert parse_times(pl.Series([text, "x"]))["ts"][0] is not None


@pytest.mark.parametrize("text", WRONG)
def test_no_times(text):
    with pytest.raises((ValueError, OverflowError)):
        parse_time(text)
    assert parse_times(pl.Series([text]))["ts"].to_list() == [None]
    assert parse_times(pl.Series([text, "1"]))["ts"].to_list() == [None, 1_000_000]


@settings(deadline=None)
@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),
    st.none() | st.integers(-1439, 1439),
    st.sampled_from("T "),
)
def test_fast_and_slow_agree_with_the_calendar(moment, offset, between):
    text = moment.isoformat(between)
    if offset is not None:
        text += f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}:{abs(offset) % 60:02}"
    exact = round((moment.replace(tzinfo=UTC) - EPOCH).total_seconds() // 1) * 10**6 + moment.microsecond
    expected = (exact - (offset or 0) * 60_000_000, offset)
    assert parse_time(text) == expected
    assert parse_times(pl.Series([text])).row(0) == expected
