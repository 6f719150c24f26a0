"""Corrections of profiles by their users, kept beside the profiles: they outlive versions and can be undone."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg import sql
from sqlalchemy import ScalarSelect, Select, and_, select
from sqlmodel import Session, col

from store.database import driver
from store.errors import ConflictError, NotFoundError
from store.records import CorrectedKind, CorrectionAction
from store.tables import ClaimRow, CorrectionRow, ProfileRow, UserRow

Action = CorrectionAction
Kind = CorrectedKind

_COLUMNS = tuple(CorrectionRow.model_fields)
# Plain SQL, since a user's first read pays for it.
_LIVE = sql.SQL("""
    select u.consent, {}
    from users u left join corrections c on c.user_id = u.user_id and c.undone_at is null
    where u.user_id = %s
    order by c.correction_id
""").format(sql.SQL(", ").join(sql.Identifier("c", name) for name in _COLUMNS))


class InForce(NamedTuple):
    """A user's corrections that are in force.

    Attributes:
        revision: It rises whenever a correction is made or taken back.
        rows: Oldest first.
        wordings: For each of them that is about words of a stored profile, who wrote these.
    """

    revision: int
    rows: tuple[CorrectionRow, ...] = ()
    wordings: Mapping[int, str] = {}


def add(
    session: Session,
    user_id: str,
    action: Action,
    kind: Kind,
    name: str,
    now: datetime,
    *,
    statement: str | None = None,
    claim_id: str | None = None,
    evidence: Sequence[str] = (),
    rho: float | None = None,
    weight: float | None = None,
    new_name: str | None = None,
    new_statement: str | None = None,
) -> int:
    """Store a correction.

    Args:
        session: The unit of work.
        user_id: Whose profile it is about.
        action: What is done to the claim.
        kind: Of the claim.
        name: Of the claim.
        now: The time.
        statement: Of the claim.
        claim_id: In the present version of the profile.
        evidence: Ids of the events that the claim rests on.
        rho: What the confidence of the evidence is multiplied by, in [0, 1]; None is the default of the action.
        weight: Total confidence of an added claim's pseudo-events, above 0; None is the default.
        new_name: What the claim shall be named (`rewrite`).
        new_statement: What it shall say (`rewrite`).

    Returns:
        Its id.

    Raises:
        NotFoundError: There is no such user.
        ConflictError: The user has not consented, or the same correction is in force.
        ValueError: `rho` or `weight` is out of its range.
    """
    if rho is not None and not 0 <= rho <= 1:
        raise ValueError(f"rho is {rho}, and must be between 0 and 1")
    if weight is not None and not weight > 0:
        raise ValueError(f"weight is {weight}, and must be above 0")
    user = lock(session, user_id)
    for row in _live(session, user_id):
        said = (row.action, row.kind, row.name.casefold(), row.new_name, row.new_statement)
        if said == (action, kind, name.casefold(), new_name, new_statement):
            raise ConflictError(
                f"User {user_id} has made this correction already: {row.action} '{row.name}'. "
                f"Take it back first with `limner claim undo {user_id} --id {row.correction_id}`."
            )
    row = CorrectionRow(
        user_id=user_id, created_at=now, action=action, kind=kind, name=name, statement=statement,
        claim_id=claim_id, evidence=list(evidence), rho=rho, weight=weight, new_name=new_name,
        new_statement=new_statement,
    )  # fmt: skip
    session.add(row)
    user.corrections_revision += 1
    session.flush()
    assert row.correction_id is not None  # noqa: S101 - set by the flush
    return row.correction_id


def undo(session: Session, user_id: str, correction_id: int, now: datetime) -> CorrectionRow:
    """Take a correction back; it stays in the store as undone.

    Returns:
        Its row.

    Raises:
        NotFoundError: There is no such user, or the user has no such correction.
        ConflictError: The user has not consented, or it was taken back before.
    """
    user = lock(session, user_id)
    row = session.get(CorrectionRow, correction_id, populate_existing=True)
    if row is None or row.user_id != user_id:
        raise NotFoundError(
            f"User {user_id} has no correction {correction_id}. `limner claim list {user_id}` lists them."
        )
    if row.undone_at is not None:
        raise ConflictError(f"Correction {correction_id} of user {user_id} was taken back before.")
    return _undo(session, user, row, now)


def undo_last(session: Session, user_id: str, now: datetime) -> CorrectionRow:
    """Take the user's latest correction back that is in force.

    Returns:
        Its row.

    Raises:
        NotFoundError: There is no such user, or no correction in force.
        ConflictError: The user has not consented.
    """
    user = lock(session, user_id)
    rows = _live(session, user_id)
    if not rows:
        raise NotFoundError(f"User {user_id} has no correction in force: there is nothing to undo.")
    return _undo(session, user, rows[-1], now)


def live(session: Session, user_id: str) -> list[CorrectionRow]:
    """Return the user's corrections that are in force, oldest first. The rows are copies, to be read.

    Raises:
        NotFoundError: There is no such user, or the user has not consented.
    """
    session.flush()
    found = driver(session).execute(_LIVE, [user_id]).fetchall()
    if not found:
        raise NotFoundError(_unknown(user_id))
    if not found[0][0]:
        raise NotFoundError(f"User {user_id} does not consent to a profile: there are no corrections to read.")
    rows = (dict(zip(_COLUMNS, columns, strict=True)) for _, *columns in found)
    return [CorrectionRow.model_construct(**row) for row in rows if row["correction_id"] is not None]


def page(session: Session, user_id: str, limit: int, after: int = 0) -> list[CorrectionRow]:
    """Return corrections in force, oldest first: those after this one, at most `limit + 1`."""
    query = _in_force(user_id).where(col(CorrectionRow.correction_id) > after)
    return list(session.scalars(query.limit(limit + 1)))


def rejections(session: Session, user_id: str) -> list[CorrectionRow]:
    """Return all rejections that a user has ever made, also those taken back, the latest first."""
    query = select(CorrectionRow).where(col(CorrectionRow.user_id) == user_id, col(CorrectionRow.action) == "reject")
    return list(session.scalars(query.order_by(col(CorrectionRow.correction_id).desc())))


def in_force(session: Session, user_ids: Sequence[str]) -> dict[str, InForce]:
    """Return the corrections of these users, all by one query; users who do not exist are left out."""
    query = (
        select(UserRow.user_id, UserRow.corrections_revision, CorrectionRow, _wording())  # type: ignore[call-overload]
        .outerjoin(
            CorrectionRow,
            and_(col(CorrectionRow.user_id) == col(UserRow.user_id), col(CorrectionRow.undone_at).is_(None)),
        )
        .where(col(UserRow.user_id).in_(user_ids))
        .order_by(col(CorrectionRow.correction_id))
    )
    found: dict[str, InForce] = {}
    for user_id, revision, row, wording in session.execute(query):
        before = found.get(user_id, InForce(revision))
        wordings = {**before.wordings, **({} if wording is None else {row.correction_id: wording})}
        found[user_id] = before if row is None else InForce(revision, (*before.rows, row), wordings)
    return found


def _wording() -> ScalarSelect[str]:
    """Look up who wrote the words that a correction is about: the same words stand in a version of the profile."""
    return (
        select(col(ClaimRow.wording))
        .join(ProfileRow, col(ProfileRow.profile_id) == col(ClaimRow.profile_id))
        .where(
            col(ProfileRow.user_id) == col(CorrectionRow.user_id),
            col(ClaimRow.name) == col(CorrectionRow.name),
            col(ClaimRow.statement) == col(CorrectionRow.statement),
        )
        .order_by(col(ClaimRow.claim_pk))
        .limit(1)
        .correlate(CorrectionRow)
        .scalar_subquery()
    )


def _live(session: Session, user_id: str) -> list[CorrectionRow]:
    return list(session.scalars(_in_force(user_id)))


def _in_force(user_id: str) -> Select[CorrectionRow]:
    query = select(CorrectionRow).where(col(CorrectionRow.user_id) == user_id, col(CorrectionRow.undone_at).is_(None))
    return query.order_by(col(CorrectionRow.correction_id))


def lock(session: Session, user_id: str) -> UserRow:
    """Return the user's row, which no other transaction can change until this one ends: nor their active profile.

    Raises:
        NotFoundError: There is no such user.
        ConflictError: The user has not consented.
    """
    query = select(UserRow).where(col(UserRow.user_id) == user_id)
    user = session.scalars(query.with_for_update().execution_options(populate_existing=True)).one_or_none()
    if user is None:
        raise NotFoundError(_unknown(user_id))
    if not user.consent:
        raise ConflictError(f"User {user_id} does not consent to a profile: there is nothing to correct.")
    return user


def _undo(session: Session, user: UserRow, row: CorrectionRow, now: datetime) -> CorrectionRow:
    row.undone_at = now
    user.corrections_revision += 1
    session.flush()
    return row


def _unknown(user_id: str) -> str:
    return f"No user {user_id} in the store. See `limner doctor` for what is there."
