"""A taught writer beside its teacher, one after the other on the same users: profiles/s, and what passes at once.

Run as part of `python -m tests.benchmarks.run --only taught --model FOLDER`, after `make demo`. No profile is stored.
The time is that of the work alone, once the engine answers and has written for one user.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from agent.lessons import Rehearsal
from agent.models import TEACHER
from api import runtime
from api.settings import Settings
from api.teaching import Rehearsals, rehearse
from store.privacy import hasher

REQUIRED = 5.0


def measure(settings: Settings, users: Sequence[str]) -> dict[str, Any]:
    """Let both write about users of the demo, but the first, with whom each is warmed up.

    Args:
        settings: Of the data, and of the taught writer.
        users: Who is written about.

    Raises:
        ValueError: The settings name the teacher itself.
        RuntimeError: A model went out of reach.
    """
    pupil = settings.llm.model
    if pupil == TEACHER:
        raise ValueError("name the taught writer with --model")
    found = {model: _written(settings, model, users) for model in (TEACHER, pupil)}
    rate = {model: len(written) / seconds for model, (written, seconds) in found.items()}
    ratio = rate[pupil] / rate[TEACHER]
    table = [
        {
            "writer": model,
            "users": len(written),
            "seconds": seconds,
            "profiles/s": rate[model],
            "texts": sum(one.asked for one in written),
            "passed at the first try, %": 100 * sum(one.first_try for one in written) / sum(o.asked for o in written),
        }
        for model, (written, seconds) in found.items()
    ]
    return {
        "title": "Writers",
        "table": table,
        "ratio": ratio,
        "required": f"{REQUIRED:g} times the teacher's profiles/s; it is {ratio:.1f}",
        "met": ratio >= REQUIRED,
    }


def _written(settings: Settings, model: str, users: Sequence[str]) -> tuple[list[Rehearsal], float]:
    settings = settings.model_copy(update={"llm": settings.llm.model_copy(update={"model": model})})
    written: list[Rehearsal] = []
    with ExitStack() as stack:
        opened = stack.enter_context(runtime.database(settings))
        made = stack.enter_context(runtime.profiler(settings, opened, with_llm=True))
        rehearsals = Rehearsals(opened, made, "ml-100k", hasher(settings.home, settings.privacy_key))
        stopped = rehearse(rehearsals, users[:1], lambda _: None)
        started = time.perf_counter()
        stopped = stopped or rehearse(rehearsals, users[1:], written.append)
        seconds = time.perf_counter() - started
    if stopped:
        raise RuntimeError(stopped)
    return written, seconds
