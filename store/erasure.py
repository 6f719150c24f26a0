"""Erase a person: every row and every line about them, with a tombstone that keeps them out.

Files are cleaned first, then the journal is written, then the transaction ends: whatever the moment of a crash, asking
again (or `replay` at the next start) completes it, and no erasure that was confirmed can be lost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

from psycopg import Connection, sql
from psycopg.types.json import Jsonb
from sqlmodel import Session

from store import audit, tombstones
from store.database import Database, driver
from store.errors import NotFoundError, StoreError
from store.keys import SELF
from store.privacy import Hasher
from store.redaction import Redaction
from store.tombstones import Entry, Tombstone

_FORGET_VECTORS: tuple[LiteralString, ...] = (
    """delete from embeddings e using claims c join profiles p using (profile_id)
    where e.kind = 'claim' and e.owner_id = c.claim_pk::text and p.user_id = %(id)s""",
    """delete from factors f using claims c join profiles p using (profile_id)
    where f.kind = 'claim' and f.owner_id = c.claim_pk::text and p.user_id = %(id)s""",
)
_ERASE: tuple[LiteralString, ...] = (
    *_FORGET_VECTORS,
    "delete from attempts where user_id = %(id)s",  # and their calls of the language model
    "delete from events where user_id = %(id)s",
    # Jobs are locked before their items, as `store.jobs` does it.
    """update jobs set total = total - 1
    where job_id in (
        select job_id from jobs where job_id in (select job_id from job_items where user_id = %(id)s)
        order by job_id for update
    )""",
    "delete from job_items where user_id = %(id)s",
    "delete from users where user_id = %(id)s",  # and profiles, claims, evidence, corrections
    "delete from idempotency where subject_hash = %(subject)s",
    # A key that was for this user's own data is good for nothing now.
    """update api_keys set scopes = array_remove(scopes, %(scope)s),
        revoked_at = case when scopes <@ array[%(scope)s] then coalesce(revoked_at, %(now)s) else revoked_at end
    where %(scope)s = any(scopes)""",
)
_THERE: LiteralString = """
select exists (select from users where user_id = %(id)s) or exists (select from events where user_id = %(id)s)
    or exists (select from attempts where user_id = %(id)s) or exists (select from job_items where user_id = %(id)s)
"""
_ALL_USERS: LiteralString = (
    "select user_id from users union select user_id from attempts union select user_id from job_items"
)


def erase(
    database: Database,
    hasher: Hasher,
    home: Path,
    user_id: str,
    now: datetime,
    *,
    key_id: str | None = None,
    request_id: str | None = None,
) -> None:
    """Erase everything that is held on a user, in the database and under the data directory.

    It may be done again: a user who was erased before, and of whom nothing has come back, stays erased.

    Args:
        database: To erase from.
        hasher: Of the tombstone and of the audit row.
        home: The data directory: its rejects, reports and logs are cleaned, its journal gets a line.
        user_id: The user.
        now: The time.
        key_id: Of the API key that asks for it; None is someone at the machine itself.
        request_id: Of the request that asks for it.

    Raises:
        NotFoundError: There is no such user, and never was one that was erased.
        PrivacyKeyError: Earlier tombstones were made under another key.
        StoreError: A file cannot be cleaned; nothing was erased then.
    """
    redaction, subject = Redaction(user_id), hasher.subject(user_id)
    with database.raw() as connection:
        known = tombstones.is_erased(connection, hasher, user_id)
        if not known and not _value(connection, _THERE, {"id": user_id}):
            raise NotFoundError(f"There is no user {user_id}, and none of this name was erased.")
        events = connection.execute("select event_id from events where user_id = %s", [user_id]).fetchall()
    try:
        redaction.clean(home, {event_id for (event_id,) in events})
    except OSError as error:
        raise StoreError(f"{error.filename} cannot be cleaned: {error.strerror}. Nothing was erased.") from error
    with _turn(database, user_id) as session:
        connection = driver(session)
        for statement in _ERASE:
            connection.execute(statement, {"id": user_id, "subject": subject, "scope": SELF + user_id, "now": now})
        _hide(connection, redaction)
        tombstones.put(connection, hasher, subject, now)
        audit.note(session, now, key_id, "erase_user", subject, request_id)
        tombstones.write_down(home, hasher, Entry(subject, now, "erased"))


def allow(
    database: Database,
    hasher: Hasher,
    home: Path,
    user_id: str,
    now: datetime,
    *,
    key_id: str | None = None,
    request_id: str | None = None,
) -> None:
    """Lift the tombstone of a user who was erased, so that data about them is taken in again; see `erase`.

    Raises:
        NotFoundError: There is none.
        PrivacyKeyError: The tombstones were made under another key.
    """
    subject = hasher.subject(user_id)
    with _turn(database, user_id) as session:
        tombstones.is_erased(driver(session), hasher, user_id)  # refuses another key
        tombstones.lift(driver(session), subject, now)
        audit.note(session, now, key_id, "allow_user", subject, request_id)
        tombstones.write_down(home, hasher, Entry(subject, now, "allowed"))


def replay(database: Database, hasher: Hasher, home: Path, now: datetime) -> int:
    """Erase again who was erased and has come back, as with a backup of the database that was restored.

    It costs next to nothing while nobody was erased, else a hash of every user's id.

    Returns:
        The number of users that it has erased.

    Raises:
        PrivacyKeyError: The tombstones were made under another key.
    """
    with database.raw() as connection:
        tombstones.wait_for_turn(connection)
        erased = {row.subject for row in tombstones.merge(connection, hasher, home)}
        back = [user_id for user_id in _users(connection) if hasher.subject(user_id) in erased] if erased else []
    for user_id in back:
        erase(database, hasher, home, user_id, now)
    return len(back)


def erasures(database: Database, hasher: Hasher) -> list[Tombstone]:
    """Return all tombstones, oldest first.

    Raises:
        PrivacyKeyError: They were made under another key.
    """
    with database.raw() as connection:
        return tombstones.read(connection, hasher)


def forget_vectors(session: Session, user_id: str) -> None:
    """Remove the vectors and factors of a user's claims: nobody can search for them from now on."""
    for statement in _FORGET_VECTORS:
        driver(session).execute(statement, {"id": user_id})


@contextmanager
def _turn(database: Database, user_id: str) -> Iterator[Session]:
    """A unit of work that holds the user's row, then the turn: ingest takes them in this order as well."""
    with database.session() as session:
        driver(session).execute("select from users where user_id = %s for update", [user_id])
        tombstones.wait_for_turn(driver(session))
        yield session


def _hide(connection: Connection, redaction: Redaction) -> None:
    """Take the id out of rows that are not the user's own: jobs, runs, calls, and answers kept to be given again."""
    # Where the id is short, JSON names it as a whole string, and a path as a whole segment.
    named = redaction.spellings
    if redaction.short:
        named = [text for s in redaction.spellings for text in (f'"{s}"', f"users/{s}")]
    connection.execute(
        "delete from idempotency where exists (select from unnest(%s::text[]) s where strpos(idempotency_key, s) > 0"
        " or strpos(headers::text, s) > 0 or position(convert_to(s, 'UTF8') in body) > 0)",
        [named],
    )
    for rows, columns in (
        ("jobs", ("request", "result", "reason")),
        ("job_items", ("reason",)),
        ("queue.procrastinate_jobs", ("args", "lock", "queueing_lock")),
        ("ingest_runs", ("file", "source", "reason")),
        ("llm_calls", ("detail",)),
        ("api_keys", ("name",)),
    ):
        _hide_in(connection, redaction, rows, columns)


def _hide_in(connection: Connection, redaction: Redaction, table: str, columns: Sequence[str]) -> None:
    named = sql.SQL("exists (select from unnest(%s::text[]) s where strpos({}::text, s) > 0)")
    names, source = [sql.Identifier(column) for column in columns], sql.Identifier(*table.split("."))
    query = sql.SQL("select ctid, {} from {} where {} for update").format(
        sql.SQL(", ").join(names), source, sql.SQL(" or ").join(named.format(name) for name in names)
    )
    for place, *held in connection.execute(query, [redaction.spellings] * len(columns)).fetchall():
        hidden = [redaction.strip(value) for value in held]
        if hidden != held:
            changes = sql.SQL(", ").join(sql.SQL("{} = %s").format(name) for name in names)
            values = [Jsonb(value) if isinstance(value, dict | list) else value for value in hidden]
            connection.execute(sql.SQL("update {} set {} where ctid = %s").format(source, changes), [*values, place])


def _users(connection: Connection) -> Iterator[str]:
    with connection.cursor("users") as cursor:
        cursor.itersize = 10_000
        cursor.execute(_ALL_USERS)
        for (user_id,) in cursor:
            yield user_id


def _value(connection: Connection, query: LiteralString, values: dict[str, Any]) -> Any:
    row = connection.execute(query, values).fetchone()
    return row[0] if row else None
