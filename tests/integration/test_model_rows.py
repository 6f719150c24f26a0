"""Trained models in the store: one is active."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from store import models
from store.database import Database
from tests.small_world import NOW


def add(database: Database, n: int) -> int:
    with database.session() as session:
        card = {"n": n, "metrics": {"ndcg": 0.5}}
        return models.add_model(session, f"models/{n}.safetensors", f"{n:064x}", card, NOW + timedelta(n))


def test_the_latest_model_is_the_active_one(database: Database) -> None:
    with database.session() as session:
        assert (models.active_model(session), models.list_models(session)) == (None, [])
    numbers = [add(database, n) for n in range(3)]
    with database.session() as session:
        active, rows = models.active_model(session), models.list_models(session)
    assert [(row.model_id, row.active) for row in rows] == [(n, n == numbers[-1]) for n in numbers]
    assert active is not None
    assert active.model_dump() == {
        "model_id": numbers[-1], "created_at": NOW + timedelta(2), "path": "models/2.safetensors",
        "sha256": f"{2:064x}", "active": True, "card": {"n": 2, "metrics": {"ndcg": 0.5}},
    }  # fmt: skip


def test_trainings_that_end_at_once(database: Database) -> None:
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda n: add(database, n), range(8)))
    with database.session() as session:
        rows = models.list_models(session)
    assert [row.model_id for row in rows if row.active] == [max(numbers)]
    assert len(rows) == 8


def test_the_database_refuses_a_second_active_model(database: Database) -> None:
    for n in range(2):
        add(database, n)
    with pytest.raises(IntegrityError, match="uq_models_one_active"), database.session() as session:
        session.execute(text("update models set active = true"))
