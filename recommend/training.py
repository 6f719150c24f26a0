"""Train factors with irspack: iALS over likes, with user features from claims and item features from texts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sps
from irspack import IALSRecommender

from recommend.data import TrainingData, likes_matrix
from recommend.errors import NoModelError
from recommend.model import Card, Floats, Matrix, Model, Projection
from recommend.parameters import Parameters

Real = TypeVar("Real", bound=np.floating)
FLOOR = 1e-6
"""Least variance of the prior in any direction."""


@dataclass(frozen=True)
class Fitted:
    """What a training gives; shapes as in `Model`."""

    factors: Matrix
    crowd: Floats
    precision: Floats
    user_weights: Matrix
    item_weights: Matrix


def user_features(claims: Matrix, strengths: Floats, owner: npt.NDArray[np.int64], users: int) -> Matrix:
    """Add up each user's projected claims, weighted by their strengths.

    Args:
        claims: `(q, p)`, projected.
        strengths: `(q,)`, signed.
        owner: `(q,)`, the row of the user of each claim.
        users: Number of rows.

    Returns:
        `(users, p)`.
    """
    found = np.zeros((users, claims.shape[1]), dtype=np.float32)
    np.add.at(found, owner, (claims * strengths[:, None]).astype(np.float32))
    return found


def fit(
    likes: sps.csr_matrix,
    parameters: Parameters,
    of_users: Matrix | None,
    of_items: Matrix | None,
    met: npt.NDArray[np.bool_],
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fitted:
    """Train.

    Args:
        likes: `(users, items)`, confidences of what was liked, at least 0. Items without any like get their factors
            from their texts alone.
        parameters: Of the model.
        of_users: `(users, p)`, or None.
        of_items: `(items, p)`, or None.
        met: `(items,)`, which items any event is about, whether or not it says that the item is liked.
        threads: As many as there are cores unless given.
        progress: Called with the epochs done and their number.
    """
    p = parameters
    users = of_users if p.user_features is not None else None
    items = of_items if p.item_features is not None else None
    liked = np.flatnonzero(np.asarray(likes.getnnz(axis=0)) > 0)
    trainer = IALSRecommender(
        likes[:, liked],
        n_components=p.factors,
        alpha0=p.alpha0,
        reg=p.reg,
        nu=p.nu,
        train_epochs=p.epochs,
        random_seed=p.seed,
        n_threads=threads,
        user_features=users,
        item_features=None if items is None else items[liked],
        lambda_user_feature=p.user_features or 0.0,
        lambda_item_feature=p.item_features or 0.0,
    )
    trainer.start_learning()
    for epoch in range(p.epochs):
        trainer.run_epoch()
        if progress:
            progress(epoch + 1, p.epochs)
    core = trainer.trainer_as_ials.core_trainer
    user_weights = _weights(core.user_feature_weight, p.factors, given=users is not None)
    item_weights = _weights(core.item_feature_weight, p.factors, given=items is not None)
    factors = np.zeros((likes.shape[1], p.factors + 1), dtype=np.float32)
    if items is not None:
        factors[:] = items @ item_weights
        # What ridge predicts is shorter than what likes teach: an item that nobody has met shall not lose by that
        # alone. One that was met and not liked stays as it is.
        lengths = (np.linalg.norm(core.item), max(float(np.linalg.norm(factors[liked])), 1e-9))
        item_weights *= p.new_items * lengths[0] / lengths[1]
        factors[~met] = items[~met] @ item_weights
    factors[liked] = _widened(core.item)
    counts = np.asarray(likes.getnnz(axis=0), dtype=np.float32)
    factors[:, -1] = counts / counts.max(initial=1.0)
    beyond = np.asarray(core.user, dtype=np.float64)
    if users is not None:
        beyond = beyond - users.astype(np.float64) @ user_weights[:, :-1]
    precision = prior_precision(beyond, p.covariance)
    return Fitted(factors, _widened(beyond.mean(axis=0)), precision, user_weights, item_weights)


def prior_precision(users: Floats, share: float) -> Floats:
    """Return the precision of the prior, `(k + 1, k + 1)`, of trace `k`; the last row and column are 0.

    Args:
        users: `(u, k)`, what training users are beyond their claims.
        share: Of their covariance in that of the prior, the rest being the identity; both have trace `k`.
    """
    size = users.shape[1]
    found = np.zeros((size + 1, size + 1))
    covariance = np.atleast_2d(np.cov(users.T, ddof=0))
    scale = np.trace(covariance) / size
    if share and scale > 0:
        precision = np.linalg.inv(share * covariance / scale + (1.0 - share) * np.eye(size) + FLOOR * np.eye(size))
        found[:-1, :-1] = precision * (size / np.trace(precision))
    else:
        found[:-1, :-1] = np.eye(size)
    return found


def _widened(array: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Add a last coordinate of 0: that of the popularity."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, 1)])


def _weights(found: Matrix, width: int, *, given: bool) -> Matrix:
    weights = np.asarray(found, dtype=np.float32) if given else np.zeros((0, width), dtype=np.float32)
    return _widened(weights).astype(np.float32)


def project(vectors: Matrix, size: int) -> tuple[Projection, Matrix]:
    """Learn the projection of items' embeddings, and apply it to them."""
    projection = Projection.learn(vectors, size)
    return projection, projection(vectors)


def all_likes(data: TrainingData, parameters: Parameters) -> sps.csr_matrix:
    """Return the confidences of what everyone likes, `(users, items)`.

    Raises:
        NoModelError: No event says that a user likes an item.
    """
    shape = (len(data.user_ids), len(data.item_ids))
    likes = likes_matrix(data.user, data.item, data.weight, shape, parameters)
    if not likes.nnz:
        raise NoModelError("No event says that a user likes an item: nothing to train on. See `limner ingest`.")
    return likes


def train(
    data: TrainingData,
    parameters: Parameters,
    embedder: str,
    now: datetime,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Train a model on everyone's data.

    Args:
        data: From `read_training`.
        parameters: Of the model.
        embedder: Name of the model that made the texts' vectors.
        now: The time that goes into the card; its seconds are measured apart.
        progress: Called with the epochs done and their number.

    Raises:
        NoModelError: No event says that a user likes an item.
    """
    started = time.perf_counter()
    likes = all_likes(data, parameters)
    shape = likes.shape
    projection, of_items = project(data.item_vectors, parameters.projection)
    of_users = None
    if len(data.claims.strengths):
        row_of = {user_id: row for row, user_id in enumerate(data.user_ids)}
        owner = np.array([row_of[user_id] for user_id in data.claims.user_ids], dtype=np.int64)
        of_users = user_features(projection(data.claims.vectors), data.claims.strengths, owner, shape[0])
    met = np.bincount(data.item, minlength=shape[1]) > 0
    fitted = fit(likes, parameters, of_users, of_items, met, progress=progress)
    return Model(
        card=Card(
            parameters=parameters, embedder=embedder, watermark=data.watermark, events=len(data.user),
            users=len(data.user_ids), trained_at=now, seconds=time.perf_counter() - started,
        ),
        item_ids=tuple(data.item_ids),
        factors=fitted.factors,
        popularity=np.asarray(likes.getnnz(axis=0), dtype=np.float32),
        crowd=fitted.crowd,
        precision=fitted.precision,
        user_weights=fitted.user_weights,
        item_weights=fitted.item_weights,
        projection=projection,
    )  # fmt: skip
