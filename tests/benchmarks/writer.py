"""How fast profiles are written, over HTTP and by an engine in the process, beside the same prompts offline.

Four ways, each with an engine of its own, just started and alone in memory, all with the same settings: the profiles
as a batch writes them over HTTP; the requests that this took, repairs among them, all at once through the same client
and server; the same requests as one batch in vLLM's offline engine (baseline); and the profiles by an engine in the
process (`LIMNER_LLM__ENGINE=offline`). The starts of the engines, and one request to warm each up, are outside the
times. The second way tells what the protocol costs from what comes of asking one thing after another: a repair waits
for its first try.

Run by itself for more users: `python -m tests.benchmarks.writer --users 32`.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agent.chat import Answer, ChatModel, Message
from agent.errors import ChatError, Usage
from agent.models import Resolved, resolve
from agent.openai_chat import OpenAIChat
from agent.profiling import Profiler, Report
from agent.serving import ServeSettings, installed_build, serve, usable_cores, vllm_argv, vllm_env
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.words import SummaryWords
from agent.writer import LlmWriter
from api.commands.demo import DEMO_USERS
from api.runtime import asked, in_batch_lane, profiler
from api.settings import Settings, read_settings
from store.datasets import fetch_ml_100k
from tests.benchmarks.scratch import Scratch, load, scratch

REQUIRED_SHARE = 0.9
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
    cause: str = ""

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
        began, usage, outcome, cause = time.perf_counter(), Usage(0, 0, 0.0), "ok", ""
        try:
            answer, usage = await self._chat.ask(messages, schema, max_tokens)
        except ChatError as error:
            usage, outcome, cause = error.usage, error.outcome, str(error)
            raise
        else:
            return answer, usage
        finally:
            ended = time.perf_counter()
            self.asked.append(Asked(tuple(messages), schema, max_tokens, began, ended, usage, outcome, cause))

    async def aclose(self) -> None:
        """Close the model's connections."""
        await self._chat.aclose()


WARM_UP = Asked(
    (("system", "Answer in JSON."), ("user", "Say that there is nothing to sum up.")),
    SummaryWords, 32, 0.0, 0.0, Usage(0, 0, 0.0), "ok",
)  # fmt: skip


def measure(settings: Settings, users: Sequence[str]) -> dict[str, Any]:
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
        own = run_in_process(made, users)
    way_s = {
        "profiles": report.seconds, "at_once": replay_s, "offline": offline["seconds"], "in_process": own["seconds"],
    }  # fmt: skip
    tokens = {
        "profiles": total(requests),
        "at_once": total(again),
        "offline": (offline["tokens_in"], offline["tokens_out"]),
        "in_process": tuple(own["tokens"]),
    }
    share = {way: offline["seconds"] / seconds for way, seconds in way_s.items()}
    return {
        "title": f"Profiles of {len(users)} users by {model.name}: {len(requests)} requests",
        "table": [
            row(label, len(users), way_s[way], tokens[way], way_s["offline"])
            for way, label in (
                ("offline", "offline engine (baseline)"),
                ("at_once", "HTTP, all at once"),
                ("profiles", "HTTP, the profiles"),
                ("in_process", "in the process, the profiles"),
            )
        ],
        "model": model.name,
        "users": list(users),
        "requests": len(requests),
        "requests_by_schema": counts([asked.schema.__name__ for asked in requests]),
        "outcomes": counts([asked.outcome for asked in requests]),
        "model_busy_s": busy(requests),
        "most_at_once": most_at_once(requests),
        "share_of_baseline": share,
        "profiles_per_s": {way: len(users) / seconds for way, seconds in way_s.items()},
        "tokens_per_profile": [total(requests)[0] / len(users), total(requests)[1] / len(users)],
        "written": len(report.written),
        "failed": report.failed,
        "texts": {
            "first_try": report.first_try,
            "repaired": report.repaired,
            "template": report.fallback,
        },
        "engine": offline["engine"],
        "required": f"profiles/s at least {REQUIRED_SHARE:.0%} of the offline engine's, over HTTP and in the process",
        "met": min(share["profiles"], share["in_process"]) >= REQUIRED_SHARE,
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
            recorder = Recorder(in_batch_lane(settings, chat))
            judge = Repetition(writes.embedder.embed)
            writes.llm = (LlmWriter(recorder, judge, settings.language, asked(settings)), ModelInfo(model.name))
            report = asyncio.run(_write(writes, chat, users))
            require_answers(recorder.asked)
    return recorder, report


async def _write(writes: Profiler, chat: ChatModel, users: Sequence[str]) -> Report:
    await send(chat, WARM_UP)
    try:
        return await writes.write(users)
    finally:
        await chat.aclose()


def replay(settings: Settings, made: Scratch, model: Resolved, requests: Sequence[Asked]) -> tuple[list[Asked], float]:
    """Send the same requests at once, through the same client; returns them anew, and the seconds."""
    with engine(settings, made, model) as chat:
        recorder = Recorder(chat)
        seconds = asyncio.run(_replay(recorder, requests))
        require_answers(recorder.asked)
    return recorder.asked[1:], seconds


def require_answers(requests: Sequence[Asked]) -> None:
    """Refuse figures of a run in which the engine did not answer all requests.

    Raises:
        RuntimeError: It did not.
    """
    broken = [asked for asked in requests if asked.outcome in _BROKEN]
    if broken:
        first = min(asked.began for asked in requests)
        told = "\n".join(f"  {a.began - first:.1f} s to {a.ended - first:.1f} s: {a.cause}" for a in broken)
        raise RuntimeError(f"the engine did not answer {len(broken)} of {len(requests)} requests:\n{told}")


async def _replay(recorder: Recorder, requests: Sequence[Asked]) -> float:
    await send(recorder, WARM_UP)
    started = time.perf_counter()
    await asyncio.gather(*(send(recorder, asked) for asked in requests))
    seconds = time.perf_counter() - started
    await recorder.aclose()
    return seconds


async def send(chat: ChatModel, asked: Asked) -> None:
    """Send a request; what comes of it does not matter here: see `require_answers`."""
    with suppress(ChatError):
        await chat.ask(asked.messages, asked.schema, asked.max_tokens)


@contextmanager
def engine(settings: Settings, made: Scratch, model: Resolved) -> Iterator[OpenAIChat]:
    """Serve the model for us alone: its locks are in the scratch directory, so that no running server is joined.

    Raises:
        RuntimeError: Something went wrong meanwhile; the message ends with the last of the server's log.
    """
    limits: dict[str, Any] = {
        "timeout_s": settings.batch.timeout_s,
        "batch_timeout_s": settings.batch.timeout_s,
        "concurrency": settings.batch.concurrency,
        "attempts": 1,  # a second try would hide seconds
    }
    with serve(model, made.home, ServeSettings()) as serving:
        try:
            yield OpenAIChat(serving.base_url, serving.model, priorities=serving.priorities, **limits)
        except Exception as error:
            raise RuntimeError(f"{error}\nThe end of the server's log:\n{tail(serving.log)}") from error


def run_offline(model: Resolved, requests: Sequence[Asked], folder: Path) -> dict[str, Any]:
    """Send the requests to an offline engine in a process of its own.

    Raises:
        RuntimeError: It ended without a result; the message ends with its last output.
    """
    serving, build = ServeSettings(), installed_build()
    content = {
        "argv": vllm_argv(model, serving, build, 0),
        "warm_up": WARM_UP.as_json(),
        "requests": [asked.as_json() for asked in requests],
    }
    return run_module("tests.benchmarks.offline", content, folder, vllm_env(serving, build, usable_cores()))


def run_in_process(made: Scratch, users: Sequence[str]) -> dict[str, Any]:
    """Write the profiles in a process of its own with an engine in it.

    Raises:
        RuntimeError: It ended without a result; the message ends with its last output.
    """
    return run_module("tests.benchmarks.in_process", {"url": made.database.url, "users": list(users)}, made.home, {})


def run_module(name: str, work: dict[str, Any], folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Run a module that reads its work from one file and writes its result into another."""
    given, result, log = (folder / f"{name}.{end}" for end in ("json", "result.json", "log"))
    given.write_text(json.dumps(work), encoding="utf-8")
    command = [sys.executable, "-m", name, str(given), str(result)]
    with log.open("wb") as output:
        subprocess.run(command, env=os.environ | env, stdout=output, stderr=subprocess.STDOUT, check=False)
    if not result.is_file():
        raise RuntimeError(f"{name} gave no result. Its last output:\n{tail(log)}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-_LOG_TAIL:]


def row(way: str, users: int, seconds: float, tokens: Sequence[int], offline_s: float) -> dict[str, Any]:
    """Describe a way for the table."""
    return {
        "way": way,
        "seconds": seconds,
        "profiles/s": users / seconds,
        "tokens in": tokens[0],
        "tokens out": tokens[1],
        "out/s": tokens[1] / seconds,
        "of baseline": offline_s / seconds,
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
    for one in sorted(requests, key=lambda a: a.began):
        seconds += max(0.0, one.ended - max(one.began, end))
        end = max(end, one.ended)
    return seconds


def most_at_once(requests: Sequence[Asked]) -> int:
    """Return how many requests were with the client at once, at most; some of them waited for a free place."""
    steps = sorted([(a.began, 1) for a in requests] + [(a.ended, -1) for a in requests])
    most = now = 0
    for _, step in steps:
        now += step
        most = max(most, now)
    return most


def main() -> None:
    """Run it for some users, and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=8, help="the demo's users, and others after them")
    count: int = parser.parse_args().users
    others = [str(n) for n in range(1, 944) if str(n) not in DEMO_USERS]
    found = measure(read_settings(), [*DEMO_USERS, *others][:count])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
