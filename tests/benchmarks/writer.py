"""How long eight profiles take through LangChain and the HTTP server, beside the same prompts offline.

Three ways, each with an engine of its own, just started and alone in memory, all with the same settings:
the profiles as `limner profile write` writes them; the requests that this took, repairs among them, all at once
through the same client and server; and the same requests as one batch in vLLM's offline engine (baseline). The
starts of the engines, and one request to warm each up, are outside the times. The way in the middle tells what the
protocol costs from what comes of asking one thing after another: a summary waits for its claims, a repair for its
first try.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agent.chat import Answer, ChatModel, Message, OpenAIChat
from agent.errors import ChatError, Usage
from agent.models import Resolved, resolve
from agent.profiling import Profiler, Report
from agent.serving import ServeSettings, installed_build, serve, usable_cores, vllm_argv, vllm_env
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.words import SummaryWords
from agent.writer import LlmWriter
from api.commands.demo import DEMO_USERS
from api.runtime import profiler
from api.settings import Settings
from store.datasets import fetch_ml_100k
from tests.benchmarks.scratch import Scratch, load, scratch

REQUIRED_RATIO = 1.1
_BROKEN = frozenset({"unreachable", "timeout", "refused"})
_LOG_TAIL = 3_000


@dataclass(frozen=True)
class Asked:
    """One request, when it was under way, and what it cost."""

    messages: tuple[Message, ...]
    schema: type[BaseModel]
    max_tokens: int
    began: float
    ended: float
    usage: Usage
    outcome: str

    def as_json(self) -> dict[str, Any]:
        """Return it for the offline engine."""
        messages = [{"role": role, "content": content} for role, content in self.messages]
        schema = self.schema.model_json_schema()
        return {"messages": messages, "schema": schema, "max_tokens": self.max_tokens}


class Recorder:
    """A chat model that passes everything on, and keeps what it was asked."""

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat
        self.asked: list[Asked] = []

    @property
    def name(self) -> str:
        """The model's name."""
        return self._chat.name

    async def ask(self, messages: Sequence[Message], schema: type[Answer], max_tokens: int) -> tuple[Answer, Usage]:
        """Ask the model."""
        began, usage, outcome = time.perf_counter(), Usage(0, 0, 0.0), "ok"
        try:
            answer, usage = await self._chat.ask(messages, schema, max_tokens)
        except ChatError as error:
            usage, outcome = error.usage, error.outcome
            raise
        else:
            return answer, usage
        finally:
            ended = time.perf_counter()
            self.asked.append(Asked(tuple(messages), schema, max_tokens, began, ended, usage, outcome))

    async def aclose(self) -> None:
        """Close the model's connections."""
        await self._chat.aclose()


WARM_UP = Asked(
    (("system", "Answer in JSON."), ("user", "Say that there is nothing to sum up.")),
    SummaryWords, 32, 0.0, 0.0, Usage(0, 0, 0.0), "ok",
)  # fmt: skip


def measure(settings: Settings, users: Sequence[str] = DEMO_USERS) -> dict[str, Any]:
    """Run the three ways, one after the other."""
    model = resolve(settings.llm.model, settings.home)
    if not model.pulled:
        raise RuntimeError(f"{model.name} is not on this machine. Run `limner model pull {model.name}`.")
    folder = fetch_ml_100k(settings.home)
    with scratch(settings) as made:
        load(made, settings, "users", folder / "users.csv")
        load(made, settings, "events", folder / "events.csv")
        recorder, report = write_profiles(settings, made, model, users)
        requests = recorder.asked
        if not requests:
            raise RuntimeError("the model was asked nothing: there is nothing to compare")
        again, replay_s = replay(settings, made, model, requests)
        offline = run_offline(model, requests, made.home)
    way_s = {"profiles": report.seconds, "at_once": replay_s, "offline": offline["seconds"]}
    tokens = {
        "profiles": total(requests),
        "at_once": total(again),
        "offline": (offline["tokens_in"], offline["tokens_out"]),
    }
    ratio = report.seconds / offline["seconds"]
    return {
        "title": f"Profiles of {len(users)} users by {model.name}: {len(requests)} requests",
        "table": [
            row(label, way_s[way], tokens[way], way_s["offline"])
            for way, label in (
                ("offline", "offline engine (baseline)"),
                ("at_once", "HTTP, all at once"),
                ("profiles", "HTTP, the profiles"),
            )
        ],
        "model": model.name,
        "users": list(users),
        "requests": len(requests),
        "requests_by_schema": counts([asked.schema.__name__ for asked in requests]),
        "outcomes": counts([asked.outcome for asked in requests]),
        "model_busy_s": busy(requests),
        "most_at_once": most_at_once(requests),
        "ratio": ratio,
        "ratio_at_once": replay_s / offline["seconds"],
        "written": len(report.written),
        "failed": report.failed,
        "texts": {
            "first_try": report.first_try,
            "repaired": report.repaired,
            "template": report.fallback,
        },
        "engine": offline["engine"],
        "required": f"profiles in at most {REQUIRED_RATIO} times the offline engine's time",
        "met": ratio <= REQUIRED_RATIO,
        "notes": notes(report, requests),
    }


def notes(report: Report, requests: Sequence[Asked]) -> list[str]:
    """Say what a reader of the figures should know."""
    first = "Offline: one batch of the very requests that the profiles took, repairs among them."
    if not report.failed:
        return [first]
    summaries = sum(asked.schema is SummaryWords for asked in requests)
    return [
        first,
        f"Profiles that failed (a weak model's do): {len(report.failed)}; summaries asked for: {summaries}.",
    ]


def write_profiles(settings: Settings, made: Scratch, model: Resolved, users: Sequence[str]) -> tuple[Recorder, Report]:
    """Write the profiles; returns what was asked, and the report with its seconds."""
    with profiler(settings, made.database, with_llm=False, force=True) as writes:
        writes.embedder.embed(["the embedder loads at its first text"])
        with engine(settings, made, model) as chat:
            recorder = Recorder(chat)
            judge = Repetition(writes.embedder.embed)
            writes.llm = (LlmWriter(recorder, judge, settings.language, settings.llm.writer), ModelInfo(model.name))
            report = asyncio.run(_write(writes, chat, users))
    if report.stopped_by or any(asked.outcome in _BROKEN for asked in recorder.asked):
        raise RuntimeError(f"the engine did not answer: {report.stopped_by}")
    return recorder, report


async def _write(writes: Profiler, chat: ChatModel, users: Sequence[str]) -> Report:
    await _ask(chat, WARM_UP)
    try:
        return await writes.write(users)
    finally:
        await chat.aclose()


def replay(settings: Settings, made: Scratch, model: Resolved, requests: Sequence[Asked]) -> tuple[list[Asked], float]:
    """Send the same requests at once, through the same client; returns them anew, and the seconds."""
    with engine(settings, made, model) as chat:
        recorder = Recorder(chat)
        seconds = asyncio.run(_replay(recorder, requests))
    if any(asked.outcome in _BROKEN for asked in recorder.asked[1:]):
        raise RuntimeError("the engine did not answer all requests")
    return recorder.asked[1:], seconds


async def _replay(recorder: Recorder, requests: Sequence[Asked]) -> float:
    await _ask(recorder, WARM_UP)
    started = time.perf_counter()
    await asyncio.gather(*(_ask(recorder, asked) for asked in requests))
    seconds = time.perf_counter() - started
    await recorder.aclose()
    return seconds


async def _ask(chat: ChatModel, asked: Asked) -> None:
    try:
        await chat.ask(asked.messages, asked.schema, asked.max_tokens)
    except ChatError as error:
        if error.outcome in _BROKEN:
            raise


@contextmanager
def engine(settings: Settings, made: Scratch, model: Resolved) -> Iterator[OpenAIChat]:
    """Serve the model for us alone: its locks are in the scratch directory, so that no running server is joined."""
    limits: dict[str, Any] = {
        "timeout_s": settings.llm.timeout_s,
        "concurrency": settings.llm.concurrency,
        "attempts": 1,  # a second try would hide seconds
    }
    with serve(model, made.home, ServeSettings()) as serving:
        yield OpenAIChat(serving.base_url, serving.model, **limits)


def run_offline(model: Resolved, requests: Sequence[Asked], folder: Path) -> dict[str, Any]:
    """Send the requests to an offline engine in a process of its own.

    Raises:
        RuntimeError: It ended without a result; the message ends with its last output.
    """
    serving, build = ServeSettings(), installed_build()
    work, result, log = folder / "offline.json", folder / "offline-result.json", folder / "offline.log"
    content = {
        "argv": vllm_argv(model, serving, build, 0),
        "warm_up": WARM_UP.as_json(),
        "requests": [asked.as_json() for asked in requests],
    }
    work.write_text(json.dumps(content), encoding="utf-8")
    command = [sys.executable, "-m", "tests.benchmarks.offline", str(work), str(result)]
    with log.open("wb") as output:
        subprocess.run(
            command,
            env=os.environ | vllm_env(serving, build, usable_cores()),
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not result.is_file():
        tail = log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]
        raise RuntimeError(f"the offline engine gave no result. Its last output:\n{tail}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def row(way: str, seconds: float, tokens: tuple[int, int], offline_s: float) -> dict[str, Any]:
    """Describe a way for the table."""
    return {
        "way": way,
        "seconds": seconds,
        "tokens in": tokens[0],
        "tokens out": tokens[1],
        "out/s": tokens[1] / seconds,
        "ratio": seconds / offline_s,
    }


def total(requests: Sequence[Asked]) -> tuple[int, int]:
    """Return the tokens read and written."""
    return sum(a.usage.tokens_in for a in requests), sum(a.usage.tokens_out for a in requests)


def counts(values: Sequence[str]) -> dict[str, int]:
    """Count values by name."""
    return {value: values.count(value) for value in sorted(set(values))}


def busy(requests: Sequence[Asked]) -> float:
    """Return the seconds with at least one request under way."""
    seconds, end = 0.0, 0.0
    for asked in sorted(requests, key=lambda a: a.began):
        seconds += max(0.0, asked.ended - max(asked.began, end))
        end = max(end, asked.ended)
    return seconds


def most_at_once(requests: Sequence[Asked]) -> int:
    """Return how many requests were with the client at once, at most; some of them waited for a free place."""
    steps = sorted([(a.began, 1) for a in requests] + [(a.ended, -1) for a in requests])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most
