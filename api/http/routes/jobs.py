"""Jobs: profiles to write and models to train, done by workers in their own time."""

import hashlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, ConfigDict, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from agent.contract import Writer as ProfileWriter
from api import batch, runtime
from api.batch import whose
from api.contract import EXAMPLE_JOB, Counts, Job, JobItem, JobProgress, Page, Wire
from api.http import paging
from api.http.auth import Reader, Writer, note
from api.http.paging import After, Limit
from api.http.problems import responses
from api.http.state import State, StateDep
from api.queue import Whose, enqueue_profiles
from api.run_report import RunReport, make_report
from store import jobs
from store.errors import ConflictError, NotFoundError
from store.records import MAX_ID, ItemState
from store.selection import Selection
from store.tables import JobItemRow, JobRow

router = APIRouter(prefix="/v1", tags=["jobs"])
MOST_USERS = 10_000
_MOST_ATTRIBUTES = 20
_NARROWING = {"where", "changed", "changed_since", "older_than", "drifted"}
_EVENT_PAUSE_S = 0.5
_READING_SHARE = 0.1  # of the time goes into counting a large job's items, at most

JobId = Annotated[str, Path(min_length=1, max_length=64, description="The id of a job.", examples=[EXAMPLE_JOB])]


def _text(given: Any) -> Any:
    """Refuse numbers, which Pydantic takes for seconds."""
    if not isinstance(given, str):
        raise ValueError("must be a text, such as 2025-08-31T22:00:00Z")  # noqa: TRY004 - Pydantic's way
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_text)]
ListedUserId = Annotated[str, Field(min_length=1, max_length=MAX_ID)]


def _each_once(users: list[str]) -> list[str]:
    return list(dict.fromkeys(users))


class NewJob(Wire):
    """Profiles to write."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"kind": "profiles", "users": ["405", "152"], "writer": "llm", "force": False}}
    )
    kind: Literal["profiles"]
    users: (
        Literal["all"]
        | Annotated[list[ListedUserId], Field(min_length=1, max_length=MOST_USERS), AfterValidator(_each_once)]
    ) = Field(description="Ids, or `all` who consent and have a log.")
    where: dict[str, str] = Field(
        default_factory=dict,
        max_length=_MOST_ATTRIBUTES,
        description="Only those who have declared these attributes.",
        examples=[{"country": "se"}],
    )
    changed: bool = Field(
        default=False, strict=True, description="Only those without a profile, or with a change of what it rests on."
    )
    changed_since: Moment | None = Field(default=None, description="Only those whose log has changed since.")
    older_than: Moment | None = Field(default=None, description="Only those with a profile from before that.")
    drifted: bool = Field(default=False, strict=True, description="Only those whose log has drifted away.")
    policy: bool = Field(
        default=False, strict=True, description="Leave those as they are of whom the policy finds too little new."
    )
    writer: ProfileWriter = "llm"
    force: bool = Field(default=False, strict=True, description="Also where nothing has changed.")

    @property
    def selection(self) -> Selection | None:
        """The users as a selection; None where they are no more than named, or all."""
        said = self.model_dump(include=_NARROWING, exclude_defaults=True)
        if not (said or self.policy):
            return None
        who: dict[str, Any] = {"everyone": True} if self.users == "all" else {"users": tuple(self.users)}
        return Selection(**who, **said)


@router.post("/jobs", status_code=202, summary="Create a job", responses=responses(404))
def create_job(job: NewJob, state: StateDep, caller: Writer, response: Response) -> JobProgress:
    """Have profiles written by the workers; one worker at least must run (`limner worker`).

    Users who are listed must consent, unless the list is narrowed down. Users for whom nothing has changed are left as
    they are, unless `force` is said.
    """
    users: Whose = job.users
    asked = None
    if (selection := job.selection) is not None:
        users, asked = whose(state.settings, state.database, selection, job.writer, policy=job.policy)
    with state.database.session() as session:
        job_id = enqueue_profiles(session, users, job.writer, force=job.force, created_by=caller.key_id, asked=asked)
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return read_progress(state, job_id)


@router.get("/jobs", summary="List jobs", responses=responses())
def list_jobs(state: StateDep, _caller: Reader, limit: Limit = 50, after: After = None) -> Page[Job]:
    """All jobs, the newest first."""
    key = paging.decode(after)
    with state.database.session() as session:
        rows = jobs.page(session, limit + 1, None if key is None else str(key[0]))
    shown = [Job(**_fields(row)) for row in rows[:limit]]
    return Page(items=shown, next=paging.encode((shown[-1].job_id,)) if len(rows) > limit else None)


@router.get("/jobs/{job_id}", summary="Read a job", responses=responses(404))
def read_job(job_id: JobId, state: StateDep, _caller: Reader) -> JobProgress:
    """A job, how far it is, and when it will be done."""
    return read_progress(state, job_id)


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses=responses(404, 409))
def cancel_job(job_id: JobId, state: StateDep, _caller: Writer) -> JobProgress:
    """Cancel what is queued; users under way are finished first. A job that is done or failed is a 409."""
    batch.cancel(state.database, job_id)
    return read_progress(state, job_id)


@router.post("/jobs/{job_id}/resume", summary="Resume a job", responses=responses(404, 409))
def resume_job(job_id: JobId, state: StateDep, _caller: Writer) -> JobProgress:
    """Leave to the workers what is left of a run that a command had begun, and whose process is gone.

    Workers take up by themselves what other workers have left. A job that is over, or that a living process works on,
    is a 409.
    """
    batch.hand_over(state.database, job_id)
    return read_progress(state, job_id)


@router.get("/jobs/{job_id}/items", summary="List a job's users", responses=responses(404))
def list_job_items(
    job_id: JobId,
    state: StateDep,
    caller: Writer,
    limit: Limit = 50,
    after: After = None,
    of: Annotated[
        ItemState | None, Query(alias="state", description="Only those in this state.", examples=["failed"])
    ] = None,
) -> Page[JobItem]:
    """The users of a job of profiles in order of id: how each ended, and why those failed that did."""
    key = paging.decode(after)
    with state.database.session() as session:
        rows = jobs.items(session, job_id, limit + 1, of, None if key is None else str(key[0]))
    shown = [_item(row) for row in rows[:limit]]
    note(state, caller, "list_job_items", [item.user_id for item in shown], durable=False)
    return Page(items=shown, next=paging.encode((shown[-1].user_id,)) if len(rows) > limit else None)


@router.get("/jobs/{job_id}/report", summary="Report on a job", responses=responses(404, 409))
def report_job(job_id: JobId, state: StateDep, caller: Writer) -> RunReport:
    """What a job of profiles came to so far: counts, tokens, cost, speed, quality against the last of its kind.

    Of a training there is none.
    """
    with state.database.session() as session:
        if jobs.get(session, job_id).kind != "profiles":
            raise ConflictError(f"The job {job_id} trains a model, and has no report. GET /v1/models tells of models.")
    report = make_report(state.database, job_id, state.settings.batch, runtime.now())
    named = {slow.user_id for slow in report.slowest} | {failed.user_id for failed in report.failed}
    note(state, caller, "report_job", sorted(named), durable=False)
    return report


@router.get(
    "/jobs/{job_id}/progress",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses=responses(404)
    | {
        200: {
            "description": "Server-sent events",
            "content": {"text/event-stream": {"example": 'id: 9c1f\r\nevent: progress\r\ndata: {"state": "running"}'}},
        },
        204: {"description": "The job is over, and the client knows how it ended"},
    },
)
async def follow_job(
    job_id: JobId,
    state: StateDep,
    _caller: Reader,
    last_event_id: Annotated[str | None, Header(max_length=64, description="The event that was received last.")] = None,
) -> Response:
    """Server-sent events: one with the whole job for each change of it, at most two a second, until the job is over."""
    first = await run_sync(read_progress, state, job_id)
    if first.finished_at is not None and _event_id(first) == last_event_id:
        return Response(status_code=204)  # with this a browser does not connect again
    return EventSourceResponse(_events(state, job_id, first, last_event_id))


async def _events(state: State, job_id: str, shown: JobProgress, last: str | None) -> AsyncIterator[ServerSentEvent]:
    took = 0.0
    while True:
        if (event_id := _event_id(shown)) != last:
            yield ServerSentEvent(shown.model_dump_json(), event="progress", id=event_id)
            last = event_id
        if shown.finished_at is not None:
            return
        await anyio.sleep(max(_EVENT_PAUSE_S, took / _READING_SHARE))
        began = time.monotonic()
        try:
            shown = await run_sync(read_progress, state, job_id)
        except NotFoundError:
            return
        took = time.monotonic() - began


def _event_id(shown: JobProgress) -> str:
    return hashlib.blake2b(shown.model_dump_json(exclude={"eta"}).encode(), digest_size=8).hexdigest()


def read_progress(state: State, job_id: str) -> JobProgress:
    """Return a job, and how far it is.

    Raises:
        NotFoundError: There is no such job.
    """
    with state.database.session() as session:
        found = jobs.progress(session, job_id)
    counts = Counts(**found.counts)
    eta = _eta(found.job, counts, runtime.now())
    return JobProgress(**_fields(found.job), counts=counts, tokens=found.tokens, eta=eta)


def _eta(job: JobRow, counts: Counts, now: datetime) -> datetime | None:
    """Say when a job ends, if it goes on as so far."""
    left = counts.queued + counts.running
    over = counts.written + counts.unchanged + counts.failed
    if job.finished_at is not None or job.started_at is None or not over or not left:
        return None
    return now + (now - job.started_at.astimezone(UTC)) * (left / over)


def _fields(row: JobRow) -> dict[str, Any]:
    fields = {name: getattr(row, name) for name in Job.model_fields if name != "model_id"}
    return _in_utc(fields) | {"model_id": row.result.get("model_id")}


def _item(row: JobItemRow) -> JobItem:
    return JobItem(**_in_utc({name: getattr(row, name) for name in JobItem.model_fields}))


def _in_utc(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in fields.items()}
