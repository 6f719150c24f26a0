"""Read users' logs, items and their vectors, in batches and in short units of work."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pgvector import Vector
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Session, col

from store.database import Database
from store.errors import NotFoundError
from store.records import Event, Item, User
from store.tables import EmbeddingRow, EventRow, ItemRow, UserRow

Matrix = npt.NDArray[np.float32]


class Log(NamedTuple):
    """One user's events in order of (ts, event_id), and the revision that they were read at."""

    user: User
    revision: int
    events: tuple[Event, ...]


class StoredVector(NamedTuple):
    """A vector and the hash of the text that it was made of."""

    text_hash: str
    vector: npt.NDArray[np.float32]


def user_ids(session: Session, *, wanted: Sequence[str] = (), limit: int | None = None) -> list[str]:
    """Return ids of users with consent, in order: all who have a log, or those wanted.

    Raises:
        NotFoundError: A wanted user is not in the store, or has not consented.
    """
    query = select(col(UserRow.user_id)).where(col(UserRow.consent)).order_by(col(UserRow.user_id))
    if not wanted:
        return list(session.scalars(query.where(col(UserRow.log_revision) > 0).limit(limit)))
    found = list(session.scalars(query.where(col(UserRow.user_id).in_(wanted))))
    if missing := sorted(set(wanted) - set(found)):
        raise NotFoundError(
            f"No user {', '.join(missing[:5])} with consent in the store. See `limner doctor` for what is there."
        )
    return found[:limit]


def exists(session: Session, user_id: str) -> bool:
    """Tell whether there is such a user, with consent or without."""
    return session.get(UserRow, user_id) is not None


def read_logs(session: Session, ids: Sequence[str]) -> list[Log]:
    """Read the logs of users with consent, in the order of `ids`; the others are left out."""
    users = {
        row.user_id: row
        for row in session.scalars(select(UserRow).where(col(UserRow.user_id).in_(ids), col(UserRow.consent)))
    }
    names = tuple(Event.model_fields)
    rows = session.execute(
        select(*(getattr(EventRow, name) for name in names))
        .where(col(EventRow.user_id).in_(list(users)))
        .order_by(col(EventRow.user_id), col(EventRow.ts), col(EventRow.event_id))
    )
    events: dict[str, list[Event]] = {user_id: [] for user_id in users}
    for row in rows:
        values = dict(zip(names, row, strict=True))  # far quicker than `row._asdict()`
        values["context"] = values["context"] or {}
        # The row was validated when it was ingested: building it anew would cost more than the arithmetic.
        events[values["user_id"]].append(Event.model_construct(None, **values))
    return [_log(users[i], events[i]) for i in ids if i in users]


def _log(row: UserRow, events: list[Event]) -> Log:
    user = User(
        user_id=row.user_id,
        attributes=row.attributes or {},
        consent=row.consent,
        language=row.language,
        tz=row.tz,
    )
    return Log(user, row.log_revision, tuple(events))


def _item(row: ItemRow) -> Item:
    return Item(
        **{name: getattr(row, name) for name in Item.model_fields if name != "categories"},
        categories=tuple(row.categories),
    )


def read_items(session: Session, ids: Sequence[str]) -> dict[str, Item]:
    """Read items by id; those that do not exist are left out."""
    rows = session.scalars(select(ItemRow).where(col(ItemRow.item_id).in_(list(ids))))
    return {row.item_id: _item(row) for row in rows}


def stream_items(session: Session, batch: int = 2_000) -> Iterator[Item]:
    """Yield the whole catalogue in order of id, with bounded memory."""
    query = select(ItemRow).order_by(col(ItemRow.item_id)).execution_options(yield_per=batch)
    for row in session.scalars(query):
        yield _item(row)


def text_hashes(session: Session, kind: str, model: str) -> dict[str, str]:
    """Return the text hash of every stored vector of a kind and model, by owner."""
    query = select(col(EmbeddingRow.owner_id), col(EmbeddingRow.text_hash)).where(
        col(EmbeddingRow.kind) == kind, col(EmbeddingRow.model) == model
    )
    return {row[0]: row[1] for row in session.execute(query)}


def read_vectors(database: Database, kind: str, model: str, owners: Sequence[str]) -> dict[str, StoredVector]:
    """Read vectors by owner; those that do not exist are left out."""
    with database.raw() as connection, connection.cursor(binary=True) as cursor:
        cursor.execute(
            "select owner_id, text_hash, vector from embeddings where kind = %s and model = %s and owner_id = any(%s)",
            (kind, model, list(owners)),
        )
        return {owner: StoredVector(text_hash, _array(vector)) for owner, text_hash, vector in cursor}


def _array(vector: Vector) -> npt.NDArray[np.float32]:
    return np.asarray(vector.to_numpy(), dtype=np.float32)


def mean_vector(database: Database, kind: str, model: str) -> npt.NDArray[np.float32] | None:
    """Return the mean of all vectors of a kind and model, `(d,)`, or None if there is none."""
    with database.raw() as connection, connection.cursor(binary=True) as cursor:
        cursor.execute("select avg(vector) from embeddings where kind = %s and model = %s", (kind, model))
        row = cursor.fetchone()
        return _array(row[0]) if row and row[0] is not None else None


def write_vectors(session: Session, kind: str, model: str, vectors: dict[str, StoredVector]) -> None:
    """Store vectors by owner; one that exists is replaced."""
    rows = [
        {"kind": kind, "owner_id": owner, "model": model, "text_hash": v.text_hash, "vector": v.vector}
        for owner, v in sorted(vectors.items())
    ]
    if not rows:
        return
    statement = insert(EmbeddingRow)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["kind", "owner_id", "model"],
            set_={"text_hash": statement.excluded.text_hash, "vector": statement.excluded.vector},
        ),
        rows,
    )
