"""Pages of users, items and events by keyset: a page begins after the last row of the one before, however many came.

Each function returns at most `limit + 1` rows, so that one more tells that there is another page.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, select, tuple_
from sqlmodel import Session, col

from store.tables import EventRow, ItemRow, ProfileRow, UserRow


class UserEntry(NamedTuple):
    """A user as a list shows them; a profile is told only where the user consents to it."""

    user_id: str
    consent: bool
    profile_version: int | None


def users(session: Session, limit: int, after: str | None) -> list[UserEntry]:
    """Return users in order of id, after this id."""
    active = and_(col(ProfileRow.user_id) == col(UserRow.user_id), col(ProfileRow.active), col(UserRow.consent))
    query = (
        select(col(UserRow.user_id), col(UserRow.consent), col(ProfileRow.version))
        .outerjoin(ProfileRow, active)
        .order_by(col(UserRow.user_id))
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(col(UserRow.user_id) > after)
    return [UserEntry._make(row) for row in session.execute(query)]


def items(session: Session, limit: int, after: str | None) -> Sequence[ItemRow]:
    """Return items in order of id, after this id."""
    query = select(ItemRow).order_by(col(ItemRow.item_id)).limit(limit + 1)
    if after is not None:
        query = query.where(col(ItemRow.item_id) > after)
    return session.scalars(query).all()


def events(session: Session, user_id: str, limit: int, after: tuple[datetime, str] | None) -> Sequence[EventRow]:
    """Return a user's events, the newest first; those before this time and id."""
    key = tuple_(col(EventRow.ts), col(EventRow.event_id))
    query = (
        select(EventRow)
        .where(col(EventRow.user_id) == user_id)
        .order_by(col(EventRow.ts).desc(), col(EventRow.event_id).desc())
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(key < tuple_(*after))
    return session.scalars(query).all()
