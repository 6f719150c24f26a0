"""Times as files have them: ISO 8601, or unix seconds, milliseconds or microseconds.

A time without an offset is UTC. An offset in the text is kept in minutes east of UTC; `Z` says the
instant and not the place (RFC 9557), so it gives none, and neither does a unix time.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

import polars as pl

MILLISECONDS_FROM = 10**11  # as seconds this would be the year 5138
MICROSECONDS_FROM = 10**14
LATEST = 253_402_300_800_000_000  # the year 10000, in microseconds: past what a datetime holds
EARLIEST = -62_135_596_800_000_000  # the year 1: before it, too
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_ISO = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?$"
_OFFSET = r"([+-]\d\d:\d\d)$"
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?")


class Moment(NamedTuple):
    """An instant in microseconds since 1970 UTC, and the offset it was given with, in minutes."""

    ts: int
    offset: int | None


def parse_time(text: str) -> Moment:
    """Reads one time; the slow way, which knows every form and says what is wrong.

    Raises:
        ValueError: this is not a time.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return Moment(_unix(Decimal(text)), None)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a time: expected ISO 8601 or unix time") from None
    offset = moment.utcoffset()
    if offset is None:
        moment = moment.replace(tzinfo=UTC)
    elif offset % timedelta(minutes=1):
        raise ValueError("the offset of the time is not in whole minutes")
    ts = (moment - EPOCH) // timedelta(microseconds=1)
    if offset is None or text[-1] in "Zz":
        return Moment(ts, None)
    return Moment(ts, offset // timedelta(minutes=1))


def _unix(number: Decimal) -> int:
    size = abs(number)
    if size >= LATEST:
        raise ValueError("not a time: the number is too large for unix microseconds")
    scale = 1 if size >= MICROSECONDS_FROM else 1_000 if size >= MILLISECONDS_FROM else 1_000_000
    return int((number * scale).to_integral_value(ROUND_HALF_EVEN))


def parse_times(texts: pl.Series) -> pl.DataFrame:
    """Reads a column of times the fast way: whole unix times and full ISO 8601.

    Returns:
        Columns `ts` (Int64, microseconds since 1970 UTC) and `ts_offset` (Int16, minutes). `ts` is null
        where the text is null or has a rarer form: try `parse_time` on those.
    """
    number = texts.cast(pl.Int64, strict=False)
    if number.null_count() == texts.null_count():
        return pl.select(ts=_scaled(number), ts_offset=pl.lit(None, dtype=pl.Int16))
    text = pl.col("text")
    iso = text.str.contains(_ISO)
    clock = (text.str.slice(0, 10) + text.str.slice(11, 8)).str.to_datetime(
        "%Y-%m-%d%H:%M:%S", time_unit="us", strict=False
    )
    fraction = text.str.extract(r"\.(\d+)").str.slice(0, 6).str.pad_end(6, "0").cast(pl.Int64, strict=False)
    frame = texts.alias("text").to_frame()
    offset = _offsets(text, any_given=bool(texts.str.contains(_OFFSET).any()))
    frame = frame.select(iso=iso, clock=clock.dt.epoch("us") + fraction.fill_null(0), offset=offset)
    given = pl.col("offset")
    usable = pl.col("iso") & (given.is_null() | (given.abs() < 24 * 60))
    local = pl.col("clock") - given.fill_null(0).cast(pl.Int64) * 60_000_000
    frame = frame.select(ts=pl.when(usable).then(local), ts_offset=pl.when(usable).then(given).cast(pl.Int16))
    return frame.with_columns(ts=pl.coalesce(_scaled(number), pl.col("ts")))


def _scaled(number: pl.Series) -> pl.Expr:
    size = pl.lit(number).abs()
    return (
        pl.when((size >= LATEST) | (size < 0))  # the smallest integer has no positive counterpart
        .then(None)
        .when(size >= MICROSECONDS_FROM)
        .then(pl.lit(number))
        .when(size >= MILLISECONDS_FROM)
        .then(pl.lit(number) * 1_000)
        .otherwise(pl.lit(number) * 1_000_000)
    )


def _offsets(text: pl.Expr, *, any_given: bool) -> pl.Expr:
    if not any_given:
        return pl.lit(None, dtype=pl.Int32)
    given = text.str.extract(_OFFSET)
    hours = given.str.slice(1, 2).cast(pl.Int32, strict=False)
    minutes = given.str.slice(4, 2).cast(pl.Int32, strict=False)
    size = pl.when(minutes < 60).then(hours * 60 + minutes).otherwise(24 * 60)  # noqa: PLR2004
    return pl.when(given.str.starts_with("-")).then(-size).otherwise(size)
