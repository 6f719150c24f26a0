"""Jobs that train a model: taken up by attempts, of which only the one that counts may store what it has made."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session

from store.errors import ConflictError
from store.tables import JobRow


def take(session: Session, job_id: str, now: datetime, tries: int) -> int | None:
    """Take a training up.

    Returns:
        The attempt; None if it is over, or gone, or was lost `tries` times and has failed.
    """
    job = session.get(JobRow, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.finished_at is not None:
        return None
    attempt = int(job.result.get("attempt", 0)) + 1
    if attempt > tries:
        job.state, job.finished_at, job.reason = "failed", now, f"Its worker was lost {tries} times."
        return None
    job.state, job.started_at, job.result = "running", job.started_at or now, {"attempt": attempt}
    return attempt


def fence(session: Session, job_id: str, attempt: int) -> JobRow:
    """Return the job, locked, if this attempt is still the one that counts.

    Raises:
        ConflictError: Another worker has taken it up since, or it was cancelled.
    """
    job = session.get(JobRow, job_id, with_for_update=True, populate_existing=True)
    if job is None or job.state != "running" or job.result.get("attempt") != attempt:
        raise ConflictError("The training was cancelled, or another worker has taken it up since: nothing was stored.")
    return job


def end(
    session: Session,
    job_id: str,
    attempt: int,
    now: datetime,
    result: Mapping[str, Any] | None = None,
    reason: str | None = None,
) -> None:
    """End a training: with its result, or failed for a reason; nothing changes if it is another's by now."""
    try:
        job = fence(session, job_id, attempt)
    except ConflictError:
        return
    job.state = "done" if reason is None else "failed"
    job.finished_at, job.reason, job.result = now, reason, {**job.result, **(result or {})}
