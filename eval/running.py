"""Run suites one after another: what one found stays, whatever becomes of the next."""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from agent.chat import ChatModel
from agent.embedder import Embedder
from agent.unit import ModelInfo
from agent.writer import LlmWriter
from eval.findings import Findings, Tell
from eval.options import Options
from eval.report import SuiteRun
from eval.world import World

NAMES = ("profiles", "ranking", "explanations", "simulated", "cost")
Llm = tuple[LlmWriter, ModelInfo]
Failed = Callable[[str, Exception], None]


class Models(NamedTuple):
    """What language models do: write profiles, and judge claims; None for what none does."""

    llm: Llm | None = None
    judge: ChatModel | None = None


NONE = Models()


class Ran(NamedTuple):
    """How the suites ended, and what those found that were done."""

    suites: tuple[SuiteRun, ...]
    findings: Findings


def run(
    names: Sequence[str],
    world: World,
    embedder: Embedder,
    options: Options,
    tell: Tell,
    failed: Failed,
    models: Models = NONE,
) -> Ran:
    """Run suites in order.

    Args:
        names: Of the suites.
        world: The data.
        embedder: Of claims.
        options: How much is measured.
        tell: Called with what is being done.
        failed: Called with the name of a suite and the error that ended it; the next ones are run all the same.
        models: The writer to be judged beside the template, and a judge of claims.

    An interrupt ends the suite under way; those after it are left out.
    """
    suites: list[SuiteRun] = []
    findings = Findings()
    for place, name in enumerate(names):
        started = time.perf_counter()
        state, reason = "done", None
        try:
            findings += _suite(name, world, embedder, options, tell, models)
        except KeyboardInterrupt:
            state = "stopped"
        except Exception as error:  # noqa: BLE001 - the edge: the others' findings are kept
            state, reason = "failed", f"{type(error).__name__}: {error}"
            failed(name, error)
        suites.append(SuiteRun.model_validate(
            {"name": name, "state": state, "seconds": round(time.perf_counter() - started, 1), "reason": reason}
        ))  # fmt: skip
        if state == "stopped":
            suites += [SuiteRun(name=later, state="left out") for later in names[place + 1 :]]
            break
    return Ran(tuple(suites), findings)


def _suite(name: str, world: World, embedder: Embedder, options: Options, tell: Tell, models: Models) -> Findings:
    module = import_module(f"eval.suites.{name}")
    given: dict[str, Any] = {}
    if name in {"profiles", "cost"}:
        given = {"llm": models.llm, "language": options.language}
    if name == "profiles":
        given["judge"] = models.judge
    found: Findings = module.run(world, embedder, options, tell, **given)
    return found
