"""The worker, in the tests' own process: what it does with jobs, and where it stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import api.runtime
import api.training
from api import queue
from api.settings import BatchSettings, LlmSettings, Settings, WorkerSettings
from api.worker import Worker
from store import jobs, models, revisions, units
from store.database import Database
from store.tables import ItemRow, JobRow
from tests.scripted_llm import MODEL, ScriptedLLM, down, honest, slow
from tests.small_world import EVERYONE, START, FakeEmbedder, event, fill

QUICK = WorkerSettings(heartbeat_s=1, stalled_s=3, tries=3, pause_s=0.05, grace_s=0.2)


@pytest.fixture
def settings(scripted: ScriptedLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    llm = LlmSettings(base_url=scripted.url, model=MODEL, timeout_s=0.5, users_at_once=2)
    return Settings(home=tmp_path, llm=llm, worker=QUICK, batch=BatchSettings(concurrency=4))


@asynccontextmanager
async def at_work(settings: Settings, database: Database, concurrency: int = 1) -> AsyncIterator[Worker]:
    worker = Worker(settings, database)
    running = asyncio.create_task(worker.run(concurrency))
    try:
        yield worker
    finally:
        worker.stop()
        await asyncio.wait_for(running, 30)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in the database
            await asyncio.sleep(0.02)


def job(database: Database, job_id: str) -> JobRow:
    with database.session() as session:
        return jobs.get(session, job_id)


async def ended(database: Database, job_id: str) -> JobRow:
    await until(lambda: job(database, job_id).finished_at is not None)
    return job(database, job_id)


def items(database: Database, job_id: str) -> dict[str, tuple[str, str | None, int | None]]:
    with database.session() as session:
        return {item.user_id: (item.state, item.reason, item.version) for item in jobs.items(session, job_id, 999)}


def write(database: Database, writer: Any = "template", users: Any = "all", **given: Any) -> str:
    with database.session() as session:
        return queue.enqueue_profiles(session, users, writer, **given)


def scalar(database: Database, query: str) -> Any:
    with database.session() as session:
        return session.scalar(text(query))


async def test_profiles_are_written_indexed_and_audited(settings: Settings, database: Database) -> None:
    fill(database)
    first = write(database, created_by="key1")
    async with at_work(settings, database):
        assert (await ended(database, first)).state == "done"
        again, forced = write(database), write(database, users=["ann"], force=True)
        await ended(database, again)
        await ended(database, forced)
    assert items(database, first) == dict.fromkeys(EVERYONE, ("written", None, 1))
    assert items(database, again) == dict.fromkeys(EVERYONE, ("unchanged", None, None))
    assert items(database, forced) == {"ann": ("written", None, 2)}
    claims = scalar(database, "select count(*) from claims join profiles using (profile_id) where active")
    assert scalar(database, "select count(*) from embeddings where kind = 'claim'") == claims > 6
    audited = scalar(
        database, "select count(distinct subject_hash) from audit where action = 'write_profile' and key_id = 'key1'"
    )
    assert audited == len(EVERYONE)
    assert scalar(database, "select count(*) from queue.procrastinate_jobs where task_name = 'profiles_chunk'") == 0


async def test_the_model_is_asked_and_paid_for(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    fill(database)
    job_id = write(database, "llm")
    async with at_work(settings, database):
        made = await ended(database, job_id)
    assert made.result["counts"] == {"written": len(EVERYONE)}
    spent = scalar(database, "select sum(tokens_in + tokens_out) from llm_calls")
    assert made.result["tokens"] == spent > 0
    assert scripted.requests


async def test_a_user_that_fails_does_not_touch_the_others(
    settings: Settings, database: Database, scripted: ScriptedLLM
) -> None:
    fill(database, ["ann", "bob"])
    with database.session() as session:
        session.execute(text("insert into users (user_id, log_revision) values ('empty', 1), ('gone', 1)"))
    job_id = write(database)
    with database.session() as session:
        session.execute(text("delete from users where user_id = 'gone'"))
    async with at_work(settings, database):
        assert (await ended(database, job_id)).state == "done"
    found = items(database, job_id)
    assert {user: state for user, (state, _, _) in found.items()} == {
        "ann": "written", "bob": "written", "empty": "failed", "gone": "failed",
    }  # fmt: skip
    assert "no events" in (found["empty"][1] or "")
    assert "gone" in (found["gone"][1] or "")


async def test_a_model_that_comes_back(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    fill(database)
    scripted.reset(down)
    job_id = write(database, "llm")
    async with at_work(settings, database):
        await until(lambda: scalar(database, "select count(*) from attempts where outcome = 'failed'") > 0)
        scripted.script = honest
        made = await ended(database, job_id)
    assert (made.state, made.result["counts"]) == ("done", {"written": len(EVERYONE)})
    assert scalar(database, "select max(version) from profiles") == 1


async def test_a_model_that_stays_away(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    fill(database)
    scripted.reset(down)
    job_id = write(database, "llm")
    async with at_work(settings, database):
        made = await ended(database, job_id)
    assert (made.state, made.reason) == ("failed", "Every item failed; the items say why.")
    found = items(database, job_id)
    assert set(found) == set(EVERYONE)
    assert {reason for _, reason, _ in found.values()} == {
        "the model's server has broken the connection off (ServerDisconnectedError)"
    }
    with database.session() as session:
        assert {item.attempt for item in jobs.items(session, job_id, 99)} == {QUICK.tries}


async def test_cancelling_ends_after_the_users_under_way(
    settings: Settings, database: Database, scripted: ScriptedLLM
) -> None:
    fill(database)
    scripted.reset(slow(0.3, honest))
    job_id = write(database, "llm")
    async with at_work(settings, database):
        await until(lambda: scripted.record.under_way > 0)
        with database.session() as session:
            jobs.cancel(session, job_id, api.runtime.now())
        made = await ended(database, job_id)
    assert made.state == "cancelled"
    counts = made.result["counts"]  # two were under way, and two more may have begun before it was noticed
    assert counts in ({"written": 2, "cancelled": 4}, {"written": 4, "cancelled": 2})


async def test_a_stopped_worker_hands_back_at_once(
    settings: Settings, database: Database, scripted: ScriptedLLM
) -> None:
    fill(database)
    scripted.reset(slow(30.0, honest))
    patient = settings.model_copy(update={"llm": settings.llm.model_copy(update={"timeout_s": 60.0})})
    job_id = write(database, "llm")
    async with at_work(patient, database):
        await until(lambda: scripted.record.under_way > 0)
    assert {state for state, _, _ in items(database, job_id).values()} == {"queued"}
    assert scalar(database, "select status from queue.procrastinate_jobs where task_name = 'profiles_chunk'") == "todo"
    assert scalar(database, "select count(*) from attempts where outcome <> 'interrupted'") == 0
    scripted.reset(honest)
    async with at_work(settings, database):
        assert (await ended(database, job_id)).result["counts"] == {"written": len(EVERYONE)}


async def test_an_error_in_the_code_ends_the_job_all_the_same(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(database)
    job_id = write(database)

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("ann")

    monkeypatch.setattr(units, "standings", broken)
    async with at_work(settings, database):
        made = await ended(database, job_id)
    assert made.state == "failed"
    assert {reason for _, reason, _ in items(database, job_id).values()} == {
        "An error in Limner: ZeroDivisionError. The worker's log tells more."
    }
    said = capsys.readouterr().out
    assert "ZeroDivisionError" in said
    assert "ann" not in said.split()  # the log names no person


async def test_a_job_whose_tasks_are_gone_ends_as_well(settings: Settings, database: Database) -> None:
    fill(database)
    job_id = write(database)
    with database.session() as session:
        session.execute(text("set local search_path to queue, public"))
        session.execute(text("delete from procrastinate_jobs"))
    async with at_work(settings, database):
        assert (await ended(database, job_id)).state == "done"


async def test_new_items_are_seen(settings: Settings, database: Database) -> None:
    fill(database)
    async with at_work(settings, database) as worker:
        await ended(database, write(database))
        before = worker._desk._base.catalogue.base_rates.items
        await asyncio.sleep(0.5)
        with database.session() as session:
            session.add(ItemRow(item_id="new", title="New", categories=["Baking"]))
            session.add(event("ann", 900, "view", "new", START))
            revisions.rise(session, "catalogue")
        await until_refreshed(database, worker, before + 1)
    assert scalar(database, "select count(*) from embeddings where kind = 'item' and owner_id = 'new'") == 1


async def until_refreshed(database: Database, worker: Worker, total: int) -> None:
    async with asyncio.timeout(30):
        while worker._desk._base.catalogue.base_rates.items != total:
            await ended(database, write(database, users=["ann"], force=True))


async def test_training_and_then_profiles_give_claims_their_factors(settings: Settings, database: Database) -> None:
    fill(database)
    factors = "select count(*) from factors where kind = 'claim'"
    async with at_work(settings, database):
        await ended(database, write(database))
        with database.session() as session:
            training = queue.enqueue_training(session)
        made = await ended(database, training)
        assert made.state == "done", made.reason
        with_factor = scalar(database, factors)
        await ended(database, write(database, users=["ann", "bob"], force=True))
    with database.session() as session:
        active = models.active_model(session)
    assert active is not None
    assert made.result["model_id"] == active.model_id
    assert made.result["seconds"] > 0
    assert active.path in [str(path) for path in (settings.home / "recommenders").glob("*.safetensors")]
    live = """
        select count(*) from factors f join claims c on c.claim_pk = f.owner_id::int and f.kind = 'claim'
        join profiles p using (profile_id) where p.active
    """
    assert scalar(database, factors) == scalar(database, live) == with_factor > 0


async def test_a_training_that_cannot_be(settings: Settings, database: Database) -> None:
    with database.session() as session:
        training = queue.enqueue_training(session, defaults=True)
    async with at_work(settings, database):
        made = await ended(database, training)
    assert made.state == "failed"
    assert "nothing to train on" in (made.reason or "")


async def test_a_training_that_is_cancelled_meanwhile_leaves_no_model(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    with database.session() as session:
        training = queue.enqueue_training(session)
    fit = api.training.fit

    def cancelled_meanwhile(*args: Any) -> Any:
        with database.session() as session:
            jobs.cancel(session, training, api.runtime.now())
        return fit(*args)

    monkeypatch.setattr(api.training, "fit", cancelled_meanwhile)
    async with at_work(settings, database):
        assert (await ended(database, training)).state == "cancelled"
    assert scalar(database, "select count(*) from models") == 0
    assert list(settings.home.glob("recommenders/*")) == []


async def test_several_chunks_at_once(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    fill(database)

    def of_one(user_id: str) -> str:
        return write(database, "llm", [user_id])

    made = [of_one(user_id) for user_id in EVERYONE[:4]]
    scripted.reset(slow(0.2, honest))
    async with at_work(settings, database, concurrency=4):
        for job_id in made:
            await ended(database, job_id)
    assert scripted.record.most_at_once > 2
    assert scalar(database, "select count(*) from profiles where version = 1") == 4
