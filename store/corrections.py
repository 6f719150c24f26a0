"""Corrections of profiles by their users, kept beside the profiles: they outlive versions and can be undone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import select
from sqlmodel import Session, col

from store.errors import ConflictError, NotFoundError
from store.tables import CorrectionRow, UserRow

Action = Literal["reject", "less", "add", "pin"]
Kind = Literal["interest", "dislike", "intent"]


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
    user = _lock(session, user_id)
    for row in _live(session, user_id):
        if (row.action, row.kind, row.name.casefold()) == (action, kind, name.casefold()):
            raise ConflictError(
                f"User {user_id} has made this correction already: {row.action} '{row.name}'. "
                f"Take it back first with `limner claim undo {user_id} --id {row.correction_id}`."
            )
    row = CorrectionRow(
        user_id=user_id, created_at=now, action=action, kind=kind, name=name, statement=statement,
        claim_id=claim_id, evidence=list(evidence), rho=rho, weight=weight,
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
    user = _lock(session, user_id)
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
    user = _lock(session, user_id)
    rows = _live(session, user_id)
    if not rows:
        raise NotFoundError(f"User {user_id} has no correction in force: there is nothing to undo.")
    return _undo(session, user, rows[-1], now)


def live(session: Session, user_id: str) -> list[CorrectionRow]:
    """Return the user's corrections that are in force, oldest first.

    Raises:
        NotFoundError: There is no such user, or the user has not consented.
    """
    consent = session.scalar(select(col(UserRow.consent)).where(col(UserRow.user_id) == user_id))
    if consent is None:
        raise NotFoundError(_unknown(user_id))
    if not consent:
        raise NotFoundError(f"User {user_id} does not consent to a profile: there are no corrections to read.")
    return _live(session, user_id)


def _live(session: Session, user_id: str) -> list[CorrectionRow]:
    query = select(CorrectionRow).where(col(CorrectionRow.user_id) == user_id, col(CorrectionRow.undone_at).is_(None))
    return list(session.scalars(query.order_by(col(CorrectionRow.correction_id))))


def _lock(session: Session, user_id: str) -> UserRow:
    """Return the user's row, which no other transaction can change until this one ends."""
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
