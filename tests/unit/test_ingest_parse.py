"""Checks of rows: what is taken, and the reason given for each that is not."""

import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from store.errors import IngestError
from store.ingest.catalogue import ItemParser, UserParser
from store.ingest.columns import Plan
from store.ingest.events import EventParser
from store.ingest.raw import RawBatch
from store.ingest.rejects import Reject, RejectLog
from store.records import MAX_ID, MAX_TEXT

NOW = datetime(2024, 1, 1, tzinfo=UTC)
GOOD = {"user_id": "u", "type": "view", "ts": "1700000000"}


def check(parser_of, kind, rows):
    """Parses rows (dicts of text) that begin at line 2."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pl.DataFrame({name: [row.get(name) for row in rows] for name in names}, schema_overrides={})
    frame = frame.with_columns(pl.all().cast(pl.String))
    plan = Plan(kind, {name: name for name in names})
    raw = RawBatch(frame, np.arange(2, len(rows) + 2), (), 0)
    return parser_of(plan).parse(raw)


def events(*rows):
    return check(lambda plan: EventParser(plan, "s", {"view", "rating"}, NOW), "events", rows)


def one_bad(field, value):
    good, rejects = events(GOOD, {**GOOD, field: value})
    assert len(good) == 1
    (reject,) = rejects
    assert (reject.line, reject.column, reject.value) == (3, field, value or "")
    return reject.reason


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("user_id", "", "user_id is missing"),
        ("user_id", None, "user_id is missing"),
        ("ts", "", "ts is missing"),
        ("type", "", "type is missing"),
        ("user_id", "x" * (MAX_ID + 1), "longer than 512"),
        ("item_id", "a\0b", "NUL"),
        ("item_id", ".", "which addresses cannot hold"),
        ("user_id", "..", "which addresses cannot hold"),
        ("ts", "soon", "not a time"),
        ("ts", "-1", "before 1970"),
        ("ts", "1969-12-31T23:59:59.999999", "before 1970"),
        ("ts", "2024-01-02T00:00:00.000001Z", "in the future"),
        ("ts", "9999999999999", "in the future"),
        ("value", "four", "not a number"),
        ("value", "NaN", "NaN"),
        ("value", "nan", "NaN"),
        ("value", "inf", "finite"),
        ("value", "1e999", "finite"),
        ("text", "a\0", "NUL"),
        ("text", "x" * (MAX_TEXT + 1), "longer than 1,000,000"),
        ("context", "[1]", "not a JSON object"),
        ("context", "{", "not JSON"),
        ("context", '{"a":"\\u0000"}', "NUL"),
    ],
)
def test_bad_events(field, value, words):
    assert words in one_bad(field, value)


def test_unknown_type_names_the_known_ones_and_what_to_do():
    assert one_bad("type", "stare") == (
        "unknown event type 'stare'; known: rating, view; declare it in LIMNER_EVENT_TYPES or the settings file"
    )


def test_limits_are_still_good():
    good, rejects = events(
        {**GOOD, "ts": "0"},
        {**GOOD, "ts": "2024-01-02"},
        {**GOOD, "user_id": "\u00e9" * MAX_ID},
        {**GOOD, "text": "\u00e9" * 200_000},
        {**GOOD, "context": '{"a": "\\\\u0000"}'},
    )
    assert len(good) == 5
    assert not rejects


def test_only_the_first_finding_of_a_row_is_reported():
    _, rejects = events({**GOOD, "user_id": "", "ts": "soon", "value": "x"})
    assert [reject.column for reject in rejects] == ["user_id"]


def test_values_texts_and_ids_are_canonical():
    good, _ = events({**GOOD, "value": "-0.0", "text": "cafe\u0301"}, {**GOOD, "value": "0", "text": "caf\u00e9"}, GOOD)
    assert good["value"].to_list() == [0.0, 0.0, None]
    assert str(good["value"][0]) == "0.0"
    assert good["text"].to_list() == ["caf\u00e9", "caf\u00e9", None]
    assert good["event_id"].n_unique() == 3  # the second is a repeat of the first


def test_given_ids_are_kept_and_only_the_others_made():
    good, _ = events(GOOD, {**GOOD, "event_id": "mine"}, GOOD)
    alone, _ = events(GOOD, GOOD)
    assert good["event_id"].to_list() == [alone["event_id"][0], "mine", alone["event_id"][1]]


def test_items():
    good, rejects = check(
        ItemParser,
        "items",
        [
            {"item_id": "a", "title": "A", "categories": "x| y ||", "price": "9.5", "created_at": "1942-11-26"},
            {"item_id": "b", "title": "B", "categories": '["p|q", "r"]', "attributes": '{"n": 1, "d": "old"}'},
            {"item_id": "c", "title": "C", "attributes.d": "Curtiz", "attributes": '{"n": 1, "d": "old"}'},
            {"item_id": "d", "title": "D", "attributes.d": '["a","b"]'},
            {"item_id": "e", "title": "", "price": "1"},
            {"item_id": "f", "title": "F", "price": "cheap"},
            {"item_id": "g", "title": "G", "categories": "[1]"},
            {"item_id": "h", "title": "H", "created_at": "once"},
        ],
    )
    assert [json.loads(text or "null") for text in good["categories"]] == [["x", "y"], ["p|q", "r"], None, None]
    assert [json.loads(text or "null") for text in good["attributes"]] == [
        None,
        {"n": 1, "d": "old"},
        {"n": 1, "d": "Curtiz"},
        {"d": ["a", "b"]},
    ]
    assert good["created_at"][0] < 0
    assert [(reject.line, reject.column) for reject in rejects] == [
        (6, "title"),
        (7, "price"),
        (9, "created_at"),
        (8, "categories"),
    ]


def test_users():
    good, rejects = check(
        UserParser,
        "users",
        [
            {"user_id": "a", "consent": "No", "language": "pt-BR", "tz": "Europe/Paris"},
            {"user_id": "b", "consent": "1", "attributes": '{"age": "25"}'},
            {"user_id": "c"},
            {"user_id": "d", "consent": "maybe"},
            {"user_id": "e", "tz": "Mars/Olympus"},
            {"user_id": "f", "language": "english, please"},
        ],
    )
    assert good["consent"].to_list() == [False, True, None]
    assert {(reject.line, reject.column) for reject in rejects} == {(5, "consent"), (6, "tz"), (7, "language")}


@pytest.mark.parametrize(
    ("bad", "rows", "limit", "at_end", "refused"),
    [
        (0, 0, 0.01, True, False),
        (1, 3, 0.01, True, False),
        (1, 3, 0.0, True, True),
        (1, 1, 0.01, True, True),
        (2, 3, 0.01, True, True),
        (2, 199, 0.01, True, True),
        (2, 200, 0.01, True, False),
        (3, 200, 0.01, True, True),
        (9_999, 9_999, 0.01, False, False),
        (101, 10_000, 0.01, False, True),
        (100, 10_000, 0.01, False, False),
        (50, 100, 0.5, True, False),
    ],
)
def test_reject_limit(tmp_path, bad, rows, limit, at_end, refused):
    path = tmp_path / "rejects.csv"
    with RejectLog(path) as log:
        log.extend(Reject(line, "ts", "x", "not a time") for line in range(bad))
        if not refused:
            log.check_limit(rows, limit, at_end=at_end)
            return
        with pytest.raises(IngestError, match=rf"{bad:,} of {rows:,} rows.*not a time \({bad:,}\).*rejects.csv"):
            log.check_limit(rows, limit, at_end=at_end)


def test_rejects_file(tmp_path):
    path = tmp_path / "rejects.csv"
    path.write_text("old")
    with RejectLog(path):
        pass
    assert not path.exists()
    with RejectLog(path) as log:
        log.extend([Reject(7, "text", "a,\n" + "x" * 500, "too odd", "odd"), Reject(8, "ts", "", "no")])
    table = pl.read_csv(path)
    assert table.columns == ["line", "column", "value", "reason"]
    assert table.row(0) == (7, "text", "a,\n" + "x" * 197, "too odd")
    assert log.reasons == {"odd": 1, "no": 1}
