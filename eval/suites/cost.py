"""The cost suite: what a profile takes, in tokens, calls and seconds, by writer.

Profiles are written from whole logs, first ones, by the code that serves; nothing is stored, so that the time of the
store is not in it. Of a profile by the template, the seconds are those from the log in memory to the profile. By a
language model, several are written at once: the seconds of one overlap with those of others, and profiles a second are
counted over the whole run.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agent.assembly import cost
from agent.contract import Language
from agent.embedder import Embedder
from eval.errors import EmptyWorldError
from eval.findings import Figure, Findings, Tell, figure
from eval.interactions import Ints
from eval.options import Options
from eval.past import before
from eval.profiles.writing import Llm, Metric, Writing, Written
from eval.world import World

SUITE, PROTOCOL = "cost", "first profiles"
TEMPLATE, LLM = "template", "llm"
BY_LLM = 20

METRICS = {
    "calls": Metric("Calls of the language model for a profile.", "lower", "calls"),
    "tokens in": Metric("Tokens read for a profile, also for answers that were refused.", "lower", "tokens"),
    "tokens out": Metric("Tokens written for a profile, also for answers that were refused.", "lower", "tokens"),
    "seconds": Metric("From the log to the profile, others being written at the same time.", "lower", "s"),
    "seconds of calls": Metric("Sum of the durations of a profile's calls; calls overlap.", "lower", "s"),
    "profiles per second": Metric("Profiles over the seconds that all of them took together.", "higher", "1/s"),
}


def run(
    world: World,
    embedder: Embedder,
    options: Options,
    tell: Tell,
    llm: Llm | None = None,
    language: Language = "en",
) -> Findings:
    """Measure what profiles cost.

    Args:
        world: The data.
        embedder: Of claims.
        options: How much is measured; by the language model 20 users at most.
        tell: Called with what is being done.
        llm: A writer to be measured beside the template.
        language: That profiles are written in.

    Raises:
        EmptyWorldError: No user has an event.
        ChatError: The language model is out of reach.
    """
    able = np.flatnonzero([len(log.event_ids) > 0 for log in world.logs]).astype(np.int64)
    if not len(able):
        raise EmptyWorldError("No user has an event: ingest a log.")
    codes = options.sample(able)
    everything = before(world, np.full(len(world.user_ids), np.inf))
    writing = Writing(everything, embedder, language)
    tell(f"cost: the template writes of {len(codes)} users")
    found = _measured(writing, codes, TEMPLATE)
    if llm is not None:
        few = replace(options, users=min(options.llm_users, BY_LLM)).sample(codes)
        tell(f"cost: {llm[1].name} writes of {len(few)} users")
        found += _measured(replace(writing, llm=llm, failed={}), few, LLM)
    says = "Whole logs, each user's first profile, from memory to memory; n counts profiles."
    notes = ("The share of the engine's peak that a run reaches is measured by `make bench`, beside the engine alone.",)
    metrics = {name: metric.says for name, metric in METRICS.items()}
    return found + Findings(protocols={PROTOCOL: says}, metrics=metrics, notes=notes)


def _measured(writing: Writing, codes: Ints, subject: str) -> Findings:
    """Write profiles, the first of them unmeasured: it loads what the others find loaded."""
    writing.write(writing.drafts(codes[:1]))
    writing.failed.clear()
    started = time.perf_counter()
    written = writing.write(writing.drafts(codes))
    seconds = time.perf_counter() - started
    failed = len(writing.failed)
    notes = (f"{failed} of {len(codes)} profiles by the {subject} failed, and are not counted.",) if failed else ()
    return Findings(figures=tuple(_figures(written, seconds, subject)), notes=notes)


def _figures(written: Sequence[Written], seconds: float, subject: str) -> list[Figure]:
    """Return the figures of profiles that took so many seconds in all; none where there is no profile."""
    if not written:
        return []
    costs = np.array([(len(one.account.calls), *cost(one.account.calls), one.seconds) for one in written])
    names = ("calls", "tokens in", "tokens out", "seconds of calls", "seconds")
    of: dict[str, Any] = {"suite": SUITE, "protocol": PROTOCOL, "subject": subject}
    found = [
        figure(costs[:, n], metric=name, better=METRICS[name].better, unit=METRICS[name].unit, **of)
        for n, name in enumerate(names)
    ]
    rate = METRICS["profiles per second"]
    per_second = {
        "metric": "profiles per second", "value": len(written) / seconds, "n": len(written), "better": rate.better,
        "unit": rate.unit,
    }  # fmt: skip
    return [*found, Figure.model_validate(per_second | of)]
