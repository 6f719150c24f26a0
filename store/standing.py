"""What a user's data stands at, in one cheap look: revisions that rise with every change."""

from typing import NamedTuple

from sqlalchemy import and_, select
from sqlmodel import Session, col

from store.tables import ProfileRow, UserRow


class Standing(NamedTuple):
    """What a user's data stands at; whatever is made of the data holds as long as this does.

    Attributes:
        log_revision: Of the user's events.
        corrections_revision: Of the user's corrections.
        consent: To a profile.
        profile_id: Of the active profile, or None.
    """

    log_revision: int
    corrections_revision: int
    consent: bool
    profile_id: int | None


def standing(session: Session, user_id: str) -> Standing | None:
    """Return what a user's data stands at, or None if there is no such user."""
    active = and_(col(ProfileRow.user_id) == col(UserRow.user_id), col(ProfileRow.active))
    row = session.execute(
        select(
            col(UserRow.log_revision),
            col(UserRow.corrections_revision),
            col(UserRow.consent),
            col(ProfileRow.profile_id),
        )
        .join(ProfileRow, active, isouter=True)
        .where(col(UserRow.user_id) == user_id)
    ).one_or_none()
    return None if row is None else Standing(*row)
