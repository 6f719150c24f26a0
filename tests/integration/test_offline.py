"""vLLM's engine in the process of a batch: the answers of the server, and profiles by the command."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from agent.models import pull
from agent.openai_chat import OpenAIChat
from agent.serving import serve
from store.database import Database
from tests.command_line import ROOT, ended, start
from tests.offline_answers import MODEL, answers
from tests.small_world import fill

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_same_answers_as_the_server(model_home: Path, tmp_path: Path) -> None:
    model = pull(MODEL, model_home)
    with serve(model, model_home) as serving:
        chat = OpenAIChat(serving.base_url, serving.model, timeout_s=300.0, priorities=serving.priorities)
        served: list[dict[str, Any]] = json.loads(json.dumps(asyncio.run(answers(chat))))
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "tests.offline_answers", str(model_home), str(result)]
    made = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    assert "Traceback" not in made.stderr
    offline = json.loads(result.read_text(encoding="utf-8"))
    assert [answer["outcome"] for answer in served][3:] == ["cut_off", "rejected"]
    assert "ok" in {answer["outcome"] for answer in served}
    assert offline["answers"] == served
    assert offline["at_once"] == 40


def engines() -> set[str]:
    """The processes of vLLM's engine and their workers that run now."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if "VLLM::" in line}


def test_a_killed_command_leaves_no_engine_behind(database: Database, database_url: str, model_home: Path) -> None:
    pull(MODEL, model_home)
    fill(database)
    before = engines()
    settings = {"DATABASE_URL": database_url, "LLM__MODEL": MODEL, "LLM__ENGINE": "offline"}
    process = start(["profile", "write", "--all"], model_home, **settings)

    def attempts() -> int:
        with database.session() as session:
            return session.execute(text("select count(*) from attempts")).scalar_one()

    deadline = time.monotonic() + 500
    while not attempts() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert engines() - before
    process.kill()
    ended(process)
    while engines() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not engines() - before


def test_profiles_by_an_engine_of_the_command(database: Database, database_url: str, model_home: Path) -> None:
    pull(MODEL, model_home)
    fill(database, ["ann", "bob"])
    settings = {"DATABASE_URL": database_url, "LLM__MODEL": MODEL, "LLM__ENGINE": "offline"}
    result = ended(start(["profile", "write", "--all"], model_home, **settings), 600)
    assert "Traceback" not in result.out + result.err
    assert "2 failed" in result.out or "profiles written" in result.out
    with database.session() as session:
        calls = session.execute(
            text("select role, model, tokens_in, tokens_out, seconds, outcome from llm_calls")
        ).all()
        users = session.scalars(text("select user_id from attempts where outcome <> 'running' order by 1")).all()
    assert users == ["ann", "bob"]
    assert {call.role for call in calls} == {"theme", "summary"}
    assert {call.outcome for call in calls} <= {"ok", "violations", "malformed", "cut_off"}
    assert all(call.model == MODEL and call.tokens_in > 100 and call.tokens_out > 0 for call in calls)
