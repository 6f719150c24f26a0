"""The case that is explained, and explainers, which put events in the order they claim."""

from typing import NamedTuple

import numpy as np
import pytest

from eval.faithfulness import area, at_random, by_cosine, by_parts, first_choice
from eval.fused import Fused, train_fused
from eval.world import World
from recommend.parameters import Parameters
from tests.evaluated_world import evaluated_world
from tests.small_world import FakeEmbedder

SMALL = Parameters(factors=8, epochs=3, projection=6)


class Trained(NamedTuple):
    world: World
    model: Fused


@pytest.fixture(scope="module")
def trained() -> Trained:
    world = evaluated_world()
    claims = world.template_claims(world.interactions, FakeEmbedder())
    return Trained(world, train_fused(world.interactions, claims, world.texts, SMALL))


def test_the_case_is_the_best_unseen_item(trained: Trained) -> None:
    user, events = 3, trained.world.interactions
    case = first_choice(trained.model, events, user)
    scores = trained.model.scores(events, np.array([user]))[0]
    scores[events.item[events.user == user]] = -np.inf
    assert case.row == np.argmax(scores)
    assert (case.events.weights[case.used] != 0).all()


def test_the_first_part_is_the_event_that_adds_most(trained: Trained) -> None:
    case = first_choice(trained.model, trained.world.interactions, 7)
    matter = by_parts(trained.model)(case)
    texts, crowd = case.folded.parts(trained.model.fitted.factors[case.row].astype(np.float64))[1:]
    total = case.folded.score(trained.model.fitted.factors[case.row].astype(np.float64))
    assert matter.sum() + texts.sum() + crowd == pytest.approx(total)


def test_cosine_is_of_the_events_items(trained: Trained) -> None:
    case = first_choice(trained.model, trained.world.interactions, 7)
    vectors = np.zeros((80, 2), dtype=np.float32)
    vectors[:, 0] = 3.0
    liked = case.events.rows[case.used]
    vectors[liked[0]] = [0.0, 2.0]
    expected = np.ones(len(liked))
    expected[0] = 0.0
    np.testing.assert_allclose(by_cosine(vectors)(case), expected)


def test_random_orders_repeat_by_seed(trained: Trained) -> None:
    case = first_choice(trained.model, trained.world.interactions, 7)
    one, same, other = (at_random(np.random.default_rng(seed))(case) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()


def test_the_area_of_a_flat_curve_is_one() -> None:
    assert area(np.ones(11)) == 1.0
