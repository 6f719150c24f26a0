"""What answers rest on, in one cheap look: revisions that rise with every change."""

from typing import NamedTuple

from sqlmodel import Session

from store.database import Database, driver

_STANDING = (
    "select users.log_revision, users.corrections_revision, users.consent, profiles.profile_id"
    " from users left join profiles on profiles.user_id = users.user_id and profiles.active"
    " where users.user_id = %s"
)
_SERVING = (
    "select (select model_id from models where active),"
    " coalesce((select sum(value) from revisions where name in ('catalogue', 'item vectors')), 0)"
)


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


class Serving(NamedTuple):
    """What the answers for everyone rest on.

    Attributes:
        model_id: Of the active model, or None.
        catalogue_revision: Of the items and their vectors.
    """

    model_id: int | None
    catalogue_revision: int


def standing(where: Session | Database, user_id: str) -> Standing | None:
    """Return what a user's data stands at, or None if there is no such user; within a unit of work, or by itself."""
    if isinstance(where, Database):
        rows = where.execute(_STANDING, [user_id])
    else:
        where.flush()
        rows = driver(where).execute(_STANDING, [user_id]).fetchall()
    return Standing(*rows[0]) if rows else None


def serving(database: Database) -> Serving:
    """Return what the answers for everyone rest on."""
    return Serving(*database.execute(_SERVING)[0])
