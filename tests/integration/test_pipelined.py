"""Profiles of many users: the next are drafted while the model works; nothing is lost, and nothing piles up."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from agent import profiling
from agent.loading import Loaded, load_users
from agent.profiling import Profiler, Report
from agent.unit import Unit
from store.database import Database
from store.errors import StoreError
from store.tables import EventRow, UserRow
from tests import scripted_llm as llm
from tests.scripted_llm import Reply, Request, ScriptedLLM
from tests.small_world import EVERYONE, START, event, fill, profiler, wrote


def rows(database: Database, query: str) -> list[Any]:
    with database.session() as session:
        return list(session.execute(text(query)).all())


def likes(user_id: str, category: str) -> list[EventRow]:
    return [event(user_id, n, "like", f"{category}{n}", START + timedelta(days=n)) for n in range(1, 7)]


def crowd(database: Database, count: int) -> list[str]:
    """The small world, and users who like one group each."""
    fill(database)
    ids = [f"u{n:03}" for n in range(count)]
    with database.session() as session:
        session.add_all(UserRow(user_id=user_id, log_revision=1) for user_id in ids)
        session.flush()
        for n, user_id in enumerate(ids):
            session.add_all(likes(user_id, "mkth"[n % 4]))
    return ids


class Gate:
    """A script that answers once it is opened; `holds` says of which requests."""

    def __init__(self, word: str = "") -> None:
        self.word, self.opened = word, threading.Event()

    def __call__(self, request: Request, n: int) -> Reply:
        closed = self.word in request.text and not self.opened.is_set()
        return (llm.slow(300.0) if closed else llm.honest)(request, n)


async def until(holds: Any, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - a server and a database have no event for it
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks for a few users."""
    monkeypatch.setattr(profiling, "_CHUNK", 2)
    monkeypatch.setattr(profiling, "_INDEXED", 2)


def patient(database: Database, url: str, **settings: Any) -> Profiler:
    """A profiler whose model may take its time."""
    made = profiler(database, url, **settings)
    assert made.llm is not None
    made.llm[0].chat._timeout_s = 60.0  # type: ignore[attr-defined]
    return made


async def interrupted(made: Profiler, users: Sequence[str], when: Any) -> Report:
    """Write until something holds, and cancel then, as Ctrl-C does."""
    report = Report()
    writing = asyncio.create_task(made.write(users, report=report))
    try:
        await until(when)
    finally:
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        if made.llm is not None:
            await made.llm[0].aclose()
    return report


def test_one_slow_user_holds_up_nobody(database: Database, scripted: ScriptedLLM) -> None:
    """With users in chunks of two, all others are written while the first one waits for its words."""
    users = crowd(database, 12)
    gate = Gate("detective")
    slow = [user for n, user in enumerate(users) if n % 4 == 0]
    scripted.reset(gate)
    made = patient(database, scripted.url, users_at_once=4)
    report = asyncio.run(interrupted(made, users, lambda: len(rows(database, "select 1 from profiles")) == 9))
    assert sorted(report.written) == sorted(set(users) - set(slow))
    assert (report.failed, report.unchanged) == ({}, [])


def test_only_a_few_users_are_read_ahead(
    database: Database, scripted: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, read, drafted = crowd(database, 40), list[str](), list[int]()

    def reading(database: Database, ids: Sequence[str], *rest: Any) -> Loaded:
        read.extend(ids)
        return load_users(database, ids, *rest)

    draft = Unit.draft

    def drafting(*given: Any) -> Any:
        drafted.append(threading.get_ident())
        return draft(*given)

    monkeypatch.setattr(profiling, "load_users", reading)
    monkeypatch.setattr(Unit, "draft", drafting)
    scripted.reset(Gate())
    made = patient(database, scripted.url, users_at_once=3)
    asyncio.run(interrupted(made, users, lambda: scripted.record.under_way >= 3 and len(drafted) >= 6))
    assert len(drafted) <= 3 + 3 + 2  # under way, ready, and one in hand on either side
    assert len(read) <= len(drafted) + 3 * 2
    assert threading.get_ident() not in drafted  # the event loop stays free


def test_who_is_interrupted_leaves_nothing_running(database: Database, scripted: ScriptedLLM) -> None:
    users = crowd(database, 10)
    scripted.reset(Gate("detective"))
    made = patient(database, scripted.url, users_at_once=3)
    report = asyncio.run(interrupted(made, users, lambda: scripted.record.under_way == 3))
    assert report.seconds > 0
    ended = rows(database, "select outcome, count(*) from attempts where finished_at is not null group by 1 order by 1")
    assert dict(ended) == {"interrupted": 3, "written": len(report.written)}
    assert rows(database, "select 1 from attempts where finished_at is null or outcome = 'running'") == []
    # And the next run does what is left.
    scripted.reset()
    again = wrote(profiler(database, scripted.url), users)
    assert sorted(again.unchanged) == sorted(report.written)
    assert sorted(again.written) == sorted(set(users) - set(report.written))


def test_a_profile_that_was_being_stored_is_stored(
    database: Database, scripted: ScriptedLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interruption comes while a version is on its way into the store: it gets there, and its attempt says so."""
    users = crowd(database, 1)
    store, begun, go = Profiler._store, threading.Event(), threading.Event()

    def storing(*given: Any) -> int:
        begun.set()
        go.wait(10)
        return store(*given)

    monkeypatch.setattr(Profiler, "_store", storing)

    async def run() -> None:
        made = profiler(database, scripted.url)
        writing = asyncio.create_task(made.write(users))
        await asyncio.to_thread(begun.wait, 30)
        writing.cancel()
        await asyncio.sleep(0.05)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert made.llm is not None
        await made.llm[0].aclose()

    asyncio.run(run())
    assert rows(database, "select user_id from profiles") == [("u000",)]
    assert rows(database, "select outcome, version from attempts") == [("written", 1)]


def test_each_user_is_in_the_report_once(database: Database, scripted: ScriptedLLM) -> None:
    users = crowd(database, 16)
    known = [user for n, user in enumerate(users) if n % 4 == 1]
    wrote(profiler(database, scripted.url), known)
    with database.session() as session:
        session.add(UserRow(user_id="empty"))
    scripted.reset(llm.when(lambda said: "camping" in said, llm.malformed, llm.honest))
    done: list[int] = []

    async def write() -> Report:
        made = profiler(database, scripted.url, users_at_once=3)
        assert made.llm is not None
        try:
            return await made.write([*users, "empty", "nobody"], done.append)
        finally:
            await made.llm[0].aclose()

    report = asyncio.run(write())
    poisoned = [user for n, user in enumerate(users) if n % 4 == 2]
    assert report.unchanged == known
    assert sorted(report.failed) == ["empty", *poisoned]
    assert "no events" in report.failed["empty"]
    assert sorted(report.written) == sorted(set(users) - set(known) - set(poisoned))
    assert sum(done) == len(users) + 1
    assert report.stopped_by is None
    written = {"users": report.written}
    with database.session() as session:
        stored = session.scalar(
            text("select count(*) from claims join profiles using (profile_id) where user_id = any(:users)"), written
        )
    assert report.claims == stored
    assert report.first_try + report.repaired + report.fallback == report.claims  # one each, and no summary of one
    indexed = rows(database, "select count(*) from embeddings where kind = 'claim'")
    assert indexed == rows(database, "select count(*) from claims join profiles using (profile_id) where active")


def test_a_model_that_goes_in_the_middle_leaves_the_rest_untouched(database: Database, scripted: ScriptedLLM) -> None:
    users = crowd(database, 30)
    scripted.reset(llm.then(llm.honest, llm.down, after=12))
    report = wrote(profiler(database, scripted.url, users_at_once=2), users)
    assert report.stopped_by is not None
    assert report.written
    assert 1 <= len(report.failed) <= 2
    begun = {user for (user,) in rows(database, "select user_id from attempts")}
    assert begun == set(report.written) | set(report.failed)
    assert len(begun) < len(users)
    assert rows(database, "select 1 from attempts where outcome = 'running'") == []
    indexed = rows(database, "select count(*) from embeddings where kind = 'claim'")
    assert indexed == rows(database, "select count(*) from claims")


def test_an_error_of_the_store_comes_as_it_is(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database)

    def fails(*_: Any) -> None:
        raise StoreError("The database is gone.")

    for what in ("load_users", "index_claims"):
        with monkeypatch.context() as patched:
            patched.setattr(profiling, what, fails)
            with pytest.raises(StoreError, match="The database is gone"):
                wrote(profiler(database), EVERYONE)
    assert rows(database, "select 1 from attempts where outcome = 'running'") == []
