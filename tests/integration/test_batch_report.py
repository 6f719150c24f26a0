"""The report of a run: its figures against the run before, its page, and what an erasure leaves of both."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import api.runtime
from api import batch
from api.run_report import FOLDER, RunReport, duration, make_report, to_page, write_report
from api.settings import BatchSettings, LlmSettings, Settings
from store import erasure, runs
from store.database import Database
from store.selection import Selection
from store.tables import EventRow, UserRow
from tests.crowd import EVENTS, add_crowd
from tests.personal import HASHER
from tests.scripted_llm import MODEL, Request, ScriptedLLM, honest, invents_titles
from tests.small_world import NOW, FakeEmbedder, ratings

AWKWARD = 'Zoë "O\'Hara" <b>&amp;</b>'


@pytest.fixture
def settings(scripted: ScriptedLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    llm = LlmSettings(base_url=scripted.url, model=MODEL, timeout_s=0.5)
    return Settings(home=tmp_path, llm=llm, batch=BatchSettings(concurrency=4, price_in=1.0))


def add_user(database: Database, user_id: str) -> None:
    with database.session() as session:
        session.add(UserRow(user_id=user_id, log_revision=1))
        session.flush()
        for row in ratings("ann")[:EVENTS]:
            session.add(
                EventRow(**row.model_dump() | {"user_id": user_id, "event_id": f"{len(user_id)}-{row.event_id}"})
            )


def run(settings: Settings, database: Database, **given: Any) -> RunReport:
    users = given.pop("users", Selection(everyone=True))
    job = batch.create(database, users, given.pop("writer", "llm"), force=given.pop("force", True))
    batch.resume(settings, database, job.job_id, lambda gauge: None)
    return make_report(database, job.job_id, settings.batch, api.runtime.now())


def no_summary(request: Request, n: int) -> Any:
    return (invents_titles if "Summary" in request.schema else honest)(request, n)


def test_a_run_is_held_against_the_last_of_its_kind(
    settings: Settings, database: Database, scripted: ScriptedLLM
) -> None:
    users = add_crowd(database, 4, events=40)
    first = run(settings, database)
    assert first.earlier is None
    assert first.quality is not None
    assert (first.quality.first_try, first.quality.fallback, first.quality.profiles) == (1.0, 0.0, 4)
    assert run(settings, database, force=False).quality is None  # nothing has changed
    run(settings, database, users=Selection(users=tuple(users[:2])))  # of another kind
    run(settings, database, writer="template")
    scripted.reset(no_summary)
    second = run(settings, database)
    assert second.quality is not None
    assert second.earlier is not None
    assert (second.earlier.job_id, second.earlier.quality) == (first.job_id, first.quality)
    assert second.quality.fallback == 0.25  # of three claims and a summary of each user
    assert second.earlier.difference["fallback"] == 0.25
    assert second.earlier.difference["first_try"] == -0.25
    assert second.earlier.difference["claims_per_profile"] == 0.0
    page = to_page(second)
    assert "+25.0 points" in page
    assert first.job_id not in page


def test_the_page_needs_nothing_else_and_says_what_went_wrong(
    settings: Settings, database: Database, scripted: ScriptedLLM, tmp_path: Path
) -> None:
    add_crowd(database, 2)
    add_user(database, AWKWARD)
    with database.session() as session:
        session.add(UserRow(user_id="empty", log_revision=1))
    report = run(settings, database)
    assert [(user.user_id, user.reason) for user in report.failed] == [
        ("empty", "User empty has no events: there is nothing to write a profile from.")
    ]
    paths = write_report(report, tmp_path / "out")
    assert [path.name for path in paths] == [f"batch-{report.job_id}.json", f"batch-{report.job_id}.html"]
    assert RunReport.model_validate_json(paths[0].read_bytes()) == report
    page = paths[1].read_text()
    assert not re.search(r"https?:|src=|<script|<link|@import|url\(", page)
    assert 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page
    assert "there is nothing to write a profile from" in page
    assert "<b>&amp;</b>" not in page
    assert "&lt;b&gt;&amp;amp;&lt;/b&gt;" in page


@pytest.mark.parametrize("user_id", ["ann", "7", "user-00001", AWKWARD])
def test_an_erasure_cleans_reports(settings: Settings, database: Database, user_id: str) -> None:
    add_crowd(database, 1)
    add_user(database, user_id)
    report = run(settings, database)
    failed = [{"user_id": user_id, "reason": f"User {user_id} has no events."}]
    slowest = [user for user in report.slowest if user.user_id == user_id]
    told = RunReport.model_validate(report.model_dump() | {"failed": failed, "slowest": slowest})
    json_path, page_path = write_report(told, settings.home / FOLDER)
    assert user_id in json.loads(json_path.read_bytes())["failed"][0].values()
    erasure.erase(database, HASHER, settings.home, user_id, NOW)
    left = json.loads(json_path.read_bytes())
    assert left["slowest"] == [{"seconds": slowest[0].seconds, "tokens": slowest[0].tokens, "state": "written"}]
    assert left["failed"] == [{"reason": "User [erased] has no events."}]
    page = page_path.read_text()
    cells = re.findall(r"<td data-user=\"\">(.*?)</td>", page, re.DOTALL)
    assert len(cells) == 2
    assert all(set(cell) == {"*"} for cell in cells)
    assert re.search(r"<td>User \*+ has no events\.</td>", page)
    assert left["counts"] == {"written": 2}  # of a time before the erasure
    assert make_report(database, report.job_id, settings.batch, NOW).counts == {"written": 1}


def test_kinds_of_runs() -> None:
    everyone = {"users": "all", "writer": "llm", "force": False}
    assert runs.kind(everyone) == runs.kind(everyone | {"force": True, "runner": "command"})
    assert runs.kind(everyone) != runs.kind(everyone | {"writer": "template"})
    assert runs.kind(everyone) != runs.kind(everyone | {"changed": True})
    assert runs.kind(everyone | {"users": 3}) == runs.kind(everyone | {"users": 900})
    since = everyone | {"changed_since": "2025-01-01T00:00:00Z"}
    assert runs.kind(since) == runs.kind(since | {"changed_since": "2025-01-02T00:00:00Z"})
    swedes, danes = (everyone | {"where": {"country": country}} for country in ("se", "dk"))
    assert runs.kind(swedes) != runs.kind(danes)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (245, "4 min 05 s"), (7_800, "2 h 10 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_without_prices_there_is_no_cost(settings: Settings, database: Database) -> None:
    add_crowd(database, 1)
    free = settings.model_copy(update={"batch": BatchSettings(concurrency=4)})
    report = run(free, database)
    assert (report.cost, report.cost_per_1000) == (None, None)
    assert report.tokens_in > 0
    assert "cost" not in to_page(report)
    with database.session() as session:
        assert session.scalar(text("select count(*) from job_items")) == 1
