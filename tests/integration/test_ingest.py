"""Ingest into a real database: what is stored, what is known, what is refused, and what is left behind."""

import csv
import gzip
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from store.errors import IngestError
from store.ingest import ingest
from store.privacy import Hasher

HASHER = Hasher(b"key of the tests")
NOW = datetime(2024, 6, 1, tzinfo=UTC)
TYPES = ("view", "rating", "search")
HEAD = "user_id,item_id,type,ts,value,text\n"
THREE = HEAD + "u1,i1,rating,1700000000,4,\nu1,i2,view,2023-11-14T22:13:21+01:00,,\nu2,,search,1700000002,,caf\u00e9\n"


@pytest.fixture
def run(database, tmp_path):
    """Ingests text, bytes or a file."""

    def ingest_it(data, kind="events", name="log.csv", **options):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data if isinstance(data, bytes) else data.encode())
        defaults = {
            "source": "default",
            "known_types": TYPES,
            "now": NOW,
            "hasher": HASHER,
            "rejects_path": tmp_path / "rejects.csv",
        }
        return ingest(database, kind, path, **{**defaults, **options})

    return ingest_it


@pytest.fixture
def rows(database):
    """The rows of a query."""

    def fetch(query):
        with database.raw() as connection:
            return connection.execute(query).fetchall()

    return fetch


@pytest.fixture
def rejects(tmp_path):
    """The rejects file, as dictionaries; None when there is none."""

    def read():
        path = tmp_path / "rejects.csv"
        text = path.read_text(encoding="utf-8") if path.exists() else None
        return None if text is None else list(csv.DictReader(io.StringIO(text, newline="")))

    return read


def counts(report):
    return report.rows_read, report.rows_stored, report.rows_known, report.rows_rejected


def last_run(rows):
    return rows("select state, reason, rows_read, rows_stored from ingest_runs order by run_id desc limit 1")[0]


def test_events_with_their_users_and_stubs(run, rows, rejects):
    seen = []
    report = run(THREE, progress=lambda done, read: seen.append((done, read)))
    assert counts(report) == (3, 3, 0, 0)
    assert (report.stubs_made, report.users_made, report.left_out, report.reasons) == (2, 2, (), {})
    assert rows("select user_id, item_id, type, ts, ts_offset, value, text from events order by ts") == [
        ("u1", "i2", "view", datetime(2023, 11, 14, 21, 13, 21, tzinfo=UTC), 60, None, None),
        ("u1", "i1", "rating", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), None, 4.0, None),
        ("u2", None, "search", datetime(2023, 11, 14, 22, 13, 22, tzinfo=UTC), None, None, "caf\u00e9"),
    ]
    assert rows("select item_id, title, stub from items order by 1") == [("i1", "i1", True), ("i2", "i2", True)]
    assert rows("select user_id, consent, log_revision from users order by 1") == [("u1", True, 1), ("u2", True, 1)]
    assert last_run(rows) == ("done", None, 3, 3)
    assert rows("select distinct run_id from events") == [(report.run_id,)]
    assert rejects() is None
    assert seen[-1][1] == 3


def test_the_same_file_again_changes_nothing(run, rows):
    run(THREE)
    report = run(THREE, name="other-name.csv")
    assert counts(report) == (3, 0, 3, 0)
    assert (report.stubs_made, report.users_made) == (0, 0)
    assert rows("select distinct log_revision from users") == [(1,)]
    assert rows("select count(*) from events") == [(3,)]


def test_new_events_touch_only_their_users(run, rows):
    run(THREE)
    report = run(THREE + "u2,i9,view,1700000009,,\nu3,i9,view,1700000009,,\n")
    assert counts(report) == (5, 2, 3, 0)
    assert rows("select user_id, log_revision from users order by 1") == [("u1", 1), ("u2", 2), ("u3", 1)]


def test_every_format_of_one_log_gives_the_same_ids(run, rows, tmp_path):
    run(THREE)
    assert counts(run(gzip.compress(THREE.encode()), name="log.csv.gz")) == (3, 0, 3, 0)
    assert counts(run(THREE.replace(",", "\t"), name="log.tsv")) == (3, 0, 3, 0)
    frame = pl.DataFrame(
        {
            "user_id": ["u1", "u1", "u2"],
            "item_id": ["i1", "i2", None],
            "type": ["rating", "view", "search"],
            "ts": [1_700_000_000, 1_699_996_401, 1_700_000_002],
            "value": [4.0, None, None],
            "text": [None, None, "cafe\u0301"],
        }
    )
    frame.write_ndjson(tmp_path / "log.jsonl")
    assert counts(run(None, name="log.jsonl")) == (3, 0, 3, 0)
    frame.with_columns(pl.from_epoch("ts")).write_parquet(tmp_path / "log.parquet")
    assert counts(run(None, name="log.parquet")) == (3, 0, 3, 0)
    assert counts(run(THREE, source="elsewhere")) == (3, 3, 0, 0)


def test_repeats_in_one_file_are_kept_and_known_the_second_time(run, rows):
    data = HEAD + "u,i,view,1700000000,,\n" * 3
    assert counts(run(data)) == (3, 3, 0, 0)
    assert counts(run(data)) == (3, 0, 3, 0)
    assert counts(run(data + "u,i,view,1700000000,,\n")) == (4, 1, 3, 0)


def test_one_id_with_other_content_is_a_conflict(run, rows, rejects):
    head = "event_id,user_id,item_id,type,ts,value,context\n"
    run(head + 'e1,u1,i1,rating,1700000000,4,\ne2,u1,i1,view,1700000000,,"{""a"":1}"\n')
    report = run(
        head + 'e1,u1,i9,rating,1700000000,5,\ne2,u1,i1,view,1700000000Z,,"{""a"":2}"\n'.replace("000Z", "000")
    )
    assert counts(report) == (2, 0, 1, 1)  # the context is no part of the content
    assert rejects() == [
        {
            "line": "2",
            "column": "event_id",
            "value": "e1",
            "reason": "the event id is known with other content: item_id, value differ",
        }
    ]
    assert report.reasons == {"the event id is known with other content": 1}
    assert rows("select item_id, value from events where event_id = 'e1'") == [("i1", 4.0)]
    assert report.stubs_made == 0


def test_one_id_twice_in_one_file(run, rows, rejects):
    head = "event_id,user_id,type,ts,value\n"
    report = run(head + "e1,u1,rating,1,4\ne1,u1,rating,1,4\ne1,u2,rating,1,4\n")
    assert counts(report) == (3, 1, 1, 1)
    assert rejects()[0]["line"] == "4"
    assert rows("select user_id from users") == [("u1",)]  # a row in conflict makes no user


def test_bad_rows_go_to_the_rejects_file_and_good_ones_are_stored(run, rows, rejects):
    good = "".join(f"u,i,view,{1_700_000_000 + n},,\n" for n in range(300))
    report = run(HEAD + good + "u,i,view,soon,,\n" + good.replace("u,", "v,") + "u,i,stare,1700000000,,\nu,i\n")
    assert counts(report) == (603, 600, 0, 3)
    found = {(row["line"], row["column"], row["value"]) for row in rejects()}
    assert found == {("302", "ts", "soon"), ("603", "type", "stare"), ("604", "", "u,i")}
    assert rows("select rows_read, rows_stored, rows_known, rows_rejected from ingest_runs") == [(603, 600, 0, 3)]


def test_too_many_bad_rows_roll_everything_back(run, rows, rejects, tmp_path):
    good = "u,i,view,1700000000,,\n" * 50
    with pytest.raises(IngestError) as caught:
        run(HEAD + good + "u,i,stare,1700000000,,\nu,i,view,NaN,,\n" * 2)
    message = str(caught.value)
    assert "4 of 54 rows are bad" in message
    assert "known: rating, search, view; declare it in LIMNER_EVENT_TYPES or the settings file (2)" in message
    assert str(tmp_path / "rejects.csv") in message
    assert rows("select (select count(*) from events), (select count(*) from users), count(*) from items") == [
        (0, 0, 0)
    ]
    assert last_run(rows)[0::2] == ("failed", 54)
    assert len(rejects()) == 4
    assert counts(run(HEAD + good)) == (50, 50, 0, 0)  # the same repeats, from the start
    assert rejects() is None


def big_log(rows, bad_every=0):
    """Rows of some 40 bytes with times a second apart; every n-th has a bad value."""
    values = np.where(np.arange(rows) % (bad_every or rows + 1) == (bad_every or rows + 1) - 1, "x", "1")
    frame = pl.DataFrame({"n": np.arange(rows)}).select(
        user_id=pl.format("user-{}", pl.col("n") % 1000),
        item_id=pl.format("item-{}", pl.col("n") % 777),
        type=pl.lit("view"),
        ts=1_600_000_000 + pl.col("n"),
        value=pl.Series(values),
        text=pl.lit("some words"),
    )
    return frame.write_csv()


def test_a_file_full_of_bad_rows_is_given_up_early(run, rows):
    seen = []
    with pytest.raises(IngestError, match="rows read so far are bad"):
        run(big_log(300_000, bad_every=50), progress=lambda _done, read: seen.append(read))
    assert len(seen) <= 1
    assert rows("select count(*) from events") == [(0,)]


def test_many_batches(run, rows):
    data = big_log(400_000)
    seen = []
    report = run(data, progress=lambda done, read: seen.append((done, read)))
    assert counts(report) == (400_000, 400_000, 0, 0)
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (len(data), 400_000)
    assert (report.users_made, report.stubs_made) == (1000, 777)
    assert rows("select min(log_revision), max(log_revision) from users") == [(1, 1)]
    again = run(data + "user-1,item-1,view,1700000000,1,\n", name="more.csv")
    assert counts(again) == (400_001, 1, 400_000, 0)
    assert rows("select user_id from users where log_revision = 2") == [("user-1",)]


@pytest.fixture
def heard() -> Iterator[None]:
    """Let Ctrl-C be heard, also where the tests run in the background and the shell has had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_rolls_back_and_marks_the_run(run, rows):
    def press(_done, read):
        if read > 150_000:
            signal.raise_signal(signal.SIGINT)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(big_log(400_000), progress=press)
    assert last_run(rows)[:2] == ("interrupted", "interrupted by the user; nothing was stored")
    assert rows("select (select count(*) from events), (select count(*) from users)") == [(0, 0)]
    assert threading.active_count() == before
    assert counts(run(THREE)) == (3, 3, 0, 0)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_cancels_a_statement_that_takes_long(run, rows, database):
    with database.raw() as connection:  # as slow as can be: each row waits
        connection.execute(
            "create function slow() returns trigger language plpgsql as "
            "$$ begin perform pg_sleep(60); return new; end $$"
        )
        connection.execute("create trigger slow before insert on events for each row execute function slow()")
    timer = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])  # as a terminal sends it: to the process
    started = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(THREE)
    timer.join()
    assert time.perf_counter() - started < 60  # not cancelled, the statement would take three times that
    assert last_run(rows)[0] == "interrupted"


def test_a_run_whose_process_died_is_marked_by_the_next(run, rows, database):
    with database.raw() as connection:
        connection.execute(
            "insert into ingest_runs (kind, file, source, state, started_at, rows_read, rows_stored, rows_known, "
            "rows_rejected) values ('events', 'x', 'default', 'running', now(), 0, 0, 0, 0)"
        )
    run(THREE)
    assert [state for (state,) in rows("select state from ingest_runs order by run_id")] == ["interrupted", "done"]


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"", "log.csv", "empty"),
        (b"", "log.jsonl", "empty"),
        (b"", "log.parquet", "empty"),
        (gzip.compress(b"", mtime=0), "log.csv.gz", "empty"),
        (b"user_id,ts\nu,1\n", "log.csv", "nothing fills the field 'type'"),
        (gzip.compress(THREE.encode())[:-12], "log.csv.gz", "cut off"),
        (b"PAR1" + bytes(100), "log.parquet", "not a whole Parquet file"),
    ],
)
def test_files_that_are_refused_are_noted(run, rows, data, name, words):
    with pytest.raises(IngestError, match=words):
        run(data, name=name)
    state, reason, *_ = last_run(rows)
    assert state == "failed"
    assert words in reason


def test_a_gzip_file_cut_after_many_batches_leaves_nothing(run, rows):
    packed = gzip.compress(big_log(250_000).encode(), 1)
    seen = []
    with pytest.raises(IngestError, match="cut off"):
        run(packed[: len(packed) * 9 // 10], name="log.csv.gz", progress=lambda *done: seen.append(done))
    assert seen
    assert rows("select count(*) from events") == [(0,)]


@pytest.mark.parametrize(
    ("data", "name", "line"),
    [
        (THREE[: THREE.index("search") + 3], "log.csv", "4"),
        ('{"user_id":"u","type":"view","ts":1}\n{"user_id":"u","ty', "log.jsonl", "2"),
    ],
)
def test_a_file_cut_in_its_last_line_loses_that_line(run, rejects, data, name, line):
    report = run(data, name=name)
    assert report.rows_rejected == 1
    assert report.rows_stored == report.rows_read - 1
    assert [row["line"] for row in rejects()] == [line]


def test_a_long_text_is_kept_whole(run, rows):
    long = 'A "quoted",\nlong text. ' * 9_000
    run(HEAD + f'u,i,view,1700000000,,"{long.replace(chr(34), chr(34) * 2)}"\n')
    assert len(long) > 200_000
    assert rows("select text from events") == [(long,)]


def test_odd_but_valid_text_arrives_as_it_is(run, rows):
    odd = ["\\.", "\\N", "", " ", '"', "\t", "\r\n", "NULL", "\u2028", "\U0001f3ac", "a\\nb"]
    lines = [
        {"event_id": f"e{n:02}", "user_id": text or "x", "type": "view", "ts": 1, "text": text}
        for n, text in enumerate(odd)
    ]
    assert run(pl.DataFrame(lines).write_ndjson(), name="log.jsonl").rows_stored == len(odd)
    assert [text for (text,) in rows("select text from events order by event_id")] == [text or None for text in odd]
    assert rows("select user_id from events order by event_id")[0] == ("\\.",)


def test_mapping_constants_and_columns_left_out(run, rows):
    report = run(
        "user:token,item,rating,timestamp,page\nu,i,5,881250949,3\n",
        mapping=["user:token=user_id", "item=item_id", "rating=value", "timestamp=ts", "type==rating"],
    )
    assert report.left_out == ("page",)
    assert rows("select user_id, item_id, type, value from events") == [("u", "i", "rating", 5.0)]


def test_events_touch_no_consent(run, rows):
    run("user_id,consent\nu1,false\n", kind="users")
    run(THREE)
    assert rows("select user_id, consent from users order by 1") == [("u1", False), ("u2", True)]


def test_items_replace_stubs_and_the_last_row_wins(run, rows):
    run(THREE)
    items = (
        "item_id,title,categories,price,director,created_at\n"
        "i1,Old,drama|war,9.5,Curtiz,1942-11-26\ni1,Casablanca,war|drama,9.5,Curtiz,1942-11-26\ni3,Three,,,,\n"
    )
    mapping = ["director=attributes.director"]
    report = run(items, kind="items", mapping=mapping)
    assert counts(report) == (3, 2, 1, 0)
    assert rows("select item_id, title, categories, attributes, price, stub from items order by 1") == [
        ("i1", "Casablanca", ["war", "drama"], {"director": "Curtiz"}, 9.5, False),
        ("i2", "i2", [], {}, None, True),
        ("i3", "Three", [], {}, None, False),
    ]
    assert rows("select created_at from items where item_id = 'i1'") == [(datetime(1942, 11, 26, tzinfo=UTC),)]
    assert counts(run(items, kind="items", mapping=mapping)) == (3, 0, 3, 0)
    assert counts(run("item_id,title\ni1,Casablanca\n", kind="items")) == (1, 1, 0, 0)
    assert rows("select categories, price from items where item_id = 'i1'") == [([], None)]


def test_users_change_only_what_their_rows_give(run, rows):
    run(
        '{"user_id":"a","consent":false,"language":"en","attributes":{"age":30}}\n{"user_id":"b"}\n',
        kind="users",
        name="users.jsonl",
    )
    assert rows("select user_id, consent, language, attributes from users order by 1") == [
        ("a", False, "en", {"age": 30}),
        ("b", True, None, {}),
    ]
    report = run("user_id,tz,language\na,Europe/Paris,\na,,fr\nb,,\nc,,\n", kind="users")
    assert counts(report) == (4, 2, 2, 0)
    assert report.users_made == 1
    assert rows("select user_id, consent, language, tz, attributes, log_revision from users order by 1") == [
        ("a", False, "fr", "Europe/Paris", {"age": 30}, 0),
        ("b", True, None, None, {}, 0),
        ("c", True, None, None, {}, 0),
    ]


def test_the_clock_is_the_callers(run, rows):
    data = HEAD + "u,i,view,2024-06-02T00:00:01Z,,\nu,i,view,2024-06-01T00:00:00Z,,\n"
    assert run(data).rows_rejected == 1
    assert run(data, now=NOW + timedelta(seconds=1)).rows_rejected == 0


def test_the_rejects_file_is_not_the_file(run, tmp_path):
    with pytest.raises(IngestError, match="must not be the file itself"):
        run(THREE, rejects_path=tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text(encoding="utf-8") == THREE
