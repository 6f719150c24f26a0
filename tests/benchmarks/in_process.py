"""Writes profiles with vLLM's engine in the same process; `tests.benchmarks.writer` starts it as a process.

Run as `python -m tests.benchmarks.in_process WORK.json RESULT.json`. WORK holds `url`, of a database with all that is
needed, and `users`. Settings come from the environment.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

from agent.profiling import Profiler, Report
from agent.verify import Repetition
from agent.writer import LlmWriter
from api.runtime import asked, batch_model, profiler
from api.settings import read_settings
from store.database import Database
from tests.benchmarks.writer import WARM_UP, Recorder, send, total


async def write(made: Profiler, recorder: Recorder, users: list[str]) -> Report:
    """Warm the engine up, and write."""
    await send(recorder, WARM_UP)
    recorder.asked.clear()
    return await made.write(users)


def main() -> None:
    """Start the engine, warm it up, and time the profiles."""
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    settings = read_settings()
    settings = settings.model_copy(update={"llm": settings.llm.model_copy(update={"engine": "offline"})})
    opened = Database(work["url"])
    with profiler(settings, opened, with_llm=False, force=True) as made:
        made.embedder.embed(["the embedder loads at its first text"])
        started = time.perf_counter()
        with batch_model(settings) as (chat, info):
            ready, recorder = time.perf_counter() - started, Recorder(chat)
            judge = Repetition(made.embedder.embed)
            made.llm = (LlmWriter(recorder, judge, settings.language, asked(settings)), info)
            report = asyncio.run(write(made, recorder, work["users"]))
    opened.close()
    if report.stopped_by:
        sys.exit(f"the engine did not answer: {report.stopped_by}")
    result = {
        "seconds": report.seconds,
        "engine_start_s": ready,
        "tokens": total(recorder.asked),
        "requests": len(recorder.asked),
        "written": len(report.written),
    }
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
