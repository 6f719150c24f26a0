"""Users as declared: read and replaced one at a time."""

from typing import NamedTuple

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col

from store import erasure, idempotency, tombstones
from store.database import driver
from store.errors import NotFoundError
from store.privacy import Hasher
from store.records import User
from store.tables import UserRow


class Declared(NamedTuple):
    """A user, and whether this made them."""

    user: User
    created: bool


def read(session: Session, user_id: str, *, locked: bool = False) -> User:
    """Return a user, with consent or without.

    Args:
        session: The unit of work.
        user_id: Of the user.
        locked: Whether nobody else may change them until the unit of work ends.

    Raises:
        NotFoundError: There is no such user.
    """
    row = session.get(UserRow, user_id, with_for_update=locked or None)
    if row is None:
        raise NotFoundError(f"There is no user {user_id}.")
    return User(user_id=row.user_id, attributes=row.attributes, consent=row.consent, language=row.language, tz=row.tz)


def declare(session: Session, user: User, hasher: Hasher) -> Declared:
    """Store what a user declares, in the place of what they declared before.

    Where there is no consent, vectors of claims and responses that were kept to be given again are forgotten.

    Args:
        session: The unit of work.
        user: All that is declared.
        hasher: Tells whether the user was erased.

    Raises:
        ErasedError: The user's data was erased, and is not taken in again.
    """
    fields = user.model_dump(exclude={"user_id"})
    query = insert(UserRow).values(user_id=user.user_id, **fields).on_conflict_do_nothing()
    made = session.execute(query.returning(col(UserRow.user_id))).first()
    if made is None:
        row = session.get_one(UserRow, user.user_id, with_for_update=True)
        for name, value in fields.items():
            setattr(row, name, value)
    tombstones.wait_for_turn(driver(session))
    tombstones.require_not_erased(driver(session), hasher, user.user_id)
    if not user.consent:
        idempotency.forget_subject(session, hasher.subject(user.user_id))
        erasure.forget_vectors(session, user.user_id)
        erasure.forget_vectors(session, user.user_id)
    return Declared(user, made is not None)
