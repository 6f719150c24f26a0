"""Runs: jobs of profiles that a command works through itself, and what a run of any kind came to.

A command's job is never in the workers' queue (`request["runner"]` is `command`). Whoever works on it holds an advisory
lock of PostgreSQL, which ends with the connection, and so with the process, however that ends.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, Literal, NamedTuple

import psycopg
from sqlalchemy import make_url, select, text
from sqlmodel import Session, col

from store import jobs
from store.database import Database
from store.errors import ConflictError, NotFoundError, UnreachableError
from store.tables import JobItemRow, JobRow

COMMAND = "command"
Runner = Literal["command", "workers"]

_OF_ITEM = """
    a.user_id = i.user_id and a.started_at >= i.started_at and a.started_at <= coalesce(i.finished_at, 'infinity')
"""
_PREVIOUS = 500  # jobs among which the last run of the same kind is sought


class Figures(NamedTuple):
    """What a run came to; shares and means are of the profiles that it wrote.

    Attributes:
        profiles: Versions that it wrote and that are still there.
        put_back: Of these, those that do not count any more since the run was stopped.
        claims: In all of them.
        first_try: Texts of the model that passed at once.
        repaired: After a repair.
        fallback: Refused, so that the template's were taken.
        interpretive: Mean share of interpretation.
        calls: Of the language model, those for users who failed as well.
        tokens_in: That it has read.
        tokens_out: That it has written.
    """

    profiles: int
    put_back: int
    claims: int
    first_try: int
    repaired: int
    fallback: int
    interpretive: float
    calls: int
    tokens_in: int
    tokens_out: int


class Slow(NamedTuple):
    """A user whose profile took long: seconds of the longest attempt, tokens of all."""

    user_id: str
    seconds: float
    tokens: int
    state: str


@contextmanager
def claim(database: Database, job_id: str) -> Iterator[None]:
    """Hold a job for this process alone.

    Raises:
        ConflictError: Another process works on it.
        UnreachableError: The database cannot be reached.
    """
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=10)
    except psycopg.OperationalError as error:
        raise UnreachableError(f"The database cannot be reached: {str(error).strip()}.") from error
    try:
        # A machine that has gone without a word is found out, and its lock is freed, within a minute.
        connection.execute("set tcp_keepalives_idle = 20")
        connection.execute("set tcp_keepalives_interval = 10")
        connection.execute("set tcp_keepalives_count = 4")
        row = connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", [job_id]).fetchone()
        if row is None or not row[0]:
            raise ConflictError(
                f"Another process is at work on the job {job_id}. `limner batch status {job_id}` says how far it is."
            )
        try:
            yield
        finally:
            with suppress(psycopg.Error):  # the server may be gone; closing alone frees it a moment later
                connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", [job_id])
    finally:
        connection.close()


def latest(session: Session, *, unfinished: bool = False) -> str:
    """Return the id of the latest job of profiles.

    Args:
        session: The unit of work.
        unfinished: Only those that are not over.

    Raises:
        NotFoundError: There is none.
    """
    query = select(col(JobRow.job_id)).where(col(JobRow.kind) == "profiles")
    if unfinished:
        query = query.where(col(JobRow.finished_at).is_(None))
    found = session.scalar(query.order_by(col(JobRow.created_at).desc(), col(JobRow.job_id).desc()).limit(1))
    if found is None:
        what = "no run that is not over" if unfinished else "no run yet"
        raise NotFoundError(f"There is {what}. `limner batch run --all` starts one.")
    return found


def take_over(session: Session, job_id: str, stalled_s: float) -> JobRow:
    """Take a job out of the workers' queue, so that a command can work through it.

    Args:
        session: The unit of work.
        job_id: Of a job of profiles.
        stalled_s: After so many seconds without a sign of life is a worker dead.

    Returns:
        The job.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It is no job of profiles, or workers are at it.
    """
    job = jobs.get(session, job_id, lock=True)
    if job.kind != "profiles":
        raise ConflictError(f"The job {job_id} trains a model: workers do that (`limner worker`).")
    if job.finished_at is None and job.request.get("runner") != COMMAND:
        _unqueue(session, job_id, stalled_s)
        job.request = {**job.request, "runner": COMMAND}
    return job


def _unqueue(session: Session, job_id: str, stalled_s: float) -> None:
    path = session.scalar(text("show search_path"))
    setting = text("select set_config('search_path', :path, true)")
    session.execute(setting, {"path": "queue"})  # the queue's triggers name its tables without their schema
    left = session.scalars(
        text("""
            with ours as (
                select q.id, q.status = 'doing' and w.last_heartbeat > now() - make_interval(secs => :stalled_s) as live
                from procrastinate_jobs q left join procrastinate_workers w on w.id = q.worker_id
                where q.status in ('todo', 'doing') and q.args->>'job_id' = :job_id
                for update of q
            )
            , gone as (delete from procrastinate_jobs where id in (select id from ours where live is not true))
            select id from ours where live
        """),
        {"job_id": job_id, "stalled_s": stalled_s},
    ).all()
    session.execute(setting, {"path": path})
    if left:
        raise ConflictError(
            f"Workers are at the job {job_id}. `limner batch status {job_id}` says how far it is; to go on here, stop "
            "the workers."
        )


def hand_over(session: Session, job_id: str) -> list[int] | None:
    """Leave a command's job to the workers.

    Returns:
        The chunks to put into the queue; None if the job is theirs already, or is over.

    Raises:
        NotFoundError: There is no such job.
    """
    job = jobs.get(session, job_id, lock=True)
    if job.finished_at is not None or job.request.get("runner") != COMMAND:
        return None
    job.request = {name: value for name, value in job.request.items() if name != "runner"}
    return jobs.chunks(session, job_id) or [0]


def figures(session: Session, job_id: str) -> Figures:
    """Return what a run came to; the time it takes grows with the number of its users."""
    written = session.execute(
        text("""
            select count(*), count(*) filter (where (p.provenance->>'put_back')::bool),
                coalesce(sum((select count(*) from claims c where c.profile_id = p.profile_id)), 0),
                coalesce(sum((p.quality->>'first_try')::int), 0), coalesce(sum((p.quality->>'repaired')::int), 0),
                coalesce(sum((p.quality->>'fallback')::int), 0),
                coalesce(avg((p.quality->>'interpretive')::float8), 0)
            from job_items i join profiles p on p.user_id = i.user_id and p.version = i.version
            where i.job_id = :job_id and i.state = 'written'
        """),
        {"job_id": job_id},
    ).one()
    calls = session.execute(
        text(f"""
            select count(c.*), coalesce(sum(c.tokens_in), 0), coalesce(sum(c.tokens_out), 0)
            from job_items i join attempts a on {_OF_ITEM} join llm_calls c on c.attempt_id = a.attempt_id
            where i.job_id = :job_id
        """),  # noqa: S608 - our own text
        {"job_id": job_id},
    ).one()
    profiles, put_back, claims, first_try, repaired, fallback = (int(number) for number in written[:6])
    asked, tokens_in, tokens_out = (int(number) for number in calls)
    return Figures(
        profiles, put_back, claims, first_try, repaired, fallback, float(written[6]), asked, tokens_in, tokens_out
    )


def slowest(session: Session, job_id: str, limit: int) -> list[Slow]:
    """Return the users whose profiles took longest, the longest first."""
    query = text(f"""
        select i.user_id, max(extract(epoch from a.finished_at - a.started_at)) as seconds, i.tokens, i.state
        from job_items i join attempts a on {_OF_ITEM}
        where i.job_id = :job_id and a.finished_at is not null and a.outcome in ('written', 'failed')
        group by i.user_id, i.tokens, i.state order by seconds desc, i.user_id limit :limit
    """)  # noqa: S608 - our own text
    rows = session.execute(query, {"job_id": job_id, "limit": limit})
    return [Slow(user_id, round(float(seconds), 3), int(tokens), state) for user_id, seconds, tokens, state in rows]


def failed(session: Session, job_id: str, limit: int) -> list[JobItemRow]:
    """Return the users who failed, in order of id."""
    return jobs.items(session, job_id, limit, "failed")


def previous(session: Session, job_id: str) -> JobRow | None:
    """Return the last run before this one that ended well, wrote something, and was asked for in the same way."""
    job = jobs.get(session, job_id)
    for row in jobs.page(session, _PREVIOUS, job_id):
        wrote = (row.result.get("counts") or {}).get("written", 0)
        if row.kind == "profiles" and row.state == "done" and wrote and kind(row.request) == kind(job.request):
            return row
    return None


def kind(request: Mapping[str, Any]) -> tuple[object, ...]:
    """Return of which kind a request is: the writer, and whose profiles, though not which times or how many ids."""
    loose = {"changed_since", "older_than"}
    said = {
        name: "listed" if type(value) is int else "given" if name in loose else str(value)
        for name, value in request.items()
        if name not in {"runner", "force"}
    }
    return tuple(sorted(said.items()))


def seconds(job: JobRow, now: datetime) -> float:
    """Return the seconds from a job's start to its end, or to now; 0 if it has not begun."""
    return ((job.finished_at or now) - job.started_at).total_seconds() if job.started_at else 0.0
