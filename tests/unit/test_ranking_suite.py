"""The ranking suite on an invented world: what it reports, and that no recommender knows the future."""

import doctest
from dataclasses import replace

import numpy as np
import pytest

from agent.themes import UserLog
from eval import cuts, ranking_terms, showing
from eval.cuts import BY_TIME, OTHERS, Cut, Part
from eval.errors import EmptyWorldError
from eval.findings import Findings
from eval.fused import train_fused
from eval.interactions import Interactions
from eval.logged import Impressions
from eval.options import Options
from eval.ranking_terms import PROTOCOLS
from eval.recommenders import ABLATIONS, FIXED, NULLS, RECOMMENDERS, Given, tune
from eval.remembering import Remembering
from eval.suites import ranking
from eval.suites.ranking import run
from eval.world import World
from recommend.parameters import Parameters
from recommend.theme_factors import ThemeParameters
from tests.evaluated_world import USERS, evaluated_world
from tests.small_world import FakeEmbedder

SMALL = {"factors": 8, "epochs": 2, "projection": 6}
SMALL_POINTS = {"iALS": SMALL, "fused": SMALL, "item-kNN": {"neighbours": 20}, "EASE": {"ridge": 20.0}}


@pytest.fixture(scope="module")
def world() -> World:
    return evaluated_world()


@pytest.fixture(scope="module")
def quick(world: World) -> Findings:
    return run(world, FakeEmbedder(), Options(users=30, seeds=2), lambda _: None)


def given_of(world: World, part: Part) -> Given:
    everything = [part.train] if part.known is part.train else [part.train, part.known]
    columns = (np.concatenate([getattr(e, c) for e in everything]) for c in ("user", "item", "time", "weight", "value"))
    events = Interactions(*columns, world.interactions.n_users, world.interactions.n_items)
    users = np.unique(np.concatenate([asked.user for asked in part.asked.values()]))
    return Given(world, part.train, part.known, world.template_claims(events, FakeEmbedder()), users)


def with_another_future(world: World, part: Part, events: Interactions) -> World:
    """The same world, in which those who are asked do something else, and more strongly, from their cut on."""
    held_out = {key for asked in part.asked.values() for key in zip(asked.user, asked.item, asked.time, strict=True)}
    late = np.array([key in held_out for key in zip(events.user, events.item, events.time, strict=True)])
    changed = Interactions(
        events.user, np.where(late, (events.item + 41) % events.n_items, events.item), events.time,
        np.where(late, -4.0 * events.weight, events.weight), np.where(late, 3.0, events.value), events.n_users,
        events.n_items,
    )  # fmt: skip
    logs = []
    for code, log in enumerate(world.logs):
        rows = np.flatnonzero(changed.user == code)
        logs.append(UserLog(
            log.user_id, log.event_ids, [world.items[i].item_id for i in changed.item[rows]], log.types,
            changed.value[rows].tolist(), changed.time[rows], log.offsets,
        ))  # fmt: skip
    return replace(world, interactions=changed, logs=logs)


@pytest.mark.parametrize("cut", [*BY_TIME, OTHERS[0], OTHERS[1]], ids=lambda cut: cut.__name__)
def test_nothing_after_the_cut_reaches_claims_factors_or_scores(world: World, cut: Cut) -> None:
    world = replace(world, themes_by=ThemeParameters(factors=4))
    first = cut(world.interactions, 0)[0]
    other_world = with_another_future(world, first, world.interactions)
    other = cut(other_world.interactions, 0)[0]
    np.testing.assert_array_equal(first.train.item, other.train.item)
    ours, theirs = given_of(world, first), given_of(other_world, other)
    asked = next(iter(first.asked.values()))
    assert (np.sort(asked.item) != np.sort(next(iter(other.asked.values())).item)).any()  # the futures differ
    np.testing.assert_array_equal(ours.claims.vectors, theirs.claims.vectors)
    np.testing.assert_array_equal(ours.claims.strengths, theirs.claims.strengths)
    factors = [
        train_fused(g.train, g.claims, g.world.texts, Parameters(**SMALL)).fitted.factors for g in (ours, theirs)
    ]
    np.testing.assert_array_equal(*factors)
    for name, recommend in RECOMMENDERS.items():
        point = SMALL_POINTS.get(name, SMALL if "profile and" in name else {})
        np.testing.assert_array_equal(recommend(ours, point, 0), recommend(theirs, point, 0), err_msg=name)


def test_a_leak_that_is_planted_moves_the_figures(world: World) -> None:
    # Training that also has what is asked, under another item seen by nobody else: EASE learns to answer.
    part = cuts.last_events(world.interactions, 0)[0]
    asked = part.asked["last 20 %"]
    told = np.concatenate([part.train.user, asked.user]), np.concatenate([part.train.item, asked.item])
    both = Interactions(
        *told, np.concatenate([part.train.time, asked.time]), np.concatenate([part.train.weight, asked.weight]),
        np.zeros(len(told[0])), USERS, world.interactions.n_items,
    )  # fmt: skip
    users = np.unique(asked.user)
    claims = world.template_claims(part.train, FakeEmbedder())
    relevant = asked.take(asked.weight > 0).matrix()[users].toarray() > 0
    for name in ("EASE", "iALS"):
        clean = RECOMMENDERS[name](Given(world, part.train, part.train, claims, users), SMALL_POINTS[name], 0)
        leaked = RECOMMENDERS[name](Given(world, both, both, claims, users), SMALL_POINTS[name], 0)
        others = (part.train.matrix()[users].toarray() == 0) & ~relevant
        margin = [s[relevant].mean() - s[others].mean() for s in (clean, leaked)]
        assert margin[1] > margin[0], name


def test_the_quick_run_keeps_to_the_cuts_by_time(quick: Findings) -> None:
    assert set(quick.protocols) == {"last 20 %", "later visit", "global time"}  # nobody stays for the same sitting
    ndcg = {
        f.key: f for f in quick.figures if f.metric == "ndcg@10" and f.protocol == "last 20 %" and f.segment == "all"
    }
    assert {key.subject for key in ndcg} == {*RECOMMENDERS, *ABLATIONS, *NULLS}
    for found in ndcg.values():
        assert 0 < found.n <= 30
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high


def test_every_figure_is_described_and_known_by_its_key(quick: Findings) -> None:
    assert {f.metric for f in quick.figures} == set(quick.metrics)
    assert {f.protocol for f in quick.figures} == set(quick.protocols)
    assert len({f.key for f in quick.figures}) == len(quick.figures)
    assert {f.segment for f in quick.figures} == {"all", "few events", "mainstream", "niche"}  # all have as many events
    metrics = {f.metric.partition("@")[0] for f in quick.figures}
    assert metrics == {
        "ndcg", "recall", "precision", "hit", "map", "mrr", "auc", "coverage", "gini", "novelty", "diversity",
        "popularity lift", "mae", "rmse",
    }  # fmt: skip
    assert {f.metric for f in quick.figures if f.metric.startswith("ndcg")} == {"ndcg@5", "ndcg@10", "ndcg@20"}


def test_who_knows_tastes_wins_where_tastes_are_all_there_is(quick: Findings) -> None:
    value = {f.subject: f.value for f in quick.figures if f.key[1:3] == ("last 20 %", "auc")}
    assert min(value["fused"], value["iALS"], value["EASE"], value["text centroid"]) > value["popularity"]
    assert value["profile only"] > value["popularity"]
    test = next(t for t in quick.tests if t.protocol == "last 20 %" and t.second == "popularity" and t.segment == "all")
    assert test.first == "fused"
    assert test.wins + test.losses <= test.n
    assert test.low <= test.difference <= test.high


def test_curves_rise_to_the_figure_at_ten(quick: Findings) -> None:
    curve = next(c for c in quick.curves if c.title.endswith("global time") and c.subject == "fused")
    found = next(f for f in quick.figures if f.key[1:] == ("global time", "ndcg@10", "fused", "all"))
    assert curve.y[curve.x.index(10.0)] == pytest.approx(found.value)


def test_a_full_run_has_every_protocol_and_tunes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "ABLATIONS", {"without dislikes": {"dislike_weight": 0.0}})
    monkeypatch.setattr(ranking, "NULLS", ())
    told: list[str] = []
    found = run(world, FakeEmbedder(), Options(users=12, seeds=1, trials=1), told.append)
    assert set(found.protocols) == set(PROTOCOLS) - {"same sitting", "shown"}
    assert any("tuning for later visit" in line for line in told)
    assert any("had 1 trials" in note for note in found.notes)
    assert sum("new users" in line for line in told) == 5
    sampled, full = (
        next(f.value for f in found.figures if f.key[1:] == (protocol, "auc", "popularity", "all"))
        for protocol in ("leave one out, 1 + 99", "leave one out")
    )
    assert sampled == full  # there are not 99 others, so that both rank all items


def test_each_protocol_by_time_is_tuned_for_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Everyone comes once a day, but that the first two of the last six events follow within the hour.
    times = 86_400.0 * np.arange(30)
    times[24:26] = times[23] + 60.0
    events = replace(world.interactions, time=np.tile(times, USERS))
    short = replace(world, interactions=events, logs=[replace(log, times=times) for log in world.logs])
    monkeypatch.setattr(ranking, "ABLATIONS", {})
    monkeypatch.setattr(ranking, "NULLS", ())
    told: list[str] = []
    found = run(short, FakeEmbedder(), Options(seeds=1, trials=1), told.append)
    (note,) = (note for note in found.notes if "trials" in note)
    for protocol in ("later visit", "global time"):
        assert f"{protocol}: iALS (" in note
        assert any(f"tuning for {protocol}, 1 trials" in line for line in told)
    assert "same sitting" in found.protocols
    # In the training part all events are a day apart, so that nothing can be searched for the same sitting.
    assert "ranking: too few users to tune for same sitting: parameters are fixed" in told
    assert f"same sitting: iALS (alpha0={FIXED['iALS']['alpha0']}" in note


def test_a_sequential_recommender_is_a_row_on_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sequential = pytest.importorskip("eval.sequential", reason="torch-rechub is not installed", exc_type=ImportError)
    small = sequential.SequentialSettings(width=8, length=10, blocks=1, epochs=1)
    monkeypatch.setattr(sequential, "SequentialSettings", lambda seed: small.model_copy(update={"seed": seed}))
    found = run(world, FakeEmbedder(), Options(users=15, seeds=1, sequential=True), lambda _: None)
    ours = [f for f in found.figures if f.subject == "SASRec" and f.segment == "all"]
    assert {f.protocol for f in ours} == {"last 20 %", "later visit", "global time"}
    assert {f.metric for f in ours} >= {"ndcg@10", "recall@10", "auc", "coverage@10"}
    assert {t.protocol for t in found.tests if t.second == "SASRec"} == set(found.protocols)
    assert any("SASRec keeps to the cuts by time" in note for note in found.notes)


def test_the_markov_chain_goes_by_the_last_like(world: World) -> None:
    part = cuts.last_events(world.interactions, 0)[0]
    given = given_of(world, part)
    scores = RECOMMENDERS["Markov chain"](given, {"smoothing": 1.0}, 0)
    likes = part.train.take(part.train.weight > 0)
    user = int(given.users[0])
    last = likes.item[likes.user == user][-1]
    follows = (likes.user[1:] == likes.user[:-1]) & (likes.item[:-1] == last)
    counts = np.bincount(likes.item[1:][follows], minlength=likes.n_items)
    share = np.bincount(likes.item, minlength=likes.n_items) / len(likes)
    np.testing.assert_allclose(scores[0], (counts + share) / (counts.sum() + 1.0))


def test_nobody_to_ask_is_said(world: World) -> None:
    empty = replace(world, interactions=world.interactions.take(world.interactions.weight < 0))
    with pytest.raises(EmptyWorldError, match="limner ingest"):
        run(empty, FakeEmbedder(), Options(users=5, seeds=1), lambda _: None)


def test_the_best_point_is_found_for_each() -> None:
    asked: list[str] = []

    def measured(name: str):
        asked.append(name)
        return lambda point: -abs(point.get("ridge", 0.0) - 100.0)

    points = tune(measured, 5)
    assert asked == ["iALS", "fused", "item-kNN", "EASE", "Markov chain"]
    assert abs(points["EASE"]["ridge"] - 100) < abs(FIXED["EASE"]["ridge"] - 100)


def test_a_text_is_embedded_once() -> None:
    class Counting(FakeEmbedder):
        asked: list[str] = []  # noqa: RUF012

        def embed(self, texts):
            self.asked += texts
            return super().embed(texts)

    inner = Counting()
    embedder = Remembering(inner)
    both = embedder.embed(["a", "b", "a"])
    assert (both[0] == both[2]).all()
    assert (embedder.embed(["b"])[0] == both[1]).all()
    assert inner.asked == ["a", "b"]
    assert embedder.embed([]).shape == (0, 16)
    assert (embedder.name, embedder.dimension) == ("fake", 16)


def test_rates_of_what_was_shown(world: World) -> None:
    # Items 0 and 1 are shown half of the time each; the first is clicked always, the second never.
    n = 80
    ids = [world.items[k % 2].item_id for k in range(n)]
    clicked = np.arange(n) % 2 == 0
    shown = Impressions(np.arange(n) % USERS, ids, np.full(n, 9.0), clicked, np.zeros(n, dtype=bool), np.full(n, 0.5))
    users = np.arange(USERS)
    scores = np.zeros((USERS, 80))
    scores[:, 0] = 9.0
    scores[:, 70:] = 1.0
    seen = replace(world, impressions=shown)
    found = {(f.subject, f.metric): f for f in showing.figures(seen, "popularity", users, scores, 5.0, 0)}
    assert found["as logged", "ctr"].value == 0.5
    assert found["as logged", "conversion"].value == 0.0
    assert found["popularity", "ctr"].value == 1.0  # of the two it would show the first alone
    assert found["popularity", "effective sample size"].value == pytest.approx(40)
    assert not showing.figures(seen, "popularity", users, scores, 10.0, 0)  # all before the time
    assert not showing.figures(world, "popularity", users, scores, 5.0, 0)
    unlogged = replace(world, impressions=shown._replace(propensity=np.full(n, np.nan)))
    assert {f.subject for f in showing.figures(unlogged, "popularity", users, scores, 5.0, 0)} == {"as logged"}


def test_terms_are_explained() -> None:
    result = doctest.testmod(ranking_terms)
    assert result.attempted >= 3
    assert result.failed == 0
