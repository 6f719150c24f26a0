"""Workers and servers, killed and stopped in the middle: no profile is lost, doubled or half-written."""

import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import Popen
from typing import Self

import httpx
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
    begun = "select count(*) from attempts"
    until(lambda: rows(database, begun) == [(len(users),)] and scripted.record.under_way >= len(users) // 2)
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


REFRESHES, OFTEN = 200, 40  # so many users are refreshed five times each
WRITERS: tuple[Writer, ...] = ("template", "llm", "template")
KILLS = 8
CLIENTS = 4


class Fleet:
    """Two servers and two workers on one database, each of which is killed and started again."""

    def __init__(self, home: Path, settings: dict[str, str], seed: int) -> None:
        self._home, self._settings = home, settings
        ports = [_free_port() for _ in range(2)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._commands = [["serve", "--port", str(port)] for port in ports] + [["worker", "--concurrency", "4"]] * 2
        self._running: dict[int, Popen[str]] = {}
        self._rng = random.Random(seed)  # noqa: S311
        self.kills = 0

    def __enter__(self) -> Self:
        for place in range(len(self._commands)):
            self._start(place)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def kill_each(self, over: Callable[[], bool]) -> None:
        """Kill each of the four equally often, in any order, at any moment after it has come up."""
        order = list(range(len(self._commands))) * (KILLS // len(self._commands))
        self._rng.shuffle(order)
        for place in order:
            self._wait(place)
            time.sleep(self._rng.uniform(0.2, 2.0))
            assert not over(), "a client is done before all were killed"
            self._running[place].kill()
            self._running[place].wait()
            self._start(place)
            self.kills += 1

    def _log(self, place: int) -> Path:
        return self._home / f"{place}.log"

    def _start(self, place: int) -> None:
        with self._log(place).open("w") as out:
            self._running[place] = start(self._commands[place], self._home, out, **self._settings)

    def _wait(self, place: int) -> None:
        until(lambda: any(said in self._log(place).read_text() for said in ("listens at", "takes jobs up")))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def refreshed(http: httpx.Client, urls: list[str], user: str, writer: Writer, rng: random.Random) -> str:
    """Have a profile written anew, whichever server takes it; returns the id of the job that was acknowledged."""
    end = time.monotonic() + 150
    while time.monotonic() < end:
        headers = {"Idempotency-Key": f"{user}-{rng.getrandbits(64)}"}
        for url in rng.sample(urls, 2) * 2:
            try:
                asked = {"writer": writer, "force": True}
                answer = http.post(f"{url}/v1/users/{user}/profile/refresh", json=asked, headers=headers)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 202:
                return str(answer.json()["job_id"])
            # The server that had begun with it was killed: for 30 seconds nobody can say whether it ended.
            assert (answer.status_code, answer.json()["type"]) == (409, "urn:limner:problem:under-way"), answer.text
            break
    raise AssertionError("no server takes it")


def read_while(http: httpx.Client, urls: list[str], users: list[str], over: threading.Event) -> int:
    """Read profiles from either server: each is whole, and never older than one that was read before."""
    rng = random.Random(2)  # noqa: S311
    latest, whole = dict.fromkeys(users, 0), 0
    while not over.is_set():
        user = rng.choice(users)
        try:
            answer = http.get(f"{rng.choice(urls)}/v1/users/{user}/profile")
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        assert answer.status_code == 200 or (answer.status_code == 404 and not latest[user]), answer.text
        if answer.status_code == 200:
            found = answer.json()
            assert found["version"] >= latest[user]
            assert found["interests"]
            assert all(claim["evidence"] for claim in found["interests"])
            latest[user], whole = found["version"], whole + 1
        time.sleep(0.2)
    return whole


@pytest.mark.slow
@pytest.mark.timeout(600)  # a minute and a half on two cores that have little else to do
def test_servers_and_workers_are_killed_at_random(
    database: Database, database_url: str, crowd: list[str], scripted: ScriptedLLM, tmp_path: Path
) -> None:
    users = crowd[:OFTEN]
    scripted.reset(slow(0.1, honest))
    settings = SETTINGS | {"DATABASE_URL": database_url, "LLM__BASE_URL": scripted.url}
    limits = httpx.Limits(max_keepalive_connections=0)  # a kept connection to a dead server says nothing new
    unfinished = "select count(*) from jobs where finished_at is null"
    over = threading.Event()
    with (
        Fleet(tmp_path, settings, seed=1) as fleet,
        httpx.Client(timeout=20, limits=limits) as http,
        ThreadPoolExecutor(CLIENTS + 1) as pool,
    ):

        def client(first: int) -> list[tuple[str, str]]:
            rng = random.Random(first)  # noqa: S311
            acknowledged = []
            for n in range(first, REFRESHES, CLIENTS):
                until(lambda n=n: fleet.kills * REFRESHES >= (n - 5) * KILLS)  # type: ignore[misc]
                user, writer = users[n % OFTEN], WRITERS[n % len(WRITERS)]
                acknowledged.append((refreshed(http, fleet.urls, user, writer, rng), user))
            return acknowledged

        reading = pool.submit(read_while, http, fleet.urls, users, over)
        asking = [pool.submit(client, first) for first in range(CLIENTS)]
        try:
            fleet.kill_each(lambda: any(one.done() and one.result() for one in asking))
            acknowledged = [pair for one in asking for pair in one.result(150)]
            until(lambda: rows(database, unfinished) == [(0,)])
        finally:
            over.set()
        assert reading.result() > OFTEN
    items = rows(database, "select job_id, user_id, state, version from job_items")
    assert {state for _, _, state, _ in items} == {"written"}
    assert rows(database, "select distinct state from jobs") == [("done",)]
    assert len(acknowledged) == REFRESHES
    assert set(acknowledged) <= {(job_id, user) for job_id, user, _, _ in items}
    stored = rows(database, "select user_id, version from profiles order by 1, 2")
    assert sorted((user, version) for _, user, _, version in items) == stored  # type: ignore[type-var]
    times = Counter(user for _, user, _, _ in items)
    assert stored == [(user, version + 1) for user in users for version in range(times[user])]
    active = rows(database, "select user_id, version from profiles where active order by 1")
    assert active == [(user, times[user]) for user in users]
    assert sum(done.profiles for done in list(check_profiles(database, users))[-1:]) == len(users)
    assert rows(database, "select user_id from attempts where outcome = 'running'") == []
    assert rows(database, "select count(*) from job_items where attempt > 1") != [(0,)]  # workers died at work
