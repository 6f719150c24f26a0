"""A real vLLM with the smallest model: it starts, answers by a schema, and leaves no process behind."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from agent.models import Resolved, is_intact, pull
from agent.serving import Serving, serve, served

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue"]},
        "number": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["colour", "number"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def smollm(model_home: Path) -> Resolved:
    return pull("smollm2-135m", model_home)


@pytest.fixture
def serving(smollm: Resolved, model_home: Path) -> Iterator[Serving]:
    with serve(smollm, model_home) as serving:
        yield serving


def ask(serving: Serving, content: str, **settings: object) -> str:
    body = {"model": serving.model, "messages": [{"role": "user", "content": content}], "temperature": 0}
    reply = httpx.post(f"{serving.base_url}/chat/completions", json=body | settings, timeout=120)
    reply.raise_for_status()
    return str(reply.json()["choices"][0]["message"]["content"])


def stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process; None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def descendants(pid: int) -> set[int]:
    """All processes that a process has started, however far down."""
    parents = {int(p.name): s[1] for p in Path("/proc").glob("[0-9]*") if (s := stat(int(p.name)))}
    found, fresh = set[int](), {pid}
    while fresh := {child for child, parent in parents.items() if parent in fresh} - found:
        found |= fresh
    return found


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if (found := stat(pid)) and found[0] != "Z"}


def all_gone(pids: set[int], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(pids)


def processes_of(serving: Serving) -> tuple[int, int, set[int]]:
    """The supervisor, vLLM's first process, and all processes of the server with their supervisor."""
    port = serving.base_url.removesuffix("/v1").rpartition(":")[2]
    mine = descendants(os.getpid())
    (api,) = [pid for pid in mine if f"--port\0{port}\0".encode() in _arguments(pid) and not _is_fork(pid)]
    found = stat(api)
    assert found is not None
    supervisor = found[1]
    return supervisor, api, {supervisor} | descendants(supervisor)


def _arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _is_fork(pid: int) -> bool:
    """Whether a process has its arguments from its parent."""
    found = stat(pid)
    return found is not None and _arguments(found[1]) == _arguments(pid)


def test_the_chat_template_survives_the_conversion(smollm: Resolved):
    from transformers import AutoTokenizer  # noqa: PLC0415

    tokenizer = AutoTokenizer.from_pretrained(smollm.path, local_files_only=True)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert is_intact(smollm)


def test_it_answers_follows_a_schema_and_leaves_nothing_behind(smollm: Resolved, model_home: Path, serving: Serving):
    # Of a sentence that goes on in one way: what a small model chats about differs from processor to processor.
    body = {"model": serving.model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
    reply = httpx.post(f"{serving.base_url}/completions", json=body, timeout=120).raise_for_status()
    assert reply.json()["choices"][0]["text"].strip().startswith("Paris")
    shape = {"type": "json_schema", "json_schema": {"name": "pick", "schema": SCHEMA, "strict": True}}
    answer = json.loads(ask(serving, "Pick a colour and a number.", max_tokens=60, response_format=shape))
    assert set(answer) == {"colour", "number"}
    assert answer["colour"] in {"red", "green", "blue"}
    assert 0 <= answer["number"] <= 99
    assert "Pick a colour" not in serving.log.read_text()  # what people did is nobody's log line

    _, _, processes = processes_of(serving)
    assert len(processes) >= 3  # or we would not see the engine, and the next lines could not fail
    serving.close()
    assert served(smollm, model_home) is None
    assert all_gone(processes)


@pytest.mark.parametrize("victim", ["supervisor", "server", "engine"])
def test_whatever_is_killed_nothing_stays(serving: Serving, victim: str):
    supervisor, api, processes = processes_of(serving)
    choose: dict[str, Callable[[], int]] = {
        "supervisor": lambda: supervisor,
        "server": lambda: api,
        "engine": lambda: next(pid for pid in processes if _arguments(pid).startswith(b"VLLM::EngineCore")),
    }
    os.kill(choose[victim](), signal.SIGKILL)
    assert all_gone(processes)
