"""The audit: who read or changed a person's data, and when. The person is a keyed hash; no content is kept."""

from collections.abc import Iterable
from datetime import datetime

from psycopg import Connection
from sqlmodel import Session

from store.database import Database, driver

_INSERT = "insert into audit (at, key_id, action, subject_hash, request_id) values (%s, %s, %s, %s, %s)"


def note(
    where: Session | Connection,
    at: datetime,
    key_id: str | None,
    action: str,
    subject_hash: str | None = None,
    request_id: str | None = None,
) -> None:
    """Store an audit row.

    Args:
        where: The unit of work.
        at: The time.
        key_id: Of the API key; None is someone at the machine itself.
        action: What is done, such as `read_profile`.
        subject_hash: Whose data it is, by `store.privacy.Hasher`; None is no one in particular.
        request_id: Of the request, as in the logs.
    """
    note_all(where, at, key_id, action, [subject_hash], request_id)


def note_all(
    where: Session | Connection,
    at: datetime,
    key_id: str | None,
    action: str,
    subject_hashes: Iterable[str | None],
    request_id: str | None = None,
) -> None:
    """Store an audit row for each of these persons; see `note`."""
    rows = [(at, key_id, action, subject, request_id) for subject in subject_hashes]
    connection = driver(where) if isinstance(where, Session) else where
    connection.cursor().executemany(_INSERT, rows)


def note_read(
    database: Database, at: datetime, key_id: str | None, action: str, subject_hash: str, request_id: str
) -> None:
    """Store the audit row of a read the quick way, without waiting for the disk; see `note`."""
    database.execute(_INSERT, [at, key_id, action, subject_hash, request_id])


def note_many(
    database: Database, at: datetime, key_id: str | None, action: str, subjects: int, request_id: str
) -> None:
    """Store one audit row for a read of very many persons at once; see `note_read`.

    Args:
        database: To write to.
        at: The time.
        key_id: Of the API key; None is someone at the machine itself.
        action: What is done.
        subjects: How many persons it is about.
        request_id: Of the request.
    """
    query = "insert into audit (at, key_id, action, subjects, request_id) values (%s, %s, %s, %s, %s)"
    database.execute(query, [at, key_id, action, subjects, request_id])
