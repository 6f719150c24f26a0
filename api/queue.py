"""The queue of tasks: procrastinate over the same database, its tables in a schema of their own.

A task names a job and a chunk of it, never a user. Tasks are put into the queue in the unit of work that stores their
job, so that there is neither a job without tasks nor a task without a job.
"""

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Protocol

import psycopg
import structlog
from procrastinate import App, BaseRetryStrategy, JobContext, PsycopgConnector, RetryDecision, SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from sqlalchemy import make_url, text
from sqlmodel import Session

from agent.contract import Writer
from api.runtime import now
from api.settings import WorkerSettings
from store import jobs, profiles
from store.database import Database
from store.selection import Selection

PROFILES, TRAIN, UPKEEP, FORGET = "profiles_chunk", "train", "upkeep", "forget"

_SCHEMA = "queue"
_QUEUE = "limner"
_URGENT, _USUAL, _LEAST = 100, 10, 0
_BATCH = 1_000
_KEPT_HOURS = 24
_RECONNECT_S = 20.0

Whose = Sequence[str] | Literal["all"] | Selection | Iterator[Sequence[str]]
"""For whom profiles are written: ids, each once; all who have a log; a selection; or pages of ids, in order."""

log = structlog.get_logger("limner.queue")


class Task(NamedTuple):
    """What is put into the queue; tasks of one `lock` run one after another, those of higher priority come first."""

    name: str
    arguments: dict[str, Any]
    priority: int = _USUAL
    lock: str | None = None


class Work(Protocol):
    """What tasks do; each raises `Again` if it is to be done once more."""

    async def profiles(self, job_id: str, chunk: int, tries: int) -> None:
        """Write the profiles of a chunk; `tries` says how often it was tried before."""

    async def train(self, job_id: str, tries: int) -> None:
        """Train a model."""


class Again(Exception):  # noqa: N818 - not an error, but the way to tell the queue
    """A task is to be done again, after a pause."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"again in {wait_s:.0f} s")
        self.wait_s = wait_s


class _Retry(BaseRetryStrategy):
    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        del job
        if not isinstance(exception, Again):
            return None
        return RetryDecision(retry_at=now() + timedelta(seconds=exception.wait_s))


def enqueue_profiles(
    session: Session,
    users: Whose,
    writer: Writer,
    *,
    force: bool = False,
    created_by: str | None = None,
    asked: Mapping[str, Any] | None = None,
) -> str:
    """Store a job that writes profiles, and put its chunks into the queue, in one unit of work.

    Args:
        session: The unit of work.
        users: For whom.
        writer: Who puts it into words.
        asked: What the job shows of whose they are, where pages of ids are given; see `asked_of`.
        force: Whether to write where nothing has changed.
        created_by: Id of the key that asks for it.

    Returns:
        The id of the job.

    Raises:
        NotFoundError: A user is not in the store, or has not consented.
    """
    request = {**(asked or asked_of(users)), "writer": writer, "force": force}
    job = jobs.create(session, "profiles", request, now(), created_by, users)
    _defer(session, _chunks(job.job_id, range(-(-job.total // jobs.CHUNK))))
    return job.job_id


def asked_of(users: Whose) -> dict[str, Any]:
    """Return what a job shows of whose profiles were asked for: no ids, since those go with the user."""
    if not isinstance(users, Selection):
        return {"users": len(users) if isinstance(users, Sequence) and users != "all" else "all"}
    said = users.model_dump(mode="json", exclude_defaults=True, exclude={"users", "everyone"})
    return {"users": "all" if users.users is None else len(users.users), **said}


def enqueue_again(session: Session, job_id: str, chunks: Sequence[int]) -> None:
    """Put these chunks of a job into the queue, in this unit of work."""
    _defer(session, _chunks(job_id, chunks))


def enqueue_training(session: Session, *, defaults: bool = False, created_by: str | None = None) -> str:
    """Store a job that trains a model, and put it into the queue, in one unit of work.

    Args:
        session: The unit of work.
        defaults: Whether to take the default parameters, and not those of the active model.
        created_by: Id of the key that asks for it.

    Returns:
        The id of the job.
    """
    job = jobs.create(session, "train", {"defaults": defaults}, now(), created_by)
    _defer(session, [_training(job.job_id)])
    return job.job_id


def _chunks(job_id: str, chunks: Sequence[int]) -> Iterable[Task]:
    """Return the tasks of chunks: the refresh of a few users does not wait for that of everyone."""
    priority = _USUAL if len(chunks) <= 1 else _LEAST
    return (Task(PROFILES, {"job_id": job_id, "chunk": chunk}, priority) for chunk in chunks)


def _training(job_id: str) -> Task:
    return Task(TRAIN, {"job_id": job_id}, lock=TRAIN)


def _defer(session: Session, tasks: Iterable[Task]) -> None:
    """Put tasks into the queue in this unit of work."""
    driver = session.connection().connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - for the type checker
    manager = JobManager(SyncPsycopgConnector())  # it is never opened: the connection is ours
    setting = text("select set_config('search_path', :path, true)")
    path = session.scalar(text("show search_path"))
    session.execute(setting, {"path": _SCHEMA})
    rows = (
        Job(queue=_QUEUE, task_name=t.name, task_kwargs=t.arguments, priority=t.priority, lock=t.lock,
            queueing_lock=None)
        for t in tasks
    )  # fmt: skip
    while batch := list(itertools.islice(rows, _BATCH)):
        manager.batch_defer_jobs(batch, driver)
    session.execute(setting, {"path": path})


def make_app(opened: Database, work: Work, settings: WorkerSettings) -> App:
    """Return the queue for a worker: tasks, and what keeps the queue in order."""
    url = make_url(opened.url).set(drivername="postgresql").render_as_string(hide_password=False)
    connector = PsycopgConnector(
        conninfo=url, configure=_configure, min_size=1, max_size=4, reconnect_timeout=_RECONNECT_S
    )
    app = App(connector=connector)

    @app.task(name=PROFILES, queue=_QUEUE, pass_context=True, retry=_Retry())
    async def profiles_chunk(context: JobContext, job_id: str, chunk: int) -> None:
        await work.profiles(job_id, chunk, context.job.attempts)

    @app.task(name=TRAIN, queue=_QUEUE, pass_context=True, retry=_Retry())
    async def train(context: JobContext, job_id: str) -> None:
        await work.train(job_id, context.job.attempts)

    # No lock: that of a killed one would keep the next from taking it up.
    @app.periodic(cron=f"* * * * * */{settings.heartbeat_s}")
    @app.task(name=UPKEEP, queue=_QUEUE, queueing_lock=UPKEEP, priority=_URGENT)
    async def upkeep(timestamp: int) -> None:
        del timestamp
        await _take_up_stalled(app.job_manager, settings.stalled_s)
        await asyncio.to_thread(_take_up_stranded, opened)

    @app.periodic(cron="17 * * * *")
    @app.task(name=FORGET, queue=_QUEUE, queueing_lock=FORGET)
    async def forget(timestamp: int) -> None:
        del timestamp
        await app.job_manager.delete_old_jobs(
            _KEPT_HOURS, include_failed=True, include_cancelled=True, include_aborted=True
        )
        await asyncio.to_thread(_forget_old_vectors, opened)

    return app


async def _configure(connection: psycopg.AsyncConnection) -> None:
    await connection.execute(f"set search_path to {_SCHEMA}")
    await connection.commit()


async def _take_up_stalled(manager: JobManager, stalled_s: float) -> None:
    """Put back into the queue what dead workers were at."""
    for job in await manager.get_stalled_jobs(seconds_since_heartbeat=stalled_s):
        try:
            if job.task_name in {UPKEEP, FORGET}:  # the next is on its way
                await manager.finish_job(job, Status.FAILED, delete_job=True)
            else:
                await manager.retry_job(job)
                log.warning("worker_lost", task=job.task_name, **job.task_kwargs)
        except ConnectorException:
            log.info("task_taken_up_already", task=job.task_name)


def _forget_old_vectors(opened: Database) -> None:
    with opened.session() as session:
        profiles.forget_old_claim_vectors(session)


def _take_up_stranded(opened: Database) -> None:
    with opened.session() as session:
        for job in jobs.stranded(session):
            tasks = [_training(job.job_id)] if job.kind == "train" else list(_chunks(job.job_id, job.chunks or [0]))
            _defer(session, tasks)
            log.warning("job_stranded", job_id=job.job_id, tasks=len(tasks))
