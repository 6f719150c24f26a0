"""Jobs and models over HTTP: made, followed, cancelled; what is done is done by a worker."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

import api.runtime
from api.http.routes import jobs as routes
from api.settings import WorkerSettings
from api.worker import Worker
from store import jobs, models
from store.database import Database
from store.jobs import Outcome
from store.tables import UserRow
from tests.http_client import PROBLEM, http, settings, small, with_key
from tests.small_world import EVERYONE

__all__ = ["http", "small", "with_key"]  # fixtures

MakeClient = Callable[..., TestClient]
ALL = {"kind": "profiles", "users": "all", "writer": "template"}


def work(small: FastAPI, database: Database) -> None:
    """Let a worker do what is to be done."""
    chosen = settings(small.state.limner.settings.home, worker=WorkerSettings(heartbeat_s=1, stalled_s=3))

    async def until_over() -> None:
        worker = Worker(chosen, database)
        running = asyncio.create_task(worker.run())
        try:
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(over):  # noqa: ASYNC110 - what is waited for is in the database
                    await asyncio.sleep(0.05)
        finally:
            worker.stop()
            await running

    def over() -> bool:
        with database.session() as session:
            return session.scalar(text("select count(*) from jobs where finished_at is null")) == 0

    asyncio.run(until_over())


def step(database: Database, job_id: str, state: Any) -> None:
    """End a user of a job as a worker would."""
    with database.session() as session:
        taken = jobs.take(session, job_id, 0, api.runtime.now(), 99)
        first = min(taken)
        jobs.finish(session, job_id, {first: taken[first]}, {first: Outcome(state, "because")}, api.runtime.now())
        jobs.hand_back(session, job_id, taken, "", api.runtime.now())
    with database.session() as session:
        jobs.end_if_over(session, job_id, api.runtime.now())


def events(body: str) -> list[tuple[str, dict[str, Any]]]:
    """Read server-sent events: ids and data."""
    found = []
    for block in body.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            assert fields["event"] == "progress"
            found.append((fields["id"], json.loads(fields["data"])))
    return found


def test_a_job_from_its_making_to_its_end(http: TestClient, small: FastAPI, database: Database) -> None:
    made = http.post("/v1/jobs", json=ALL)
    assert made.status_code == 202
    assert made.headers["location"] == f"/v1/jobs/{made.json()['job_id']}"
    assert made.json() | {"job_id": "", "created_at": ""} == {
        "job_id": "", "kind": "profiles", "state": "queued", "total": 6, "created_at": "", "created_by": None,
        "request": {"users": "all", "writer": "template", "force": False}, "started_at": None, "finished_at": None,
        "reason": None, "model_id": None, "tokens": 0, "eta": None,
        "counts": {"queued": 6, "running": 0, "written": 0, "unchanged": 0, "failed": 0, "cancelled": 0},
    }  # fmt: skip
    work(small, database)
    done = http.get(made.headers["location"]).json()
    assert (done["state"], done["counts"]["written"], done["eta"]) == ("done", 6, None)
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    items = http.get(f"{made.headers['location']}/items").json()["items"]
    assert [(item["user_id"], item["state"], item["version"]) for item in items] == [
        (user_id, "written", 1) for user_id in sorted(EVERYONE)
    ]


def test_listed_users_each_once(http: TestClient, database: Database) -> None:
    made = http.post("/v1/jobs", json=ALL | {"users": ["bob", "ann", "bob"]}).json()
    assert (made["total"], made["request"]["users"]) == (2, 2)
    with database.session() as session:
        stored = session.scalar(text("select string_agg(args::text, '') from queue.procrastinate_jobs"))
    assert "ann" not in stored


def test_what_is_no_job(http: TestClient) -> None:
    bodies: list[dict[str, Any]] = [
        {}, {"kind": "train"}, ALL | {"users": []}, ALL | {"users": "everyone"}, ALL | {"users": [""]},
        ALL | {"users": ["a\0b"]}, ALL | {"users": ["x" * 513]}, ALL | {"writer": "me"}, ALL | {"more": 1},
        ALL | {"users": ["x"] * 10_001}, ALL | {"force": "perhaps"},
    ]  # fmt: skip
    for body in bodies:
        answer = http.post("/v1/jobs", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), body
        assert answer.json()["detail"]
    assert http.get("/v1/jobs").json()["items"] == []


def test_users_who_are_not_there_or_do_not_consent(http: TestClient, database: Database) -> None:
    with database.session() as session:
        session.add(UserRow(user_id="no", consent=False, log_revision=1))
    for user_id in ("no", "nobody", "'; drop table jobs; --"):
        answer = http.post("/v1/jobs", json=ALL | {"users": ["ann", user_id]})
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
    assert http.get("/v1/jobs").json() == {"items": [], "next": None}


def test_unknown_jobs(http: TestClient) -> None:
    for path in ("", "/items", "/progress"):
        assert http.get(f"/v1/jobs/none{path}").status_code == 404
    assert http.post("/v1/jobs/none/cancel").status_code == 404
    assert http.get("/v1/jobs/%00").status_code == 404


def test_jobs_come_in_pages_newest_first(http: TestClient) -> None:
    made = [http.post("/v1/jobs", json=ALL).json()["job_id"] for _ in range(3)]
    first = http.get("/v1/jobs", params={"limit": 2}).json()
    rest = http.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    assert [job["job_id"] for job in first["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None
    assert http.get("/v1/jobs", params={"after": "nonsense!"}).status_code == 422


def test_items_by_state_with_their_reasons(http: TestClient, database: Database) -> None:
    path = f"/v1/jobs/{http.post('/v1/jobs', json=ALL).json()['job_id']}"
    for state in ("failed", "failed", "unchanged"):
        step(database, path[-32:], state)
    failed = http.get(f"{path}/items", params={"state": "failed", "limit": 1}).json()
    assert [(item["user_id"], item["reason"]) for item in failed["items"]] == [("ann", "because")]
    rest = http.get(f"{path}/items", params={"state": "failed", "after": failed["next"]}).json()
    assert [item["user_id"] for item in rest["items"]] == ["bob"]
    assert rest["next"] is None
    assert http.get(f"{path}/items", params={"state": "lost"}).status_code == 422
    now = http.get(path).json()
    assert (now["counts"]["failed"], now["counts"]["unchanged"], now["state"]) == (2, 1, "running")
    assert now["eta"] > now["started_at"]
    with database.session() as session:
        seen = session.scalar(text("select count(*) from audit where action = 'list_job_items'"))
    assert seen == 2  # one row for each person shown


def test_cancelling(http: TestClient, small: FastAPI, database: Database) -> None:
    path = f"/v1/jobs/{http.post('/v1/jobs', json=ALL).json()['job_id']}"
    for _ in range(2):
        cancelled = http.post(f"{path}/cancel")
        assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.json()["counts"]["cancelled"] == 6
    done = f"/v1/jobs/{http.post('/v1/jobs', json=ALL).json()['job_id']}"
    work(small, database)
    refused = http.post(f"{done}/cancel")
    assert (refused.status_code, refused.headers["content-type"]) == (409, PROBLEM)


def test_scopes(with_key: MakeClient) -> None:
    read, write, admin = with_key("read"), with_key("write"), with_key("admin")
    own = with_key("self:ann")
    assert read.post("/v1/jobs", json=ALL).status_code == 403
    made = write.post("/v1/jobs", json=ALL)
    assert made.status_code == 202
    assert made.json()["created_by"] is not None
    path = made.headers["location"]
    assert [read.get(path).status_code, own.get(path).status_code] == [200, 403]
    assert [who.get(f"{path}/items").status_code for who in (read, write, admin, own)] == [403, 200, 200, 403]
    assert read.post(f"{path}/cancel").status_code == 403
    assert read.get("/v1/models").status_code == 200
    assert [who.post("/v1/models", json={}).status_code for who in (read, write, admin)] == [403, 403, 202]
    assert [who.post("/v1/models/1/activate").status_code for who in (write, admin)] == [403, 404]


def test_a_job_is_not_made_twice(http: TestClient) -> None:
    answers = [http.post("/v1/jobs", json=ALL, headers={"Idempotency-Key": "one"}) for _ in range(2)]
    assert answers[0].json()["job_id"] == answers[1].json()["job_id"]
    assert answers[1].headers["location"] == answers[0].headers["location"]
    assert len(http.get("/v1/jobs").json()["items"]) == 1


def test_following_a_job(http: TestClient, database: Database) -> None:
    job_id = http.post("/v1/jobs", json=ALL | {"users": ["ann", "bob"]}).json()["job_id"]

    def go_on() -> None:
        for _ in range(2):
            time.sleep(0.8)
            step(database, job_id, "unchanged")

    worker = threading.Thread(target=go_on)
    worker.start()
    began = time.monotonic()
    answer = http.get(f"/v1/jobs/{job_id}/progress")
    took = time.monotonic() - began
    worker.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = events(answer.text)
    seen = [(data["state"], data["counts"]["unchanged"]) for _, data in told]
    assert seen[0] == ("queued", 0)
    assert seen[-1] == ("done", 2)
    assert ("running", 1) in seen
    assert len({event_id for event_id, _ in told}) == len(told)  # one for each change
    assert len(told) <= 1 + took / routes._EVENT_PAUSE_S


def test_following_goes_on_after_the_last_event(http: TestClient, database: Database) -> None:
    job_id = http.post("/v1/jobs", json=ALL | {"users": ["ann"]}).json()["job_id"]
    step(database, job_id, "unchanged")
    path = f"/v1/jobs/{job_id}/progress"
    ((last, _),) = events(http.get(path).text)
    assert events(http.get(path, headers={"Last-Event-ID": "of old"}).text)[0][0] == last
    known = http.get(path, headers={"Last-Event-ID": last})
    assert (known.status_code, known.content) == (204, b"")  # a browser stays away now


def test_models_are_trained_listed_and_activated(http: TestClient, small: FastAPI, database: Database) -> None:
    assert http.get("/v1/models").json() == {"items": [], "next": None}
    for _ in range(2):
        made = http.post("/v1/models", json={})
        assert (made.status_code, made.json()["kind"]) == (202, "train")
        work(small, database)
    first, second = (row["model_id"] for row in reversed(http.get("/v1/models").json()["items"]))
    assert http.get(made.headers["location"]).json()["model_id"] == second
    page = http.get("/v1/models", params={"limit": 1}).json()
    assert [(row["model_id"], row["active"]) for row in page["items"]] == [(second, True)]
    rest = http.get("/v1/models", params={"limit": 1, "after": page["next"]}).json()
    assert ([row["model_id"] for row in rest["items"]], rest["next"]) == ([first], None)

    activated = http.post(f"/v1/models/{first}/activate")
    assert (activated.status_code, activated.json()["active"]) == (200, True)
    listed = http.get("/v1/models").json()["items"]
    assert [row["model_id"] for row in listed if row["active"]] == [first]
    assert listed[1] == activated.json()
    with database.session() as session:
        assert session.scalars(text("select distinct model_id from factors")).all() == [first]
    assert small.state.limner.recommender().model_id == first


def test_models_that_cannot_be_activated(http: TestClient, small: FastAPI, database: Database) -> None:
    assert http.post("/v1/models/99/activate").status_code == 404
    assert http.post("/v1/models/none/activate").status_code == 422
    http.post("/v1/models", json={"defaults": True})
    work(small, database)
    (model,) = http.get("/v1/models").json()["items"]
    with database.session() as session:
        row = models.get(session, model["model_id"])
        other = models.add_model(session, row.path, row.sha256, row.card | {"embedder": "other"}, row.created_at)
        gone = models.add_model(session, "gone", row.sha256, row.card, row.created_at)
        models.activate(session, model["model_id"])
    refused = [http.post(f"/v1/models/{model_id}/activate") for model_id in (other, gone)]
    assert [answer.status_code for answer in refused] == [409, 503]
    assert [row["active"] for row in http.get("/v1/models").json()["items"]] == [False, False, True]
