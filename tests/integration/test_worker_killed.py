"""Workers as processes of their own, killed and stopped in the middle: no profile is lost, doubled or half-written."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from sqlalchemy import insert, text

from agent.check import check_profiles
from agent.contract import Writer
from api import queue
from store import jobs
from store.database import Database
from store.tables import EventRow, UserRow
from tests.command_line import start
from tests.scripted_llm import MODEL, ScriptedLLM, honest, slow
from tests.small_world import fill, ratings

USERS = 200
EVENTS = 16
SETTINGS = {
    "LLM__MODEL": MODEL,
    "LLM__USERS_AT_ONCE": "16",
    "WORKER__HEARTBEAT_S": "1",
    "WORKER__STALLED_S": "2.5",
    "WORKER__GRACE_S": "1",
}

StartWorker = Callable[[], Popen[str]]


def until(holds: Callable[[], bool], seconds: float = 150.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


@pytest.fixture
def crowd(database: Database) -> list[str]:
    """Two hundred users who did what one of the small world did."""
    fill(database, ["ann"])
    ids = [f"user-{n:03}" for n in range(USERS)]
    rows = [row.model_dump() for row in ratings("ann")[:EVENTS]]
    with database.session() as session:
        session.execute(insert(UserRow), [{"user_id": user_id, "log_revision": 1} for user_id in ids])
        copies = [row | {"user_id": i, "event_id": row["event_id"].replace("ann", i)} for i in ids for row in rows]
        session.execute(insert(EventRow), copies)
    return ids


@pytest.fixture
def worker(database_url: str, scripted: ScriptedLLM, tmp_path: Path) -> Iterator[StartWorker]:
    """Start workers; all of them are gone at the end."""
    begun: list[Popen[str]] = []

    def start_one() -> Popen[str]:
        settings = SETTINGS | {"DATABASE_URL": database_url, "LLM__BASE_URL": scripted.url}
        begun.append(start(["worker"], tmp_path, **settings))
        return begun[-1]

    yield start_one
    for process in begun:
        process.kill()
        process.communicate()


def new_job(database: Database, users: list[str], writer: Writer) -> str:
    with database.session() as session:
        return queue.enqueue_profiles(session, users, writer, force=True)


def counts(database: Database, job_id: str) -> dict[str, int]:
    with database.session() as session:
        return jobs.progress(session, job_id).counts


def over(database: Database, job_id: str) -> bool:
    with database.session() as session:
        return jobs.get(session, job_id).finished_at is not None


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.session() as session:
        return [tuple(row) for row in session.execute(text(query))]


def assert_each_has_one_version(database: Database, users: list[str]) -> None:
    """Every user has one version, it is active and follows from its events, and no attempt was left open."""
    found = rows(database, "select user_id, version, active from profiles order by user_id")
    assert found == [(user_id, 1, True) for user_id in users]
    assert sum(done.profiles for done in list(check_profiles(database, users))[-1:]) == len(users)
    assert rows(database, "select user_id from attempts where outcome = 'running'") == []
    claims = "select count(*) from claims c where not exists (select from embeddings where owner_id = c.claim_pk::text)"
    assert rows(database, claims) == [(0,)]


def kill_in_the_middle(database: Database, process: Popen[str], worker_id: object) -> None:
    """Kill a worker while it is at some users of a chunk, others being written already."""
    at_work = f"""
        select count(*) > 0 from queue.procrastinate_jobs q
        join job_items i on i.job_id = q.args->>'job_id' and i.chunk = (q.args->>'chunk')::int and i.state = 'running'
        where q.status = 'doing' and q.worker_id = {worker_id}
          and (select count(*) from job_items where state = 'written') >= {jobs.CHUNK}
    """  # noqa: S608 - our own text

    def caught() -> bool:
        process.send_signal(signal.SIGSTOP)
        if rows(database, at_work) == [(True,)]:
            return True
        process.send_signal(signal.SIGCONT)
        return False

    until(lambda: rows(database, at_work) == [(True,)] and caught())
    process.kill()


@pytest.mark.parametrize(("writer", "count"), [("template", USERS), pytest.param("llm", USERS, marks=pytest.mark.slow)])
def test_a_worker_is_killed_in_the_middle(
    database: Database, crowd: list[str], worker: StartWorker, scripted: ScriptedLLM, writer: Writer, count: int
) -> None:
    users = crowd[:count]
    scripted.reset(slow(0.2, honest))
    doomed = worker()
    alive = "select id from queue.procrastinate_workers order by id"
    until(lambda: len(rows(database, alive)) == 1)
    other = worker()
    until(lambda: len(rows(database, alive)) == 2)
    job_id = new_job(database, users, writer)
    kill_in_the_middle(database, doomed, rows(database, alive)[0][0])
    until(lambda: over(database, job_id))
    assert_each_has_one_version(database, users)
    assert rows(database, "select state from jobs") == [("done",)]
    assert counts(database, job_id) == {"written": count}
    assert rows(database, "select max(attempt) from job_items") == [(2,)]
    left = "select count(*) from queue.procrastinate_jobs where task_name = 'profiles_chunk'"
    until(lambda: rows(database, left) == [(0,)])
    other.send_signal(signal.SIGTERM)
    assert other.wait(60) == 0


def test_a_worker_that_was_thought_dead_comes_back(
    database: Database, crowd: list[str], worker: StartWorker, scripted: ScriptedLLM
) -> None:
    users = crowd[: jobs.CHUNK]
    scripted.reset(slow(2.0, honest))
    frozen = worker()
    job_id = new_job(database, users, "llm")
    until(lambda: scripted.record.under_way >= len(users) // 2)
    time.sleep(0.5)  # all of it waits for the model now, and no unit of work is open
    frozen.send_signal(signal.SIGSTOP)
    scripted.script = honest
    worker()
    until(lambda: over(database, job_id))
    before = rows(database, "select profile_id from profiles order by 1")
    frozen.send_signal(signal.SIGCONT)
    refused = "select count(*) from attempts where outcome = 'failed' and reason like 'Another worker%'"
    until(lambda: rows(database, refused) == [(len(users),)])
    assert rows(database, "select profile_id from profiles order by 1") == before
    assert_each_has_one_version(database, users)
    with database.session() as session:
        items = jobs.items(session, job_id, USERS)
    assert {(item.state, item.version, item.attempt) for item in items} == {("written", 1, 2)}


def test_a_worker_is_asked_to_stop(
    database: Database, crowd: list[str], worker: StartWorker, scripted: ScriptedLLM
) -> None:
    """Users under way are given up when their time is over, and are in the queue again at once."""
    scripted.reset(slow(60.0, honest))
    first = worker()
    job_id = new_job(database, crowd[: jobs.CHUNK], "llm")
    until(lambda: scripted.record.under_way > 0)
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    assert counts(database, job_id) == {"queued": jobs.CHUNK}
    assert rows(database, "select distinct outcome from attempts") == [("interrupted",)]
    scripted.script = honest
    worker()
    until(lambda: over(database, job_id))
    assert_each_has_one_version(database, crowd[: jobs.CHUNK])
