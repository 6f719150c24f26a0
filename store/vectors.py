"""Read vectors in bulk: of a whole catalogue, and of the claims of active profiles."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import func, select
from sqlmodel import Session, col

from store.database import Database
from store.tables import EmbeddingRow

Matrix = npt.NDArray[np.float32]


class ItemVectors(NamedTuple):
    """Items in order of id, and their vectors, `(m, d)`."""

    item_ids: list[str]
    vectors: Matrix


class ClaimVectors(NamedTuple):
    """Claims, row by row.

    Attributes:
        user_ids: `q` ids.
        claim_ids: `q` ids, within their profile.
        names: `q` names.
        strengths: `(q,)`, signed.
        vectors: `(q, d)`.
        wordings: `q` times who wrote the words: `llm`, `template`, or `user`.
    """

    user_ids: list[str]
    claim_ids: list[str]
    names: list[str]
    strengths: npt.NDArray[np.float64]
    vectors: Matrix
    wordings: list[str]


def item_vectors(database: Database, model: str) -> ItemVectors:
    """Read the vectors of all items that have one."""
    with database.raw() as connection, connection.cursor(binary=True) as cursor:
        cursor.execute(
            "select owner_id, vector from embeddings where kind = 'item' and model = %s order by owner_id", (model,)
        )
        rows = cursor.fetchall()
    return ItemVectors([row[0] for row in rows], stack([row[1] for row in rows]))


def claim_vectors(database: Database, model: str, user_ids: Sequence[str] | None = None) -> ClaimVectors:
    """Read the likes and dislikes of active profiles whose users consent, with their vectors.

    Args:
        database: To read from.
        model: The embedder.
        user_ids: Of these users; of all unless given.
    """
    query = """
        select p.user_id, c.claim_id, c.name, c.strength, e.vector, c.wording
        from profiles p
        join users u on u.user_id = p.user_id and u.consent
        join claims c on c.profile_id = p.profile_id and c.kind <> 'intent'
        join embeddings e on e.kind = 'claim' and e.model = %(model)s and e.owner_id = c.claim_pk::text
        where p.active and (%(users)s::text[] is null or p.user_id = any(%(users)s))
        order by p.user_id, c.position
    """
    with database.raw() as connection, connection.cursor(binary=True) as cursor:
        cursor.execute(query, {"model": model, "users": None if user_ids is None else list(user_ids)})
        rows = cursor.fetchall()
    columns = ([*column] for column in zip(*rows, strict=True)) if rows else ([],) * 6
    users, ids, names, strengths, vectors, wordings = columns
    return ClaimVectors(users, ids, names, np.array(strengths, dtype=np.float64), stack(vectors), wordings)


def dimension(session: Session, model: str) -> int | None:
    """Return the length of the stored vectors of an embedder; None if there are none."""
    query = select(func.vector_dims(col(EmbeddingRow.vector))).where(col(EmbeddingRow.model) == model).limit(1)
    return session.scalar(query)


def stack(vectors: Sequence[object]) -> Matrix:
    """Stack vectors as they come from the database, `(n, d)`; `(0, 0)` if there are none."""
    rows = [np.asarray(vector.to_numpy(), dtype=np.float32) for vector in vectors]  # type: ignore[attr-defined]
    return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)
