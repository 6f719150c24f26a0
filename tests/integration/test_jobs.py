"""Jobs in the store: items are taken up by attempts, and only the attempt that counts may write."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlmodel import Session

from api import queue
from store import jobs, models, profiles, trainings
from store.database import Database
from store.errors import ConflictError, NotFoundError
from store.jobs import Outcome
from store.tables import LlmCallRow, UserRow
from tests.small_world import EVERYONE, NOW, fill, profiler, wrote

TRIES = 3


def new_job(database: Database, users: Sequence[str] | str = "all", chunk: int = 4, **fields: Any) -> str:
    with database.session() as session:
        return jobs.create(session, "profiles", {}, NOW, None, users, chunk, **fields).job_id  # type: ignore[arg-type]


def add_users(session: Session, count: int) -> None:
    query = "insert into users (user_id, log_revision) select n::text, 1 from generate_series(1, :count) n"
    session.execute(text(query), {"count": count})


def take(database: Database, job_id: str, chunk: int = 0) -> dict[str, int]:
    with database.session() as session:
        return jobs.take(session, job_id, chunk, NOW, TRIES)


def finish(database: Database, job_id: str, taken: dict[str, int], state: Any = "unchanged") -> bool:
    with database.session() as session:
        jobs.finish(session, job_id, taken, dict.fromkeys(taken, Outcome(state, "because")), NOW)
        return jobs.end_if_over(session, job_id, NOW)


def counts(database: Database, job_id: str) -> dict[str, int]:
    with database.session() as session:
        return jobs.progress(session, job_id).counts


def state(database: Database, job_id: str) -> str:
    with database.session() as session:
        return jobs.get(session, job_id).state


def fence(database: Database, job_id: str, user_id: str, attempt: int, version: int = 1) -> None:
    with database.session() as session:
        jobs.fence(session, job_id, user_id, attempt, version, NOW)


def queued(database: Database) -> list[tuple[str, dict[str, Any]]]:
    with database.session() as session:
        rows = session.execute(text("select task_name, args from queue.procrastinate_jobs order by id"))
        return [(name, args) for name, args in rows]


def test_all_are_those_who_consent_and_have_a_log(database: Database) -> None:
    fill(database)
    with database.session() as session:
        session.add(UserRow(user_id="no", consent=False, log_revision=1))
        session.add(UserRow(user_id="new"))
    job_id = new_job(database)
    with database.session() as session:
        assert jobs.get(session, job_id).total == len(EVERYONE)
        assert [item.user_id for item in jobs.items(session, job_id, 10)] == sorted(EVERYONE)
        assert [jobs.users_of(session, job_id, chunk) for chunk in (0, 1, 2)] == [
            ["ann", "bob", "cid", "dee"], ["eli", "sam"], [],
        ]  # fmt: skip
        assert jobs.chunks(session, job_id) == [0, 1]


def test_listed_users_must_be_there_and_consent(database: Database) -> None:
    fill(database)
    with database.session() as session:
        session.add(UserRow(user_id="no", consent=False, log_revision=1))
    with pytest.raises(NotFoundError, match="No user no, nobody with consent"):
        new_job(database, ["ann", "no", "nobody"])
    with database.session() as session:
        assert jobs.page(session, 10) == []


def test_a_job_for_nobody_is_done_at_once(database: Database) -> None:
    assert state(database, new_job(database)) == "done"


def test_a_job_and_its_tasks_are_made_together(database: Database) -> None:
    fill(database)
    with database.session() as session:
        job_id = queue.enqueue_profiles(session, "all", "template")
        path = session.scalar(text("show search_path"))
    with database.session() as session:
        queue.enqueue_profiles(session, ["ann"], "template")
        session.rollback()
    assert path == '"$user", public'
    assert queued(database) == [("profiles_chunk", {"job_id": job_id, "chunk": 0})]
    with database.session() as session:
        assert [job.job_id for job in jobs.page(session, 10)] == [job_id]
        assert jobs.get(session, job_id).request == {"users": "all", "writer": "template", "force": False}


def test_many_users_are_many_tasks(database: Database) -> None:
    with database.session() as session:
        session.execute(
            text("insert into users (user_id, log_revision) select n::text, 1 from generate_series(1, 33) n")
        )
        queue.enqueue_profiles(session, "all", "template")
        queue.enqueue_profiles(session, ["1", "2"], "llm", force=True)
        queue.enqueue_training(session)
    assert [args.get("chunk") for _, args in queued(database)] == [0, 1, 2, 0, None]
    with database.session() as session:
        query = (
            "select args from queue.procrastinate_jobs where task_name = 'profiles_chunk' order by priority desc, id"
        )
        first = session.scalar(text(query))
        assert first is not None
        assert jobs.get(session, first["job_id"]).total == 2  # a few do not wait for everyone


def test_taking_makes_items_ours(database: Database) -> None:
    fill(database)
    job_id = new_job(database)
    taken = take(database, job_id)
    assert taken == {"ann": 1, "bob": 1, "cid": 1, "dee": 1}
    assert (state(database, job_id), counts(database, job_id)) == ("running", {"queued": 2, "running": 4})
    again = take(database, job_id)
    assert again == dict.fromkeys(taken, 2)
    with database.session() as session:
        assert jobs.still_mine(session, job_id, taken) == []
        assert jobs.still_mine(session, job_id, again) == list(again)
    assert not finish(database, job_id, taken)  # those are another's
    assert counts(database, job_id) == {"queued": 2, "running": 4}
    assert not finish(database, job_id, again)
    assert finish(database, job_id, take(database, job_id, 1))
    assert (state(database, job_id), counts(database, job_id)) == ("done", {"unchanged": 6})
    assert take(database, job_id) == {}


def test_only_the_attempt_that_counts_may_write_and_once(database: Database) -> None:
    fill(database)
    job_id = new_job(database, ["ann"])
    with pytest.raises(ConflictError):
        fence(database, job_id, "ann", 0)  # nobody has taken it up
    take(database, job_id)
    take(database, job_id)
    for attempt in (1, 3):
        with pytest.raises(ConflictError, match="Another worker"):
            fence(database, job_id, "ann", attempt)
    fence(database, job_id, "ann", 2, version=7)
    with pytest.raises(ConflictError):
        fence(database, job_id, "ann", 2)
    with pytest.raises(ConflictError):
        fence(database, job_id, "bob", 1)
    with database.session() as session:
        (item,) = jobs.items(session, job_id, 2)
    assert (item.state, item.version, item.attempt) == ("written", 7, 2)


def test_a_refused_write_leaves_nothing(database: Database) -> None:
    """The worker that was thought dead comes back in the middle of a user: it had read the log, and now stores."""
    fill(database)
    job_id = new_job(database, ["ann"])
    taken = take(database, job_id)
    made = profiler(database)
    made.fence = lambda session, user, version: jobs.fence(session, job_id, user, taken[user], version, NOW)
    took_over = take(database, job_id)
    report = wrote(made, ["ann"])
    assert report.written == []
    assert "Another worker" in report.failed["ann"]
    with database.session() as session:
        assert profiles.versions(session, "ann") == []
    made.fence = lambda session, user, version: jobs.fence(session, job_id, user, took_over[user], version, NOW)
    assert wrote(made, ["ann"]).written == ["ann"]
    with database.session() as session:
        assert [row.version for row in profiles.versions(session, "ann")] == [1]


def test_attempts_that_a_lost_worker_left_open_are_closed(database: Database) -> None:
    fill(database)
    job_id = new_job(database, ["ann", "bob"])
    with database.session() as session:
        before = profiles.start_attempt(session, "ann", "llm", NOW - timedelta(seconds=1))
    take(database, job_id)
    with database.session() as session:
        left = profiles.start_attempt(session, "ann", "llm", NOW)
        elsewhere = profiles.start_attempt(session, "eli", "llm", NOW)
    take(database, job_id)
    with database.session() as session:
        found = session.execute(text("select attempt_id, outcome from attempts")).all()
    assert {tuple(row) for row in found} == {(before, "running"), (left, "interrupted"), (elsewhere, "running")}


def test_what_is_lost_too_often_fails(database: Database) -> None:
    fill(database)
    job_id = new_job(database, ["ann"])
    for attempt in range(1, TRIES + 1):
        assert take(database, job_id) == {"ann": attempt}
    assert take(database, job_id) == {}
    with database.session() as session:
        assert jobs.end_if_over(session, job_id, NOW)
        (item,) = jobs.items(session, job_id, 1, "failed")
        job = jobs.get(session, job_id)
    assert item.reason == f"Its worker was lost {TRIES} times."
    assert (job.state, job.reason) == ("failed", "Every item failed; the items say why.")


def test_what_is_handed_back_is_taken_up_again_and_fails_in_the_end(database: Database) -> None:
    fill(database)
    job_id = new_job(database, ["ann", "bob"])
    for attempt in range(1, TRIES + 1):
        taken = take(database, job_id)
        with database.session() as session:
            left = jobs.hand_back(session, job_id, taken, "out of reach", NOW, TRIES)
        assert left == (2 if attempt < TRIES else 0)
    with database.session() as session:
        assert [item.reason for item in jobs.items(session, job_id, 9, "failed")] == ["out of reach"] * 2
        assert jobs.end_if_over(session, job_id, NOW)


def test_handing_back_without_a_bound(database: Database) -> None:
    fill(database)
    job_id = new_job(database, ["ann"])
    for _ in range(TRIES):
        taken = take(database, job_id)
        with database.session() as session:
            assert jobs.hand_back(session, job_id, taken, "stopped", NOW) == 1
    with database.session() as session:
        assert jobs.hand_back(session, job_id, taken, "stopped", NOW) == 0  # it is not ours any more


def test_a_job_is_done_if_one_item_did_not_fail(database: Database) -> None:
    fill(database)
    job_id = new_job(database, chunk=3)
    finish(database, job_id, take(database, job_id, 0), "failed")
    assert finish(database, job_id, take(database, job_id, 1), "unchanged")
    with database.session() as session:
        job = jobs.get(session, job_id)
        assert jobs.end_if_over(session, job_id, NOW + timedelta(days=1))
    assert (job.state, job.finished_at) == ("done", NOW)
    assert job.result == {"counts": {"failed": 3, "unchanged": 3}, "tokens": 0}


def test_cancelling_lets_what_is_under_way_end(database: Database) -> None:
    fill(database)
    job_id = new_job(database)
    taken = take(database, job_id)
    with database.session() as session:
        job = jobs.cancel(session, job_id, NOW)
        assert (job.state, job.finished_at) == ("cancelled", None)
        assert jobs.still_mine(session, job_id, taken) == []  # no further user is begun
    assert counts(database, job_id) == {"cancelled": 2, "running": 4}
    fence(database, job_id, "ann", 1)  # but this one was under way
    with database.session() as session:
        assert jobs.hand_back(session, job_id, taken, "", NOW) == 0
        assert jobs.end_if_over(session, job_id, NOW)
    assert counts(database, job_id) == {"cancelled": 5, "written": 1}
    with database.session() as session:
        assert jobs.cancel(session, job_id, NOW + timedelta(1)).finished_at == NOW


def test_a_cancelled_chunk_of_a_killed_worker_is_closed(database: Database) -> None:
    fill(database)
    job_id = new_job(database, ["ann"])
    take(database, job_id)
    with database.session() as session:
        jobs.cancel(session, job_id, NOW)
    assert take(database, job_id) == {}
    assert counts(database, job_id) == {"cancelled": 1}


def test_what_is_over_cannot_be_cancelled(database: Database) -> None:
    job_id = new_job(database)
    with pytest.raises(ConflictError, match="is done"), database.session() as session:
        jobs.cancel(session, job_id, NOW)
    with pytest.raises(NotFoundError), database.session() as session:
        jobs.cancel(session, "none", NOW)


def test_tokens_are_those_of_all_attempts_since_the_item_was_taken_up(database: Database) -> None:
    fill(database)
    job_id = new_job(database, ["ann", "bob"])

    def call(user_id: str, at: Any, tokens: int) -> None:
        with database.session() as session:
            attempt = profiles.start_attempt(session, user_id, "llm", at)
            row = LlmCallRow(
                attempt_id=attempt, role="claims", prompt="p", model="m", tokens_in=tokens, tokens_out=1,
                seconds=0.1, outcome="ok", created_at=at,
            )  # fmt: skip
            profiles.add_calls(session, [row])

    call("ann", NOW - timedelta(1), 1_000)
    take(database, job_id)
    call("ann", NOW, 10)
    taken = take(database, job_id)
    call("ann", NOW + timedelta(1), 20)
    finish(database, job_id, taken)
    with database.session() as session:
        assert [item.tokens for item in jobs.items(session, job_id, 9)] == [32, 0]
        assert jobs.progress(session, job_id).tokens == 32


def test_jobs_and_items_come_in_pages(database: Database) -> None:
    fill(database)
    with database.session() as session:
        made = [jobs.create(session, "train", {}, NOW + timedelta(n // 2)).job_id for n in range(5)]
    found: list[str] = []
    with database.session() as session:
        while page := jobs.page(session, 2, found[-1] if found else None):
            found += [job.job_id for job in page]
        assert jobs.page(session, 2, "no such job") == []
    assert len(found) == len(set(found)) == 5
    assert (set(found), found[0]) == (set(made), made[4])
    job_id = new_job(database)
    with database.session() as session:
        assert [item.user_id for item in jobs.items(session, job_id, 2, after="bob")] == ["cid", "dee"]
        assert jobs.items(session, job_id, 2, "failed") == []
        with pytest.raises(NotFoundError):
            jobs.items(session, "none", 2)


def test_a_training_is_fenced_as_well(database: Database) -> None:
    with database.session() as session:
        job_id = jobs.create(session, "train", {}, NOW).job_id
    with database.session() as session:
        first = trainings.take(session, job_id, NOW, TRIES)
        second = trainings.take(session, job_id, NOW, TRIES)
    assert (first, second) == (1, 2)
    with pytest.raises(ConflictError), database.session() as session:
        trainings.fence(session, job_id, 1)
    with database.session() as session:
        trainings.end(session, job_id, 1, NOW, {"model_id": 1})
        assert jobs.get(session, job_id).state == "running"
        trainings.fence(session, job_id, 2)
        trainings.end(session, job_id, 2, NOW, {"model_id": 2})
    with database.session() as session:
        job = jobs.get(session, job_id)
        assert trainings.take(session, job_id, NOW, TRIES) is None
    assert (job.state, job.result["model_id"], job.finished_at) == ("done", 2, NOW)


def test_a_training_that_is_lost_too_often_fails(database: Database) -> None:
    with database.session() as session:
        job_id = jobs.create(session, "train", {}, NOW).job_id
        taken = [trainings.take(session, job_id, NOW, TRIES) for _ in range(TRIES + 1)]
        assert taken == [1, 2, 3, None]
        assert jobs.get(session, job_id).state == "failed"


def test_a_cancelled_training_stores_nothing(database: Database) -> None:
    with database.session() as session:
        job_id = jobs.create(session, "train", {}, NOW).job_id
        trainings.take(session, job_id, NOW, TRIES)
        assert jobs.cancel(session, job_id, NOW).finished_at == NOW
    with pytest.raises(ConflictError), database.session() as session:
        trainings.fence(session, job_id, 1)


def test_jobs_whose_tasks_are_gone_are_found(database: Database) -> None:
    fill(database)
    with database.session() as session:
        job_id = queue.enqueue_profiles(session, "all", "template")
        training = queue.enqueue_training(session)
        assert jobs.stranded(session) == []
        session.execute(text("set local search_path to queue, public"))
        session.execute(text("delete from procrastinate_jobs"))
        assert jobs.stranded(session) == [(job_id, "profiles", [0]), (training, "train", [])]


def test_models_are_activated_and_come_in_pages(database: Database) -> None:
    with database.session() as session:
        made = [models.add_model(session, f"{n}", "0", {}, NOW) for n in range(3)]
    with database.session() as session:
        assert models.activate(session, made[0]).active
    with database.session() as session:
        assert [row.model_id for row in models.list_models(session) if row.active] == [made[0]]
        assert [row.model_id for row in models.page(session, 2)] == [made[2], made[1]]
        assert [row.model_id for row in models.page(session, 2, made[1])] == [made[0]]
    with pytest.raises(NotFoundError), database.session() as session:
        models.activate(session, 99)
    with database.session() as session:
        assert models.active_model(session) is not None  # the refusal has changed nothing


def test_a_million_users_would_do(database: Database) -> None:
    """The items are made by the database itself: 100,000 of them do not pass through Python."""
    with database.session() as session:
        add_users(session, 100_000)
    statements: list[str] = []
    original = psycopg.Cursor.execute

    def count(self: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        statements.append(str(query)[:40])
        return original(self, query, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg.Cursor, "execute", count)
        with database.session() as session:
            job_id = queue.enqueue_profiles(session, "all", "template")
    assert len(queued(database)) == 6_250
    assert len(statements) < 30
    assert counts(database, job_id) == {"queued": 100_000}
