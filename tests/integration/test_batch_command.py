"""`limner batch` as people use it: exit codes, what it says, and what becomes of a run that is stopped or killed."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from sqlalchemy import text
from typer.testing import CliRunner, Result

import api.runtime
from agent.check import check_profiles
from api.cli import app
from store import jobs
from store.database import Database
from tests.command_line import ended, start
from tests.crowd import add_crowd
from tests.scripted_llm import MODEL, ScriptedLLM, down, honest, invents_titles, slow, then
from tests.small_world import FakeEmbedder

Limner = Callable[..., Result]


@pytest.fixture
def environment(database_url: str, scripted: ScriptedLLM) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url, "LLM__BASE_URL": scripted.url, "LLM__MODEL": MODEL, "LLM__TIMEOUT_S": "5",
        "BATCH__CONCURRENCY": "4", "LLM__USERS_AT_ONCE": "2", "WORKER__GRACE_S": "1",
    }  # fmt: skip


@pytest.fixture
def limner(tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Limner:
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    for name, value in environment.items():
        monkeypatch.setenv(f"LIMNER_{name}", value)
    monkeypatch.setenv("LIMNER_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(app, ["batch", *args])


def rows(database: Database, query: str) -> list[tuple[object, ...]]:
    with database.session() as session:
        return [tuple(row) for row in session.execute(text(query))]


def counts(database: Database) -> dict[str, int]:
    """Return the states of the latest job's items."""
    with database.session() as session:
        return jobs.progress(session, jobs.page(session, 1)[0].job_id).counts


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 100
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


def test_exit_codes(limner: Limner, database: Database, scripted: ScriptedLLM, tmp_path: Path) -> None:
    users, log = add_crowd(database, 24), structlog.get_config()
    first = limner("run", "--all")
    assert first.exit_code == 0, first.output
    assert "24 written" in first.output
    assert structlog.get_config() == log, "what a run logs goes to its terminal, what comes after it does not"
    assert (limner("run", "--all", "--no-policy").exit_code, counts(database)) == (0, {"unchanged": 24})

    scripted.reset(then(honest, invents_titles, after=3))
    failing = limner("run", "--force", "--user", users[0], "--user", users[1], "--user", users[2], "--user", users[3])
    assert failing.exit_code == 3, failing.output
    assert "The old profiles of users who failed stay as they were" in failing.output

    scripted.reset(invents_titles)
    poor = limner("run", "--all", "--force", "--report", str(tmp_path / "elsewhere"))
    assert poor.exit_code == 4, poor.output
    assert "LIMNER_BATCH__MAX_FAILED" in poor.output
    assert [path.suffix for path in sorted((tmp_path / "elsewhere").iterdir())] == [".html", ".json"]
    assert limner("resume").exit_code == 0  # every run is over

    scripted.reset(down)
    away = limner("run", "--all", "--force")
    assert away.exit_code == 5, away.output
    assert "limner batch resume" in away.output
    scripted.reset(honest)
    assert limner("resume").exit_code == 0
    assert counts(database) == {"written": 24}
    assert len(list((tmp_path / "reports").glob("*.html"))) == 4


def test_a_database_out_of_reach(limner: Limner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMNER_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert limner("run", "--all").exit_code == 5
    assert limner("resume", "any").exit_code == 5


def test_a_run_is_looked_at(limner: Limner, database: Database, tmp_path: Path) -> None:
    assert "There is no run yet" in limner("list").output
    add_crowd(database, 3)
    planned = limner("plan", "--all", "--writer", "template", "--json")
    assert json.loads(planned.output)["write"] == {"new": 3}
    queued = limner("run", "--all", "--writer", "template", "--no-wait")
    assert queued.exit_code == 0, queued.output
    assert "queue of the workers" in queued.output
    with database.session() as session:
        job_id = jobs.page(session, 1)[0].job_id
    assert limner("status").output.startswith(f"Run {job_id}: queued")
    assert json.loads(limner("status", job_id, "--json").output)["counts"] == {"queued": 3}
    resumed = limner("resume", job_id)
    assert resumed.exit_code == 0, resumed.output
    listed = limner("list").output.splitlines()[1].split()
    assert listed[0] == job_id
    assert listed[3:7] == ["done", "command", "3", "3"]
    told = json.loads(limner("report", job_id, "--json").output)
    assert (told["job_id"], told["counts"]) == (job_id, {"written": 3})
    assert limner("report", "--out", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out" / f"batch-{job_id}.json").is_file()
    assert limner("report", "none").exit_code == 1


def test_a_run_is_handed_to_the_workers_and_cancelled(
    limner: Limner, database: Database, scripted: ScriptedLLM
) -> None:
    add_crowd(database, 3)
    scripted.reset(down)
    assert limner("run", "--all").exit_code == 5
    assert limner("resume", "--no-wait").exit_code == 0
    assert rows(database, "select args->>'chunk', status::text from queue.procrastinate_jobs") == [("0", "todo")]
    assert limner("resume", "--no-wait").exit_code == 0
    assert len(rows(database, "select 1 from queue.procrastinate_jobs")) == 1  # not a second time
    with database.session() as session:
        job_id = jobs.page(session, 1)[0].job_id
    assert "Cancelled." in limner("cancel", job_id).output
    assert counts(database) == {"cancelled": 3}
    assert limner("resume", job_id).exit_code == 130


def test_users_who_are_not_there_are_told(limner: Limner, database: Database, tmp_path: Path) -> None:
    users = add_crowd(database, 2)
    listed = tmp_path / "ids.txt"
    listed.write_text(f"{users[0]}\nnobody\n\n")
    done = limner("run", "--users-file", str(listed), "--writer", "template")
    assert done.exit_code == 0
    assert "1 of 2 listed users are not in the store, have no log or do not consent: nobody" in done.output
    assert counts(database) == {"written": 1}
    assert limner("run").exit_code == 2  # whose?


def test_help_tells_the_exit_codes(limner: Limner) -> None:
    said = " ".join(limner("run", "--help").output.split())
    assert "3 some users failed" in said
    assert "130 interrupted (resume)" in said


def test_ctrl_c_lets_users_under_way_end(
    database: Database, environment: dict[str, str], scripted: ScriptedLLM, tmp_path: Path
) -> None:
    users = add_crowd(database, 40)
    scripted.reset(slow(0.2, honest))
    process = start(["batch", "run", "--all"], tmp_path, **environment)
    until(lambda: counts_or_none(database).get("written", 0) >= 4)
    process.send_signal(signal.SIGINT)
    told = ended(process)
    assert told.code == 130, told.err
    assert "`limner batch resume" in told.err
    found = counts(database)
    assert set(found) == {"written", "queued"}
    assert rows(database, "select distinct outcome from attempts") == [("written",)]  # nobody was cut off
    scripted.reset(honest)
    assert ended(start(["batch", "resume"], tmp_path, **environment)).code == 0
    assert rows(database, "select user_id, version from profiles where active order by 1") == [(u, 1) for u in users]


def counts_or_none(database: Database) -> dict[str, int]:
    with database.session() as session:
        found = jobs.page(session, 1)
    return counts(database) if found else {}


def test_a_killed_run_goes_on_and_pays_only_for_what_was_under_way(
    database: Database, environment: dict[str, str], scripted: ScriptedLLM, tmp_path: Path
) -> None:
    users = add_crowd(database, 60)
    scripted.reset(lambda request, n: slow(0.1 if n % 4 else 2.0, honest)(request, n))  # some are always under way
    process = start(["batch", "run", "--all"], tmp_path, **environment)
    until(lambda: counts_or_none(database).get("written", 0) >= 10)
    process.send_signal(signal.SIGSTOP)
    # The process is alive: another may not take its run.
    other = ended(start(["batch", "resume"], tmp_path, **environment))
    assert (other.code, "Another process is at work" in other.err) == (1, True)
    process.kill()
    process.communicate()
    interrupted = len(rows(database, "select 1 from attempts where outcome = 'running'"))
    assert 0 < interrupted <= 8
    both = [start(["batch", "resume"], tmp_path, **environment) for _ in range(2)]
    codes = sorted(ended(one).code for one in both)
    assert codes in ([0, 0], [0, 1])  # one of them works, the other is refused, or comes when all is done
    assert rows(database, "select user_id, version, active from profiles order by 1") == [(u, 1, True) for u in users]
    assert [done.profiles for done in check_profiles(database, users)][-1] == len(users)
    outcomes = dict(rows(database, "select outcome, count(*) from attempts group by outcome"))  # type: ignore[arg-type]
    assert outcomes == {"written": 60, "interrupted": interrupted}
    calls = len(rows(database, "select 1 from llm_calls"))
    assert calls == 60  # a theme for each; of one claim no summary is asked for
    assert calls <= len(scripted.requests) <= calls + 2 * interrupted
