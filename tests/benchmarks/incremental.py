"""What a second run costs when each user's log has grown by a twentieth, beside the first and beside one afresh.

Real logs of MovieLens-100K: the first run sees all but the last 5 % of each user's events, the second all of them, the
third the same, but forms all themes and words anew. The writer is a scripted server that answers truthfully (tokens
are counted by the model's tokenizer), or the model itself.
"""

import asyncio
import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import AutoTokenizer

from agent import archive
from agent.chat import ChatModel
from agent.contract import Profile
from agent.diff import weighted_jaccard
from agent.models import resolve
from agent.openai_chat import OpenAIChat
from agent.profiling import Profiler, Report
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter
from api.runtime import asked, batch_model, profiler
from api.settings import Settings
from store import profiles
from store.database import Database
from store.datasets import fetch_ml_100k
from tests.benchmarks.scratch import load, scratch
from tests.benchmarks.tokens import counted, write
from tests.scripted_llm import MODEL, ScriptedLLM

NEW_SHARE = 0.05
MOST_TOKENS = 0.25
LEAST_JACCARD = 0.8


def measure(settings: Settings, users: int = 300, *, real: bool = False) -> dict[str, Any]:
    """Write profiles three times, and compare.

    Args:
        settings: Which model's tokenizer counts, or which model writes.
        users: The first so many users of the data set.
        real: Whether the model itself writes.
    """
    found = resolve(settings.llm.model, settings.home)
    if not found.pulled:
        raise RuntimeError(f"{found.name} is not on this machine. Run `limner model pull {found.name}`.")
    before, after = halves(fetch_ml_100k(settings.home) / "events.csv", users)
    ids = sorted({row["user_id"] for row in before})
    with scratch(settings) as made, ExitStack() as stack:
        load_rows(made, settings, before)
        writes = stack.enter_context(profiler(settings, made.database, with_llm=False))
        writes.llm = stack.enter_context(writing(settings, writes, found.path, real=real))
        first = run(writes, ids)
        ids = sorted(first.written)  # a weak model fails some, who would be written from the start again
        old = read(made.database, ids)
        load_rows(made, settings, after)
        second = run(writes, ids)
        new = read(made.database, ids)
        writes.force = True
        third = run(writes, ids)
        afresh = read(made.database, ids)
    table = [
        line("first", first, old, old, first),
        line("5 % more events", second, old, new, first),
        line("the same, afresh", third, old, afresh, first),
    ]
    share, same = table[1]["share of tokens"], table[1]["Jaccard"]
    return {
        "title": f"A second run with 5 % more events ({len(ids)} users, {found.name}{'' if real else ', scripted'})",
        "table": table,
        "required": f"at most {MOST_TOKENS:.0%} of the first run's tokens, a Jaccard of at least {LEAST_JACCARD}",
        "met": share <= MOST_TOKENS and same >= LEAST_JACCARD,
        "notes": [
            "Jaccard: of the evidence of interests before and after, weighted, mean over those before; 0 if gone.",
            "Anew: users whose themes were formed anew.",
        ],
        "users": len(ids),
        "failed": first.failed,
        "real": real,
    }


def halves(path: Path, users: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the events of the first users, without the last 5 % of each, and these."""
    of_user: dict[str, list[dict[str, str]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            of_user.setdefault(row["user_id"], []).append(row)
    before, after = [], []
    for user_id in sorted(of_user, key=int)[:users]:
        rows = sorted(of_user[user_id], key=lambda row: row["ts"])
        cut = len(rows) - max(1, round(NEW_SHARE * len(rows)))
        before += rows[:cut]
        after += rows[cut:]
    return before, after


def load_rows(made: Any, settings: Settings, rows: Sequence[dict[str, str]]) -> None:
    """Ingest events."""
    path = made.home / "events.csv"
    write(path, rows)
    load(made, settings, "events", path)


@contextmanager
def writing(
    settings: Settings, writes: Profiler, weights: Path, *, real: bool
) -> Iterator[tuple[LlmWriter, ModelInfo]]:
    """Give the writer, and what it writes with."""
    with ExitStack() as stack:
        chat: ChatModel
        if real:
            chat, info = stack.enter_context(batch_model(settings))
        else:
            server = stack.enter_context(ScriptedLLM(counted(AutoTokenizer.from_pretrained(weights))))
            chat, info = OpenAIChat(server.url, MODEL), ModelInfo(MODEL)
        yield LlmWriter(chat, Repetition(writes.embedder.embed), writes.language, asked(settings)), info


def run(writes: Profiler, ids: Sequence[str]) -> Report:
    """Write profiles.

    Raises:
        RuntimeError: The model is out of reach.
    """

    async def write_and_close() -> Report:
        try:
            return await writes.write(ids)
        finally:
            assert writes.llm is not None
            await writes.llm[0].aclose()

    report = asyncio.run(write_and_close())
    if report.stopped_by or not report.written:
        raise RuntimeError(f"no profiles: {report.stopped_by or report.failed}")
    return report


def read(database: Database, ids: Sequence[str]) -> dict[str, Profile]:
    """Read the active profiles."""
    found = {}
    with database.session() as session:
        for user_id in set(ids) & set(profiles.active_users(session)):
            found[user_id] = archive.from_rows(profiles.load(session, user_id))
    return found


def line(
    name: str, report: Report, before: Mapping[str, Profile], after: Mapping[str, Profile], first: Report
) -> dict[str, Any]:
    """Describe a run."""
    tokens, base = (r.tokens_in + r.tokens_out for r in (report, first))
    texts = report.first_try + report.repaired + report.fallback
    continued = [p.provenance.continues for p in after.values() if p.provenance.continues]
    return {
        "run": name,
        "written": len(report.written),
        "failed": len(report.failed),
        "texts": texts,
        "tokens": tokens,
        "share of tokens": tokens / base,
        "Jaccard": fmean(
            same(before[user], after[user]) for user in before if user in after and before[user].interests
        ),
        "anew": sum(c.clustered is not None for c in continued) / max(len(continued), 1),
        "seconds": report.seconds,
    }


def same(before: Profile, after: Profile) -> float:
    """Return the mean weighted Jaccard of the evidence of interests, matched by id; 0 for one that is gone."""
    now = {claim.claim_id: claim for claim in after.interests}
    found = [weighted_jaccard(c, now[c.claim_id]) if c.claim_id in now else 0.0 for c in before.interests]
    return fmean(found or [1.0])
