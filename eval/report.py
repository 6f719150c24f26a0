"""The report of an evaluation: what was found, and all that one must know to find it again."""

import hashlib
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.contract import Language
from eval.errors import ReportError
from eval.findings import EVERYONE, Figure, FigureKey, Findings
from eval.options import Options, WriterName
from eval.world import World

State = Literal["done", "failed", "stopped", "left out"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """What was measured on.

    Attributes:
        name: Such as `ml-100k`.
        sha256: Of users, items and events; see `data_hash`.
    """

    name: str
    sha256: str
    users: int
    items: int
    events: int

    @classmethod
    def of(cls, name: str, world: World) -> Self:
        """Describe a world."""
        return cls(
            name=name,
            sha256=data_hash(world),
            users=len(world.user_ids),
            items=len(world.items),
            events=sum(len(log.event_ids) for log in world.logs),
        )


class Parameters(_Part):
    """What was asked for, as in `Options`, by which suites, and whether the language model judges claims."""

    suites: tuple[str, ...]
    users: int | None
    seeds: int
    seed: int
    trials: int
    writers: tuple[WriterName, ...]
    llm_users: int
    language: Language = "en"
    sequential: bool = False
    judge: bool = False

    @classmethod
    def of(cls, suites: tuple[str, ...], options: Options, *, judge: bool = False) -> Self:
        """Say what was asked for."""
        return cls(suites=suites, judge=judge, **asdict(options))

    @property
    def options(self) -> Options:
        """Return what suites are asked for."""
        return Options(**self.model_dump(exclude={"suites", "judge"}))


class SuiteRun(_Part):
    """How a suite ended.

    Attributes:
        state: `left out`: the run was stopped before it.
        reason: Why it failed.
    """

    name: str
    state: State
    seconds: float = 0.0
    reason: str | None = None


class Report(_Part):
    """Findings, and what they are of. Every figure is of this data, these parameters, model and prompts.

    Attributes:
        limner: The version.
        embedder: Of items and claims.
        model: The language model's name; None where it did not write.
        weights_hash: Of the model, if known.
        prompts: Name, version and hash of each prompt that was used, by role.
    """

    limner: str
    created_at: datetime
    data: Data
    parameters: Parameters
    embedder: str
    model: str | None = None
    weights_hash: str | None = None
    prompts: dict[str, str] = {}
    suites: tuple[SuiteRun, ...]
    findings: Findings

    @property
    def whole(self) -> bool:
        """Whether every suite was done."""
        return all(suite.state == "done" for suite in self.suites)

    def figures(self) -> dict[FigureKey, Figure]:
        """Return the figures by their keys."""
        return {figure.key: figure for figure in self.findings.figures}

    def bare(self) -> "Report":
        """Return it with the figures of everyone alone: no curve, test, example or number of a single user."""
        figures = (figure for figure in self.findings.figures if figure.segment == EVERYONE)
        kept = tuple(figure.model_copy(update={"by_user": {}}) for figure in figures)
        return self.model_copy(update={"findings": Findings(figures=kept)})


def installed() -> str:
    """Return the version of Limner."""
    return version("limner")


def data_hash(world: World) -> str:
    """Return the SHA-256 of canonical JSON lines: all items by id, then all users by id with their events in time.

    Two stores with the same users, items and events have the same hash, whatever else is in them.
    """
    digest = hashlib.sha256()
    for item in sorted(world.items, key=lambda item: item.item_id):
        digest.update(_line(item.model_dump(mode="json")))
    for log in sorted(world.logs, key=lambda log: log.user_id):
        events = zip(log.event_ids, log.items, log.types, log.values, log.times.tolist(), strict=True)
        digest.update(_line([log.user_id, sorted(events, key=lambda event: (event[4], event[0]))]))
    return digest.hexdigest()


def _line(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def write(report: Report, path: Path) -> None:
    """Write a report as JSON: a line for each figure, so that two can be compared by eye."""
    plain = report.model_dump(mode="json", exclude_defaults=True)
    figures = [orjson.dumps(figure).decode() for figure in plain["findings"].pop("figures", ())]
    plain["findings"]["figures"] = []
    text = orjson.dumps(plain, option=orjson.OPT_INDENT_2).decode()
    lines = ",\n".join(f"      {figure}" for figure in figures)
    path.write_text(text.replace('"figures": []', f'"figures": [\n{lines}\n    ]') + "\n", encoding="utf-8")


def read(path: Path) -> Report:
    """Read a report.

    Args:
        path: Its JSON, or the folder that holds it as `report.json`.

    Raises:
        ReportError: There is none, or it is of another form.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return Report.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise ReportError(f"There is no report at {file}. `limner eval run --out DIR` makes one.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ReportError(
            f"{file} is no report of this version ({where or 'the file'}: {first['msg']}). "
            "Make it again with `limner eval run`."
        ) from error
