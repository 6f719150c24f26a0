"""Jobs in the store: what is to be done and for whom, who has taken it up, how it ended.

A job of profiles has an item for each user, and its items are taken up chunk by chunk. Whoever takes a chunk raises the
attempt of each unfinished item in it; from then on only that attempt may write, so that a worker which was thought dead
and comes back can change nothing.

Locks are taken in this order: the job, then its items.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, LiteralString, NamedTuple

from sqlalchemy import exists, func, select, text, tuple_, update
from sqlmodel import Session, col

from store.database import driver
from store.errors import ConflictError, NotFoundError
from store.records import ItemState, JobKind
from store.selection import FROM, Selection, condition
from store.tables import JobItemRow, JobRow

CHUNK = 16
"""Users that a worker takes up at once."""
_UNFINISHED = ("queued", "running")
_SHOWN_MISSING = 5

_SELECTED = "u.consent and (u.user_id = any(:users) or (:everyone and u.log_revision > 0))"


class Progress(NamedTuple):
    """How far a job is: its row, its items by state, and the tokens that they have cost."""

    job: JobRow
    counts: dict[str, int]
    tokens: int


class Outcome(NamedTuple):
    """How an item ended, and why if it failed."""

    state: ItemState
    reason: str | None = None


class Tally(NamedTuple):
    """What tells the quality of a run: users who were written or failed, and texts by how they came about."""

    written: int = 0
    failed: int = 0
    first_try: int = 0
    repaired: int = 0
    fallback: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Return the sum of both."""
        return Tally(*(mine + more for mine, more in zip(self, other, strict=True)))


class Stranded(NamedTuple):
    """A job that is not over, though nothing of it is in the queue; `chunks` are those with unfinished items."""

    job_id: str
    kind: str
    chunks: list[int]


def create(
    session: Session,
    kind: JobKind,
    request: Mapping[str, Any],
    now: datetime,
    created_by: str | None = None,
    users: Sequence[str] | Literal["all"] | Selection | Iterator[Sequence[str]] = (),
    chunk: int = CHUNK,
) -> JobRow:
    """Store a job and its items; one that has nothing to do is done at once.

    Args:
        session: The unit of work.
        kind: Of the job.
        request: What is asked for, as JSON. No ids of users: those stand in the items, and go with the user.
        now: The time.
        created_by: Id of the key that asks for it.
        users: For whom, each once: ids, or all who have a log; all must consent. Or a selection (but not of who has
            drifted, which the store cannot tell), or pages of ids in order: who does not consent is left out of these.
        chunk: Items of a chunk.

    Raises:
        NotFoundError: A user is not in the store, or has not consented.
        ValueError: A selection of who has drifted.
    """
    job = JobRow(job_id=uuid.uuid4().hex, kind=kind, state="queued", request=dict(request), created_at=now)
    job.created_by = created_by
    session.add(job)
    session.flush()
    if kind == "profiles":
        job.total = _add_all(session, job.job_id, users, chunk)
        _close_if_over(session, job, now)
    session.flush()
    return job


def _add_all(
    session: Session,
    job_id: str,
    users: Sequence[str] | Literal["all"] | Selection | Iterator[Sequence[str]],
    chunk: int,
) -> int:
    if isinstance(users, Selection):
        return _add_selected(session, job_id, users, chunk)
    if isinstance(users, Iterator):
        total = 0
        for page in users:
            total += _add_items(session, job_id, {"users": list(page), "everyone": False}, chunk, total)
        return total
    wanted = {"users": [] if users == "all" else list(users), "everyone": users == "all"}
    _require_all(session, wanted["users"])
    return _add_items(session, job_id, wanted, chunk)


def _require_all(session: Session, users: Any) -> None:
    query = text(f"""
        select wanted.user_id from unnest(cast(:users as text[])) as wanted(user_id)
        where not exists (select from users u where u.user_id = wanted.user_id and {_SELECTED})
        order by 1 limit {_SHOWN_MISSING}
    """)  # noqa: S608 - our own text
    if missing := session.scalars(query, {"users": users, "everyone": False}).all():
        raise NotFoundError(f"No user {', '.join(missing)} with consent in the store: no job was made.")


def _add_items(session: Session, job_id: str, wanted: Mapping[str, Any], chunk: int, before: int = 0) -> int:
    """Add items; `before` are there already."""
    query = text(f"""
        with added as (
            insert into job_items (job_id, user_id, chunk, state, attempt, tokens)
            select :job_id, u.user_id, (:before + row_number() over (order by u.user_id) - 1) / :chunk, 'queued', 0, 0
            from users u where {_SELECTED}
            returning 1
        )
        select count(*) from added
    """)  # noqa: S608 - our own text
    return int(session.scalar(query, {"job_id": job_id, "chunk": chunk, "before": before, **wanted}) or 0)


def _add_selected(session: Session, job_id: str, selection: Selection, chunk: int) -> int:
    if selection.drifted:
        raise ValueError("the store cannot tell who has drifted: give the pages of ids that agent.planning finds")
    held = condition(selection)
    query: LiteralString = f"""
        insert into job_items (job_id, user_id, chunk, state, attempt, tokens)
        select %(job_id)s, u.user_id, (row_number() over (order by u.user_id) - 1) / %(chunk)s, 'queued', 0, 0
        from {FROM} where {held.sql}
    """  # noqa: S608 - our own text
    return driver(session).execute(query, held.parameters | {"job_id": job_id, "chunk": chunk}).rowcount


def get(session: Session, job_id: str, *, lock: bool = False) -> JobRow:
    """Return a job's row.

    Args:
        session: The unit of work.
        job_id: Of the job.
        lock: Whether others who want to change it must wait for the end of the unit of work.

    Raises:
        NotFoundError: There is no such job.
    """
    row = session.get(JobRow, job_id, with_for_update=lock or None, populate_existing=lock)
    if row is None:
        raise NotFoundError(f"There is no job {job_id}. GET /v1/jobs lists them.")
    return row


def progress(session: Session, job_id: str) -> Progress:
    """Return how far a job is; the time it takes grows with the number of its items.

    Raises:
        NotFoundError: There is no such job.
    """
    return Progress(get(session, job_id), *_counts(session, job_id))


def _counts(session: Session, job_id: str) -> tuple[dict[str, int], int]:
    query = (
        select(col(JobItemRow.state), func.count(), func.sum(JobItemRow.tokens))
        .where(col(JobItemRow.job_id) == job_id)
        .group_by(col(JobItemRow.state))
        .order_by(col(JobItemRow.state))
    )
    rows = session.execute(query).all()
    return {state: count for state, count, _ in rows}, sum(int(tokens) for _, _, tokens in rows)


def page(session: Session, limit: int, before: str | None = None) -> list[JobRow]:
    """Return the latest jobs, or those before the one of this id, newest first."""
    key = tuple_(col(JobRow.created_at), col(JobRow.job_id))
    query = select(JobRow).order_by(col(JobRow.created_at).desc(), col(JobRow.job_id).desc()).limit(limit)
    if before is not None:
        known = select(col(JobRow.created_at), col(JobRow.job_id)).where(col(JobRow.job_id) == before)
        query = query.where(key < known.scalar_subquery())
    return list(session.scalars(query))


def items(
    session: Session, job_id: str, limit: int, state: ItemState | None = None, after: str | None = None
) -> list[JobItemRow]:
    """Return a job's items in order of user, of one state or of any, from after this user.

    Raises:
        NotFoundError: There is no such job.
    """
    get(session, job_id)
    query = select(JobItemRow).where(col(JobItemRow.job_id) == job_id).order_by(col(JobItemRow.user_id)).limit(limit)
    if state is not None:
        query = query.where(col(JobItemRow.state) == state)
    if after is not None:
        query = query.where(col(JobItemRow.user_id) > after)
    return list(session.scalars(query))


def chunks(session: Session, job_id: str) -> list[int]:
    """Return the chunks that have unfinished items, in order."""
    query = (
        select(col(JobItemRow.chunk))
        .where(col(JobItemRow.job_id) == job_id, col(JobItemRow.state).in_(_UNFINISHED))
        .distinct()
        .order_by(col(JobItemRow.chunk))
    )
    return list(session.scalars(query))


def users_of(session: Session, job_id: str, chunk: int) -> list[str]:
    """Return the ids of all users of a chunk, in order."""
    query = select(col(JobItemRow.user_id)).where(col(JobItemRow.job_id) == job_id, col(JobItemRow.chunk) == chunk)
    return list(session.scalars(query.order_by(col(JobItemRow.user_id))))


def cancel(session: Session, job_id: str, now: datetime) -> JobRow:
    """Cancel a job: what is queued is cancelled, what is under way ends first. A cancelled job stays so.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It is over.
    """
    job = get(session, job_id, lock=True)
    if job.state in {"done", "failed"}:
        raise ConflictError(f"The job {job_id} is {job.state}: there is nothing left to cancel.")
    job.state = "cancelled"
    session.execute(
        update(JobItemRow)
        .where(col(JobItemRow.job_id) == job_id, col(JobItemRow.state) == "queued")
        .values(state="cancelled", finished_at=now)
    )
    _close_if_over(session, job, now)
    return job


def take(session: Session, job_id: str, chunk: int, now: datetime, tries: int) -> dict[str, int]:
    """Take a chunk up: its unfinished items are this worker's now, whoever had them.

    Attempts to write that a lost worker has left open are closed. An item that was lost `tries` times fails; those of
    a cancelled job are cancelled.

    Returns:
        The attempt of each item, by user; nothing if the job is over or gone.
    """
    job = session.get(JobRow, job_id, with_for_update=True, populate_existing=True)
    if job is None:
        return {}
    mine = (col(JobItemRow.job_id) == job_id, col(JobItemRow.chunk) == chunk, col(JobItemRow.state).in_(_UNFINISHED))
    query = select(col(JobItemRow.user_id), col(JobItemRow.state)).where(*mine).order_by(col(JobItemRow.user_id))
    rows = session.execute(query.with_for_update()).all()
    _interrupt(session, job_id, [user_id for user_id, state in rows if state == "running"], now)
    # All in a few statements: most chunks of a run over many users hold nobody in whom anything has changed.
    unfinished = update(JobItemRow).where(*mine).execution_options(synchronize_session=False)
    if job.state == "cancelled":
        session.execute(unfinished.values(state="cancelled", finished_at=now))
        return {}
    lost = unfinished.where(col(JobItemRow.state) == "running", col(JobItemRow.attempt) >= tries)
    reason = func.concat("Its worker was lost ", JobItemRow.attempt, " times.")
    session.execute(lost.values(state="failed", reason=reason, finished_at=now))
    begun = func.coalesce(JobItemRow.started_at, now)
    taken = unfinished.values(state="running", attempt=col(JobItemRow.attempt) + 1, started_at=begun)
    found = session.execute(taken.returning(col(JobItemRow.user_id), col(JobItemRow.attempt))).all()
    if job.state == "queued":
        job.state, job.started_at = "running", now
    return dict(sorted((user_id, attempt) for user_id, attempt in found))


def _unfinished(session: Session, job_id: str, *which: Any) -> Sequence[JobItemRow]:
    query = select(JobItemRow).where(col(JobItemRow.job_id) == job_id, col(JobItemRow.state).in_(_UNFINISHED), *which)
    ordered = query.order_by(col(JobItemRow.user_id)).with_for_update()
    return session.scalars(ordered.execution_options(populate_existing=True)).all()


def _end(row: JobItemRow, outcome: Outcome, now: datetime) -> None:
    row.state, row.reason, row.finished_at = outcome.state, outcome.reason, now


def _interrupt(session: Session, job_id: str, users: Sequence[str], now: datetime) -> None:
    """Close the attempts that items have left open: those of their users that began after the item did."""
    query = text("""
        update attempts a set outcome = 'interrupted', finished_at = :now
        from job_items i
        where i.job_id = :job_id and i.user_id = any(:users)
          and a.user_id = i.user_id and a.outcome = 'running' and a.started_at >= i.started_at
    """)
    if users:
        session.execute(query, {"job_id": job_id, "users": list(users), "now": now})


def still_mine(session: Session, job_id: str, taken: Mapping[str, int]) -> list[str]:
    """Return the users whose items are running under these attempts, in order; none if the job was cancelled."""
    query = text("""
        select i.user_id, i.attempt from job_items i join jobs j using (job_id)
        where job_id = :job_id and i.user_id = any(:users) and i.state = 'running' and j.state <> 'cancelled'
        order by i.user_id
    """)
    rows = session.execute(query, {"job_id": job_id, "users": list(taken)})
    return [user_id for user_id, attempt in rows if taken[user_id] == attempt]


def fence(session: Session, job_id: str, user_id: str, attempt: int, version: int, now: datetime) -> None:
    """Let a version in, and note it, in the unit of work that stores it: only the attempt that counts may write.

    Raises:
        ConflictError: Another worker has taken the item up since, or it is over, or gone.
    """
    item = (col(JobItemRow.job_id) == job_id, col(JobItemRow.user_id) == user_id, col(JobItemRow.attempt) == attempt)
    written = (
        update(JobItemRow)
        .where(*item, col(JobItemRow.state) == "running")
        .values(version=version, state="written", reason=None, finished_at=now)
        .returning(col(JobItemRow.user_id))
    )
    if session.scalar(written) is None:
        raise ConflictError("Another worker has taken this user up since: the profile was not stored.")


def finish(
    session: Session, job_id: str, taken: Mapping[str, int], outcomes: Mapping[str, Outcome], now: datetime
) -> int:
    """Note how items ended, but for those that are another's by now, and what all those taken have cost.

    Returns:
        How many were ended.
    """
    ended = session.execute(
        text("""
            update job_items i set state = o.state, reason = o.reason, finished_at = :now
            from unnest(
                cast(:users as text[]), cast(:attempts as int[]), cast(:states as text[]), cast(:reasons as text[])
            ) as o (user_id, attempt, state, reason)
            where i.job_id = :job_id and i.user_id = o.user_id and i.state = 'running' and i.attempt = o.attempt
            returning 1
        """),
        {
            "job_id": job_id,
            "now": now,
            "users": list(outcomes),
            "attempts": [taken[user_id] for user_id in outcomes],
            "states": [outcome.state for outcome in outcomes.values()],
            "reasons": [outcome.reason for outcome in outcomes.values()],
        },
    ).all()
    cost = text("""
        update job_items i set tokens = cost.tokens
        from (
            select a.user_id, sum(c.tokens_in + c.tokens_out) as tokens
            from job_items j
            join attempts a on a.user_id = j.user_id and a.started_at >= j.started_at
            join llm_calls c on c.attempt_id = a.attempt_id
            where j.job_id = :job_id and j.user_id = any(:users)
            group by a.user_id
        ) cost
        where i.job_id = :job_id and i.user_id = cost.user_id
    """)
    session.execute(cost, {"job_id": job_id, "users": list(taken)})
    return len(ended)


def _mine(session: Session, job_id: str, taken: Mapping[str, int]) -> list[JobItemRow]:
    rows = _unfinished(session, job_id, col(JobItemRow.user_id).in_(list(taken)))
    return [row for row in rows if row.state == "running" and row.attempt == taken[row.user_id]]


def hand_back(
    session: Session, job_id: str, taken: Mapping[str, int], reason: str, now: datetime, tries: int | None = None
) -> int:
    """Put what is still running under these attempts back into the queue.

    Args:
        session: The unit of work.
        job_id: Of the job.
        taken: Attempts by user.
        reason: Why.
        now: The time.
        tries: An item that was taken so often fails for the reason; None for no bound.

    Returns:
        How many are queued now: none of a cancelled job.
    """
    state, rows = get(session, job_id).state, _mine(session, job_id, taken)
    _interrupt(session, job_id, [row.user_id for row in rows], now)
    for row in rows:
        if state == "cancelled":
            _end(row, Outcome("cancelled"), now)
        elif tries is not None and row.attempt >= tries:
            _end(row, Outcome("failed", reason), now)
        else:
            row.state = "queued"
    return sum(row.state == "queued" for row in rows)


def count(session: Session, job_id: str, more: Tally) -> None:
    """Add to what tells the quality of a job's run."""
    job = get(session, job_id, lock=True)
    job.result = {**job.result, "tally": Tally(**job.result.get("tally", {})).plus(more)._asdict()}


def tally(session: Session, job_id: str) -> Tally:
    """Return what tells the quality of a job's run so far; what a killed worker has not told is not in it."""
    return Tally(**get(session, job_id).result.get("tally", {}))


def stop(session: Session, job_id: str, reason: str, now: datetime) -> bool:
    """Let a job fail: what is queued or under way is cancelled, and nothing is written any more.

    It is over only when its profiles have been put back (`store.profiles.put_back`, then `end_if_over`).

    Returns:
        Whether it is we who have stopped it: not if it is over already, or cancelled.
    """
    job = get(session, job_id, lock=True)
    if job.finished_at is not None or job.state in {"failed", "cancelled"}:
        return False
    job.state, job.reason, job.result = "failed", reason, {**job.result, "stopped": True}
    mine = col(JobItemRow.job_id) == job_id
    running = select(col(JobItemRow.user_id)).where(mine, col(JobItemRow.state) == "running")
    # Items are locked before their attempts, as whoever stores a profile does it.
    ids = session.scalars(running.order_by(col(JobItemRow.user_id)).with_for_update()).all()
    _interrupt(session, job_id, ids, now)
    unfinished = update(JobItemRow).where(mine, col(JobItemRow.state).in_(_UNFINISHED))
    session.execute(unfinished.values(state="cancelled", finished_at=now))
    return True


def end_if_over(session: Session, job_id: str, now: datetime) -> bool:
    """End a job of profiles when nothing of it is queued or running; tells whether it is over."""
    job = session.get(JobRow, job_id, with_for_update=True, populate_existing=True)
    return job is None or _close_if_over(session, job, now)


def _close_if_over(session: Session, job: JobRow, now: datetime) -> bool:
    if job.finished_at is not None:
        return True
    query = select(col(JobItemRow.user_id)).where(
        col(JobItemRow.job_id) == job.job_id, col(JobItemRow.state).in_(_UNFINISHED)
    )
    if session.scalar(select(exists(query))):
        return False
    counts, tokens = _counts(session, job.job_id)
    job.finished_at = now
    job.result = {**job.result, "counts": counts, "tokens": tokens}
    if job.state not in {"cancelled", "failed"}:
        job.state = "failed" if set(counts) == {"failed"} else "done"
        job.reason = "Every item failed; the items say why." if job.state == "failed" else None
    return True


def stranded(session: Session) -> list[Stranded]:
    """Return the jobs that are not over, though the queue holds nothing of them.

    It comes to that when a worker which was thought dead comes back and takes its task off the queue while the one
    that has taken over is killed. What a command runs (`store.runs`) is never in the queue, and is left to it.
    """
    query = text("""
        select j.job_id, j.kind from jobs j
        where j.finished_at is null and j.request->>'runner' is distinct from 'command' and not exists (
            select from queue.procrastinate_jobs q
            where q.status in ('todo', 'doing') and q.args->>'job_id' = j.job_id
        )
        order by j.created_at
    """)
    found = session.execute(query).all()
    return [Stranded(job_id, kind, chunks(session, job_id)) for job_id, kind in found]
