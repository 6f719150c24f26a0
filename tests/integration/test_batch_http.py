"""Runs over HTTP: the selections that a job takes, and its report."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

import api.runtime
from agent.keys import Recipe
from api import batch, queue
from store import jobs, runs
from store.database import Database
from tests.http_client import audited, http, problem, small, with_key
from tests.small_world import EVERYONE, NOW, FakeEmbedder

__all__ = ["http", "small", "with_key"]  # fixtures


def asked(http: TestClient, **given: Any) -> dict[str, Any]:
    answer = http.post("/v1/jobs", json={"kind": "profiles", "users": "all", "writer": "template"} | given)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def users_of(http: TestClient, job: dict[str, Any]) -> list[str]:
    return [item["user_id"] for item in http.get(f"/v1/jobs/{job['job_id']}/items").json()["items"]]


def work(small: FastAPI, database: Database, job: dict[str, Any]) -> None:
    batch.resume(small.state.limner.settings, database, job["job_id"], lambda gauge: None)


def test_a_job_takes_the_selections_of_the_command(http: TestClient, small: FastAPI, database: Database) -> None:
    with database.session() as session:
        session.execute(text("""update users set attributes = '{"country": "se"}' where user_id in ('ann', 'bob')"""))
    swedes = asked(http, where={"country": "se"})
    assert users_of(http, swedes) == ["ann", "bob"]
    assert swedes["request"] == {"users": "all", "where": {"country": "se"}, "writer": "template", "force": False}
    assert users_of(http, asked(http, users=["bob", "cid", "nobody"], where={"country": "se"})) == ["bob"]
    assert users_of(http, asked(http, changed=True)) == sorted(EVERYONE)  # nobody has a profile
    work(small, database, swedes)
    assert users_of(http, asked(http, changed=True)) == sorted({*EVERYONE} - {"ann", "bob"})
    later = api.runtime.now() + timedelta(hours=1)
    assert users_of(http, asked(http, older_than=later.isoformat())) == ["ann", "bob"]
    assert asked(http, changed_since=later.isoformat())["state"] == "done"  # there is nobody
    assert asked(http, users=["ann"])["request"] == {"users": 1, "writer": "template", "force": False}


def test_a_job_by_policy(http: TestClient, small: FastAPI, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(settings: Any, writer: str, opened: Database) -> Recipe:
        return Recipe.of(settings.evidence_settings, FakeEmbedder.name, settings.language)

    monkeypatch.setattr(api.runtime, "recipe", recipe)
    work(small, database, asked(http, users=["ann"]))
    job = asked(http, policy=True)
    assert users_of(http, job) == sorted({*EVERYONE} - {"ann"})
    assert job["request"]["policy"] is True


def test_wrong_selections(http: TestClient) -> None:
    for wrong in (
        {"changed_since": "yesterday"},
        {"changed_since": "2025-01-01T00:00"},
        {"older_than": 0},
        {"where": {"a": 1}},
        {"x": 1},
    ):
        answer = http.post("/v1/jobs", json={"kind": "profiles", "users": "all"} | wrong)
        problem(answer, 422)


def test_the_report_of_a_job(http: TestClient, small: FastAPI, database: Database) -> None:
    job = asked(http, users=["ann", "bob"])
    before = http.get(f"/v1/jobs/{job['job_id']}/report").json()
    assert (before["state"], before["counts"], before["quality"]) == ("queued", {"queued": 2}, None)
    work(small, database, job)
    found = http.get(f"/v1/jobs/{job['job_id']}/report").json()
    assert found["counts"] == {"written": 2}
    assert found["quality"]["profiles"] == 2
    assert found["quality"]["first_try"] is None  # no model was asked
    assert {slow["user_id"] for slow in found["slowest"]} == {"ann", "bob"}
    assert sum(action == "report_job" for _, action, _ in audited(database)) == 2
    problem(http.get("/v1/jobs/none/report"), 404)
    with database.session() as session:
        training = queue.enqueue_training(session)
    assert "has no report" in problem(http.get(f"/v1/jobs/{training}/report"), 409)["detail"]


def test_a_report_names_users_and_wants_the_scope_for_that(http: TestClient, with_key: Any) -> None:
    job = asked(http, users=["ann"])
    problem(with_key("read").get(f"/v1/jobs/{job['job_id']}/report"), 403)
    assert with_key("read", "write").get(f"/v1/jobs/{job['job_id']}/report").status_code == 200


def killed(database: Database) -> str:
    """A run that a command has begun, and whose process is gone with a user under way."""
    with database.session() as session:
        request = {"users": 2, "writer": "template", "force": False, "runner": "command"}
        job_id = jobs.create(session, "profiles", request, NOW, None, ["ann", "bob"]).job_id
        jobs.take(session, job_id, 0, NOW, 1)
    return job_id


def queued(database: Database) -> Any:
    with database.session() as session:
        return session.scalar(text("select count(*) from queue.procrastinate_jobs where status = 'todo'"))


def test_a_killed_run_is_left_to_the_workers(http: TestClient, small: FastAPI, database: Database) -> None:
    path = f"/v1/jobs/{killed(database)}"
    with runs.claim(database, path.rpartition("/")[2]):
        assert "at work" in problem(http.post(f"{path}/resume"), 409)["detail"]
    assert queued(database) == 0
    for _ in range(2):  # the second time it is theirs already
        assert http.post(f"{path}/resume").json()["state"] == "running"
        assert queued(database) == 1
    work(small, database, http.get(path).json())
    assert http.get(path).json()["counts"]["written"] == 2
    assert "nothing left to resume" in problem(http.post(f"{path}/resume"), 409)["detail"]
    problem(http.post("/v1/jobs/none/resume"), 404)


def test_a_killed_run_is_cancelled_to_the_end(http: TestClient, database: Database) -> None:
    found = http.post(f"/v1/jobs/{killed(database)}/cancel").json()
    assert (found["state"], found["counts"]["cancelled"]) == ("cancelled", 2)
    assert found["finished_at"]
