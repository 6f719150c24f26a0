"""Who may do what over HTTP, and what is noted of it: keys, rates, audit, log."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from api.http.app import create_app
from store import keys
from store.database import Database
from store.errors import NotFoundError
from store.privacy import hasher
from store.tables import UserRow
from tests.http_client import (
    DECLARATION,
    LOCAL,
    audited,
    client,
    http,
    new_key,
    problem,
    settings,
    shared,
    small,
    with_key,
)
from tests.small_world import NOW

__all__ = ["http", "shared", "small", "with_key"]

Client = Callable[..., TestClient]


def test_the_scopes(with_key: Client, database: Database) -> None:
    reader, writer, admin = with_key("read"), with_key("write"), with_key("admin")
    with database.session() as session:
        session.get_one(UserRow, "ann").consent = False
    for asking in (reader, writer, admin):
        assert asking.get("/v1/users").status_code == 200
        assert asking.get("/v1/users/ann").json()["consent"] is False
        assert asking.get("/v1/users/bob/events").status_code == 200
    problem(reader.put("/v1/users/new", json=DECLARATION), 403, "forbidden")
    assert writer.put("/v1/users/new", json=DECLARATION).status_code == 201
    assert admin.put("/v1/users/new", json=DECLARATION).status_code == 200
    for asking in (reader, writer):
        problem(asking.get("/v1/users/ann/events"), 403, "no-consent")
    assert len(admin.get("/v1/users/ann/events").json()["items"]) > 0


def test_a_key_of_a_users_own(with_key: Client) -> None:
    own = with_key("self:ann")
    assert own.get("/v1/users/ann").status_code == 200
    assert own.get("/v1/users/ann/events").status_code == 200
    for path in ("/v1/users/bob", "/v1/users/bob/events", "/v1/users", "/v1/items", "/v1/users/ann%00"):
        assert own.get(path).status_code in {403, 422}
    problem(own.get("/v1/users/bob"), 403, "forbidden")
    problem(own.put("/v1/users/ann", json=DECLARATION), 403, "forbidden")
    problem(own.post("/v1/events", json=[{}]), 403, "forbidden")


def test_a_revoked_key_is_refused_at_once(small: FastAPI, database: Database) -> None:
    token = new_key(database, "read")
    asking = client(small, token)
    assert asking.get("/v1/items").status_code == 200
    with database.session() as session:
        keys.revoke(session, token.split("_")[1], NOW)
    problem(asking.get("/v1/items"), 401, "unauthorized")
    problem(client(small).get("/v1/items"), 401, "unauthorized")  # the door stays closed


def test_tokens_that_are_none(small: FastAPI, database: Database) -> None:
    token = new_key(database, "read")
    key_id, secret = token.split("_", 2)[1:]
    assert client(small, token).get("/v1/items").status_code == 200
    wrong_secrets = ["", f"{secret}x", secret[:-1]]
    wrong_forms = [f"lim_{key_id}", key_id, "lim__", "", f"LIM_{key_id}_{secret}", "lim_%00_x", "x" * 5_000]
    for wrong in [f"lim_{key_id}_{w}" for w in wrong_secrets] + [f"lim_{'0' * 12}_{secret}", *wrong_forms]:
        problem(client(small, wrong).get("/v1/items"), 401)
    basic = client(small).get("/v1/items", headers={"Authorization": f"Basic {token}"})
    problem(basic, 401)
    odd = client(small).get("/v1/items", headers={"Authorization": b"Bearer lim_\xff_\xff"})
    problem(odd, 401)


def test_the_secret_is_not_stored(database: Database) -> None:
    token = new_key(database, "read")
    with database.session() as session:
        row = keys.list_keys(session)[0]
        assert token.split("_", 2)[2] not in str(row.model_dump())
        with pytest.raises(NotFoundError, match="limner keys list"):
            keys.revoke(session, "nothing", NOW)
        for scopes in ((), ("everything",), ("self:",), ("read", "")):
            with pytest.raises(ValueError, match="scope"):
                keys.create(session, "x", scopes, NOW)


@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("10.0.0.7", {}),
        ("127.0.0.1", {"Host": "evil.example"}),
        ("127.0.0.1", {"Host": "127.0.0.1.evil.example:8000"}),
        ("127.0.0.1", {"Origin": "https://evil.example"}),
        ("127.0.0.1", {"Origin": "null"}),
        ("127.0.0.1", {"Host": "[::1"}),
    ],
)
def test_without_a_key_only_this_machine_is_heard(small: FastAPI, sender: str, headers: dict[str, str]) -> None:
    asking = TestClient(small, LOCAL, client=(sender, 1))
    problem(asking.get("/v1/users", headers=headers), 401)
    assert asking.get("/livez", headers=headers).status_code == 200
    here = TestClient(small, LOCAL, client=("::1", 1))
    for host in ("localhost:8000", "[::1]:8000", "127.0.0.1"):
        assert here.get("/v1/users", headers={"Host": host, "Origin": f"http://{host}"}).status_code == 200


def test_each_key_has_its_own_rate(with_key: Client) -> None:
    slow, other = with_key("read", requests_per_minute=3), with_key("read", requests_per_minute=0)
    assert [slow.get("/v1/items").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = slow.get("/v1/users")
    assert "3 requests a minute" in problem(answer, 429, "rate-limit")["detail"]
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert other.get("/v1/items").status_code == 200


def test_the_default_rate(database: Database, tmp_path: Path) -> None:
    app = create_app(settings(tmp_path, api={"requests_per_minute": 2}), database)
    asking = client(app, new_key(database, "read"))
    assert [asking.get("/v1/items").status_code for _ in range(3)] == [200, 200, 429]


# Audit and log.


def test_every_read_and_change_of_a_person_is_audited(small: FastAPI, database: Database, tmp_path: Path) -> None:
    token = new_key(database, "write")
    key_id = token.split("_")[1]
    asking = client(small, token)
    asking.get("/v1/users/ann")
    asking.get("/v1/users/nobody")
    asking.get("/v1/users/ann/events")
    asking.put("/v1/users/new", json=DECLARATION)
    asking.get("/v1/items")
    asking.get("/v1/users", params={"limit": 2})
    subject = hasher(tmp_path, None).subject
    assert audited(database) == [
        (key_id, "read_user", subject("ann")),
        (key_id, "read_user", subject("nobody")),
        (key_id, "list_user_events", subject("ann")),
        (key_id, "declare_user", subject("new")),
        (key_id, "list_users", subject("ann")),
        (key_id, "list_users", subject("bob")),
    ]


def test_the_log_says_what_was_asked_and_not_of_whom(with_key: Client) -> None:
    asking = with_key("read")
    with capture_logs() as logged:
        asking.get("/v1/users/ann", params={"who": "ann"}, headers={"X-Request-ID": "from-the-client.1"})
        asking.get("/v1/users/ann/nothing")
    first, second = logged
    assert first["route"] == "/v1/users/{user_id}"
    assert (first["method"], first["status"], first["request_id"]) == ("GET", 200, "from-the-client.1")
    assert first["key_id"]
    assert first["milliseconds"] > 0
    assert (second["route"], second["status"]) == (None, 404)
    assert "ann" not in str(logged)


@pytest.mark.parametrize("given", ["short", "x" * 129, "with space here", "ann@example.org", "a\tb......"])
def test_a_request_id_that_is_not_well_formed_is_replaced(shared: TestClient, given: str) -> None:
    made = shared.get("/livez", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)


def test_metrics_count_by_template(http: TestClient) -> None:
    http.get("/v1/users/ann")
    http.get("/v1/users/bo%2Fb")
    http.get("/v1/nothing/ann")
    said = http.get("/metrics").text
    assert 'http_requests_total{handler="/v1/users/{user_id}",method="GET",status="200"} 1.0' in said
    assert 'http_requests_total{handler="/v1/users/{user_id}",method="GET",status="404"} 1.0' in said
    assert "/ann" not in said


def test_readiness(http: TestClient, database: Database) -> None:
    assert http.get("/livez").json()["status"] == http.get("/v1/health").json()["status"] == "alive"
    ready = http.get("/readyz").json()
    assert ready["status"] == "ready"
    assert "limner train" in ready["model"]
    with database.session() as session:
        session.execute(text("update alembic_version set version_num = '0001'"))
    assert "limner db upgrade" in problem(http.get("/v1/ready"), 503, "not-ready")["detail"]
