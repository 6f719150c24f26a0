"""Requests that wait for the language model: nobody else waits for them, and a vLLM is started once and given back."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

import api.runtime
import store.database
from agent.chat import ChatClient
from agent.endpoints import Servers
from agent.errors import ModelError
from agent.words import SummaryWords
from api.http import language_model
from api.http.app import create_app
from api.http.language_model import LanguageModel
from api.http.problems import Problem
from api.settings import Settings
from api.training import train_model
from recommend.parameters import Parameters
from store.database import Database
from tests.http_client import client, problem, settings
from tests.scripted_llm import MODEL, ScriptedLLM, down, honest, slow
from tests.small_world import FakeEmbedder, fill, profiler, wrote

ASK, WHY = "/v1/users/ann/ask", "/v1/users/ann/explanations/t1"


def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def one_connection(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The small world with profiles and a model, and pools of one connection."""
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    monkeypatch.setattr(
        store.database,
        "create_engine",
        lambda url, **given: create_engine(url, **given | {"pool_size": 1, "max_overflow": 0, "pool_timeout": 10}),
    )
    database = Database(database_url)
    fill(database)
    wrote(profiler(database))
    parameters = Parameters(factors=4, epochs=2, projection=4)
    train_model(database, settings(tmp_path), parameters, lambda _: nullcontext(lambda *_: None))
    yield database
    database.close()


def test_nobody_waits_for_those_who_wait_for_the_model(one_connection: Database, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as waiting, ExitStack() as running:
        scripted = running.enter_context(ScriptedLLM(slow(600, down)))
        llm = {"base_url": scripted.url, "model": MODEL, "concurrency": 2}
        app = create_app(settings(tmp_path, llm=llm), one_connection)
        with client(app) as asking, running:  # whatever fails in here, nobody waits for the model after it
            named = {"Idempotency-Key": "one"}
            asked = waiting.submit(asking.post, ASK, json={"question": "Why did you show me Windrest?"}, headers=named)
            why = waiting.submit(asking.get, WHY, params={"narrate": True})
            until(lambda: scripted.record.under_way == 2)
            for path in ("profile", "recommendations", "explanations/t1", "events", "corrections", "export"):
                assert asking.get(f"/v1/users/ann/{path}").status_code == 200
            assert asking.put("/v1/users/bob", json={"consent": True}).status_code == 200
            one_too_many = problem(asking.get(WHY, params={"narrate": True}), 503, "busy")
            assert "language model" in one_too_many["detail"]
            assert asking.post(ASK, json={"question": "What do you know about me?"}).json()["by"] == "rule"
            assert scripted.record.under_way == 2
            assert not asked.done()
            assert not why.done()
            running.close()  # whoever waits sees that the connection has ended
            assert asked.result(60).json()["by"] == "rule"
            problem(why.result(60), 503, "llm")


def test_requests_share_what_they_know_of_the_servers(tmp_path: Path) -> None:
    async def ask(chat: ChatClient) -> None:
        await chat.ask([("user", "Sum up.")], SummaryWords, 100)
        await chat.aclose()

    with ScriptedLLM(down) as dead, ScriptedLLM(honest) as well:
        model = LanguageModel(settings(tmp_path, llm={"base_url": f"{dead.url},{well.url}", "model": MODEL}))
        model._known = Servers(2, pause_s=3_600)
        for _ in range(12):
            with model.chat() as chat:
                asyncio.run(ask(chat))
        assert len(dead.requests) <= 1
        assert len(well.requests) == 12
        model.close()


def test_without_a_model_there_is_no_narration_and_a_rule_answers(one_connection: Database, tmp_path: Path) -> None:
    with client(create_app(settings(tmp_path), one_connection)) as asking:
        refused = asking.get(WHY, params={"narrate": True})
        problem(refused, 503, "unavailable")
        assert refused.headers["retry-after"]
        assert asking.post(ASK, json={"question": "What do you know about me?"}).json()["by"] == "rule"
        assert asking.get(WHY).json()["text"]


class FakeServing:
    """A vLLM that is started when the test says so."""

    base_url, model = "http://127.0.0.1:9/v1", "fake"

    def __init__(self) -> None:
        self.started, self.let_go, self.closed = 0, threading.Event(), 0
        self.runs, self.failure = True, ModelError("There is no memory left.")
        self.fails = False

    def serve(self, *_: Any, waiting: Callable[[float], None]) -> "FakeServing":
        self.started += 1
        while not self.let_go.wait(0.05):
            waiting(1.0)
        if self.fails:
            raise self.failure
        return self

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeServing:
    made = FakeServing()
    monkeypatch.setattr(language_model, "serve", made.serve)
    monkeypatch.setattr(language_model, "served", lambda *_: {} if made.runs else None)
    monkeypatch.setattr(language_model, "_PATIENCE_S", 0.3)
    return made


def refusal(model: LanguageModel) -> Problem:
    with pytest.raises(Problem) as caught, model.chat():
        pass
    return caught.value


def name(model: LanguageModel) -> str:
    with model.chat() as chat:
        return chat.name


def test_a_vllm_is_started_in_the_background_and_once(fake: FakeServing, tmp_path: Path) -> None:
    model = LanguageModel(Settings(home=tmp_path))
    for _ in range(2):
        told = refusal(model)
        assert (told.status, told.slug, told.headers) == (503, "llm-starting", {"Retry-After": "10"})
    with model.chat_if_any() as chat:
        assert chat is None
    fake.let_go.set()
    assert [name(model) for _ in range(3)] == ["fake"] * 3
    with model.chat_if_any() as chat:
        assert chat is not None
    assert (fake.started, fake.closed) == (1, 0)
    model.close()
    assert fake.closed == 1


def test_one_that_has_ended_by_itself_is_started_anew(fake: FakeServing, tmp_path: Path) -> None:
    model = LanguageModel(Settings(home=tmp_path))
    fake.let_go.set()
    assert name(model) == "fake"
    fake.runs = False
    assert name(model) == "fake"
    assert (fake.started, fake.closed) == (2, 1)
    model.close()


def test_one_that_cannot_be_started_is_told_and_tried_again(fake: FakeServing, tmp_path: Path) -> None:
    model = LanguageModel(Settings(home=tmp_path))
    fake.fails = True
    fake.let_go.set()
    with pytest.raises(ModelError, match="no memory"):
        name(model)
    fake.fails = False
    assert name(model) == "fake"
    assert fake.started == 2
    model.close()


def test_a_server_that_ends_does_not_wait_for_its_start(fake: FakeServing, tmp_path: Path) -> None:
    model = LanguageModel(Settings(home=tmp_path))
    refusal(model)
    model.close()
    assert (fake.started, fake.closed) == (1, 0)


def test_the_server_of_the_settings_is_used_as_it_is(fake: FakeServing, tmp_path: Path) -> None:
    model = LanguageModel(settings(tmp_path, llm={"base_url": "http://127.0.0.1:9/v1", "model": "m"}))
    assert name(model) == "m"
    model.close()
    assert (fake.started, fake.closed) == (0, 0)
