"""Counters that rise with every change of something large, so that whoever has read it knows when to read it anew."""

from psycopg import Connection
from sqlalchemy import select
from sqlmodel import Session, col

from store.database import driver
from store.tables import RevisionRow


def value(session: Session, name: str) -> int:
    """Return a counter; 0 if nothing has changed yet."""
    return session.scalar(select(col(RevisionRow.value)).where(col(RevisionRow.name) == name)) or 0


def rise(where: Session | Connection, name: str) -> None:
    """Raise a counter; whoever does the same waits until this unit of work ends."""
    connection = driver(where) if isinstance(where, Session) else where
    connection.execute(
        "insert into revisions (name, value) values (%s, 1)"
        " on conflict (name) do update set value = revisions.value + 1",
        [name],
    )
