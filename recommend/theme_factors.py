"""Factors that themes are made with: what the same users like lies close, whatever its texts say.

They are plain iALS over likes (Hu et al. 2008; Rendle et al. 2021), without texts, which the themes have besides.
"""

import hashlib
from datetime import datetime

import numpy as np
import scipy.sparse as sps
from irspack import IALSRecommender
from pydantic import BaseModel, ConfigDict, Field

from agent.catalogue import unit
from recommend.model import Matrix


class ThemeParameters(BaseModel):
    """How the factors are learned.

    Attributes:
        factors: Length `f` of a factor.
        epochs: Of alternating least squares.
        alpha0: Weight of the all-items term.
        reg: Regularization.
        seed: Of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    factors: int = Field(default=16, ge=1, le=1024)
    epochs: int = Field(default=16, ge=1)
    alpha0: float = Field(default=0.1, gt=0)
    reg: float = Field(default=0.01, gt=0)
    seed: int = 0


class ThemeCard(BaseModel):
    """What a model says of itself.

    Attributes:
        parameters: It was learned with.
        users: In its data.
        items: With a factor.
        likes: Pairs of a user and an item.
        watermark: Time of the latest event in its data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    parameters: ThemeParameters
    users: int
    items: int
    likes: int
    watermark: datetime


def learn(likes: sps.csr_matrix, parameters: ThemeParameters, threads: int | None = None) -> Matrix:
    """Learn the factors of items.

    Args:
        likes: `(users, items)`, confidences of what was liked, at least 0.
        parameters: Of the training.
        threads: As many as there are cores unless given.

    Returns:
        `(items, f)`: centred on their mean, of unit length; 0 for items that nobody likes.
    """
    found = np.zeros((likes.shape[1], parameters.factors), dtype=np.float32)
    liked = np.flatnonzero(np.asarray(likes.getnnz(axis=0)) > 0)
    if not len(liked):
        return found
    trainer = IALSRecommender(
        likes[:, liked].astype(np.float32),
        n_components=parameters.factors,
        alpha0=parameters.alpha0,
        reg=parameters.reg,
        train_epochs=parameters.epochs,
        random_seed=parameters.seed,
        n_threads=threads,
    )
    trainer.start_learning()
    for _ in range(parameters.epochs):
        trainer.run_epoch()
    learned = np.asarray(trainer.get_item_embedding(), dtype=np.float64)
    found[liked] = unit(learned - learned.mean(axis=0))
    return found


def digest(ids: list[str], factors: Matrix) -> str:
    """Return the SHA-256 of items' ids and factors `(n, f)`."""
    made = hashlib.sha256()
    for item_id, factor in zip(ids, factors, strict=True):
        made.update(item_id.encode() + b"\0" + factor.tobytes())
    return made.hexdigest()
