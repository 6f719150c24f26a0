"""Train a model on what the store holds, store it and make it the active one; make another one active."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sqlmodel import Session

from agent.embedder import Embedder
from agent.loading import prepare_catalogue
from api import runtime
from api.console import Advance, progress_bar
from api.settings import Settings
from recommend.data import TrainingData, read_training
from recommend.model import Card, Model, load
from recommend.parameters import Parameters
from recommend.theme_factors import ThemeCard, ThemeParameters, digest, learn
from recommend.training import all_likes
from recommend.training import train as fit
from store import factors, models, search, theme_factors
from store.database import Database
from store.errors import ConflictError
from store.tables import ModelRow

Steps = Callable[[str], AbstractContextManager[Advance]]


class Trained(NamedTuple):
    """A stored model: its id, its card, how many claims and items it has learned from, and the seconds it took."""

    model_id: int
    card: Card
    claims: int
    items: int
    seconds: float


def known_parameters(opened: Database) -> Parameters:
    """Return the parameters of the active model, or the default ones, so that a search is needed once."""
    with opened.session() as session:
        row = models.active_model(session)
        return Parameters() if row is None else Card.model_validate(row.card).parameters


def train_model(
    opened: Database,
    settings: Settings,
    parameters: Parameters,
    steps: Steps = progress_bar,
    fence: Callable[[Session], object] | None = None,
    metrics: dict[str, float] | None = None,
) -> Trained:
    """Train, save and activate a model.

    Args:
        opened: The database.
        settings: All settings.
        parameters: To train with.
        steps: Shows each step.
        fence: Called in the unit of work that stores the model; what it raises keeps the model out.
        metrics: Measured on held-out data with these parameters; they go into the card.

    Raises:
        NoModelError: There is nothing to learn from.
    """
    started, now = time.perf_counter(), runtime.now()
    embeds = runtime.embedder(settings)
    data = _data(opened, settings, embeds, steps)
    with steps("training") as advance:
        model = fit(data, parameters, embeds.name, now, advance)
    model = replace(model, card=model.card.model_copy(update={"metrics": metrics or {}}))
    path = settings.home / "recommenders" / f"{now.astimezone(UTC):%Y%m%dT%H%M%S%f}.safetensors"
    digest = model.save(path)
    try:
        with opened.session() as session:
            if fence is not None:
                fence(session)
            model_id = models.add_model(session, str(path), digest, model.card.model_dump(mode="json"), now)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    _write_factors(opened, model_id, model)
    search.index_claim_vectors(opened, embeds.name)
    seconds = round(time.perf_counter() - started, 3)
    return Trained(model_id, model.card, len(data.claims.strengths), len(model.item_ids), seconds)


def _data(opened: Database, settings: Settings, embeds: Embedder, steps: Steps) -> TrainingData:
    with steps("embedding items") as advance:
        prepare_catalogue(opened, embeds, advance)
    with steps("reading events") as advance:
        return read_training(opened, embeds.name, settings.evidence_settings, advance)


def learn_themes(
    opened: Database, settings: Settings, parameters: ThemeParameters, steps: Steps = progress_bar
) -> ThemeCard:
    """Learn the factors that themes are made with from everyone's likes; they replace those in use.

    Raises:
        NoModelError: No event says that a user likes an item.
    """
    data = _data(opened, settings, runtime.embedder(settings), steps)
    with steps("learning"):
        likes = all_likes(data, Parameters())
        factors = learn(likes, parameters)
    met = np.flatnonzero(factors.any(axis=1))
    ids = [data.item_ids[row] for row in met]
    card = ThemeCard(
        parameters=parameters, users=len(data.user_ids), items=len(ids), likes=likes.nnz, watermark=data.watermark
    )
    with opened.session() as session:
        made_of = digest(ids, factors[met])
        theme_factors.replace(session, made_of, ids, factors[met], card.model_dump(mode="json"), runtime.now())
    return card


def activate_model(opened: Database, model_id: int, embedder: str) -> ModelRow:
    """Make a stored model the active one, and write its factors anew; returns its row.

    Args:
        opened: The database.
        model_id: Of the model.
        embedder: Name of the one in use.

    Raises:
        NotFoundError: There is no such model.
        ConflictError: It was trained for another embedder.
        NoModelError: Its file is gone or damaged.
    """
    with opened.session() as session:
        row = models.get(session, model_id)
    if (trained_for := Card.model_validate(row.card).embedder) != embedder:
        raise ConflictError(
            f"Model {model_id} was trained on texts embedded by {trained_for}, and {embedder} is in use: train another."
        )
    model = load(Path(row.path), row.sha256)
    with opened.session() as session:
        row = models.activate(session, model_id)
    _write_factors(opened, model_id, model)
    return row


def _write_factors(opened: Database, model_id: int, model: Model) -> None:
    factors.write_factors(opened, model_id, "item", model.item_ids, model.factors)
    factors.write_claim_factors(opened, model_id)
    factors.forget_old_factors(opened)
