"""Who was erased: tombstones, in the database and in a journal beside it that outlives a restored backup.

A tombstone is a keyed hash (`store.privacy.Hasher`): it tells nothing without the key, and matches nobody under
another one. So the key's fingerprint is kept with them, in `erasures` as a row `key:<fingerprint>` and in each line of
the journal; tombstones made under another key are an error, not an empty list. A tombstone that was lifted stays as a
row `allowed:<hash>`: another machine's journal may know only of the erasure.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

import orjson
from psycopg import Connection

from store.errors import ConflictError, NotFoundError, StoreError
from store.privacy import Hasher

JOURNAL = "erasures.jsonl"
_KEY, _ALLOWED = "key:", "allowed:"
_NOBODY = "\0limner"  # no id holds a NUL
_LOCK = 0x657261736500  # "erase"


class ErasedError(ConflictError):
    """Data of a person who was erased is not taken in."""


class PrivacyKeyError(StoreError):
    """The tombstones were made under another key."""

    def __init__(self) -> None:
        super().__init__(
            "The tombstones of erased users were made under another privacy key, so that none of them can be "
            "recognized. Set LIMNER_PRIVACY_KEY to that key, or bring the file privacy.key back from a backup."
        )


class Tombstone(NamedTuple):
    """A keyed hash, and when the person was erased."""

    subject: str
    erased_at: datetime


class Entry(NamedTuple):
    """A line of the journal."""

    subject: str
    at: datetime
    what: Literal["erased", "allowed"]


def wait_for_turn(connection: Connection) -> None:
    """Wait until no erasure is under way, and keep others from beginning until this transaction ends.

    Who needs the lock of a user's row as well takes that first.
    """
    connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])


def read(connection: Connection, hasher: Hasher) -> list[Tombstone]:
    """Return all tombstones, oldest first.

    Raises:
        PrivacyKeyError: They were made under another key.
    """
    return [row for row in _rows(connection, hasher) if ":" not in row.subject]


def _rows(connection: Connection, hasher: Hasher) -> list[Tombstone]:
    rows = [Tombstone(*row) for row in connection.execute("select subject_hash, erased_at from erasures order by 2, 1")]
    if rows and fingerprint(hasher) not in {row.subject for row in rows}:
        raise PrivacyKeyError
    return rows


def is_erased(connection: Connection, hasher: Hasher, user_id: str) -> bool:
    """Tell whether this user was erased.

    Raises:
        PrivacyKeyError: The tombstones were made under another key.
    """
    subject, key = hasher.subject(user_id), fingerprint(hasher)
    query = "select subject_hash from erasures where subject_hash = any(%s)"
    found = {row[0] for row in connection.execute(query, [[subject, key]])}
    if key not in found and connection.execute("select from erasures limit 1").fetchone() is not None:
        raise PrivacyKeyError
    return subject in found


def require_not_erased(connection: Connection, hasher: Hasher, user_id: str) -> None:
    """Refuse data of a user who was erased.

    Raises:
        ErasedError: They were.
        PrivacyKeyError: The tombstones were made under another key.
    """
    if is_erased(connection, hasher, user_id):
        raise ErasedError(
            "This user was erased: nothing about them is taken in. If they want to come back, lift that with "
            "`limner user allow` or DELETE /v1/erasures/{user_id} first."
        )


def put(connection: Connection, hasher: Hasher, subject: str, at: datetime) -> None:
    """Store a tombstone; one that is there stays as it is."""
    connection.cursor().executemany(
        "insert into erasures (subject_hash, erased_at) values (%s, %s) on conflict do nothing",
        [(fingerprint(hasher), at), (subject, at)],
    )


def lift(connection: Connection, subject: str, at: datetime) -> None:
    """Remove a tombstone.

    Raises:
        NotFoundError: There is none.
    """
    if not connection.execute("delete from erasures where subject_hash = %s", [subject]).rowcount:
        raise NotFoundError("There is no tombstone of this user: nothing keeps their data out.")
    connection.execute(
        "insert into erasures (subject_hash, erased_at) values (%s, %s)"
        " on conflict (subject_hash) do update set erased_at = excluded.erased_at",
        [_ALLOWED + subject, at],
    )


def write_down(home: Path, hasher: Hasher, entry: Entry) -> None:
    """Add a line to the journal; it is on the disk when this returns."""
    line = {"subject": entry.subject, "at": entry.at.isoformat(), "what": entry.what, "key": fingerprint(hasher)}
    home.mkdir(parents=True, exist_ok=True)
    path = home / JOURNAL
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "r+b") as file:
        if (size := file.seek(0, os.SEEK_END)) and (file.seek(size - 1), file.read(1))[1] != b"\n":
            file.write(b"\n")  # the line before was cut off
        file.write(orjson.dumps(line) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_journal(home: Path, hasher: Hasher) -> dict[str, Entry]:
    """Return the last entry about each person.

    Raises:
        PrivacyKeyError: It was written under another key.
    """
    return {entry.subject: entry for entry in _entries(home / JOURNAL, hasher)}


def _entries(path: Path, hasher: Hasher) -> Iterator[Entry]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            told = orjson.loads(line)
            entry = Entry(told["subject"], datetime.fromisoformat(told["at"]), told["what"])
        except (ValueError, KeyError, TypeError):
            continue  # cut off: the erasure that it was to announce has not been made
        if told.get("key") != fingerprint(hasher):
            raise PrivacyKeyError
        yield entry


def complete_journal(connection: Connection, hasher: Hasher, home: Path) -> None:
    """Write down what the database knows and the journal does not: the database is about to be replaced.

    Raises:
        PrivacyKeyError: They were made under another key.
    """
    written = read_journal(home, hasher)
    for row in _rows(connection, hasher):
        subject = row.subject.removeprefix(_ALLOWED)
        known = written.get(subject)
        if not row.subject.startswith(_KEY) and (known is None or known.at < row.erased_at):
            write_down(home, hasher, Entry(subject, row.erased_at, "erased" if subject == row.subject else "allowed"))


def merge(connection: Connection, hasher: Hasher, home: Path) -> list[Tombstone]:
    """Bring the tombstones of the database in line with the journal, whose word is the later one; return them.

    Raises:
        PrivacyKeyError: They were made under another key.
    """
    stored = dict(_rows(connection, hasher))
    for subject, at, what in read_journal(home, hasher).values():
        known = stored.get(subject) or stored.get(_ALLOWED + subject)
        if what == "erased" and subject not in stored and (known is None or known < at):
            put(connection, hasher, subject, at)
        elif what == "allowed" and subject in stored and stored[subject] <= at:
            lift(connection, subject, at)
    return read(connection, hasher)


def fingerprint(hasher: Hasher) -> str:
    """Return what tells a privacy key from others; the key cannot be told from it."""
    return _KEY + hasher.subject(_NOBODY)
