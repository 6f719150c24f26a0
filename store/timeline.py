"""One user's log as a page shows it: events with their items, their order, and when in the week they fall."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select, text
from sqlmodel import Session, col

from store.logs import read_items
from store.records import Item
from store.tables import EventRow

HOURS, DAYS = 24, 7

# The local time is that of the event's own offset, else that of the zone which the user has declared.
_WEEK = text("""
    select extract(isodow from local)::int - 1, extract(hour from local)::int, count(*)
    from (
        select case
            when e.ts_offset is not null then (e.ts at time zone 'UTC') + make_interval(mins => e.ts_offset)
            else e.ts at time zone u.tz
        end as local
        from events e join users u using (user_id)
        where e.user_id = :user_id and (e.ts_offset is not null or u.tz is not null)
    ) found
    group by 1, 2
""")


class Told(NamedTuple):
    """An event, and its item if it has one."""

    event: EventRow
    item: Item | None


def told(session: Session, user_id: str, event_ids: Sequence[str]) -> dict[str, Told]:
    """Return events of a user by id; ids of others' events are left out."""
    query = select(EventRow).where(col(EventRow.event_id).in_(list(event_ids)), col(EventRow.user_id) == user_id)
    events = session.scalars(query).all()
    items = read_items(session, sorted({event.item_id for event in events if event.item_id is not None}))
    return {event.event_id: Told(event, items.get(event.item_id or "")) for event in events}


def order(session: Session, user_id: str) -> list[str]:
    """Return the ids of all events of a user, in order of time."""
    query = select(col(EventRow.event_id)).where(col(EventRow.user_id) == user_id)
    return list(session.scalars(query.order_by(col(EventRow.ts), col(EventRow.event_id))))


def week(session: Session, user_id: str) -> list[list[int]]:
    """Count a user's events by weekday, Monday first, and local hour, `(7, 24)`.

    Events without an offset of a user without a zone are left out.
    """
    counts = [[0] * HOURS for _ in range(DAYS)]
    for weekday, hour, number in session.execute(_WEEK, {"user_id": user_id}):
        counts[weekday][hour] = number
    return counts
