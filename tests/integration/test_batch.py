"""Runs over many users in the command's own process: what they cost, how they end, and how they go on."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import api.runtime
from agent import archive
from agent.keys import Recipe
from agent.unit import ModelInfo
from api import batch, queue
from api.batch import Ended, Gauge, OutOfReachError
from api.run_report import RunReport, make_report
from api.settings import BatchSettings, LlmSettings, Settings, WorkerSettings
from store import corrections, jobs, profiles, runs
from store.database import Database
from store.errors import ConflictError, NotFoundError, StoreError
from store.selection import Selection
from store.tables import JobRow
from tests.crowd import add_crowd
from tests.scripted_llm import MODEL, Reply, Request, ScriptedLLM, down, honest, invents_titles, slow, then
from tests.small_world import NOW, FakeEmbedder, event

POISON = "The Cellar Breathes"  # an item that only some have met
EVERYONE = Selection(everyone=True)


@pytest.fixture
def settings(scripted: ScriptedLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    return Settings(
        home=tmp_path,
        llm=LlmSettings(base_url=scripted.url, model=MODEL, timeout_s=0.5, users_at_once=2),
        worker=WorkerSettings(heartbeat_s=1, stalled_s=3, grace_s=0.2),
        batch=BatchSettings(concurrency=4, price_in=1.0, price_out=4.0),
    )


def start(database: Database, users: Any = EVERYONE, writer: Any = "llm", *, force: bool = False) -> str:
    return batch.create(database, users, writer, force=force).job_id


def go_on(settings: Settings, database: Database, job_id: str, changed: Callable[[Gauge], None] | None = None) -> Ended:
    return batch.resume(settings, database, job_id, changed or (lambda gauge: None))


def run(settings: Settings, database: Database, **given: Any) -> tuple[Ended, RunReport]:
    job_id = start(database, **given)
    ended = go_on(settings, database, job_id)
    return ended, make_report(database, job_id, settings.batch, api.runtime.now())


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.session() as session:
        return [tuple(row) for row in session.execute(text(query))]


def active(database: Database) -> dict[str, int]:
    return dict(rows(database, "select user_id, version from profiles where active"))


def unindexed(database: Database) -> int:
    with database.session() as session:
        return len(profiles.unindexed_claims(session, FakeEmbedder.name))


def poisoned(request: Request, n: int) -> Reply:
    return (invents_titles if POISON in request.task else honest)(request, n)


def test_a_run_writes_all_and_the_next_one_asks_nothing(
    settings: Settings, database: Database, scripted: ScriptedLLM
) -> None:
    users = add_crowd(database, 30)
    seen: list[tuple[int, int]] = []
    job_id = start(database)
    assert go_on(settings, database, job_id, lambda g: seen.append((g.over, g.failed))) is Ended.DONE
    assert seen[0] == (0, 0)
    assert seen[-1] == (30, 0)
    assert active(database) == dict.fromkeys(users, 1)
    assert unindexed(database) == 0
    asked = len(scripted.requests)
    assert asked >= 30
    ended, report = run(settings, database)
    assert (ended, report.counts) == (Ended.DONE, {"unchanged": 30})
    assert (report.calls, report.quality, len(scripted.requests)) == (0, None, asked)


def test_the_policy_leaves_out_those_who_have_little_new(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(settings: Settings, writer: str, opened: Database) -> Recipe:
        return Recipe.of(settings.evidence_settings, FakeEmbedder.name, settings.language, None, ModelInfo(MODEL))

    monkeypatch.setattr(api.runtime, "recipe", recipe)
    users = add_crowd(database, 3)

    def by_policy() -> JobRow:
        found, asked = batch.whose(settings, database, EVERYONE, "template", policy=True)
        return batch.create(database, found, "template", force=False, asked=asked)

    first = by_policy()
    assert (first.total, first.request["users"], first.request["policy"]) == (3, "all", True)
    assert go_on(settings, database, first.job_id) is Ended.DONE
    with database.session() as session:
        session.add(event(users[0], 900, "view", "k1", NOW))
        session.execute(text("update users set log_revision = 2 where user_id = :user_id"), {"user_id": users[0]})
    second = by_policy()
    assert (second.total, second.state) == (0, "done")
    assert go_on(settings, database, second.job_id) is Ended.DONE
    without, _ = batch.whose(settings, database, EVERYONE, "template", policy=False)
    assert run(settings, database, users=without, writer="template")[1].counts == {"unchanged": 2, "written": 1}


def test_poisoned_users_cost_no_more_than_themselves(
    settings: Settings, database: Database, scripted: ScriptedLLM
) -> None:
    users = add_crowd(database, 38)
    sick = add_crowd(database, 2, like="bob", name="sick", catalogue=False)
    assert run(settings, database)[0] is Ended.DONE
    scripted.script = poisoned
    ended, report = run(settings, database, force=True)
    assert (ended, report.state) == (Ended.SOME_FAILED, "done")
    assert report.counts == {"written": 38, "failed": 2}
    assert active(database) == dict.fromkeys(users, 2) | dict.fromkeys(sick, 1)
    assert [failed.user_id for failed in report.failed] == sick
    assert all("wording was refused" in (failed.reason or "") for failed in report.failed)
    assert unindexed(database) == 0


def test_a_run_that_turns_to_garbage_stops_and_puts_everything_back(
    settings: Settings, database: Database, scripted: ScriptedLLM
) -> None:
    users = add_crowd(database, 90)
    assert run(settings, database, writer="template")[0] is Ended.DONE
    newcomers = add_crowd(database, 4, name="a-new", catalogue=False)  # first in order, and without a profile before
    corrected: list[str] = []

    def correct_once(gauge: Gauge) -> None:
        """Let a user correct the version of the run, while it goes on."""
        if gauge.over >= 30 and not corrected:
            corrected.append(max(user for user, version in active(database).items() if version == 2))
            with database.session() as session:
                corrections.add(session, corrected[0], "reject", "interest", "something else", NOW)

    scripted.reset(then(honest, invents_titles, after=50))
    job_id = start(database, force=True)
    assert go_on(settings, database, job_id, correct_once) is Ended.POOR
    report = make_report(database, job_id, settings.batch, api.runtime.now())
    assert report.state == "failed"
    assert "LIMNER_BATCH__MAX_FAILED allows 25%" in (report.reason or "")
    assert report.counts["failed"] > 0
    assert report.counts["cancelled"] > 0
    assert report.counts["written"] == report.put_back + 1
    assert report.put_back > 40
    assert active(database) == {user: 2 if user in corrected else 1 for user in users}
    marked = "select user_id from profiles where (provenance->>'put_back')::bool order by user_id"
    back = [user for (user,) in rows(database, marked)]
    assert len(back) == report.put_back
    assert set(newcomers) < set(back)
    with database.session() as session:
        for user in newcomers:
            assert archive.from_rows(profiles.load(session, user, 1)).provenance.put_back
            with pytest.raises(NotFoundError):
                profiles.load(session, user)
    assert unindexed(database) == 0  # of the versions that are active again, too
    kept = "select count(*) from embeddings where kind = 'claim'"
    live = "select count(*) from claims join profiles using (profile_id) where active"
    assert rows(database, kept) == rows(database, live)
    assert go_on(settings, database, job_id) is Ended.POOR  # nothing is left to do
    scripted.reset(honest)
    assert run(settings, database)[0] is Ended.DONE
    assert {version for user, version in active(database).items() if user in back and user not in newcomers} == {3}


def test_one_put_back_is_never_made_active_again(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    users = add_crowd(database, 24, events=40)
    assert run(settings, database, writer="template")[0] is Ended.DONE
    strict = settings.model_copy(update={"batch": settings.batch.model_copy(update={"max_fallback": 0.0})})
    for _ in range(2):
        scripted.reset(then(honest, some_refused, after=30))
        assert run(strict, database, force=True)[0] is Ended.POOR
        assert active(database) == dict.fromkeys(users, 1)
    assert max(rows(database, "select max(version) from profiles"))[0] == 3


def some_refused(request: Request, n: int) -> Reply:
    """Refuse summaries, but no claims: the template's summary stands in."""
    return (invents_titles if "likes" in str(request.schema).lower() or "Summary" in request.schema else honest)(
        request, n
    )


def test_a_model_out_of_reach_is_waited_for(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    users = add_crowd(database, 20)
    scripted.reset(then(honest, down, after=12))
    job_id = start(database)
    with pytest.raises(OutOfReachError, match="has broken the connection off"):
        go_on(settings, database, job_id)
    written = active(database)
    assert 0 < len(written) < 20
    with database.session() as session:
        found = jobs.progress(session, job_id)
    assert found.counts == {"written": len(written), "queued": 20 - len(written)}
    assert found.job.finished_at is None
    scripted.reset(honest)
    assert go_on(settings, database, job_id) is Ended.DONE
    assert active(database) == dict.fromkeys(users, 1)


def test_an_error_in_the_code_is_told_and_the_run_can_be_resumed(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_crowd(database, 3)
    job_id = start(database, writer="template")

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(profiles, "save", broken)
        with pytest.raises(ZeroDivisionError):
            go_on(settings, database, job_id)
    assert go_on(settings, database, job_id) is Ended.DONE


def test_only_one_process_works_on_a_run(settings: Settings, database: Database) -> None:
    add_crowd(database, 3)
    job_id = start(database, writer="template")
    with runs.claim(database, job_id), pytest.raises(ConflictError, match="Another process"):
        go_on(settings, database, job_id)
    assert go_on(settings, database, job_id) is Ended.DONE


def test_workers_leave_a_commands_run_alone_until_it_is_handed_over(settings: Settings, database: Database) -> None:
    add_crowd(database, 3)
    job_id = start(database, writer="template")
    with database.session() as session:
        assert jobs.stranded(session) == []
        chunks = runs.hand_over(session, job_id)
        assert chunks == [0]
        queue.enqueue_again(session, job_id, chunks)
        assert runs.hand_over(session, job_id) is None
        assert rows_in(session, "select count(*) from queue.procrastinate_jobs where status = 'todo'") == 1
    with database.session() as session:
        assert "runner" not in jobs.get(session, job_id).request
    assert go_on(settings, database, job_id) is Ended.DONE  # no worker lives: the run is taken back
    with database.session() as session:
        assert rows_in(session, "select count(*) from queue.procrastinate_jobs") == 0
        assert jobs.get(session, job_id).request["runner"] == "command"


def rows_in(session: Any, query: str) -> Any:
    return session.scalar(text(query))


def test_a_run_that_workers_are_at_is_not_taken_from_them(settings: Settings, database: Database) -> None:
    add_crowd(database, 3)
    with database.session() as session:
        job_id = queue.enqueue_profiles(session, "all", "template")
        session.execute(text("set local search_path to queue, public"))
        session.execute(text("insert into procrastinate_workers default values"))
        session.execute(
            text("update procrastinate_jobs set status = 'doing', worker_id = (select id from procrastinate_workers)")
        )
    with pytest.raises(ConflictError, match="Workers are at the job"):
        go_on(settings, database, job_id)
    assert rows(database, "select count(*) from queue.procrastinate_jobs") == [(1,)]
    with database.session() as session:
        session.execute(text("update queue.procrastinate_workers set last_heartbeat = now() - interval '1 minute'"))
    assert go_on(settings, database, job_id) is Ended.DONE  # it was dead
    with database.session() as session:
        training = queue.enqueue_training(session)
    with pytest.raises(ConflictError, match="trains a model"):
        go_on(settings, database, training)


def test_cancelling_a_run_whose_process_is_gone(database: Database) -> None:
    add_crowd(database, 3)
    job_id = start(database, writer="template")
    with database.session() as session:
        assert len(jobs.take(session, job_id, 0, NOW, 3)) == 3  # and then it was killed
    assert batch.cancel(database, job_id)
    with database.session() as session:
        assert jobs.progress(session, job_id).counts == {"cancelled": 3}
    assert batch.outcome(database, job_id) is Ended.INTERRUPTED
    with database.session() as session:
        assert not jobs.stop(session, job_id, "too late", NOW)


def test_a_run_is_cancelled_while_it_goes_on(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    add_crowd(database, 30)
    scripted.reset(slow(0.1, honest))
    job_id = start(database)
    cancelled: list[bool] = []

    def cancel_once(gauge: Gauge) -> None:
        if gauge.over >= 6 and not cancelled:
            cancelled.append(batch.cancel(database, job_id))

    assert go_on(settings, database, job_id, cancel_once) is Ended.INTERRUPTED
    with database.session() as session:
        found = jobs.progress(session, job_id)
    assert (found.job.state, set(found.counts)) == ("cancelled", {"written", "cancelled"})
    assert found.counts["written"] >= 6
    assert cancelled == [False]


def test_a_database_that_is_gone(settings: Settings, database: Database) -> None:
    add_crowd(database, 1)
    gone = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(batch.OUT_OF_REACH) as caught:
        batch.resume(settings, gone, "any", lambda gauge: None)
    assert isinstance(caught.value, StoreError)


def test_the_latest_run_that_is_not_over(settings: Settings, database: Database) -> None:
    add_crowd(database, 2)
    with database.session() as session, pytest.raises(NotFoundError):
        runs.latest(session)
    first, second = start(database, writer="template"), start(database, writer="template")
    go_on(settings, database, second)
    with database.session() as session:
        assert runs.latest(session) == second
        assert runs.latest(session, unfinished=True) == first


def test_tokens_and_what_they_cost(settings: Settings, database: Database, scripted: ScriptedLLM) -> None:
    add_crowd(database, 5)
    _, report = run(settings, database)
    spent = rows(database, "select sum(tokens_in), sum(tokens_out), count(*) from llm_calls")
    assert [(report.tokens_in, report.tokens_out, report.calls)] == spent
    cost = (report.tokens_in + 4 * report.tokens_out) / 1e6
    assert report.cost == pytest.approx(cost)
    assert report.cost_per_1000 == pytest.approx(200 * cost)
    assert Counter(slow.state for slow in report.slowest) == {"written": 5}
