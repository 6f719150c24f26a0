"""The explanation suite on an invented world, and what it is made of."""

import doctest
from dataclasses import replace

import numpy as np
import pytest

from eval import faithfulness, sentences
from eval.errors import EmptyWorldError
from eval.faithfulness import STEPS, delete, first_choice, insert
from eval.findings import Findings
from eval.fused import Fused, train_fused
from eval.options import Options
from eval.profiles.writing import Writing, Written
from eval.suites.explanations import METRICS, SEARCH, run
from eval.world import World
from recommend.parameters import Parameters
from recommend.ranking import rank_of
from tests.evaluated_world import evaluated_world
from tests.small_world import FakeEmbedder

SMALL = Parameters(factors=8, epochs=3, projection=6)
EXPLAINERS = {"parts", "cosine of factors", "cosine of texts", "random"}


@pytest.fixture(scope="module")
def world() -> World:
    return evaluated_world()


@pytest.fixture(scope="module")
def fused(world: World) -> Fused:
    claims = world.template_claims(world.interactions, FakeEmbedder())
    return train_fused(world.interactions, claims, world.texts, SMALL)


@pytest.fixture(scope="module")
def found(world: World) -> Findings:
    return run(world, FakeEmbedder(), Options(users=15, seeds=2), lambda _: None)


def profile(world: World, user: int) -> Written:
    writing = Writing(world, FakeEmbedder())
    return writing.write(writing.drafts([user]))[0]


def test_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(faithfulness)
    assert result.attempted >= 2
    assert result.failed == 0


def test_deletions_and_insertions_are_full_recomputation(world: World, fused: Fused) -> None:
    user, events = 5, world.interactions
    case = first_choice(fused, events, user)
    order = case.used[::-1][:3]
    deleted, inserted = delete(fused, case, user, order, 4), insert(fused, case, user, order, 4)
    mine = np.flatnonzero(events.user == user)
    seen = np.unique(events.item[mine])
    full = fused.scores(events, np.array([user]))[0, case.row]
    for steps in range(5):
        gone = order[:steps]
        left = np.setdiff1d(case.used, order[:steps])
        for walk, removed in ((deleted, gone), (inserted, left)):
            scores = fused.scores(events.take(np.setdiff1d(np.arange(len(events)), mine[removed])), np.array([user]))[0]
            assert walk.scores[steps] == pytest.approx(scores[case.row] / full)
            assert walk.ranks[steps] == rank_of(scores, case.row, seen)


def test_all_events_brought_back_give_the_score(world: World, fused: Fused) -> None:
    case = first_choice(fused, world.interactions, 2)
    walk = insert(fused, case, 2, case.used, len(case.used) + 2)
    assert walk.scores[len(case.used) :] == pytest.approx(1.0)
    assert walk.ranks[-1] == 1


def test_what_is_told_adds_up_and_is_what_the_model_folds_in(world: World, fused: Fused) -> None:
    model = sentences.served_model(world, fused, SMALL, FakeEmbedder())
    case, written = first_choice(fused, world.interactions, 4), profile(world, 4)
    someone = sentences.person(world, model, written, FakeEmbedder())
    np.testing.assert_allclose(someone.folded.vector, case.folded.vector, rtol=1e-6, atol=1e-9)
    titles = {item.item_id: item.title for item in world.items}
    told = sentences.tell(someone, case.row, titles)
    assert told.explanation.rank == 1
    assert told.additive_error < 1e-5
    assert sentences.adds_up(someone)
    vars(someone)["folded"] = replace(someone.folded, vector=1.0001 * someone.folded.vector)  # what is kept of it
    assert not sentences.adds_up(someone)
    assert told.explanation.text.startswith(("Mostly because", "Among other things, because"))
    assert told.named_share > 0
    assert told.claims <= {claim.name for claim in written.claims}
    assert told.events.shape == (len(someone.events.rows),)


def test_every_metric_of_every_explainer_is_reported(found: Findings) -> None:
    assert {f.metric for f in found.figures} == set(METRICS) == set(found.metrics)
    assert len({f.key for f in found.figures}) == len(found.figures)
    assert {f.subject for f in found.figures} == {*EXPLAINERS, SEARCH}
    for metric in ("deletion area", "insertion area", "necessity@1", "sufficiency@10", "named share"):
        assert {f.subject for f in found.figures if f.metric == metric} == EXPLAINERS
    assert {t.second for t in found.tests} == EXPLAINERS - {"parts"}
    assert {f.n for f in found.figures if f.metric == "deletion area"} == {15}


def test_ours_knows_more_than_chance(found: Findings) -> None:
    value = {(f.subject, f.metric): f.value for f in found.figures}
    assert value["parts", "deletion area"] < value["random", "deletion area"]
    assert value["parts", "insertion area"] > value["random", "insertion area"]
    assert value["parts", "named share"] > value["random", "named share"]
    assert value["parts", "additive error"] < 1e-5
    assert value["parts", "adds up"] == 1.0
    assert value[SEARCH, "events to drop out"] <= value["parts", "events to drop out"]
    assert 0 < value["parts", "feature coverage"] <= 1


def test_curves_begin_where_they_must(found: Findings) -> None:
    titles = {curve.title for curve in found.curves}
    assert titles == {"Deletion of events", "Insertion of events"}
    for curve in found.curves:
        assert curve.x == tuple(map(float, range(STEPS + 1)))
        assert curve.low is not None
        assert curve.high is not None
        assert all(low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))
        if curve.title.startswith("Deletion"):
            assert curve.y[0] == 1.0
    insertions = {c.y[0] for c in found.curves if c.title.startswith("Insertion")}
    assert len(insertions) == 1  # every explainer starts from the same


def test_nothing_to_explain_is_said(world: World) -> None:
    with pytest.raises(EmptyWorldError, match="limner ingest"):
        run(world, FakeEmbedder(), Options(users=1, seeds=1), lambda _: None)
