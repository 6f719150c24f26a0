"""Many users who did what one of the small world did."""

from sqlalchemy import insert

from store.database import Database
from store.tables import EventRow, UserRow
from tests.small_world import fill, ratings

EVENTS = 16


def add_crowd(
    database: Database,
    count: int,
    *,
    like: str = "ann",
    name: str = "user",
    catalogue: bool = True,
    events: int = EVENTS,
) -> list[str]:
    """Store this many users with the first events of one of the small world; returns their ids, in order.

    With `EVENTS` they have one claim; with 40, all that there are, also others, so that there is something to sum up.
    """
    if catalogue:
        fill(database, [])
    ids = [f"{name}-{n:05}" for n in range(count)]
    rows = [row.model_dump() for row in ratings(like)[:events]]
    with database.session() as session:
        for part in (ids[start : start + 1_000] for start in range(0, count, 1_000)):
            session.execute(insert(UserRow), [{"user_id": user_id, "log_revision": 1} for user_id in part])
            copies = [row | {"user_id": i, "event_id": row["event_id"].replace(like, i)} for i in part for row in rows]
            session.execute(insert(EventRow), copies)
    return ids
