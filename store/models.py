"""Trained models in the store: where their files are, and which one is active."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select, text, update
from sqlmodel import Session, col

from store.errors import NotFoundError
from store.tables import ModelRow


def add_model(session: Session, path: str, sha256: str, card: dict[str, Any], now: datetime) -> int:
    """Store a trained model and make it the active one.

    Args:
        session: The unit of work; all of it is stored or nothing.
        path: Of its file.
        sha256: Of its file, hex.
        card: What it says of itself, as JSON.
        now: The time.

    Returns:
        Its id.
    """
    _deactivate(session)
    row = ModelRow(created_at=now, path=path, sha256=sha256, active=True, card=card)
    session.add(row)
    session.flush()
    assert row.model_id is not None  # noqa: S101 - set by the flush
    return row.model_id


def activate(session: Session, model_id: int) -> ModelRow:
    """Make a model the active one; returns its row.

    Raises:
        NotFoundError: There is no such model.
    """
    _deactivate(session)
    row = get(session, model_id)
    row.active = True
    return row


def _deactivate(session: Session) -> None:
    # Two trainings that end at once come one after the other; readers do not wait.
    session.execute(text("lock table models in share row exclusive mode"))
    session.execute(update(ModelRow).where(col(ModelRow.active)).values(active=False))


def get(session: Session, model_id: int) -> ModelRow:
    """Return a model's row.

    Raises:
        NotFoundError: There is no such model.
    """
    row = session.get(ModelRow, model_id, populate_existing=True)
    if row is None:
        raise NotFoundError(f"There is no model {model_id}. GET /v1/models lists them.")
    return row


def move(session: Session, paths: Mapping[int, Path]) -> None:
    """Note where the files of models are now, by the models' ids."""
    for model_id, path in paths.items():
        session.execute(update(ModelRow).where(col(ModelRow.model_id) == model_id).values(path=str(path)))


def active_model(session: Session) -> ModelRow | None:
    """Return the active model's row, or None if none was trained yet."""
    return session.scalars(select(ModelRow).where(col(ModelRow.active))).one_or_none()


def list_models(session: Session) -> list[ModelRow]:
    """Return the rows of all models, oldest first."""
    return list(session.scalars(select(ModelRow).order_by(col(ModelRow.model_id))))


def page(session: Session, limit: int, before: int | None = None) -> list[ModelRow]:
    """Return the latest models, or those before one of this id, newest first."""
    query = select(ModelRow).order_by(col(ModelRow.model_id).desc()).limit(limit)
    return list(session.scalars(query if before is None else query.where(col(ModelRow.model_id) < before)))
