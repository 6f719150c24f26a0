"""Profiles over HTTP: the active one, versions, what changed, and having one written anew."""

import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, text
from starlette.testclient import TestClient

from agent import archive
from agent.contract import Profile
from api.http.documents import Documents
from api.http.routes.profiles import EXAMPLE
from store import corrections, profiles
from store.database import Database
from tests.http_client import http, small, with_key
from tests.small_world import NOW, profiler, wrote

__all__ = ["http", "small", "with_key"]
ANN = "/v1/users/ann/profile"


def problem(answer: httpx.Response, status: int, slug: str) -> str:
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:limner:problem:{slug}"), answer.text
    return str(answer.json()["detail"])


def execute(database: Database, statement: str) -> None:
    with database.session() as session:
        session.execute(text(statement))


@pytest.fixture
def world(small: FastAPI, database: Database) -> Database:
    """The small world, where ann and bob have a profile."""
    wrote(profiler(database), ["ann", "bob"])
    return database


def test_the_example_is_a_profile() -> None:
    profile = Profile.model_validate(EXAMPLE)
    assert json.loads(profile.model_dump_json()) == EXAMPLE


def test_the_active_profile_comes_as_it_is_stored(world: Database, http: TestClient) -> None:
    with world.session() as session:
        stored = archive.from_rows(profiles.load(session, "ann"))
    for _ in range(2):  # the second from memory
        answer = http.get(ANN)
        assert (answer.status_code, Profile.model_validate(answer.json())) == (200, stored)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "private, no-cache"
    wrote(profiler(world, force=True), ["ann"])
    assert http.get(ANN).json()["version"] == 2
    assert http.get("/v1/users/bob/profile").json()["user_id"] == "bob"


def test_the_etag_changes_with_the_profile_and_with_every_correction(world: Database, http: TestClient) -> None:
    def tag() -> str:
        return http.get(ANN).headers["etag"]

    seen = [tag()]
    assert tag() == seen[0]
    with world.session() as session:
        number = corrections.add(session, "ann", "add", "interest", "Tents", NOW)
    seen.append(tag())
    with world.session() as session:
        corrections.undo(session, "ann", number, NOW)
    seen.append(tag())
    wrote(profiler(world), ["ann"])
    seen.append(tag())
    seen.append(http.get("/v1/users/bob/profile").headers["etag"])
    assert len(set(seen)) == len(seen)
    for known in (seen[3], f'"other", W/{seen[3]}', "*"):
        answer = http.get(ANN, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", seen[3])
    assert http.get(ANN, headers={"If-None-Match": seen[0]}).status_code == 200


def test_a_profile_that_is_in_memory_takes_one_query_of_its_own(
    world: Database, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.get(ANN)
    said: list[str] = []
    run = Database.execute

    def note(database: Database, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        said.append(query)
        return run(database, query, parameters)

    monkeypatch.setattr(Database, "execute", note)
    event.listen(world.engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    assert http.get(ANN).status_code == 200
    assert len(said) == 3
    for statement, part in zip(said, ("from api_keys", "insert into audit", "from users"), strict=True):
        assert part in statement


def test_what_is_kept_in_memory_goes_with_the_user_and_with_consent(
    small: FastAPI, world: Database, http: TestClient
) -> None:
    documents: Documents = small.state.limner.documents
    http.get(ANN)
    http.get("/v1/users/bob/profile")
    with world.session() as session:
        ann, bob = (profiles.load(session, user_id).row.profile_id for user_id in ("ann", "bob"))
    assert b'"ann"' in (documents.get("ann", ann) or b"")
    execute(world, "update users set consent = false where user_id = 'ann'")
    execute(world, "delete from users where user_id = 'bob'")
    assert "does not consent to a profile" in problem(http.get(ANN), 403, "no-consent")
    problem(http.get("/v1/users/bob/profile"), 404, "not-found")
    assert (documents.get("ann", ann), documents.get("bob", bob)) == (None, None)


def test_memory_is_bounded_and_holds_one_version_of_a_user() -> None:
    documents = Documents()
    megabyte = b"x" * (1 << 20)
    for n in range(100):
        documents.put(f"user {n}", n, megabyte)
    kept = [n for n in range(100) if documents.get(f"user {n}", n)]
    assert kept == list(range(36, 100))
    documents.put("user 99", 100, b"y" * (65 << 20))
    assert documents.get("user 99", 100) is None
    documents.put("user 98", 101, b"new")
    assert (documents.get("user 98", 101), documents.get("user 98", 98), documents.get("user 98", 101)) == (
        b"new", None, None,
    )  # fmt: skip


@pytest.mark.parametrize("rest", ["", "/versions", "/versions/1", "/diff?from_version=1&to_version=1"])
def test_who_has_no_profile(world: Database, http: TestClient, rest: str) -> None:
    problem(http.get(f"/v1/users/nobody/profile{rest}"), 404, "not-found")
    if rest == "/versions":
        assert http.get("/v1/users/cid/profile/versions").json() == {"items": [], "next": None}
    else:
        assert "no" in problem(http.get(f"/v1/users/cid/profile{rest}"), 404, "not-found")
    execute(world, "update users set consent = false where user_id = 'ann'")
    problem(http.get(f"{ANN}{rest}"), 403, "no-consent")


def test_versions_come_in_pages_the_newest_first(world: Database, http: TestClient) -> None:
    for _ in range(4):
        wrote(profiler(world, force=True), ["ann"])
    found: list[dict[str, Any]] = []
    after, pages = None, 0
    while pages == 0 or after:
        page = http.get(f"{ANN}/versions", params={"limit": 2, **({"after": after} if after else {})}).json()
        found += page["items"]
        after, pages = page["next"], pages + 1
    assert (pages, [(v["version"], v["active"]) for v in found]) == (
        3, [(5, True), (4, False), (3, False), (2, False), (1, False)],
    )  # fmt: skip
    assert (found[0]["writer"], found[0]["model"], found[0]["events_read"]) == ("template", None, 37)
    problem(http.get(f"{ANN}/versions", params={"after": "x"}), 422, "bad-cursor")


def test_an_old_version_stays_readable(world: Database, http: TestClient) -> None:
    first = http.get(ANN).json()
    wrote(profiler(world, language="zh"), ["ann"])
    answer = http.get(f"{ANN}/versions/1")
    assert (answer.json(), http.get(f"{ANN}/versions/2").json()["language"]) == (first, "zh")
    again = http.get(f"{ANN}/versions/1", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304
    assert "version 3" in problem(http.get(f"{ANN}/versions/3"), 404, "not-found")
    for wrong in ("0", "-1", str(1 << 31), "x", "1.5"):
        problem(http.get(f"{ANN}/versions/{wrong}"), 422, "invalid")


def test_two_versions_are_compared(world: Database, http: TestClient) -> None:
    with world.session() as session:
        corrections.add(session, "ann", "add", "interest", "Tents", NOW)
    wrote(profiler(world), ["ann"])
    found = http.get(f"{ANN}/diff", params={"from_version": 1, "to_version": 2}).json()
    assert [(c["before"], c["after"]["name"], c["what"]) for c in found["changes"]] == [(None, "Tents", ["new"])]
    back = http.get(f"{ANN}/diff", params={"from_version": 2, "to_version": 1}).json()
    assert [(c["before"]["name"], c["after"], c["what"]) for c in back["changes"]] == [("Tents", None, ["gone"])]
    problem(http.get(f"{ANN}/diff", params={"from_version": 1}), 422, "invalid")
    problem(http.get(f"{ANN}/diff", params={"from_version": 1, "to_version": 9}), 404, "not-found")


def test_a_profile_whose_events_are_gone_says_so(world: Database, http: TestClient) -> None:
    execute(world, "delete from events where user_id = 'ann'")
    assert "events that are gone" in problem(http.get(ANN), 409, "outdated")
    problem(http.get(f"{ANN}/versions/1"), 409, "outdated")


def test_a_refresh_is_a_job(world: Database, http: TestClient) -> None:
    answer = http.post(f"{ANN}/refresh", json={"writer": "template", "force": True})
    job = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/v1/jobs/{job['job_id']}")
    assert (job["kind"], job["state"], job["total"], job["request"]) == (
        "profiles", "queued", 1, {"users": 1, "writer": "template", "force": True},
    )  # fmt: skip
    assert http.get(answer.headers["location"]).json()["job_id"] == job["job_id"]
    problem(http.post(f"{ANN}/refresh", json={"writer": "poet"}), 422, "invalid")
    problem(http.post("/v1/users/nobody/profile/refresh", json={}), 404, "not-found")
    execute(world, "update users set consent = false where user_id = 'ann'")
    problem(http.post(f"{ANN}/refresh", json={}), 403, "no-consent")


def test_keys(world: Database, with_key: Any) -> None:
    own, other, reader = with_key("self:ann"), with_key("self:bob"), with_key("read")
    for path in ("", "/versions", "/versions/1", "/diff?from_version=1&to_version=1"):
        assert own.get(f"{ANN}{path}").status_code == 200
        assert reader.get(f"{ANN}{path}").status_code == 200
        problem(other.get(f"{ANN}{path}"), 403, "forbidden")
    for client in (own, other, reader):
        problem(client.post(f"{ANN}/refresh", json={}), 403, "forbidden")
    assert with_key("write").post(f"{ANN}/refresh", json={}).status_code == 202
