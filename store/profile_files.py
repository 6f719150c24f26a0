"""Profiles in bulk: read all of one moment batch by batch, and look up what a profile from a file is held against."""

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import LiteralString, NamedTuple

from sqlalchemy import Select, func, select, tuple_
from sqlmodel import Session, col

from store.database import Database, driver
from store.errors import NotFoundError
from store.profiles import Cited, StoredClaim, StoredProfile
from store.tables import ClaimRow, CorrectionRow, EventRow, ProfileRow, UserRow

_BATCH = 200
_NAMED = 5
_EVIDENCE: LiteralString = """
select e.claim_pk, e.event_id, e.weight, e.counter from evidence e join claims c using (claim_pk)
where c.profile_id = any(%s) order by e.claim_pk, e.position
"""


class Batch(NamedTuple):
    """Some profiles, and how many there are in all."""

    total: int
    profiles: list[StoredProfile]


class LogHere(NamedTuple):
    """A user's events: their number, and the times of the first and the last."""

    events: int
    first: datetime | None
    last: datetime | None


def stream(
    database: Database, users: Sequence[str] | None = None, *, all_versions: bool = False
) -> Generator[Batch, None, None]:
    """Read the profiles of users who consent, in order of user and version: all of one moment, a batch in memory.

    The transaction lasts until the iterator ends; it keeps nobody from writing.

    Args:
        database: To read from.
        users: Of these users; None for all.
        all_versions: Also those that are not active any more.

    Raises:
        NotFoundError: There is no profile, or a user who was asked for has none or does not consent.
    """
    with database.session() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        query = select(ProfileRow).join(UserRow, col(UserRow.user_id) == col(ProfileRow.user_id))
        query = query.where(col(UserRow.consent))
        if not all_versions:
            query = query.where(col(ProfileRow.active))
        if users is not None:
            query = query.where(col(ProfileRow.user_id).in_(users))
            _require(session, query, users)
        total = session.scalar(query.with_only_columns(func.count(), maintain_column_froms=True)) or 0
        if not total:
            raise NotFoundError("There are no profiles to export. Write some with `limner profile write --all`.")
        order = (col(ProfileRow.user_id), col(ProfileRow.version))
        last = ("", 0)
        while rows := session.scalars(query.where(tuple_(*order) > last).order_by(*order).limit(_BATCH)).all():
            yield Batch(total, _with_claims(session, rows))
            last = rows[-1].user_id, rows[-1].version
            session.expunge_all()


def _require(session: Session, query: Select[ProfileRow], users: Sequence[str]) -> None:
    found = set(session.scalars(query.with_only_columns(col(ProfileRow.user_id), maintain_column_froms=True)))
    if missing := sorted(set(users) - found):
        named = ", ".join(missing[:_NAMED])
        raise NotFoundError(
            f"No profile of user {named}{' and others' * (len(missing) > _NAMED)}: there is none, or they do not "
            "consent to one. Write it with `limner profile write --user ID`."
        )


def _with_claims(session: Session, rows: Sequence[ProfileRow]) -> list[StoredProfile]:
    ids = [row.profile_id for row in rows]
    query = select(ClaimRow).where(col(ClaimRow.profile_id).in_(ids))
    claims: dict[int, list[StoredClaim]] = {}
    evidence = _evidence(session, ids)
    for claim in session.scalars(query.order_by(col(ClaimRow.profile_id), col(ClaimRow.position))):
        stored = StoredClaim(claim, tuple(evidence.get(claim.claim_pk or 0, ())))
        claims.setdefault(claim.profile_id, []).append(stored)
    return [StoredProfile(row, tuple(claims.get(row.profile_id or 0, ()))) for row in rows]


def _evidence(session: Session, profile_ids: Sequence[int | None]) -> dict[int, list[Cited]]:
    found: dict[int, list[Cited]] = {}
    for claim, *cited in driver(session).cursor(binary=True).execute(_EVIDENCE, [profile_ids]).fetchall():
        found.setdefault(claim, []).append(Cited(*cited))
    return found


def lock_user(session: Session, user_id: str) -> UserRow | None:
    """Return the user's row, if there is one; their events, corrections and profiles stay as they are until the end."""
    query = select(UserRow).where(col(UserRow.user_id) == user_id)
    return session.scalars(query.with_for_update().execution_options(populate_existing=True)).one_or_none()


def with_key(session: Session, user_id: str, key: str) -> list[StoredProfile]:
    """Return the versions of a user's profile that were written under this key."""
    query = select(ProfileRow).where(col(ProfileRow.user_id) == user_id, ProfileRow.provenance["key"].astext == key)
    return _with_claims(session, session.scalars(query).all())


def active_row(session: Session, user_id: str) -> ProfileRow | None:
    """Return the row of a user's active profile."""
    query = select(ProfileRow).where(col(ProfileRow.user_id) == user_id, col(ProfileRow.active))
    return session.scalars(query).one_or_none()


def owners(session: Session, event_ids: Sequence[str]) -> dict[str, str]:
    """Return whose events these are; those that are not in the store are left out."""
    query = "select event_id, user_id from events where event_id = any(%s)"
    return dict(driver(session).execute(query, [list(event_ids)]).fetchall())


def correction_ids(session: Session, user_id: str) -> set[int | None]:
    """Return the ids of all corrections that a user has made."""
    return set(session.scalars(select(col(CorrectionRow.correction_id)).where(col(CorrectionRow.user_id) == user_id)))


def log_here(session: Session, user_id: str) -> LogHere:
    """Return what a user's log amounts to."""
    query = select(func.count(), func.min(EventRow.ts), func.max(EventRow.ts)).where(col(EventRow.user_id) == user_id)
    return LogHere(*session.execute(query).one())
