"""A request that is sent again gets its response again, and is not done again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from api.http.routes import users as user_routes
from store import idempotency
from store.database import Database
from tests.http_client import DECLARATION, audited, client, http, new_key, problem, shared, small, with_key
from tests.small_world import NOW

__all__ = ["http", "shared", "small", "with_key"]

Client = Callable[..., TestClient]


def test_a_repeated_request_gets_its_response_again(http: TestClient, database: Database) -> None:
    name = {"Idempotency-Key": "ann-1"}
    first = http.put("/v1/users/new", json=DECLARATION, headers=name)
    assert (first.status_code, first.headers.get("idempotent-replay")) == (201, None)
    again = http.put("/v1/users/new", json=DECLARATION, headers=name)
    assert (again.status_code, again.headers["idempotent-replay"]) == (201, "true")
    assert (again.json(), again.headers["etag"], again.headers["location"]) == (
        first.json(), first.headers["etag"], first.headers["location"],
    )  # fmt: skip
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    problem(http.put("/v1/users/new", json={"consent": False}, headers=name), 409, "idempotency-key")
    problem(http.put("/v1/users/other", json=DECLARATION, headers=name), 409, "idempotency-key")
    assert http.put("/v1/users/new", json=DECLARATION).status_code == 200
    assert [action for _, action, _ in audited(database)] == ["declare_user", "repeat", "declare_user"]
    with database.session() as session:
        assert "ann-1" not in str(session.execute(text("select * from idempotency")).all())


def test_a_repeated_failure_of_the_clients_is_the_same(http: TestClient) -> None:
    name = {"Idempotency-Key": "x"}
    problem(http.put("/v1/users/new", json={}, headers=name), 422)
    again = http.put("/v1/users/new", json={}, headers=name)
    assert (again.status_code, again.headers["idempotent-replay"]) == (422, "true")
    assert again.json()["type"] == "urn:limner:problem:invalid"


@pytest.mark.parametrize("name", ["", " ", "x" * 256, "ü", "a b"])
def test_names_of_requests_that_cannot_be(shared: TestClient, name: str) -> None:
    answer = shared.put("/v1/users/new", json=DECLARATION, headers={"Idempotency-Key": name.encode()})
    problem(answer, 422, "idempotency-key")


def test_keys_do_not_share_names_of_requests(with_key: Client) -> None:
    one, two, name = with_key("write"), with_key("write"), {"Idempotency-Key": "x"}
    assert one.put("/v1/users/new", json=DECLARATION, headers=name).status_code == 201
    answer = two.put("/v1/users/new", json=DECLARATION, headers=name)
    assert (answer.status_code, "idempotent-replay" in answer.headers) == (200, False)


def test_a_failure_of_ours_is_not_kept(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    name = {"Idempotency-Key": "x"}
    with monkeypatch.context() as patched:
        patched.setattr(user_routes.declared, "declare", lambda *args: 1 / 0)
        problem(http.put("/v1/users/new", json=DECLARATION, headers=name), 500)
    assert http.put("/v1/users/new", json=DECLARATION, headers=name).status_code == 201


def test_a_refusal_is_not_kept(small: FastAPI, database: Database) -> None:
    reader, name = client(small, new_key(database, "read")), {"Idempotency-Key": "x"}
    for _ in range(2):
        answer = reader.put("/v1/users/new", json=DECLARATION, headers=name)
        problem(answer, 403)
        assert "idempotent-replay" not in answer.headers


def test_what_is_under_way_is_not_begun_again(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    declare = user_routes.declared.declare

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return declare(*args)

    monkeypatch.setattr(user_routes.declared, "declare", slow)
    name = {"Idempotency-Key": "x"}
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(http.put, "/v1/users/new", json=DECLARATION, headers=name)
        assert begun.wait(20)
        answer = http.put("/v1/users/new", json=DECLARATION, headers=name)
        problem(answer, 409, "under-way")
        assert answer.headers["retry-after"] == "1"
        go_on.set()
        assert first.result().status_code == 201
    assert http.put("/v1/users/new", json=DECLARATION, headers=name).headers["idempotent-replay"] == "true"


def test_of_many_at_once_one_is_done(http: TestClient, database: Database) -> None:
    ready = threading.Barrier(8)

    def ask(_: int) -> httpx.Response:
        ready.wait()
        return http.put("/v1/users/new", json=DECLARATION, headers={"Idempotency-Key": "x"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    done = [a for a in answers if a.status_code == 201 and "idempotent-replay" not in a.headers]
    assert len(done) == 1
    assert [action for _, action, _ in audited(database)].count("declare_user") == 1


def test_responses_are_kept_for_a_day(database: Database) -> None:
    def begin(now: Any, request: str = "r") -> Any:
        with database.session() as session:
            return idempotency.begin(session, "k", "x", request, "s", now)

    stored = idempotency.Stored(201, {"etag": "1"}, b"body")
    assert begin(NOW) == "begun"
    assert begin(NOW + timedelta(seconds=29)) == "under way"
    later = NOW + timedelta(seconds=31)
    assert begin(later) == "begun"  # the server that began it is dead
    with database.session() as session:
        idempotency.finish(session, "k", "x", NOW, idempotency.Stored(500, {}, b"too late"))
        assert session.scalar(text("select status from idempotency")) is None
        idempotency.finish(session, "k", "x", later, stored)
        idempotency.forget(session, "k", "x", later)  # it is finished: nothing to forget
    assert begin(later + timedelta(hours=23)) == stored
    assert begin(later + timedelta(hours=23), "another") == "other request"
    assert begin(later + timedelta(hours=25), "another") == "begun"
    with database.session() as session:
        idempotency.forget_subject(session, "s")
        assert session.scalar(text("select count(*) from idempotency")) == 1  # what is under way stays
        idempotency.finish(session, "k", "x", later + timedelta(hours=25), stored)
        idempotency.forget_subject(session, "s")
        assert session.scalar(text("select count(*) from idempotency")) == 0


def test_signs_of_life_keep_a_request_under_way(database: Database) -> None:
    def begin(seconds: int) -> Any:
        with database.session() as session:
            return idempotency.begin(session, "k", "x", "r", None, NOW + timedelta(seconds=seconds))

    def beat(begun_at: Any, seconds: int) -> Any:
        return idempotency.beat(database, "k", "x", begun_at, NOW + timedelta(seconds=seconds))

    assert begin(0) == "begun"
    alive = beat(beat(NOW, 25), 50)
    assert alive == NOW + timedelta(seconds=50)
    assert begin(79) == "under way"
    assert begin(81) == "begun"
    assert beat(alive, 82) == alive  # too late: another has begun it
    with database.session() as session:
        idempotency.finish(session, "k", "x", alive, idempotency.Stored(201, {}, b"too late"))
    assert begin(100) == "under way"
    assert begin(112) == "begun"


def test_a_request_that_takes_long_is_kept(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    beaten, declare, beat = threading.Event(), user_routes.declared.declare, idempotency.beat

    def slow(*args: Any) -> Any:
        assert beaten.wait(20)
        return declare(*args)

    def told(*args: Any) -> Any:
        alive = beat(*args)
        beaten.set()
        return alive

    monkeypatch.setattr(idempotency, "BEAT_S", 0.01)
    monkeypatch.setattr(idempotency, "beat", told)
    monkeypatch.setattr(user_routes.declared, "declare", slow)
    name = {"Idempotency-Key": "x"}
    assert http.put("/v1/users/new", json=DECLARATION, headers=name).status_code == 201
    assert http.put("/v1/users/new", json=DECLARATION, headers=name).headers["idempotent-replay"] == "true"


def test_without_consent_no_response_is_given_again(http: TestClient) -> None:
    name = {"Idempotency-Key": "x"}
    http.put("/v1/users/ann", json=DECLARATION, headers=name)
    http.put("/v1/users/ann", json={"consent": False})
    answer = http.put("/v1/users/ann", json={"consent": False}, headers=name)
    assert (answer.status_code, "idempotent-replay" in answer.headers) == (200, False)
