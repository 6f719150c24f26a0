"""Errors of predicted ratings, and what is simplest to predict them by.

Limner ranks and predicts no ratings. The figures say how much of a rating is the level of its item and its user, and
how much more a factorization knows.
"""

from typing import NamedTuple

import numpy as np

from eval.interactions import Floats, Interactions, Ints
from eval.recommenders import FIXED, Given, ials
from eval.splits import per_user_time
from eval.world import Claims, World

TYPES = ("rating", "review")


def mae(predicted: Floats, actual: Floats) -> float:
    """Return the mean absolute error.

    >>> mae(np.array([4.0, 3.0]), np.array([5.0, 3.0]))
    0.5
    """
    return float(np.abs(predicted - actual).mean())


def rmse(predicted: Floats, actual: Floats) -> float:
    """Return the root of the mean squared error.

    >>> rmse(np.array([4.0, 3.0]), np.array([2.0, 3.0])) ** 2
    2.0000000000000004
    """
    return float(np.sqrt(np.square(predicted - actual).mean()))


class Levels(NamedTuple):
    """The level of ratings: their mean, and by how much each user and each item is above it."""

    mean: float
    user: Floats
    item: Floats

    def __call__(self, user: Ints, item: Ints) -> Floats:
        """Predict ratings, `(n,)`."""
        return np.asarray(self.mean + self.user[user] + self.item[item])


def levels(train: Interactions, of_item: float = 25.0, of_user: float = 10.0) -> Levels:
    """Estimate the levels, each shrunk to 0 as if so many more ratings were at the mean (Koren 2010, section 2.1).

    `b_i = sum_u (r_ui - mean) / (of_item + n_i)`, then `b_u = sum_i (r_ui - mean - b_i) / (of_user + n_u)`.

    Args:
        train: Interactions with a value.
        of_item: Ratings that an item's prior is worth.
        of_user: Ratings that a user's prior is worth.
    """
    mean = float(train.value.mean())
    above = train.value - mean
    counts = np.bincount(train.item, minlength=train.n_items)
    item = np.bincount(train.item, weights=above, minlength=train.n_items) / (of_item + counts)
    counts = np.bincount(train.user, minlength=train.n_users)
    left = above - item[train.item]
    user = np.bincount(train.user, weights=left, minlength=train.n_users) / (of_user + counts)
    return Levels(mean, user, item)


class Line(NamedTuple):
    """What a score adds to a rating: `worth * score + base`."""

    worth: float
    base: float

    @classmethod
    def fit(cls, score: Floats, left: Floats) -> "Line":
        """Fit what levels leave over of ratings by least squares; nothing is added where the scores are all alike.

        >>> Line.fit(np.array([1.0, 2.0]), np.array([0.0, 0.5]))
        Line(worth=0.5, base=-0.5)
        """
        spread = float(np.var(score)) if len(score) else 0.0
        if not spread:
            return cls(0.0, 0.0)
        worth = float(np.mean((score - score.mean()) * (left - left.mean())) / spread)
        return cls(worth, float(left.mean() - worth * score.mean()))


def predictions(
    world: World, events: Interactions, train: Interactions, test: Interactions, seed: int
) -> dict[str, Floats]:
    """Predict held-out ratings by their mean, by levels, and by levels and iALS.

    How many stars a unit of an iALS score is worth is learned on a part of the training that the model has not seen.

    Args:
        world: The items.
        events: Of the training, of all types.
        train: The ratings of the training.
        test: The ratings that are asked for.
        seed: Of the model.

    Returns:
        `(n,)` for each predictor.
    """
    level = levels(train)
    inner, rest = per_user_time(events, seed=seed)
    inner_rated, rest = (part.take(~np.isnan(part.value)) for part in (inner, rest))
    line = Line(0.0, 0.0)
    if len(inner_rated) and len(rest):
        left = rest.value - levels(inner_rated)(rest.user, rest.item)
        line = Line.fit(_scores(world, inner, rest, seed), left)
    flat = level(test.user, test.item)
    return {
        "mean rating": np.full(len(test), level.mean),
        "user and item levels": flat,
        "levels and iALS": flat + line.worth * _scores(world, events, test, seed) + line.base,
    }


def _scores(world: World, train: Interactions, asked: Interactions, seed: int) -> Floats:
    """Score the asked items by iALS, `(n,)`."""
    users, row = np.unique(asked.user, return_inverse=True)
    nothing = Claims(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, world.texts.shape[1]), dtype=np.float32))
    scores = ials(Given(world, train, train, nothing, users), FIXED["iALS"], seed)
    return np.asarray(scores[row, asked.item])


def only_ratings(world: World) -> Interactions:
    """Return the world's interactions with the values of ratings alone; those of plays and the like become nan."""
    known = world.item_set.row
    types = [kind for log in world.logs for kind, key in zip(log.types, log.items, strict=True) if key in known]
    events = world.interactions
    if len(types) != len(events):
        raise ValueError(f"the logs have {len(types)} events about items, the interactions {len(events)}")
    value = np.where(np.isin(types, TYPES), events.value, np.nan)
    return Interactions(events.user, events.item, events.time, events.weight, value, events.n_users, events.n_items)
