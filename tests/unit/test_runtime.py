"""What the settings of the language model make: clients, lanes, endpoints, the engine in this process."""

import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.endpoints import Endpoints
from agent.lanes import Lane
from agent.models import TEACHER, WRITER
from agent.openai_chat import OpenAIChat
from agent.slots import BATCH
from api import runtime
from api.settings import BatchSettings, LlmSettings, Settings, SettingsError, read_settings

TWO = "http://a:1/v1,http://b:2/v1"


@pytest.mark.parametrize("given", [TWO, " http://a:1/v1 , http://b:2/v1, ", json.dumps(TWO.split(",")), TWO.split(",")])
def test_several_servers_however_they_are_written(given: Any):
    assert LlmSettings(base_url=given).base_url == TWO


def test_from_the_environment_and_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "limner.toml").write_text('[llm]\nbase_url = ["http://a:1/v1", "http://b:2/v1"]\n')
    assert read_settings().llm.base_url == TWO
    monkeypatch.setenv("LIMNER_LLM__BASE_URL", '["http://c:3/v1"]')
    assert read_settings().llm.base_url == "http://c:3/v1"
    monkeypatch.setenv("LIMNER_LLM__BASE_URL", '["http://c:3/v1"')
    with pytest.raises(SettingsError, match="LIMNER_LLM__BASE_URL is wrong"):
        read_settings()


def test_the_language_chooses_the_model_unless_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert read_settings().llm.model == WRITER
    monkeypatch.setenv("LIMNER_LANGUAGE", "zh")
    assert read_settings().llm.model == TEACHER
    monkeypatch.setenv("LIMNER_LLM__MODEL", WRITER)
    assert read_settings().llm.model == WRITER


def settings(**llm: Any) -> Settings:
    return Settings(llm=LlmSettings(**llm), batch=BatchSettings(concurrency=20))


def test_one_server_tries_again_by_itself_and_several_take_over_from_each_other():
    one = runtime.chat_at(settings(), "http://a:1/v1", "m")
    assert isinstance(one, OpenAIChat)
    assert (one._attempts, one._concurrency) == (3, 20)
    several = runtime.chat_at(settings(concurrency=50), TWO, "m")
    assert isinstance(several, Endpoints)
    assert [(c._base_url, c._attempts, c._concurrency) for c in several._chats if isinstance(c, OpenAIChat)] == [
        ("http://a:1/v1", 1, 50),
        ("http://b:2/v1", 1, 50),
    ]


def test_a_role_has_the_writer_s_model_or_its_own():
    given = settings(base_url=TWO, model="big", api_key="secret", ask={"model": "other", "base_url": ""})
    asking, narrating = given.acting("ask").llm, given.acting("narrator").llm
    assert (asking.model, asking.base_url) == ("other", "")  # which is started on demand
    assert asking.api_key.get_secret_value() == "none"  # the key is of the writer's server
    assert (narrating.model, narrating.api_key.get_secret_value()) == ("big", "secret")
    several = settings(engine="offline", ask={"base_url": TWO.split(","), "api_key": "theirs"}).acting("ask").llm
    assert (several.base_url, several.api_key.get_secret_value(), several.engine) == (TWO, "theirs", "server")


@pytest.mark.parametrize("base_url", [None, TWO])
def test_a_model_that_cannot_answer_is_known(base_url: str | None):
    assert runtime.cannot_answer(settings(model=TEACHER, base_url=base_url)) is None
    small = settings(model="smollm2-135m", base_url=base_url)
    assert runtime.cannot_answer(small) == "smollm2-135m cannot answer free questions"
    assert runtime.cannot_answer(settings(model="theirs/own", base_url=base_url)) is None
    assert runtime.cannot_answer(settings(model="no-such-model", base_url=base_url)) is None


@pytest.mark.parametrize("priorities", [True, False])
def test_a_batch_has_a_lane(*, priorities: bool):
    given = settings(base_url=TWO, model="m", priorities=priorities)
    with runtime.batch_model(given) as (chat, info):
        assert isinstance(chat, Lane)
        assert (chat.name, info.name, info.weights_hash) == ("m", "m", None)
        assert (chat._priority, chat._concurrency) == (BATCH, 40)
    assert runtime.users_at_once(given) == 20
    assert runtime.users_at_once(settings()) == 10
    assert runtime.users_at_once(settings(base_url=TWO, users_at_once=3)) == 3


def test_a_batch_may_have_an_engine_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    ended = []

    @contextmanager
    def engine(resolved: Any, serving: Any) -> Any:
        yield f"engine of {resolved.name}"
        ended.append(resolved.name)

    class Found:
        name, weights_hash = "m", "abc"

    monkeypatch.setattr("agent.offline.engine", engine)
    monkeypatch.setattr(runtime, "fetched", lambda *_: Found)
    with runtime.batch_model(settings(base_url=TWO, engine="offline")) as (chat, info):
        assert (chat, info.weights_hash, ended) == ("engine of m", "abc", [])
    assert ended == ["m"]
