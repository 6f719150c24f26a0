"""The profile suite and the cost suite from end to end, in memory."""

import numpy as np
import pytest

from eval import past
from eval.errors import EmptyWorldError
from eval.findings import Findings
from eval.leakage import LeakError
from eval.options import Options
from eval.past import cuts
from eval.profiles.measuring import Trial
from eval.suites import cost, profiles
from tests.evaluated_world import USERS, evaluated_world
from tests.small_world import FakeEmbedder
from tests.witness import NAME, USAGE, Witness

OPTIONS = Options(seeds=2, llm_users=12)


@pytest.fixture(scope="module")
def found() -> Findings:
    told: list[str] = []
    result = profiles.run(
        evaluated_world(), FakeEmbedder(), OPTIONS, told.append, llm=Witness().writer(), judge=Witness()
    )
    assert any(NAME in line for line in told)
    return result


def test_every_question_has_a_figure(found: Findings) -> None:
    measured = {figure.metric for figure in found.figures}
    # 80 items are too few for one among 99 that were never met.
    assert set(profiles._ALL_METRICS) - measured == {"ndcg@10, 1+99"}


def test_every_metric_and_protocol_is_described(found: Findings) -> None:
    assert {figure.metric for figure in found.figures} == set(found.metrics)
    assert {figure.protocol for figure in found.figures} <= set(found.protocols)
    assert all(figure.suite == "profiles" for figure in found.figures)


def test_a_figure_is_known_by_its_key(found: Findings) -> None:
    keys = [figure.key for figure in found.figures]
    assert len(keys) == len(set(keys))
    # All have the same number of events, so nobody has many.
    assert {figure.segment for figure in found.figures} == {"all", "few events", "mainstream", "niche"}


def test_figures_of_everyone_are_over_everyone(found: Findings) -> None:
    of = {figure.key[1:]: figure for figure in found.figures}
    assert of["last 20 %", "interest precision", "template", "all"].n == USERS
    assert of["last 20 %", "interest precision", "llm", "all"].n == 12
    halves = [of["last 20 %", "words", "template", s].n for s in ("mainstream", "niche")]
    assert sum(halves) == USERS


def test_figures_of_few_users_tell_each_users(found: Findings) -> None:
    words = {f.subject: f for f in found.figures if f.metric == "words" and f.segment == "all"}
    assert len(words["llm"].by_user) == 12
    assert set(words["llm"].by_user) < set(words["template"].by_user)
    for figure in words.values():
        assert np.mean(list(figure.by_user.values())) == pytest.approx(figure.value)
    assert not any(figure.by_user for figure in found.figures if figure.segment != "all")


def test_writers_are_compared_on_the_same_users(found: Findings) -> None:
    tests = [test for test in found.tests if (test.first, test.second) == ("llm", "template")]
    assert {test.segment for test in tests} >= {"all", "mainstream"}
    by = {test.metric: test for test in tests if test.segment == "all"}
    assert by["worded by the model"].difference > 0
    assert by["worded by the model"].n == 12
    assert by["words"].p >= by["worded by the model"].p
    assert {"interest F1", "specificity", "picked out of 10 at random", "right direction, rejected"} <= set(by)


def test_the_template_is_tested_against_baselines_and_chance(found: Findings) -> None:
    pairs = {(test.metric, test.first, test.second) for test in found.tests}
    assert ("ndcg@10", "template, by texts", "popularity") in pairs
    assert ("AUC", "template, by factors", "most frequent category") in pairs
    assert ("picked out of 10", "template", "template, chance") in pairs


def test_the_best_and_the_worst_can_be_read(found: Findings) -> None:
    verdicts = [example.verdict for example in found.examples]
    assert verdicts == ["best"] * 3 + ["worst"] * 3
    assert len({example.title for example in found.examples}) == 6
    assert all("Likes" in e.text or "likes" in e.text for e in found.examples)


def test_a_judge_that_knows_nothing_is_said_to_mean_nothing(found: Findings) -> None:
    assert any("means nothing" in note for note in found.notes)


def test_one_seed_gives_the_same_figures() -> None:
    few = Options(users=15, seeds=1)
    world = evaluated_world()
    one, two = (profiles.run(world, FakeEmbedder(), few, lambda _: None) for _ in range(2))
    assert one == two
    assert {figure.n for figure in one.figures if figure.metric == "words" and figure.segment == "all"} == {15}


def test_a_leak_ends_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    world = evaluated_world()
    monkeypatch.setattr(Trial, "past", property(lambda trial: past.before(trial.world, np.full(USERS, np.inf))))
    with pytest.raises(LeakError, match="which is held out"):
        profiles.run(world, FakeEmbedder(), OPTIONS, lambda _: None)


def test_users_without_a_cut_cannot_be_measured() -> None:
    world = evaluated_world()
    first = past.before(world, np.full(USERS, world.logs[0].times[3]))
    assert not np.isfinite(cuts(first.interactions)).any()
    with pytest.raises(EmptyWorldError, match="ingest a longer log"):
        profiles.run(first, FakeEmbedder(), OPTIONS, lambda _: None)
    with pytest.raises(EmptyWorldError, match="ingest a log"):
        cost.run(past.before(world, np.zeros(USERS)), FakeEmbedder(), OPTIONS, lambda _: None)


def test_costs_are_those_of_the_calls() -> None:
    witness = Witness()
    found = cost.run(evaluated_world(), FakeEmbedder(), OPTIONS, lambda _: None, llm=witness.writer())
    of = {(figure.metric, figure.subject): figure for figure in found.figures}
    assert set(found.metrics) == {metric for metric, _ in of}
    assert [of[metric, "template"].value for metric in ("calls", "tokens in", "tokens out")] == [0, 0, 0]
    calls = of["calls", "llm"]
    assert calls.n == 12
    assert calls.value >= 2
    assert of["tokens in", "llm"].value == pytest.approx(USAGE.tokens_in * calls.value)
    assert of["tokens out", "llm"].value == pytest.approx(USAGE.tokens_out * calls.value)
    assert of["seconds of calls", "llm"].value == pytest.approx(USAGE.seconds * calls.value)
    assert all(of["profiles per second", writer].value > 0 for writer in ("template", "llm"))
    assert of["profiles per second", "template"].n == USERS
    assert any("make bench" in note for note in found.notes)
