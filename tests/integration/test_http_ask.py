"""Questions over HTTP: an answer with its sources, whoever may ask, and nothing of it in the audit."""

# ruff: noqa: RUF001 - Chinese punctuation

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text as sql
from starlette.testclient import TestClient

from agent.models import TEACHER
from api.http.app import create_app
from recommend.asking import Answer
from store.database import Database
from store.tables import UserRow
from tests.http_client import PROBLEM, client, http, settings, small, with_key
from tests.scripted_llm import MODEL, ScriptedLLM, completion, down
from tests.small_world import profiler, wrote

__all__ = ["http", "small", "with_key"]

ASK = "/v1/users/ann/ask"


@pytest.fixture
def asked(http: TestClient, database: Database) -> TestClient:
    """The client, with a profile to ask about."""
    wrote(profiler(database), ["ann"])
    return http


@pytest.fixture
def with_model(asked: TestClient, database: Database, scripted: ScriptedLLM, tmp_path: Path) -> Iterator[TestClient]:
    """An app whose settings name the scripted model."""
    llm = {"base_url": scripted.url, "model": MODEL, "timeout_s": 20.0}
    with client(create_app(settings(tmp_path, llm=llm), database)) as made:
        yield made


def test_an_answer_names_its_sources(asked: TestClient) -> None:
    found = asked.post(ASK, json={"question": "What do you know about me?"})
    assert found.status_code == 200
    answer = Answer.model_validate(found.json())
    assert (answer.user_id, answer.by) == ("ann", "rule")
    assert {source.kind for source in answer.sources} == {"profile", "claim"}
    assert all(f"[{source.n}]" in answer.text for source in answer.sources)
    by_rule = "a rule has chosen the tool, and a template the words."
    assert answer.notes == [f"limner-135m cannot answer free questions: {by_rule}"]


def test_without_the_weights_of_a_model_that_can_a_rule_answers(
    asked: TestClient, database: Database, tmp_path: Path
) -> None:
    with client(create_app(settings(tmp_path, llm={"ask": {"model": TEACHER}}), database)) as made:
        found = made.post(ASK, json={"question": "What do you know about me?"}).json()
    by_rule = "a rule has chosen the tool, and a template the words."
    assert (found["by"], found["notes"]) == ("rule", [f"No language model is at hand: {by_rule}"])


def test_without_a_trained_model_the_profile_answers(asked: TestClient) -> None:
    found = asked.post(ASK, json={"question": "Why did you show me Windrest?"})
    assert (found.status_code, "No model has been trained yet" in found.json()["text"]) == (200, True)
    assert found.json()["sources"]


def test_chinese_questions(asked: TestClient) -> None:
    found = asked.post(ASK, json={"question": "你了解我什么？"}).json()
    assert [call["name"] for call in found["tool_calls"]] == ["profile"]


def test_a_model_words_the_answer(with_model: TestClient, scripted: ScriptedLLM) -> None:
    words = "Your profile was written from 37 events [1]."
    scripted.reset(lambda request, n: completion(request, json.dumps({"text": words}) if request.schema else "Hm."))
    found = with_model.post(ASK, json={"question": "What do you know about me?"}).json()
    assert (found["by"], found["text"]) == ("model", words)
    assert [source["kind"] for source in found["sources"]] == ["profile"]
    scripted.reset(down)
    away = with_model.post(ASK, json={"question": "What do you know about me?"})
    assert (away.status_code, away.json()["by"]) == (200, "rule")


def test_a_model_that_cannot_answer_is_not_asked(
    asked: TestClient, database: Database, scripted: ScriptedLLM, tmp_path: Path
) -> None:
    llm: dict[str, Any] = {"base_url": scripted.url, "model": "smollm2-135m"}
    with client(create_app(settings(tmp_path, llm=llm), database)) as small:
        found = small.post(ASK, json={"question": "What do you know about me?"}).json()
    assert (found["by"], scripted.requests) == ("rule", [])
    assert found["notes"][0].startswith("smollm2-135m cannot answer free questions: a rule")
    llm["ask"] = {"model": MODEL}
    words = "Your profile was written from 37 events [1]."
    scripted.reset(lambda request, n: completion(request, json.dumps({"text": words}) if request.schema else "Hm."))
    with client(create_app(settings(tmp_path, llm=llm), database)) as both:
        assert both.post(ASK, json={"question": "What do you know about me?"}).json()["text"] == words
    assert {request.body["model"] for request in scripted.requests} == {MODEL}


WRONG: list[object] = [
    {}, {"question": ""}, {"question": "   "}, {"question": "\u200b"}, {"question": "x" * 1001}, {"question": 5},
    {"question": None}, {"question": "why\0"}, {"question": ["why"]}, {"question": "why", "user_id": "bob"}, [], "why",
]  # fmt: skip


def test_what_is_no_question(asked: TestClient) -> None:
    for body in WRONG:
        found = asked.post(ASK, json=body)
        assert (found.status_code, found.headers["content-type"]) == (422, PROBLEM), body


def test_odd_questions_are_text(asked: TestClient) -> None:
    for question in ("<script>alert(1)</script>", "'; drop table users; --", "\\ud800?", "[1] {{ facts }}"):
        found = asked.post(ASK, json={"question": question})
        assert (found.status_code, bool(found.json()["sources"])) == (200, True), question
    headers = {"Content-Type": "application/json"}
    assert asked.post(ASK, content=b'{"question": "\\ud800 why"}', headers=headers).status_code in {200, 422}


def test_nobody_and_no_consent(asked: TestClient, database: Database) -> None:
    assert asked.post("/v1/users/nobody/ask", json={"question": "why?"}).status_code == 404
    with database.session() as session:
        session.get_one(UserRow, "ann").consent = False
    found = asked.post(ASK, json={"question": "why?"})
    assert (found.status_code, "does not consent" in found.json()["detail"]) == (404, True)


def test_who_may_ask(
    asked: TestClient, small: FastAPI, with_key: Callable[..., TestClient], database: Database
) -> None:
    question = {"question": "What do you know about me?"}
    allowed = {
        scope: with_key(scope).post(ASK, json=question).status_code
        for scope in ("read", "admin", "self:ann", "self:bob")
    }
    assert allowed == {"read": 200, "admin": 200, "self:ann": 200, "self:bob": 403}
    assert client(small).post(ASK, json=question).status_code == 401
    with database.session() as session:
        rows = [tuple(row) for row in session.execute(sql("select action, subject_hash is not null from audit"))]
    assert rows == [("ask", True)] * 3
