"""Figures of the database at `/metrics`: right, counted once, and cheap."""

from collections.abc import Iterator

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from starlette.testclient import TestClient

import api.http.metrics
from api import queue
from api.http.metrics import DatabaseFigures
from store import figures
from store.database import Database
from store.tables import LlmCallRow
from tests.http_client import http, small
from tests.scripted_llm import ScriptedLLM
from tests.small_world import EVERYONE, NOW, fill, profiler, wrote

__all__ = ["http", "small"]  # fixtures


@pytest.fixture
def told(database: Database) -> CollectorRegistry:
    """What a scrape is told; each looks anew."""
    fill(database)
    registry = CollectorRegistry()
    registry.register(DatabaseFigures(lambda: database, fresh_s=0))
    return registry


def samples(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """Scrape; the values of one metric by its labels."""
    found = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in found}


def call(role: str = "theme", outcome: str = "ok") -> LlmCallRow:
    return LlmCallRow(
        role=role, prompt="p", model="m", tokens_in=100, tokens_out=7, seconds=0.5, outcome=outcome, created_at=NOW
    )


def add(database: Database, *calls: LlmCallRow) -> None:
    with database.session() as session:
        session.add_all(calls)


def scraped(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """Scrape twice, since what counts upwards comes one look late."""
    samples(registry, name)
    return samples(registry, name)


def test_calls_and_profiles(told: CollectorRegistry, database: Database, scripted: ScriptedLLM) -> None:
    samples(told, "limner_llm_calls_total")  # from now on
    wrote(profiler(database, scripted.url))
    wrote(profiler(database, language="zh"), ["ann", "bob"])
    with database.session() as session:
        rows = session.execute(
            text("select role, outcome, count(*), sum(tokens_in), sum(seconds) from llm_calls group by 1, 2")
        )
        calls = {(role, outcome): rest for role, outcome, *rest in rows}
        texts = session.execute(text("select sum((quality->>'fallback')::int) from profiles")).scalar()
    assert calls
    assert scraped(told, "limner_llm_calls_total") == {key: number for key, (number, _, _) in calls.items()}
    read = {key[:2]: tokens for key, tokens in samples(told, "limner_llm_tokens_total").items() if key[2] == "in"}
    assert read == {key: tokens for key, (_, tokens, _) in calls.items()}
    seconds = samples(told, "limner_llm_seconds_total")
    assert seconds == pytest.approx({key: took for key, (_, _, took) in calls.items()})
    assert samples(told, "limner_profiles_written_total") == {("llm",): len(EVERYONE), ("template",): 2}
    by = samples(told, "limner_profile_texts_total")
    assert by[("llm", "fallback")] + by[("template", "fallback")] == texts
    assert by[("llm", "first_try")] > 0
    ages = samples(told, "limner_profile_age_seconds")
    assert set(ages) == {("0.5",), ("0.95",)}


def test_each_call_is_counted_once(told: CollectorRegistry, database: Database) -> None:
    add(database, call())  # before the server has started
    assert scraped(told, "limner_llm_calls_total") == {}
    add(database, call(), call(outcome="violations"))
    assert scraped(told, "limner_llm_calls_total") == {("theme", "ok"): 1, ("theme", "violations"): 1}
    add(database, call())
    assert scraped(told, "limner_llm_calls_total") == {("theme", "ok"): 2, ("theme", "violations"): 1}
    assert samples(told, "limner_llm_tokens_total") == {
        ("theme", "ok", "in"): 200, ("theme", "ok", "out"): 14,
        ("theme", "violations", "in"): 100, ("theme", "violations", "out"): 7,
    }  # fmt: skip
    assert samples(told, "limner_llm_seconds_total")[("theme", "ok")] == 1.0


def test_what_is_stored_later_under_an_earlier_id_is_counted(told: CollectorRegistry, database: Database) -> None:
    samples(told, "limner_llm_calls_total")
    with database.session() as session:
        session.add(call("summary"))
        session.flush()  # it has its id, and nobody else can see it
        add(database, call())
        assert samples(told, "limner_llm_calls_total") == {}
    assert samples(told, "limner_llm_calls_total") == {("summary", "ok"): 1, ("theme", "ok"): 1}


def test_many_are_counted_a_part_at_a_time(
    told: CollectorRegistry, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "MOST", 2)
    samples(told, "limner_llm_calls_total")
    add(database, *(call() for _ in range(5)))
    assert [samples(told, "limner_llm_calls_total").get(("theme", "ok")) for _ in range(5)] == [None, 2, 4, 5, 5]


def test_jobs_items_and_the_queue(told: CollectorRegistry, database: Database) -> None:
    with database.session() as session:
        queue.enqueue_profiles(session, "all", "template")
        queue.enqueue_profiles(session, ["ann"], "template")
        over = queue.enqueue_profiles(session, ["bob", "cid"], "template")
        queue.enqueue_training(session)
        session.execute(
            text("update jobs set state = 'done', finished_at = now() where job_id = :over"), {"over": over}
        )
        session.execute(text("update job_items set state = 'failed' where user_id in ('ann', 'bob')"))
    with database.session() as session:
        session.execute(text("set local search_path to queue"))
        session.execute(text("insert into procrastinate_workers default values"))
        first, worker = "(select min(id) from procrastinate_jobs)", "(select id from procrastinate_workers)"
        doing = f"update procrastinate_jobs set status = 'doing', worker_id = {worker} where id = {first}"  # noqa: S608
        session.execute(text(doing))
    assert samples(told, "limner_jobs") == {("profiles", "queued"): 2, ("profiles", "done"): 1, ("train", "queued"): 1}
    items = samples(told, "limner_job_items")
    assert {state: number for (state,), number in items.items() if number} == {"queued": 4, "failed": 3}
    assert set(items) >= {("running",), ("written",), ("unchanged",), ("cancelled",)}
    assert samples(told, "limner_queue_tasks") == {("todo",): 3, ("doing",): 1}


def test_an_empty_store(database: Database) -> None:
    registry = CollectorRegistry()
    registry.register(DatabaseFigures(lambda: database, fresh_s=0))
    assert samples(registry, "limner_figures_up") == {(): 1}
    assert samples(registry, "limner_jobs") == samples(registry, "limner_profile_age_seconds") == {}
    assert samples(registry, "limner_queue_tasks") == {("todo",): 0, ("doing",): 0}


def test_a_scrape_looks_at_most_every_ten_seconds(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    look = figures.look
    monkeypatch.setattr(figures, "look", lambda *given: looks.append(1) or look(*given))
    said = [http.get("/metrics").text for _ in range(3)]
    assert len(looks) == 1
    assert all("limner_figures_up 1.0" in text and 'limner_queue_tasks{status="todo"} 0.0' in text for text in said)
    assert all("# TYPE limner_llm_calls_total counter" in text for text in said)


def test_where_the_database_gives_no_answer_the_last_figures_stay(told: CollectorRegistry, database: Database) -> None:
    samples(told, "limner_jobs")
    with database.session() as session:
        queue.enqueue_training(session)
    assert samples(told, "limner_jobs") == {("train", "queued"): 1}
    with database.session() as session:
        session.execute(text("lock table jobs in access exclusive mode"))  # and a look waits for a second, no longer
        assert samples(told, "limner_figures_up") == {(): 0}
    with database.session() as session:
        session.execute(text("alter table jobs rename to gone"))
        session.commit()
    assert samples(told, "limner_jobs") == {("train", "queued"): 1}
    assert samples(told, "limner_figures_up") == {(): 0}


def test_where_there_is_no_database(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise psycopg.OperationalError

    monkeypatch.setattr(figures, "look", unreachable)
    answer = http.get("/metrics")
    assert (answer.status_code, "limner_figures_up 0.0" in answer.text) == (200, True)
    assert "limner_jobs{" not in answer.text
    assert "http_requests_total" in answer.text


def plans(database: Database) -> Iterator[str]:
    limits = {"most": figures.MOST, "most_items": figures.MOST_ITEMS, "recent": figures.RECENT}
    with database.raw() as connection:
        for setting in figures._SETTINGS:
            connection.execute(f"set local {setting}")
        for query, given in (
            (figures._LAST, None), (figures._CALLS, (1, 2)), (figures._WRITTEN, (1, 2)), (figures._QUEUE, limits),
            (figures._JOBS, limits), (figures._ITEMS, limits), (figures._AGES, (1.0,)),
        ):  # fmt: skip
            yield "\n".join(row[0] for row in connection.execute(f"explain {query}", given))


def test_nothing_needs_a_whole_table(database: Database) -> None:
    found = list(plans(database))
    assert len(found) == 7
    for plan in found:
        assert "Seq Scan" not in plan
    assert "Sample Scan" in found[-1]
    assert "Index Only Scan using ix_job_items_state" in found[-2]
    assert all("Index" in plan for plan in found[:-1])
    assert api.http.metrics._FRESH_S >= 10
