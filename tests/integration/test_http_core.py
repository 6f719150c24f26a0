"""What holds for every route: problems, wrong input, ETags and pages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from api.http import paging
from api.http.app import create_app
from api.http.routes import users as user_routes
from store.database import Database
from store.tables import UserRow
from tests.http_client import DECLARATION, PROBLEM, client, http, new_key, operations, problem, settings, shared, small
from tests.small_world import EVERYONE, profiler, wrote

__all__ = ["http", "shared", "small"]

Client = Callable[..., TestClient]
DEEP = "[" * 10_000 + "]" * 10_000


def test_every_route_needs_a_key_with_the_right_scope(small: FastAPI, database: Database) -> None:
    stranger, nobody = client(small, new_key(database, "self:someone")), client(small)
    count = 0
    for method, path, operation in operations(small):
        assert operation["security"][0]["HTTPBearer"][0] in {"read", "write", "admin"}, path
        answer = nobody.request(method, path)
        problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        problem(stranger.request(method, path, json={}), 403, "forbidden")
        count += 1
    assert count >= 8


def shows_an_example(models: dict[str, Any], part: Any, seen: frozenset[str] = frozenset()) -> bool:
    """Tell whether a part of a description holds an example, in the models that it names too."""
    if isinstance(part, list):
        return any(shows_an_example(models, inner, seen) for inner in part)
    if not isinstance(part, dict):
        return False
    if {"example", "examples"} & part.keys():
        return True
    name = str(part.get("$ref", "")).removeprefix("#/components/schemas/")
    if name and name not in seen:
        return shows_an_example(models, models[name], seen | {name})
    return any(shows_an_example(models, inner, seen) for inner in part.values())


def test_every_route_documents_its_problems_and_shows_an_example(small: FastAPI) -> None:
    models = small.openapi()["components"]["schemas"]
    wrong = []
    for method, path, operation in operations(small):
        responses = operation["responses"]
        good = {status: told for status, told in responses.items() if status[0] == "2"}
        bad = {status: told for status, told in responses.items() if status[0] in "45"}
        parser = bad.pop("400", None)  # of HTTP; it answers before any of our code does
        told = {
            "summary": operation.get("summary"),
            "tag": operation.get("tags"),
            "statuses": good and {"401", "403", "422", "429", "503"} <= bad.keys(),
            "problems": all(list(told["content"]) == [PROBLEM] for told in bad.values()),
            "parser": parser is None or list(parser["content"]) == ["text/plain"],
            "answers": all(shows_an_example(models, told["content"]) for told in good.values() if "content" in told),
            "body": "requestBody" not in operation or shows_an_example(models, operation["requestBody"]),
        }
        wrong += [f"{method} {path}: {name}" for name, well in told.items() if not well]
    assert wrong == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"consent": true', "application/json", 422),
        (DEEP.encode(), "application/json", 422),
        (b'{"a": ' * 10_000 + b"1" + b"}" * 10_000, "application/json", 422),
        (json.dumps({"attributes": json.loads("[" * 200 + "]" * 200)}).encode(), "application/json", 422),
        (b'{"attributes": {"a": "\\u0000"}, "text": "\\u0000"}', "application/json", 422),
        (b'{"attributes": {"a": "\\ud800"}}', "application/json", 422),
        (b'{"a": "\xed\xa0\x80"}', "application/json", 422),
        (b'{"a": NaN}', "application/json", 422),
        (b'"text"', "application/json", 422),
        (b"7", "application/json", 422),
        (b"null", "application/json", 422),
        (b"[[], 7, null]", "application/json", 422),
        (b'{"a": %s}' % (b"9" * 5_000), "application/json", 422),
        (b"<consent/>", "application/xml", 415),
        (b"consent=true", "application/x-www-form-urlencoded", 415),
        (b"{}", "text/plain", 415),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
def test_wrong_bodies_are_problems_on_every_route(shared: TestClient, body: bytes, kind: str, status: int) -> None:
    for method, path, operation in operations(shared.app):  # type: ignore[arg-type]
        if "requestBody" in operation:
            problem(shared.request(method, path, content=body, headers={"Content-Type": kind}), status)


def test_a_compressed_body_is_refused(shared: TestClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(shared.put("/v1/users/x", content=b"\x1f\x8b", headers=headers), 415)


def test_an_overlong_body_is_refused_however_it_comes(database: Database, tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, api={"max_body_mib": 1}), database)
    small, large = b" " * 1_000 + json.dumps(DECLARATION).encode(), b" " * (1 << 20) + json.dumps(DECLARATION).encode()
    headers = {"Content-Type": "application/json"}
    asking = client(app)
    assert asking.put("/v1/users/x", content=small, headers=headers).status_code == 201
    for method, path, operation in operations(app):
        if "requestBody" in operation:
            problem(asking.request(method, path, content=large, headers=headers), 413, "too-large")
            chunks = (large[n : n + 65_536] for n in range(0, len(large), 65_536))
            answer = asking.request(method, path, content=chunks, headers=headers)
            assert "content-length" not in answer.request.headers
            problem(answer, 413, "too-large")


def test_unknown_routes_and_methods_are_problems(shared: TestClient) -> None:
    for path in ("/nothing", "/v1/nothing", "/v1/users/ann/nothing", "/v1/users/", "/v1//users"):
        problem(shared.get(path), 404, "unknown-route")
    answer = shared.delete("/v1/items")
    problem(answer, 405, "method")
    assert answer.headers["allow"] == "GET, POST"
    assert shared.patch("/v1/users/ann").headers["allow"] == "DELETE, GET, PUT"


@pytest.mark.parametrize("user_id", ["a%00b", "%ED%A0%80", "%FF", "x" * 513, "%E4%BD" * 2, "%2E", "%2e%2E"])
def test_ids_that_cannot_be_are_problems(shared: TestClient, user_id: str) -> None:
    problem(shared.get(f"/v1/users/{user_id}"), 422, "invalid")
    problem(shared.get(f"/v1/users/{user_id}/events"), 422, "invalid")
    problem(shared.put(f"/v1/users/{user_id}", json=DECLARATION), 422, "invalid")
    problem(shared.get(f"/v1/items/{user_id}"), 422, "invalid")


@pytest.mark.parametrize(
    ("encoded", "user_id"),
    [
        ("a%2Fb%2F", "a/b/"),
        ("%252F", "%2F"),
        ("'%3B%20drop%20table%20users%3B--", "'; drop table users;--"),
        ("%3Cscript%3Ealert(1)%3C%2Fscript%3E", "<script>alert(1)</script>"),
        ("%E4%BD%A0%E5%A5%BD%F0%9F%8C%8A", "你好🌊"),
        ("x" * 512, "x" * 512),
        ("%20%3F%23%25", " ?#%"),
    ],
)
def test_an_id_is_any_text(shared: TestClient, encoded: str, user_id: str) -> None:
    made = shared.put(f"/v1/users/{encoded}", json={**DECLARATION, "attributes": {"said": user_id}})
    assert made.status_code == 201
    assert made.json()["user_id"] == user_id
    found = shared.get(made.headers["location"])
    assert found.json() == {"user_id": user_id, **DECLARATION, "attributes": {"said": user_id}}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=many", "limit=99999999999999999999", "after=!", "after=eA", "after=WzFd"]
)
def test_wrong_queries_are_problems(shared: TestClient, query: str) -> None:
    for path in ("/v1/users", "/v1/items", "/v1/users/ann/events"):
        problem(shared.get(f"{path}?{query}"), 422)


def test_a_cursor_out_of_range_is_a_problem(shared: TestClient) -> None:
    for key in ((1 << 62, "x"), (-(1 << 62), "x"), (0, "\0"), ("0", "x"), (True, "x"), (0,)):
        problem(shared.get("/v1/users/ann/events", params={"after": paging.encode(key)}), 422, "bad-cursor")
    assert shared.get("/v1/users/ann/events", params={"after": paging.encode((-(1 << 40), "x"))}).json()["items"] == []


def test_an_error_of_ours_tells_nothing_of_the_inside(
    small: FastAPI, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **more: Any) -> None:
        raise RuntimeError("secret of ann")

    monkeypatch.setattr(user_routes.declared, "read", fail)
    with capture_logs() as logged:
        found = problem(http.get("/v1/users/ann"), 500, "internal")
    assert "secret" not in str(found)
    told = next(line for line in logged if line["event"] == "failed")
    assert told["error"] == ["RuntimeError"]
    assert "secret" not in str(logged)
    assert told["request_id"] in found["instance"]


def test_etags(http: TestClient) -> None:
    first = http.put("/v1/users/new", json=DECLARATION).headers["etag"]
    assert http.get("/v1/users/new").headers["etag"] == first
    for header in (first, f"W/{first}", f'"other", {first}', "*"):
        answer = http.get("/v1/users/new", headers={"If-None-Match": header})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", first)
    assert http.get("/v1/users/new", headers={"If-None-Match": '"other"'}).status_code == 200
    changed = http.put("/v1/users/new", json={"consent": True}, headers={"If-Match": first})
    assert changed.status_code == 200
    assert changed.headers["etag"] != first
    problem(http.put("/v1/users/new", json=DECLARATION, headers={"If-Match": first}), 412, "stale")
    problem(http.put("/v1/users/absent", json=DECLARATION, headers={"If-Match": "*"}), 412, "stale")
    assert http.get("/v1/users/new").json()["attributes"] == {}
    problem(http.get("/v1/users/absent"), 404, "not-found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"consent": None},
        {"consent": True, "tz": "Mars/Olympus"},
        {"consent": True, "language": "english please"},
        {"consent": True, "attributes": []},
        {"consent": True, "attributes": {"a": "x" * 1_000_001}},
        {"consent": True, "name": "Ann"},
        [],
    ],
)
def test_declarations_that_cannot_be(shared: TestClient, body: Any) -> None:
    assert problem(shared.put("/v1/users/new", json=body), 422, "invalid")["errors"]
    problem(shared.get("/v1/users/new"), 404)


def test_pages_show_each_row_once_while_rows_come(http: TestClient, database: Database) -> None:
    def add(*ids: str) -> None:
        with database.session() as session:
            session.add_all(UserRow(user_id=user_id) for user_id in ids)

    before = [f"u{n:04}" for n in range(0, 1_000, 2)]
    add(*before)
    seen: list[str] = []
    after: str | None = None
    page = 0
    while True:
        answer = http.get("/v1/users", params={"limit": 37} | ({"after": after} if after else {})).json()
        seen += [user["user_id"] for user in answer["items"]]
        if (after := answer["next"]) is None:
            break
        page += 1
        add(f"u{page * 20 + 1:04}", f"a-{page}", f"z-{page}")
    assert page >= 13
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert set(before) | set(EVERYONE) <= set(seen)


def test_events_come_newest_first_in_pages_of_any_size(http: TestClient, database: Database) -> None:
    rows = [{"user_id": "tie", "type": "view", "item_id": f"i{n}", "ts": 1_700_000_000 + n // 7} for n in range(50)]
    assert http.post("/v1/events", json=rows).json()["rows_stored"] == 50
    everything = http.get("/v1/users/tie/events", params={"limit": 200}).json()
    assert everything["next"] is None
    assert len({event["event_id"] for event in everything["items"]}) == 50
    times = [event["ts"] for event in everything["items"]]
    assert times == sorted(times, reverse=True)
    for limit in (1, 7, 49, 50):
        seen: list[dict[str, Any]] = []
        after = None
        while True:
            page = http.get(
                "/v1/users/tie/events", params={"limit": limit} | ({"after": after} if after else {})
            ).json()
            assert len(page["items"]) <= limit
            seen += page["items"]
            if (after := page["next"]) is None:
                break
        assert seen == everything["items"]


def test_the_list_of_users_tells_of_profiles_only_with_consent(http: TestClient, database: Database) -> None:
    wrote(profiler(database), ["ann", "bob"])
    with database.session() as session:
        session.get_one(UserRow, "bob").consent = False
    shown = {user["user_id"]: user for user in http.get("/v1/users").json()["items"]}
    assert shown["ann"] == {"user_id": "ann", "consent": True, "profile_version": 1}
    assert shown["bob"] == {"user_id": "bob", "consent": False, "profile_version": None}
    assert shown["cid"] == {"user_id": "cid", "consent": True, "profile_version": None}
