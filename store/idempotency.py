"""Responses that are kept for a day, so that a request that is sent again is not done again.

While a request is under way, its server gives signs of life (`beat`): where they stay away, the server has died, and
the request may be begun anew.
"""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import ColumnElement, delete, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col

from store.database import Database
from store.tables import IdempotencyRow

KEPT = timedelta(days=1)
BEAT_S = 5.0
"""Seconds between two signs of life of a request that is under way."""
GIVEN_UP = timedelta(seconds=30)
"""A request that has given no sign of life for longer than this has died with its server."""
_FORGOTTEN_AT_ONCE = 100


class Stored(NamedTuple):
    """A response that was given."""

    status: int
    headers: dict[str, str]
    body: bytes


def begin(
    session: Session, key_id: str, idempotency_key: str, request_hash: str, subject_hash: str | None, now: datetime
) -> Stored | Literal["begun", "under way", "other request"]:
    """Begin a request, unless it is known; of two that come at once, one begins.

    Args:
        session: The unit of work.
        key_id: Of the API key; empty for none.
        idempotency_key: As the client names the request.
        request_hash: Of everything that makes it the same request.
        subject_hash: Whose data the response may hold.
        now: The time; `beat`, `finish` and `forget` need the same.

    Returns:
        The response, if there is one; or whether the request has begun now, is under way already, or is not the one
        that was sent under this key before.
    """
    day_ago = now - KEPT
    _forget_old(session, day_ago)
    query = insert(IdempotencyRow).values(
        key_id=key_id, idempotency_key=idempotency_key, request_hash=request_hash, subject_hash=subject_hash,
        created_at=now, headers={},
    )  # fmt: skip
    fresh = {name: query.excluded[name] for name in ("request_hash", "subject_hash", "created_at", "status", "headers")}
    dead = col(IdempotencyRow.status).is_(None) & (col(IdempotencyRow.created_at) < now - GIVEN_UP)
    begun = session.execute(
        query.on_conflict_do_update(
            index_elements=["key_id", "idempotency_key"],
            set_=fresh,
            where=or_(col(IdempotencyRow.created_at) < day_ago, dead),
        ).returning(col(IdempotencyRow.key_id))
    ).first()
    if begun:
        return "begun"
    row = session.get(IdempotencyRow, (key_id, idempotency_key))
    if row is None:  # forgotten in between: whoever sends it again will begin it
        return "under way"
    if row.request_hash != request_hash:
        return "other request"
    return "under way" if row.status is None else Stored(row.status, row.headers, row.body)


def beat(database: Database, key_id: str, idempotency_key: str, begun_at: datetime, now: datetime) -> datetime:
    """Give a sign of life of a request that is under way.

    Args:
        database: To write to.
        key_id: As it has begun.
        idempotency_key: As it has begun.
        begun_at: When it has begun, or what the last sign of life has returned.
        now: The time.

    Returns:
        What stands for `begun_at` from now on: the same, if the request was begun anew since.
    """
    query = """
        update idempotency set created_at = %s
        where key_id = %s and idempotency_key = %s and created_at in (%s, %s) and status is null returning 1
    """
    return now if database.execute(query, [now, key_id, idempotency_key, begun_at, now]) else begun_at


def finish(session: Session, key_id: str, idempotency_key: str, begun_at: datetime, response: Stored) -> None:
    """Keep the response of a request that has begun; nothing happens if it was forgotten or begun anew since."""
    session.execute(
        update(IdempotencyRow)
        .where(*_begun(key_id, idempotency_key, begun_at))
        .values(status=response.status, headers=response.headers, body=response.body)
    )


def forget(session: Session, key_id: str, idempotency_key: str, begun_at: datetime) -> None:
    """Forget a request that has begun and came to nothing, so that it can be sent again."""
    session.execute(delete(IdempotencyRow).where(*_begun(key_id, idempotency_key, begun_at)))


def forget_subject(session: Session, subject_hash: str) -> None:
    """Forget the responses that may hold a person's data."""
    session.execute(
        delete(IdempotencyRow).where(
            col(IdempotencyRow.subject_hash) == subject_hash, col(IdempotencyRow.status).is_not(None)
        )
    )


def _begun(key_id: str, idempotency_key: str, begun_at: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        col(IdempotencyRow.key_id) == key_id,
        col(IdempotencyRow.idempotency_key) == idempotency_key,
        col(IdempotencyRow.created_at) == begun_at,
        col(IdempotencyRow.status).is_(None),
    )


def _forget_old(session: Session, before: datetime) -> None:
    """Remove some old rows; those that another request is removing just now are left to it."""
    key = tuple_(col(IdempotencyRow.key_id), col(IdempotencyRow.idempotency_key))
    old = (
        select(col(IdempotencyRow.key_id), col(IdempotencyRow.idempotency_key))
        .where(col(IdempotencyRow.created_at) < before)
        .limit(_FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    session.execute(delete(IdempotencyRow).where(key.in_(old)))
