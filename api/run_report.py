"""The report of a run: how many, how dear, how fast, how good against the last of its kind; as JSON and as a page."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel, ConfigDict, Field

from api.settings import BatchSettings
from store import jobs, runs
from store.database import Database
from store.records import JobState
from store.runs import Figures
from store.tables import JobRow

FOLDER = "reports"
"""Under the data directory; erasure cleans what is in it."""

_SLOWEST = 10
_FAILED = 1_000
_MILLION = 1_000_000


class Part(BaseModel):
    """Base of the parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunQuality(Part):
    """How good the profiles are that a run wrote.

    Attributes:
        profiles: That it wrote.
        claims_per_profile: Mean.
        first_try: Share of the model's texts that passed at once; None where the model wrote none.
        repaired: Share that passed after a repair.
        fallback: Share that was refused, so that the template's was taken.
        interpretive: Mean share of words that are interpretation.
    """

    profiles: int = Field(examples=[412])
    claims_per_profile: float = Field(examples=[5.2])
    first_try: float | None = Field(examples=[0.86])
    repaired: float | None = Field(examples=[0.09])
    fallback: float | None = Field(examples=[0.05])
    interpretive: float = Field(examples=[0.03])


class Earlier(Part):
    """The last run of the same kind before this one, and the difference (this one less that one)."""

    job_id: str
    finished_at: datetime
    quality: RunQuality
    difference: dict[str, float] = Field(examples=[{"first_try": 0.02, "claims_per_profile": -0.1}])


class SlowUser(Part):
    """A user whose profile took long: seconds from the start of the (longest) attempt to its end."""

    user_id: str = Field(examples=["405"])
    seconds: float = Field(examples=[12.5])
    tokens: int = Field(examples=[1_204])
    state: str = Field(examples=["written"])


class FailedUser(Part):
    """A user who failed, and why; the old profile stays."""

    user_id: str = Field(examples=["405"])
    reason: str | None


class RunReport(Part):
    """What a run came to.

    Attributes:
        request: What was asked for; of listed users, how many.
        seconds: From the start to the end (or to now), times between an interruption and `resume` too.
        tokens_in: That the model has read, for users who failed as well.
        cost: Of all tokens; None where no price is set.
        cost_per_1000: For a thousand users who were written.
        earlier: The last run of the same kind; None if there is none, or one of both has written nothing.
        failed: The first thousand of them.
    """

    job_id: str
    state: JobState
    reason: str | None = Field(description="Why it failed.")
    request: dict[str, Any] = Field(examples=[{"users": "all", "writer": "llm", "force": False}])
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    total: int = Field(examples=[943])
    counts: dict[str, int] = Field(description="Users by state.", examples=[{"written": 412, "unchanged": 531}])
    put_back: int = Field(description="Written profiles that do not count, since the run was stopped.")
    seconds: float = Field(examples=[61.2])
    users_per_s: float = Field(description="Written, unchanged and failed users.", examples=[15.4])
    tokens_per_s: float = Field(examples=[2_210.0])
    calls: int = Field(description="Of the language model.", examples=[2_472])
    tokens_in: int = Field(examples=[120_000])
    tokens_out: int = Field(examples=[15_000])
    cost: float | None = Field(description="At the prices of the settings.", examples=[0.021])
    cost_per_1000: float | None = Field(description="For a thousand written users.", examples=[0.051])
    quality: RunQuality | None
    earlier: Earlier | None
    slowest: list[SlowUser]
    failed: list[FailedUser]


def make_report(opened: Database, job_id: str, prices: BatchSettings, now: datetime) -> RunReport:
    """Make the report of a run, from what the store holds of it; the time it takes grows with the number of users.

    Raises:
        NotFoundError: There is no such job.
    """
    with opened.session() as session:
        found = jobs.progress(session, job_id)
        figures = runs.figures(session, job_id)
        before = runs.previous(session, job_id)
        earlier = (before, runs.figures(session, before.job_id)) if before is not None else None
        slowest = [SlowUser(**slow._asdict()) for slow in runs.slowest(session, job_id, _SLOWEST)]
        failed = [FailedUser(user_id=i.user_id, reason=i.reason) for i in runs.failed(session, job_id, _FAILED)]
    job, quality = found.job, quality_of(figures)
    seconds = runs.seconds(job, now)
    over = sum(found.counts.get(state, 0) for state in ("written", "unchanged", "failed"))
    cost = cost_of(figures.tokens_in, figures.tokens_out, prices)
    written = found.counts.get("written", 0)
    return RunReport(
        job_id=job_id,
        state=job.state,
        reason=job.reason,
        request={name: value for name, value in job.request.items() if name != "runner"},
        created_at=job.created_at.astimezone(UTC),
        started_at=job.started_at and job.started_at.astimezone(UTC),
        finished_at=job.finished_at and job.finished_at.astimezone(UTC),
        total=job.total,
        counts=found.counts,
        put_back=figures.put_back,
        seconds=round(seconds, 3),
        users_per_s=_per(over, seconds),
        tokens_per_s=_per(figures.tokens_in + figures.tokens_out, seconds),
        calls=figures.calls,
        tokens_in=figures.tokens_in,
        tokens_out=figures.tokens_out,
        cost=cost,
        cost_per_1000=None if cost is None or not written else 1_000 * cost / written,
        quality=quality,
        earlier=_earlier(quality, *earlier) if earlier else None,
        slowest=slowest,
        failed=failed,
    )


def quality_of(figures: Figures) -> RunQuality | None:
    """Return shares and means; None where nothing was written."""
    if not figures.profiles:
        return None
    texts = figures.first_try + figures.repaired + figures.fallback

    def share(count: int) -> float | None:
        return round(count / texts, 4) if texts else None

    return RunQuality(
        profiles=figures.profiles,
        claims_per_profile=round(figures.claims / figures.profiles, 3),
        first_try=share(figures.first_try),
        repaired=share(figures.repaired),
        fallback=share(figures.fallback),
        interpretive=round(figures.interpretive, 4),
    )


def cost_of(tokens_in: int, tokens_out: int, prices: BatchSettings) -> float | None:
    """Return what tokens cost; None where no price is set."""
    if not (prices.price_in or prices.price_out):
        return None
    return (tokens_in * prices.price_in + tokens_out * prices.price_out) / _MILLION


def _earlier(quality: RunQuality | None, job: JobRow, figures: Figures) -> Earlier | None:
    before = quality_of(figures)
    if quality is None or before is None or job.finished_at is None:
        return None
    now, then = (q.model_dump(exclude={"profiles"}) for q in (quality, before))
    pairs = {name: (now[name], then[name]) for name in now}
    return Earlier(
        job_id=job.job_id,
        finished_at=job.finished_at.astimezone(UTC),
        quality=before,
        difference={n: round(a - b, 4) for n, (a, b) in pairs.items() if a is not None and b is not None},
    )


def _per(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0


def write_report(report: RunReport, folder: Path) -> tuple[Path, Path]:
    """Write a report into a folder, as JSON and as one page that needs nothing else; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    json, page = (folder / f"batch-{report.job_id}{suffix}" for suffix in (".json", ".html"))
    json.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    page.write_text(to_page(report), encoding="utf-8")
    return json, page


def to_page(report: RunReport) -> str:
    """Return a report as a page."""
    return _templates().get_template("run_report.html").render(report=report)


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["duration"] = duration
    return made


def duration(seconds: float) -> str:
    """Return seconds as people say them: 3.2 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"
