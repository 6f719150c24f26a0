"""Checks rows of an event log and gives each event its id."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import polars as pl

from store.ingest.columns import Plan
from store.ingest.identity import EventContent, RepeatCounter, event_ids
from store.ingest.raw import RawBatch
from store.ingest.rejects import Reject
from store.ingest.screen import Screen, json_object
from store.ingest.times import EPOCH, parse_time, parse_times

FUTURE = timedelta(days=1)  # clocks and time zones may be off; a day more is a mistake


class EventParser:
    """Turns raw batches of one file into events that can be stored, in the order of the file."""

    def __init__(self, plan: Plan, source: str, known_types: Iterable[str], now: datetime) -> None:
        self._plan = plan
        self._source = source
        self._known_types = sorted(known_types)
        self._latest = (now + FUTURE - EPOCH) // timedelta(microseconds=1)
        self._repeats = RepeatCounter()

    def parse(self, raw: RawBatch) -> tuple[pl.DataFrame, list[Reject]]:
        """The good events (columns: line and those of the table, times in microseconds) and the bad rows."""
        screen = Screen(raw, self._plan)
        for field in ("user_id", "type", "ts"):
            screen.require(field)
        for field in ("event_id", "user_id", "item_id"):
            screen.check_identifier(field)
        self._check_types(screen)
        moments = checked_times(screen, "ts")
        self._check_range(screen, moments["ts"])
        value = screen.numbers("value")
        screen.check_text("text")
        frame = screen.frame
        good = screen.keep(
            event_id=frame["event_id"],
            user_id=frame["user_id"],
            item_id=frame["item_id"],
            type=frame["type"],
            ts=moments["ts"],
            ts_offset=moments["ts_offset"],
            value=value,
            text=_normalised(frame["text"]),
            context=screen.json("context", json_object),
        )
        return self._with_ids(good), screen.rejects

    def _check_types(self, screen: Screen) -> None:
        unknown = ~screen.frame["type"].is_in(self._known_types)
        rule = f"known: {', '.join(self._known_types)}; declare it in LIMNER_EVENT_TYPES or the settings file"
        screen.reject("type", unknown, lambda value: f"unknown event type {value!r}; {rule}")

    def _check_range(self, screen: Screen, ts: pl.Series) -> None:
        screen.reject("ts", ts < 0, "the time is before 1970")
        screen.reject("ts", ts > self._latest, "the time is in the future")

    def _with_ids(self, events: pl.DataFrame) -> pl.DataFrame:
        given = events["event_id"]
        if not given.null_count():
            return events
        without = events if given.null_count() == len(given) else events.filter(given.is_null())
        columns = (without[name].to_list() for name in EventContent._fields)
        made = event_ids(self._source, map(EventContent._make, zip(*columns, strict=True)), self._repeats)
        if len(without) == len(events):
            ids = pl.Series("event_id", made, dtype=pl.String)
        else:
            rest = iter(made)
            ids = pl.Series("event_id", [next(rest) if own is None else own for own in given.to_list()])
        return events.with_columns(ids)


def checked_times(screen: Screen, field: str) -> pl.DataFrame:
    """The field as `times.parse_times` gives it, rarer forms too; rejects what is no time."""
    texts = screen.frame[field]
    moments = parse_times(texts)
    rare = (moments["ts"].is_null() & texts.is_not_null()).arg_true().to_list()
    if not rare:
        return moments
    ts, offsets = moments["ts"].to_list(), moments["ts_offset"].to_list()
    reasons: dict[int, str] = {}
    for row in rare:
        try:
            ts[row], offsets[row] = parse_time(texts[row])
        except (ValueError, OverflowError) as error:
            reasons[row] = str(error)
    screen.reject_rows(field, reasons)
    return pl.DataFrame({"ts": pl.Series(ts, dtype=pl.Int64), "ts_offset": pl.Series(offsets, dtype=pl.Int16)})


def _normalised(text: pl.Series) -> pl.Series:
    """Text in NFC, as the ids take it, so that two spellings of one text are one event."""
    return text if text.null_count() == len(text) else text.str.normalize("NFC")
