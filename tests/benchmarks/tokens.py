"""What a profile costs in tokens for logs of three sizes, beside the log itself pasted into one prompt.

The users are made up: each has three favourite genres of the MovieLens catalogue. A scripted server answers
truthfully; prompts and answers are counted by the tokenizer of the model that would write.
"""

import asyncio
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from agent.models import resolve
from agent.openai_chat import OpenAIChat
from agent.profiling import Profiler, Report
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter, WriterSettings
from api.runtime import asked, profiler
from api.settings import Settings
from store import logs
from store.database import Database
from store.records import Item
from tests.benchmarks.scratch import load, scratch
from tests.scripted_llm import MODEL, Reply, Request, Script, ScriptedLLM, answer, completion

SIZES = (50, 500, 5_000)
USERS = 5
SEED = 0
TASTE = (0.5, 0.3, 0.2)  # how much of the liked part each favourite genre makes
LIKED_SHARE = 0.85
START, SPAN = datetime(2023, 1, 1, tzinfo=UTC), timedelta(days=365)

Count = Callable[[str], int]
Row = dict[str, str]


def measure(settings: Settings, sizes: Sequence[int] = SIZES, users: int = USERS) -> dict[str, Any]:
    """Count the tokens of profiles by size of the log."""
    found = resolve(settings.llm.model, settings.home)
    if not found.pulled:
        raise RuntimeError(f"{found.name} is not on this machine. Run `limner model pull {found.name}`.")
    tokenizer = AutoTokenizer.from_pretrained(found.path)
    table = []
    with scratch(settings) as made:
        items = catalogue(made.database)
        rows = {n: list(made_up(n, users, items, np.random.default_rng([SEED, n]))) for n in sizes}
        path = made.home / "events.csv"
        write(path, [row for size in sizes for row in rows[size]])
        load(made, settings, "events", path)
        with (
            profiler(settings, made.database, with_llm=False, force=True) as writes,
            ScriptedLLM(counted(tokenizer)) as server,
        ):
            for size in sizes:
                server.reset(server.script)
                report = write_profiles(
                    writes, server.url, sorted({row["user_id"] for row in rows[size]}), asked(settings)
                )
                pasted = count_log(rows[size], items, counter(tokenizer))
                table.append(line(size, report, len(server.requests), pasted / users))
    return {
        "title": f"Tokens per profile ({found.name}, {users} made-up users of each size)",
        "table": table,
        "notes": [
            "Means per profile; share: tokens in and out against the log as text, a line an event (baseline).",
            "Repaired and template: texts, by what a truthful model's words came to.",
        ],
        "model": found.name,
        "seed": SEED,
    }


def line(size: int, report: Report, calls: int, pasted: float) -> dict[str, float]:
    """Describe a size; all but the share are means per profile.

    Raises:
        RuntimeError: A profile failed, so that the means would be of something else.
    """
    if report.failed or not report.written:
        raise RuntimeError(f"profiles of {size} events failed: {report.failed or 'none was written'}")
    users = len(report.written)
    return {
        "events": size,
        "tokens in": report.tokens_in / users,
        "tokens out": report.tokens_out / users,
        "calls": calls / users,
        "claims": report.claims / users,
        "repaired": report.repaired / users,
        "template": report.fallback / users,
        "log as text": pasted,
        "share": (report.tokens_in + report.tokens_out) / users / pasted,
    }


def write_profiles(writes: Profiler, url: str, ids: Sequence[str], asked: WriterSettings) -> Report:
    """Write profiles with the scripted model."""
    chat = OpenAIChat(url, MODEL)
    writes.llm = (LlmWriter(chat, Repetition(writes.embedder.embed), writes.language, asked), ModelInfo(MODEL))
    return asyncio.run(writes.write(ids))


def catalogue(database: Database) -> dict[str, Item]:
    """Return all items that have a genre, by id."""
    with database.session() as session:
        return {item.item_id: item for item in logs.stream_items(session) if item.categories}


def made_up(size: int, users: int, items: dict[str, Item], rng: np.random.Generator) -> Iterator[Row]:
    """Yield the events of users who rate high what is of their genres, and the rest at most 3."""
    by_genre: dict[str, list[str]] = {}
    for item_id, item in items.items():
        for genre in item.categories:
            by_genre.setdefault(genre, []).append(item_id)
    genres, everything = sorted(by_genre), list(items)
    for user in range(users):
        favourites = rng.choice(genres, len(TASTE), replace=False)
        seconds = np.sort(rng.choice(int(SPAN.total_seconds()), size, replace=False))
        for second in seconds:
            liked = rng.random() < LIKED_SHARE
            shelf = by_genre[str(rng.choice(favourites, p=TASTE))] if liked else everything
            yield {
                "user_id": f"{size}-{user}",
                "item_id": shelf[rng.integers(len(shelf))],
                "type": "rating",
                "ts": (START + timedelta(seconds=int(second))).isoformat(),
                "value": str(rng.integers(4, 6) if liked else rng.integers(1, 4)),
            }


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write events as a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def count_log(rows: Sequence[Row], items: dict[str, Item], count: Count) -> int:
    """Return the tokens of the events, a line each: day, title, genres and rating."""
    shown = [(row, items[row["item_id"]]) for row in rows]
    return count("\n".join(f'{r["ts"][:10]} "{i.title}" ({", ".join(i.categories)}) {r["value"]}' for r, i in shown))


def counter(tokenizer: Any) -> Count:
    """Return what counts the tokens of a text."""
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def counted(tokenizer: Any) -> Script:
    """Answer truthfully, and charge what the model's server would."""
    count = counter(tokenizer)

    def script(request: Request, n: int) -> Reply:
        content = json.dumps(answer(request), ensure_ascii=False)
        reply = completion(request, content)
        text = tokenizer.apply_chat_template(list(request.messages), tokenize=False, add_generation_prompt=True)
        read, written = count(text), count(content) + 1  # the token that ends the answer counts, too
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return replace(reply, body=json.dumps(json.loads(reply.body) | {"usage": usage}).encode())

    return script
