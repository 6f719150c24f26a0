"""Rows in bulk over HTTP: stored as `limner ingest` stores them, with the same ids, and told where they are wrong."""

import gzip
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from agent.evidence import DEFAULT_TYPES
from store import revisions
from store.database import Database
from store.ingest import ingest
from store.privacy import hasher
from tests.http_client import PROBLEM, audited, http, problem, shared, small, with_key
from tests.small_world import NOW

__all__ = ["http", "shared", "small", "with_key"]

ROWS: list[dict[str, Any]] = [
    {"user_id": "zoe", "item_id": "m1", "type": "rating", "ts": "2025-03-01T18:00:00+01:00", "value": 5},
    {"user_id": "zoe", "item_id": "new item", "type": "view", "ts": 1_740_000_000, "context": {"device": "phone"}},
    {"user_id": "zoe", "type": "search", "ts": "2025-03-02T18:00:00Z", "text": "cafe\u0301 <b>'; drop table users;--"},
    {"user_id": "yan/你", "item_id": "m1", "type": "view", "ts": "2025-03-01T18:00:00Z"},
    {"user_id": "yan/你", "item_id": "m1", "type": "view", "ts": "2025-03-01T18:00:00Z"},
    {"event_id": "own id", "user_id": "yan/你", "item_id": "m2", "type": "like", "ts": "2025-03-03T18:00:00Z"},
]
NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def stored(database: Database) -> list[tuple[Any, ...]]:
    with database.session() as session:
        query = "select event_id, user_id, item_id, type, ts, ts_offset, value, text, context from events order by 1"
        return [tuple(row) for row in session.execute(text(query))]


def ingested(database: Database, rows: list[Any], folder: Path, source: str) -> int:
    """Ingest a file of these rows as the command does; returns how many were known already."""
    path = folder / "log.jsonl"
    path.write_bytes(lines(rows))
    report = ingest(
        database, "events", path, source=source, known_types=set(DEFAULT_TYPES), now=NOW, hasher=hasher(folder, None),
        rejects_path=folder / "rejects.csv",
    )  # fmt: skip
    return report.rows_known


@pytest.mark.parametrize("as_lines", [False, True])
def test_events_get_the_ids_that_ingest_gives_them(
    http: TestClient,
    database: Database,
    tmp_path: Path,
    as_lines: bool,  # noqa: FBT001
) -> None:
    sent = {"content": lines(ROWS), "headers": NDJSON} if as_lines else {"json": ROWS}
    report = http.post("/v1/events", params={"source": "shop"}, **sent).json()  # type: ignore[arg-type]
    assert report == {
        "rows_read": 6, "rows_stored": 6, "rows_known": 0, "rows_rejected": 0, "rows_dropped": 0, "stubs_made": 1,
        "users_made": 2, "rejected": [],
    }  # fmt: skip
    before = stored(database)
    assert ingested(database, ROWS, tmp_path, "shop") == 6
    assert stored(database) == before
    assert ingested(database, ROWS, tmp_path, "another") == 1  # only the row with an id of its own


def test_the_same_rows_sent_again_change_nothing(http: TestClient, database: Database) -> None:
    http.post("/v1/events", json=ROWS)
    before = stored(database)
    again = http.post("/v1/events", content=lines(ROWS), headers=NDJSON).json()
    assert (again["rows_stored"], again["rows_known"]) == (0, 6)
    assert stored(database) == before


def test_a_request_that_is_repeated_under_its_name_gets_its_report_again(http: TestClient, database: Database) -> None:
    name = {"Idempotency-Key": "load-1"}
    first = http.post("/v1/events", json=ROWS, headers=name).json()
    assert first["rows_stored"] == 6
    again = http.post("/v1/events", json=ROWS, headers=name)
    assert (again.json(), again.headers["idempotent-replay"]) == (first, "true")
    problem(http.post("/v1/events", json=ROWS[:1], headers=name), 409, "idempotency-key")
    problem(http.post("/v1/items", json=ROWS, headers=name), 409, "idempotency-key")
    problem(http.post("/v1/events", params={"source": "x"}, json=ROWS, headers=name), 409, "idempotency-key")
    with database.session() as session:
        assert session.scalar(text("select count(*) from ingest_runs")) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"user_id": "secret-name", "type": "view", "ts": "yesterday"}, "time"),
        ({"user_id": "secret-name", "type": "secret-name'; drop", "ts": 1_740_000_000}, "unknown event type; known"),
        ({"user_id": "secret-name", "type": "secret-name" * 100_000, "ts": 1_740_000_000}, "unknown event type; known"),
        ({"type": "view", "ts": 1_740_000_000}, "user_id is missing"),
        ({"user_id": "secret-name" * 50, "type": "view", "ts": 1_740_000_000}, "longer than 512"),
        ({"user_id": "secret-name", "type": "view", "ts": 1_740_000_000, "value": "secret-name"}, "not a number"),
        ({"user_id": ["secret-name"], "type": "view", "ts": 1_740_000_000}, "wrong type"),
        ({"user_id": "secret-name", "type": "view", "ts": 99_999_999_999}, "future"),
        ({"user_id": "secret-name", "type": "view", "ts": 1_740_000_000, "context": "secret-name"}, "not"),
        ("secret-name", "not a JSON object"),
        (None, "not a JSON object"),
        (7, "not a JSON object"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_told_without_its_content(shared: TestClient, row: Any, reason: str) -> None:
    report = shared.post("/v1/events", json=[ROWS[0], row, ROWS[3]])
    assert report.status_code == 200
    found = report.json()
    assert (found["rows_stored"] + found["rows_known"], found["rows_rejected"]) == (2, 1)
    assert found["rejected"][0]["row"] == 2
    assert reason in found["rejected"][0]["reason"]
    assert "secret-name" not in report.text


def test_wrong_lines_are_told_by_their_number(http: TestClient) -> None:
    body = lines(ROWS[:1]) + b"\n" + b"{broken\n" + b'{"user_id": "\\ud800"}\n' + b'{"a": "\xff"}\n' + lines(ROWS[3:4])
    body += lines([{**ROWS[0], "user_id": "a\0b"}]) + b'{"context": ' + b"[" * 10_000 + b"]" * 10_000 + b"}\n"
    found = http.post("/v1/events", content=body, headers=NDJSON).json()
    assert (found["rows_read"], found["rows_stored"], found["rows_rejected"]) == (7, 2, 5)
    assert sorted(row["row"] for row in found["rejected"]) == [3, 4, 5, 7, 8]
    assert "NUL" in next(row["reason"] for row in found["rejected"] if row["row"] == 7)


def test_at_most_a_hundred_wrong_rows_are_told(http: TestClient) -> None:
    found = http.post("/v1/events", json=[{"user_id": "zoe"}] * 250 + ROWS).json()
    assert (found["rows_rejected"], len(found["rejected"]), found["rows_stored"]) == (250, 100, 6)


def test_rows_that_are_all_wrong_are_a_problem(shared: TestClient) -> None:
    found = problem(shared.post("/v1/events", json=[{"user_id": "nobody-yet"}] * 3), 422, "rejected")
    assert [row["row"] for row in found["rejected"]] == [1, 2, 3]
    problem(shared.get("/v1/users/nobody-yet"), 404)


@pytest.mark.parametrize("path", ["/v1/events", "/v1/items"])
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"{}", "application/json", 422),
        (b'[{"a": "\\u0000"}]', "application/json", 422),
        (b'[{"a": "\\ud800"}]', "application/json", 422),
        (b"[[1]", "application/json", 422),
        (b"[" * 10_000 + b"]" * 10_000, "application/json", 422),
        (b"[" * 10_000 + b"]" * 10_000, "application/x-ndjson", 422),
        (b"", "application/x-ndjson", 422),
        (b'[{"user_id": "x"}]', "application/x-ndjson", 422),
        ("{}".encode("utf-16"), "application/x-ndjson", 422),
        (gzip.compress(lines(ROWS), mtime=0), "application/x-ndjson", 415),
        (b"a,b\n1,2\n", "text/csv", 415),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
def test_bodies_that_hold_no_rows(shared: TestClient, path: str, body: bytes, kind: str, status: int) -> None:
    answer = shared.post(path, content=body, headers={"Content-Type": kind})
    problem(answer, status)
    assert "/tmp" not in answer.text


@pytest.mark.parametrize("source", ["", "a\0b", "x" * 201])
def test_sources_that_cannot_be(shared: TestClient, source: str) -> None:
    problem(shared.post("/v1/events", params={"source": source}, json=ROWS), 422, "invalid")


def test_nothing_of_the_rows_is_left_in_files(http: TestClient, tmp_path: Path) -> None:
    http.post("/v1/events", json=[*ROWS, {"user_id": "secret-name"}])
    http.post("/v1/events", json=[{"user_id": "secret-name"}])
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in found] == ["privacy.key"]


def test_each_user_of_the_rows_is_audited(
    with_key: Callable[..., TestClient], database: Database, tmp_path: Path
) -> None:
    assert with_key("write").post("/v1/events", json=ROWS).status_code == 200
    assert with_key("read").post("/v1/events", json=ROWS).headers["content-type"] == PROBLEM
    subject = hasher(tmp_path, None).subject
    assert {(action, who) for _, action, who in audited(database)} == {
        ("add_events", subject("zoe")),
        ("add_events", subject("yan/你")),
    }


def test_items_are_replaced_and_read(http: TestClient, database: Database) -> None:
    with database.session() as session:
        before = revisions.value(session, "catalogue")
    item = {
        "item_id": "a/b",
        "title": "<i>Ash</i>",
        "categories": ["Mystery"],
        "attributes": {"year": 1994},
        "price": 3,
    }
    report = http.post("/v1/items", json=[item, {"item_id": "m1", "title": "Another"}, {"title": "none"}]).json()
    assert (report["rows_stored"], report["rows_rejected"]) == (2, 1)
    with database.session() as session:
        assert revisions.value(session, "catalogue") > before
    found = http.get("/v1/items/a%2Fb").json()
    assert found == {
        **item, "price": 3.0, "description": None, "image_caption": None, "created_at": None, "stub": False,
    }  # fmt: skip
    replaced = http.get("/v1/items/m1").json()
    assert (replaced["title"], replaced["categories"], replaced["attributes"]) == ("Another", [], {})
    again = http.post("/v1/items", content=lines([item]), headers=NDJSON).json()
    assert (again["rows_stored"], again["rows_known"]) == (0, 1)
    http.post("/v1/events", json=ROWS)
    assert http.get("/v1/items/new%20item").json()["stub"] is True
    problem(http.get("/v1/items/nothing"), 404, "not-found")


def test_all_items_are_listed_once(http: TestClient) -> None:
    seen: list[str] = []
    after = None
    while True:
        page = http.get("/v1/items", params={"limit": 7} | ({"after": after} if after else {})).json()
        seen += [item["item_id"] for item in page["items"]]
        if (after := page["next"]) is None:
            break
    assert len(seen) == 30
    assert seen == sorted(set(seen))


def test_many_rows_at_once_from_many_clients(http: TestClient, database: Database) -> None:
    def send(n: int) -> int:
        rows = [
            {"user_id": f"u{k % 9}", "item_id": f"i{k % 5}", "type": "view", "ts": 1_740_000_000 + k}
            for k in range(n * 100, n * 100 + 200)
        ]
        answer = http.post("/v1/events", json=rows)
        assert answer.status_code == 200, answer.text
        return int(answer.json()["rows_stored"])

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(send, range(20))) == 2_100
    with database.session() as session:
        assert session.scalar(text("select count(*) from events where user_id like 'u_'")) == 2_100


@pytest.mark.parametrize(
    "created_at",
    ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "0000-01-01T00:00:00Z", "2024-01-01T00:00:00+29:00"],
)
def test_times_that_no_calendar_has_in_utc(http: TestClient, created_at: str) -> None:
    found = http.post("/v1/items", json=[{"item_id": "late", "title": "Late", "created_at": created_at}])
    assert found.status_code == 422
    assert [row["row"] for row in found.json()["rejected"]] == [1]
    problem(http.get("/v1/items/late"), 404)


def test_a_number_that_no_store_holds(http: TestClient) -> None:
    refused = http.put("/v1/users/ann", json={"consent": True, "attributes": {"shoes": 10**30}})
    assert "too large" in str(problem(refused, 422))
