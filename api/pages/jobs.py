"""Jobs: started, followed while they run, and what they came to."""

from typing import Annotated, Literal

from fastapi import Form, Request
from pydantic import ValidationError
from starlette.responses import Response

from api import runtime
from api.http.auth import CallerDep, Reader, Writer
from api.http.paging import After
from api.http.problems import Problem
from api.http.routes.jobs import (
    MOST_USERS,
    JobId,
    NewJob,
    cancel_job,
    create_job,
    list_job_items,
    list_jobs,
    read_progress,
    report_job,
)
from api.http.routes.models import Training, train_model
from api.http.state import StateDep
from api.pages.rendering import is_swap, page_router, render, see
from store.records import MAX_ID

router = page_router()
_JOBS, _ITEMS = 30, 50


@router.get("/jobs")
def jobs_page(state: StateDep, caller: Reader, request: Request, after: After = None) -> Response:
    """All jobs, a page at a time, and a form that starts one."""
    page = list_jobs(state, caller, _JOBS, after)
    return render(request.scope, "jobs.html", page=page, after=after, now=runtime.now())


@router.post("/jobs")
def start_job(
    state: StateDep,
    caller: CallerDep,
    what: Annotated[Literal["changed", "all", "listed", "train"], Form()],
    users: Annotated[str, Form(max_length=100_000)] = "",
    writer: Annotated[Literal["llm", "template"], Form()] = "template",
    force: Annotated[Literal["", "yes"], Form()] = "",
) -> Response:
    """Start a job."""
    told = Response()
    if what == "train":
        caller.require("admin")
        return see(f"/jobs/{train_model(Training(), state, caller, told).job_id}")
    caller.require("write")
    listed = list(dict.fromkeys(line.strip() for line in users.splitlines() if line.strip()))
    if what == "listed" and not listed:
        raise Problem(422, "invalid", "Name at least one user, one on a line.")
    try:
        job = NewJob(
            kind="profiles",
            users=listed if what == "listed" else "all",
            changed=what == "changed",
            writer=writer,
            force=force == "yes",
        )
    except ValidationError as error:
        said = f"Name at most {MOST_USERS:,} users, with ids of at most {MAX_ID} characters."
        raise Problem(422, "invalid", said) from error
    return see(f"/jobs/{create_job(job, state, caller, told).job_id}")


@router.get("/jobs/{job_id}")
def job_page(job_id: JobId, state: StateDep, caller: Reader, request: Request, after: After = None) -> Response:
    """A job: how far it is, and what it came to; while it runs, this part is loaded again and again."""
    job = read_progress(state, job_id)
    is_over = job.finished_at is not None
    has_report = job.kind == "profiles" and caller.may("write") and is_over
    failed = None
    if has_report and job.counts.failed:
        failed = list_job_items(job_id, state, caller, _ITEMS, after, "failed")
    name = "_job.html" if is_swap(request) else "job.html"
    return render(request.scope, name, job=job, is_over=is_over, has_report=has_report, failed=failed)


@router.get("/jobs/{job_id}/report")
def job_report(job_id: JobId, state: StateDep, caller: Writer, request: Request) -> Response:
    """What a job came to; of a large one it takes a while to add up."""
    name = "_report.html" if is_swap(request) else "report.html"
    return render(request.scope, name, job_id=job_id, report=report_job(job_id, state, caller))


@router.post("/jobs/{job_id}/cancel")
def cancel_job_by_form(job_id: JobId, state: StateDep, caller: Writer) -> Response:
    """Cancel a job."""
    cancel_job(job_id, state, caller)
    return see(f"/jobs/{job_id}")
