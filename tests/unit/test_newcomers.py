"""New users and new items: nothing of the fold leaks into training, and the figures say what happened."""

from dataclasses import replace

import numpy as np
import pytest

from eval import newcomers
from eval.fused import train_fused
from eval.interactions import Interactions
from eval.newcomers import Newcomers, _NewUsers, first_events, told_later
from eval.world import Claims, World
from recommend.parameters import Parameters
from tests.evaluated_world import USERS, evaluated_world
from tests.small_world import FakeEmbedder

SMALL = Parameters(factors=8, epochs=3, projection=6)
POINT = {"factors": 8, "epochs": 3, "projection": 6}


@pytest.fixture(scope="module")
def world() -> World:
    return evaluated_world()


def new_users(world: World, new: np.ndarray, events: Interactions | None = None) -> _NewUsers:
    events = world.interactions if events is None else events
    splits = {1: first_events(events, 1), 5: first_events(events, 5)}
    early = {count: world.template_claims(split.train, FakeEmbedder()) for count, split in splits.items()}
    full = world.template_claims(world.interactions, FakeEmbedder())
    return _NewUsers(world, events, splits, early, full, ~new, new, 0)


def test_training_knows_nothing_of_new_users(world: World) -> None:
    new = np.arange(USERS) < 8
    events = world.interactions
    inverted = replace(events, weight=np.where(new[events.user], -events.weight, events.weight))
    one, other = new_users(world, new), new_users(world, new, inverted)
    np.testing.assert_array_equal(one.popular, other.popular)
    np.testing.assert_array_equal(one.train(POINT).fitted.factors, other.train(POINT).fitted.factors)
    assert not np.isin(one.train(POINT).owner, np.flatnonzero(new)).any()


def test_known_items_are_not_ranked_and_later_likes_count(world: World) -> None:
    fold = new_users(world, np.arange(USERS) < 8)
    likes = world.interactions.take(world.interactions.weight > 0).matrix()[:8].toarray()
    known = fold.known[5].matrix().toarray()[:8]
    assert (known.sum(axis=1) == 5).all()
    oracle = fold.measure(likes + 2.0 * known, 5)  # it would put the known items first if it could
    np.testing.assert_allclose(oracle, 1.0)
    np.testing.assert_allclose(fold.measure(-likes, 5), 0.0)


def test_claims_told_later_are_those_of_training(world: World) -> None:
    claims = world.template_claims(world.interactions, FakeEmbedder())
    model = train_fused(world.interactions, claims, world.texts, SMALL)
    shuffled = np.random.default_rng(0).permutation(len(claims.owner))
    again = told_later(
        model, Claims(claims.owner[shuffled], claims.strengths[shuffled], claims.vectors[shuffled]), world
    )
    users = np.arange(USERS)
    np.testing.assert_allclose(
        again.vectors(world.interactions, users), model.vectors(world.interactions, users), atol=1e-8
    )


def test_known_events_weigh_what_they_alone_give(world: World) -> None:
    events = world.interactions
    halved = replace(events, weight=np.where(np.arange(len(events)) % 30 == 29, 1.0, 0.25 * np.sign(events.weight)))
    known, later = first_events(halved, 5)
    assert len(known) == 5 * USERS
    assert len(later) == 25 * USERS
    assert set(np.abs(known.weight)) == {1.0}  # the strongest event of each log comes last
    np.testing.assert_array_equal(np.sort(np.concatenate([known.time, later.time])), np.sort(events.time))


def test_hidden_items_have_no_events_and_only_asked_ones_are_relevant(world: World) -> None:
    asked = np.arange(80) % 5 == 0
    fold = Newcomers(world, FakeEmbedder(), trials=1)._new_items(asked | (np.arange(80) % 5 == 1), asked, 0)
    assert not np.isin(fold.split.train.item % 5, [0, 1]).any()
    assert (fold.split.test.item % 5 == 0).all()
    assert (fold.split.test.weight > 0).all()
    likes = fold.split.test.matrix()[fold.users].toarray()
    for among in newcomers.AMONG:
        measured = fold.measure(likes, among)
        np.testing.assert_allclose(measured[fold.users], 1.0)
        assert np.isnan(np.delete(measured, fold.users)).all()


def test_warm_items_only_compete_in_the_ranking_of_all(world: World) -> None:
    asked = np.arange(80) % 5 == 0
    fold = Newcomers(world, FakeEmbedder(), trials=1)._new_items(asked, asked, 0)
    warm_first = fold.split.test.matrix()[fold.users].toarray() + 5.0 * ~asked
    assert np.nanmax(fold.measure(warm_first, "all items")) == 0.0
    np.testing.assert_allclose(fold.measure(warm_first, "new items")[fold.users], 1.0)


def test_run_has_every_user_once_and_learns_the_groups(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomers, "KNOWN", (1, 5))
    found = newcomers.run(world, FakeEmbedder(), seeds=1, trials=1, tell=lambda _: None)
    assert list(found["users"]["by_known"]) == ["1", "5"]
    assert len(found["users"]["points"]) == newcomers.FOLDS
    five = found["users"]["by_known"]["5"]
    assert five["fused"]["over popularity"]["low"] > 0  # groups are all there is to know
    assert found["users"]["not_below_popularity"]["5"]
    new = found["items"]["among"]["new items"]
    assert new["over random"]["low"] > 0
    assert new["ndcg"]["fused"] > new["ndcg"]["random"]
