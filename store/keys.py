"""Keys of the HTTP interface: made, listed, revoked, found. The secret is known to its owner alone.

Sessions of browsers stand for keys; those that were signed out are kept here until they would have ended anyway.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col

from store.database import Database
from store.errors import NotFoundError
from store.tables import ApiKeyRow, EndedSessionRow

PREFIX = "lim"
SELF = "self:"
SCOPES = ("read", "write", "admin")


class Key(NamedTuple):
    """A key that is in force; see `create`."""

    key_id: str
    scopes: list[str]
    requests_per_minute: int | None


class Found(NamedTuple):
    """What a token says: its key, or None where it is none of ours; and whether there are keys at all."""

    key: Key | None
    any_key: bool


def create(
    session: Session, name: str, scopes: Sequence[str], now: datetime, requests_per_minute: int | None = None
) -> str:
    """Store a key.

    Args:
        session: The unit of work.
        name: Of whoever is to use it.
        scopes: Each `read`, `write`, `admin` or `self:<user_id>`.
        now: The time.
        requests_per_minute: The most it may send; None is the server's default, 0 is no limit.

    Returns:
        The token, `lim_<key id>_<secret>`: it is nowhere else and cannot be shown again.

    Raises:
        ValueError: A scope is none of these.
    """
    for scope in scopes:
        if scope not in SCOPES and not (scope.startswith(SELF) and len(scope) > len(SELF)):
            raise ValueError(f"{scope!r} is no scope. Scopes are {', '.join(SCOPES)} and {SELF}<user_id>.")
    if not scopes:
        raise ValueError(f"A key needs a scope: {', '.join(SCOPES)} or {SELF}<user_id>.")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    session.add(
        ApiKeyRow(
            key_id=key_id, name=name, scopes=list(scopes), secret_hash=_hash(secret),
            requests_per_minute=requests_per_minute, created_at=now,
        )
    )  # fmt: skip
    return f"{PREFIX}_{key_id}_{secret}"


def list_keys(session: Session) -> list[ApiKeyRow]:
    """Return all keys, revoked ones too, oldest first."""
    return list(session.scalars(select(ApiKeyRow).order_by(col(ApiKeyRow.created_at), col(ApiKeyRow.key_id))))


def revoke(session: Session, key_id: str, now: datetime) -> ApiKeyRow:
    """Revoke a key; one that is revoked already stays so.

    Raises:
        NotFoundError: There is no such key.
    """
    row = session.get(ApiKeyRow, key_id, with_for_update=True)
    if row is None:
        raise NotFoundError(f"There is no key {key_id}. `limner keys list` lists them.")
    row.revoked_at = row.revoked_at or now
    return row


def find(database: Database, token: str | None) -> Found:
    """Find the key of a token; revoked keys are not found, and secrets are compared in constant time."""
    prefix, _, rest = (token or "").partition("_")
    key_id, _, secret = rest.partition("_")
    rows = []
    if prefix == PREFIX and key_id.isalnum():
        query = "select scopes, requests_per_minute, secret_hash, revoked_at from api_keys where key_id = %s"
        rows = database.execute(query, [key_id])
    if not rows:
        return Found(None, bool(database.execute("select 1 from api_keys limit 1")))
    [(scopes, limit, secret_hash, revoked_at)] = rows
    good = hmac.compare_digest(secret_hash, _hash(secret)) and revoked_at is None
    return Found(Key(key_id, scopes, limit) if good else None, any_key=True)


def in_force(database: Database, key_id: str, session: str) -> Found:
    """Find a key by its id alone, for a session whose browser has shown its secret before.

    Args:
        database: To read from.
        key_id: The key; it is not found once it is revoked.
        session: What names the session, a secret; nothing is found once it is ended.
    """
    query = """
        select scopes, requests_per_minute from api_keys where key_id = %s and revoked_at is null
        and not exists (select from ended_sessions where session_hash = %s)
    """
    rows = database.execute(query, [key_id, _hash(session)])
    return Found(Key(key_id, *rows[0]), any_key=True) if rows else find(database, None)


def end_session(session: Session, name: str, now: datetime, lasts: timedelta) -> None:
    """End a session of a browser, whoever has a copy of its cookie.

    Args:
        session: The unit of work.
        name: What names the session of the browser, a secret; only a hash is stored.
        now: The time.
        lasts: How long a session lasts at most; what was ended longer ago is forgotten.
    """
    session.execute(delete(EndedSessionRow).where(col(EndedSessionRow.ended_at) < now - lasts))
    session.execute(insert(EndedSessionRow).values(session_hash=_hash(name), ended_at=now).on_conflict_do_nothing())


def any_key(session: Session) -> bool:
    """Tell whether a key was ever made, revoked ones too: they leave the door closed."""
    return bool(session.scalar(select(exists(select(col(ApiKeyRow.key_id))))))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
