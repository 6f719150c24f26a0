"""The frozen factors of items that themes are made with: at most one model of them, known by its hash.

They are no part of the model that ranks, which is trained anew every night: with other factors every profile would be
due again. Its vectors are embeddings of the kind `theme`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, select
from sqlmodel import Session, col

from store import revisions
from store.database import Database
from store.errors import ConflictError
from store.logs import StoredVector, read_vectors, write_vectors
from store.tables import EmbeddingRow, ThemeModelRow

Matrix = npt.NDArray[np.float32]
KIND = "theme"
_BATCH = 5_000


def active(session: Session) -> ThemeModelRow | None:
    """Return the model in use; None if themes are made of texts alone."""
    return session.scalars(select(ThemeModelRow)).one_or_none()


def replace(
    session: Session, sha256: str, ids: Sequence[str], matrix: Matrix, card: dict[str, Any], at: datetime
) -> None:
    """Store a model in the place of the one in use.

    Args:
        session: The unit of work; all of it is stored or nothing.
        sha256: Of the ids and factors, hex.
        ids: `n` ids of items.
        matrix: `(n, f)`.
        card: What it says of itself, as JSON.
        at: The time.
    """
    forget(session)
    session.add(ThemeModelRow(sha256=sha256, created_at=at, card=card))
    for start in range(0, len(ids), _BATCH):
        part = zip(ids[start : start + _BATCH], matrix[start : start + _BATCH], strict=True)
        write_vectors(session, KIND, sha256, {owner: StoredVector("", vector) for owner, vector in part})


def forget(session: Session) -> bool:
    """Remove the model in use; returns whether there was one."""
    known = active(session) is not None
    session.execute(delete(EmbeddingRow).where(col(EmbeddingRow.kind) == KIND))
    session.execute(delete(ThemeModelRow))
    revisions.rise(session, "catalogue")  # whoever has read the catalogue reads it anew
    return known


def read(database: Database, sha256: str, ids: Sequence[str]) -> dict[str, Matrix]:
    """Read the factors of items, `(f,)` each; items that the model does not know are left out.

    Raises:
        ConflictError: The model is not in use any more: what is made with it would not be what its key says.
    """
    found = {owner: stored.vector for owner, stored in read_vectors(database, KIND, sha256, ids).items()}
    with database.session() as session:  # after the factors: they are gone no sooner than their model
        row = active(session)
    if row is None or row.sha256 != sha256:
        raise ConflictError("The factors that themes are made with have been replaced. Start the run again.")
    return found
