"""Rating errors: by hand, and predictors in an order that the invented world makes sure."""

import doctest
from dataclasses import replace

import numpy as np
import pytest

from eval import ratings
from eval.interactions import Interactions
from eval.ratings import Line, levels, mae, only_ratings, predictions, rmse
from eval.splits import per_user_time
from tests.evaluated_world import evaluated_world


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(ratings)
    assert result.attempted >= 3
    assert result.failed == 0


def test_levels_by_hand() -> None:
    # Mean 3. Items: (2 + 0) / (2 + 2) and -2 / (2 + 1). Users: (2 - .5 - 2 + 2 / 3) / (1 + 2) and -.5 / 2.
    train = Interactions(
        np.array([0, 0, 1]), np.array([0, 1, 0]), np.arange(3.0), np.zeros(3), np.array([5.0, 1.0, 3.0]), 3, 3
    )
    found = levels(train, of_item=2, of_user=1)
    assert found.mean == 3.0
    assert found.item == pytest.approx([0.5, -2 / 3, 0])
    assert found.user == pytest.approx([(2 - 0.5 - 2 + 2 / 3) / 3, -0.25, 0])
    assert found(np.array([1, 2]), np.array([0, 2])) == pytest.approx([3.25, 3.0])


def test_a_line_through_equal_scores_adds_nothing() -> None:
    assert Line.fit(np.ones(3), np.arange(3.0)) == (0.0, 0.0)
    assert Line.fit(np.zeros(0), np.zeros(0)) == (0.0, 0.0)


def test_only_ratings_keep_their_values() -> None:
    world = evaluated_world()
    assert (only_ratings(world).value == world.interactions.value).all()
    played = replace(world.logs[0], types=["play"] * len(world.logs[0].types))
    found = only_ratings(replace(world, logs=[played, *world.logs[1:]]))
    assert np.isnan(found.value[found.user == 0]).all()
    assert not np.isnan(found.value[found.user > 0]).any()
    with pytest.raises(ValueError, match="the logs have"):
        only_ratings(replace(world, logs=world.logs[1:]))


def test_who_knows_tastes_errs_less() -> None:
    # Users rate two of four groups 4 or 5 and the others 1: levels of items and users alone cannot tell which.
    world = evaluated_world()
    train, test = per_user_time(world.interactions)
    found = predictions(world, train, train, test, seed=0)
    errors = {name: (mae(predicted, test.value), rmse(predicted, test.value)) for name, predicted in found.items()}
    assert errors["levels and iALS"] < errors["user and item levels"]
    assert errors["levels and iALS"] < errors["mean rating"]
    assert all(low <= high for low, high in errors.values())
