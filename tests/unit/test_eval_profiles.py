"""Measures of profiles: worked by hand, and moved by the faults that they are there to catch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sps

from agent.contract import Claim, Evidence, Profile
from eval.interactions import Interactions
from eval.profiles import fresh, grounded, readable, specific, stable, steerable, telling, useful
from eval.profiles.grounded import FOREIGN, UNSUPPORTED, judge_all, reasons
from eval.profiles.judge import ask_all, cases, sum_up
from eval.profiles.measuring import Trial
from eval.profiles.writing import Drafted, Writing, Written, claim_vectors, profile_vectors
from recommend.parameters import Parameters
from tests.evaluated_world import USERS, evaluated_world
from tests.small_world import FakeEmbedder
from tests.witness import Witness

SMALL = Parameters(factors=8, epochs=3, projection=6)
Change = Callable[[Claim], Claim]


class Made(NamedTuple):
    trial: Trial
    writing: Writing
    drafts: list[Drafted]
    written: list[Written]

    def measured(self, written: Sequence[Written]) -> dict[str, float]:
        """The means of all metrics of profiles."""
        judged = judge_all(written, self.trial.judge)
        return {
            f"{row.metric}, {row.subject}": float(np.nanmean(row.values))
            for row in self.trial.rows(written, judged, "x")
            if not np.isnan(row.values).all()
        }


@pytest.fixture(scope="module")
def made() -> Made:
    trial = replace(Trial.of(evaluated_world(), FakeEmbedder(), seeds=(0, 1)), parameters=SMALL)
    writing = Writing(trial.past, FakeEmbedder())
    drafts = writing.drafts(range(USERS))
    return Made(trial, writing, drafts, writing.write(drafts))


@pytest.fixture(scope="module")
def truth(made: Made) -> dict[str, float]:
    return made.measured(made.written)


def changed(written: Written, change: Change) -> Written:
    """Change all likes and dislikes of a profile."""
    parts = {k: tuple(map(change, getattr(written.profile, k))) for k in ("interests", "dislikes")}
    return replace(written, profile=written.profile.model_copy(update=parts))


def given(written: Sequence[Written], others: Sequence[Profile]) -> list[Written]:
    """Give users the claims of others' profiles."""
    parts = [{"interests": p.interests, "dislikes": p.dislikes, "summary": p.summary} for p in others]
    return [replace(w, profile=w.profile.model_copy(update=part)) for w, part in zip(written, parts, strict=True)]


# Planted faults.


def test_true_profiles_are_grounded_specific_telling_and_useful(truth: dict[str, float]) -> None:
    assert truth["interest precision, x"] > 0.9
    assert truth["category precision, x"] == truth["category recall, x"] == 1.0
    assert truth["specificity, x"] > 0.3  # half of a group is as like a claim as what it rests on
    assert truth["picked out of 10 at random, x"] > 0.3
    assert truth["AUC, x, by texts"] > 0.8
    assert truth["language, x"] == 1.0
    assert truth["worded by the model, x"] == 0.0


def test_evidence_of_another_user_is_not_grounded(made: Made, truth: dict[str, float]) -> None:
    events = made.trial.past.logs[7].event_ids
    stolen = tuple(Evidence(event_id=event_id, weight=1.0) for event_id in events[:3])
    planted = [changed(w, lambda c: c.model_copy(update={"evidence": stolen})) for w in made.written if w.code != 7]
    found = made.measured(planted)
    assert found["interest precision, x"] == found["interest recall, x"] == 0.0
    why = reasons(judge_all(planted, made.trial.judge))
    claims = sum(len(w.profile.claims) for w in planted)
    assert why[FOREIGN] == why[UNSUPPORTED] == claims


def test_words_of_another_user_are_not_grounded(made: Made, truth: dict[str, float]) -> None:
    def mystery(claim: Claim) -> Claim:
        return claim.model_copy(update={"name": "Cooking", "statement": "Often likes what is largely cooking."})

    def cooks(written: Written) -> bool:
        return any("ooking" in claim.name for claim in written.claims)

    planted = [changed(w, mystery) for w in made.written if not cooks(w)]
    assert len(planted) > 5
    found = made.measured(planted)
    assert found["interest precision, x"] == 0.0
    assert found["category precision, x"] < 0.5


def test_a_claim_without_support_is_not_grounded(made: Made) -> None:
    one = changed(made.written[0], lambda c: c.model_copy(update={"evidence": c.evidence[:1]}))
    assert reasons(judge_all([one], made.trial.judge))[UNSUPPORTED] == len(one.claims)


def test_a_profile_that_leaves_claims_out_is_precise_but_lacks_recall(made: Made, truth: dict[str, float]) -> None:
    fewer = [
        replace(w, profile=w.profile.model_copy(update={"interests": w.profile.interests[:1], "dislikes": ()}))
        for w in made.written
    ]
    found = made.measured(fewer)
    assert found["interest precision, x"] >= truth["interest precision, x"]
    assert found["interest recall, x"] < truth["interest recall, x"] - 0.3


def test_shuffled_profiles_are_neither_telling_nor_useful(made: Made, truth: dict[str, float]) -> None:
    order = np.random.default_rng(1).permutation(USERS)
    found = made.measured(given(made.written, [made.written[n].profile for n in order]))
    assert found["picked out of 10 at random, x"] < truth["picked out of 10 at random, x"] - 0.15
    assert found["AUC, x, by texts"] < truth["AUC, x, by texts"] - 0.2
    assert found["ndcg@10, x, by texts"] < truth["ndcg@10, x, by texts"] - 0.1


def test_stock_phrases_are_neither_specific_nor_readable(made: Made, truth: dict[str, float]) -> None:
    def stock(claim: Claim) -> Claim:
        return claim.model_copy(update={"name": "Good things", "statement": "Enjoys a wide range of good things."})

    found = made.measured([changed(w, stock) for w in made.written])
    assert found["specificity, x"] < 0.15
    assert found["repetition, x"] > truth["repetition, x"] + 0.2
    assert found["names shared, x"] == 1.0
    assert found["interest precision, x"] == 0.0


def test_words_of_another_language_are_seen(made: Made) -> None:
    def german(claim: Claim) -> Claim:
        return claim.model_copy(
            update={"statement": "Mag am liebsten spannende Geschichten und ruhige Abende am Meer."}
        )

    assert made.measured([changed(w, german) for w in made.written[:12]])["language, x"] == 0.0


# Worked examples.


def test_hard_decoys_are_the_nearest_profiles() -> None:
    angles = np.deg2rad([0.0, 10.0, 25.0, 90.0, 180.0])
    profiles = np.column_stack([np.cos(angles), np.sin(angles)])
    behaved = np.column_stack([np.cos(angles + 0.05), np.sin(angles + 0.05)])
    found = telling.pick(profiles, behaved, np.arange(5), np.random.default_rng(0), out_of=3)
    # User 0 (0 degrees) is among 10 and 25: what the owners of these like next is never nearest to 0.
    assert found.own.tolist() == [1.0] * 5
    assert found.another[0] == 0.0
    with pytest.raises(ValueError, match="6 profiles are needed"):
        telling.pick(profiles, behaved, np.arange(5), np.random.default_rng(0), out_of=6)


def test_who_has_no_profile_or_no_later_like_takes_no_part() -> None:
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(6, 3))
    behaved = profiles.copy()
    profiles[1] = 0.0
    behaved[2] = 0.0
    found = telling.pick(profiles, behaved, np.arange(5), rng, out_of=3)
    assert np.isnan(found.own).tolist() == [False, True, True, False, False, True]


def test_shuffled_directions_pick_the_right_profile_no_more() -> None:
    rng = np.random.default_rng(0)
    profiles = rng.normal(size=(60, 8))
    profiles /= np.linalg.norm(profiles, axis=1, keepdims=True)
    behaved = profiles + rng.normal(scale=0.1, size=profiles.shape)
    users = np.arange(60)
    true = telling.pick(profiles, behaved, users, rng)
    false = telling.pick(profiles, behaved[rng.permutation(60)], users, rng)
    assert np.nanmean(true.own) > 0.9
    assert np.nanmean(false.own) < 0.2
    assert np.nanmean(true.at_random) > 0.9
    assert np.nanmean(false.at_random) < 0.3


def test_behaviour_is_the_direction_of_what_is_liked() -> None:
    nan = np.full(3, np.nan)
    later = Interactions(
        np.array([0, 0, 1]), np.array([0, 1, 1]), np.arange(3.0), np.array([1.0, -1.0, 0.5]), nan, 3, 2
    )
    assert telling.behaviour(later, np.array([[2.0, 0.0], [0.0, 2.0]])).tolist() == [[1, 0], [0, 1], [0, 0]]


def world_of(*rows: tuple[int, int, float], items: int = 6) -> Interactions:
    """Interactions of (user, item, weight)."""
    users, codes, weights = (np.array(column) for column in zip(*rows, strict=True))
    n = np.arange(len(rows), dtype=np.float64)
    return Interactions(users, codes, n, weights.astype(np.float64), np.full(len(n), np.nan), 2, items)


def test_percentiles_are_among_items_not_met() -> None:
    past = world_of((0, 0, 1.0))
    later = world_of((0, 1, 1.0), (0, 2, -1.0), (0, 0, 1.0), (0, 3, 1.0))
    scores = np.array([[9.0, 4.0, 5.0, 1.0, 3.0, 1.0], [0.0] * 6])
    values, places = useful.percentiles(scores, past, later)
    # Of items 1 to 5, item 1 outranks 3 of the 4 others; item 3 ties with item 5: half of one.
    assert sorted(values.tolist()) == [0.125, 0.75]
    assert later.item[places].tolist() == [1, 3]
    assert useful.auc(scores, past, later)[0] == pytest.approx(0.4375)
    assert np.isnan(useful.auc(scores, past, later)[1])


def test_each_later_like_is_ranked_among_items_never_met() -> None:
    items = 103
    past, later = world_of((0, 0, 1.0), items=items), world_of((0, 1, 1.0), (0, 2, 1.0), (0, 3, -1.0), items=items)
    scores = np.zeros((2, items))
    scores[0, [0, 3]] = 9.0  # met: neither is drawn
    scores[0, 1] = 5.0
    scores[0, 2] = -1.0
    likes, met = later.take(later.weight > 0).matrix(), (past.matrix() + later.matrix()).tocsr()
    found = useful.one_of_many(scores, likes, met, past.matrix(), np.array([0, 1]), np.random.default_rng(0))
    assert found[0] == pytest.approx((1.0 + 0.0) / 2)  # rank 1, and rank 100
    assert np.isnan(found[1])


def test_texts_and_factors_of_claims_score_items(made: Made) -> None:
    claims = claim_vectors(made.written, FakeEmbedder())
    world = made.trial.world
    mean = world.texts.mean(axis=0)
    mine = claims.owner == 3
    taste = (claims.strengths[mine, None] * (claims.vectors[mine] - mean)).sum(axis=0)
    centred = (world.texts - mean) / np.linalg.norm(world.texts - mean, axis=1, keepdims=True)
    np.testing.assert_allclose(useful.by_text(claims, world)[3], centred @ taste, atol=1e-5)
    factors = np.random.default_rng(0).normal(size=(len(world.items), 4))
    one = made.written[3]
    item_of = dict(zip(one.log.event_ids, one.log.items, strict=True))
    expected = np.zeros(4)
    for claim in one.claims:
        rows = [world.item_set.row[item_of[e.event_id]] for e in claim.evidence]
        expected += claim.strength * factors[rows].mean(axis=0)
    np.testing.assert_allclose(useful.by_factors(made.written, world, factors)[3], factors @ expected)


def test_tags_are_set_against_later_categories(made: Made) -> None:
    matrix, names = made.trial.categories
    found = useful.tags(made.written, made.trial.past.interactions, made.trial.later, matrix, names)
    assert set(found) == {"tags", "own most frequent categories", "everyone's most frequent categories"}
    own, everyone = (found[s]["tag precision@3"] for s in ("tags", "everyone's most frequent categories"))
    assert np.nanmean(own) > np.nanmean(everyone)
    assert matrix.shape == (80, 8)


def test_baselines_rank_by_the_past_alone() -> None:
    past = world_of((0, 0, 1.0), (1, 0, 1.0), (1, 1, 1.0), (0, 2, -1.0))
    categories = sps.csr_matrix(np.eye(6))
    found = useful.by_baselines(past, categories)
    assert found["popularity"][0].tolist() == [2, 1, 0, 0, 0, 0]
    assert np.argmax(found["most frequent category"][0]) == 0


def test_claims_match_by_evidence_one_to_one(made: Made) -> None:
    def claim(n: int, *events: str, kind: str = "interest") -> Claim:
        cited = tuple(Evidence(event_id=e, weight=1.0) for e in events)
        return Claim(
            claim_id=f"i{n}", kind=kind, name=f"N{n}", statement="S", strength=0.5, confidence=0.5, evidence=cited,
            wording="template",
        )  # fmt: skip

    first = [claim(1, "a", "b"), claim(2, "c", "d"), claim(3, "e", kind="dislike")]
    second = [claim(1, "a", "b", "c"), claim(2, "c", "x", "y"), claim(3, "e")]
    assert [(a.claim_id, b.claim_id) for a, b in stable.match(first, second)] == [("i1", "i1")]
    one = made.written[0].profile
    profiles = [one.model_copy(update={"interests": tuple(c), "dislikes": (), "tags": ()}) for c in (first, second)]
    found = stable.compare(*profiles)
    assert found == {"tag Jaccard": 1.0, "matched claims": pytest.approx(1 / 3), "same names": 1.0}
    renamed = second[0].model_copy(update={"name": "Other"})
    assert stable.churn(profiles[0], one.model_copy(update={"interests": (renamed,), "dislikes": ()})) == 1.0
    assert stable.churn(profiles[0], profiles[0]) == 0.0


def test_the_same_log_in_another_order_gives_the_same_profile(made: Made) -> None:
    found = stable.measure(made.writing, made.written, seed=5)
    assert np.nanmean(found["matched claims"]) > 0.95
    assert np.nanmin(found["tag Jaccard"]) == 1.0
    world = stable.shuffled(made.trial.past, np.random.default_rng(5))
    assert [i.item_id for i in world.items] != [i.item_id for i in made.trial.past.items]
    assert world.logs[0].event_ids != made.trial.past.logs[0].event_ids
    assert (np.diff(world.logs[0].times) >= 0).all()
    ours, theirs = (w.item_set.vectors[w.item_set.row["m3"]] for w in (world, made.trial.past))
    np.testing.assert_array_equal(ours, theirs)


def test_another_log_gives_another_profile(made: Made) -> None:
    found = [stable.compare(a.profile, b.profile) for a, b in zip(made.written, made.written[1:], strict=False)]
    assert all(pair["matched claims"] == 0.0 for pair in found)


def test_churn_is_small_where_a_profile_goes_on(made: Made) -> None:
    going_on = stable.churned(made.writing, range(10))
    assert np.isnan(going_on[10:]).all()
    assert 0 <= np.nanmean(going_on[:10]) < 0.3


def test_correcting_the_strongest_interest_goes_in_the_right_direction(made: Made) -> None:
    found = steerable.measure(made.written, made.trial.past, FakeEmbedder(), SMALL)
    for action in steerable.ACTIONS:
        assert np.nanmean(found[f"genre NDCG@10 change, {action}"]) < 0
        right, wrong = (np.nanmean(found[f"{which} direction, {action}"]) for which in ("right", "wrong"))
        assert right > 0.8
        assert wrong < 0.1


def test_the_genre_is_the_category_that_tells_most(made: Made) -> None:
    claim = made.written[0].profile.interests[0]
    told = {
        "decade:1990s": {"share": 1.0, "lift": 9.0},
        "category:Drama": {"share": 0.9, "lift": 1.2},
        "category:War": {"share": 0.6, "lift": 3.0},
    }
    assert steerable.genre_of(claim.model_copy(update={"attributes": told})) == "War"
    assert steerable.genre_of(claim.model_copy(update={"attributes": {}})) is None


def test_profiles_of_the_past_are_held_against_later_likes_by_age(made: Made) -> None:
    found = fresh.measure(made.writing, made.trial.world, np.arange(USERS))
    assert set(found) == {"a day to a week"}  # three events a day, cuts at 2, 4 and 6 days before the end
    aged = found["a day to a week"]
    assert np.nanmean(aged.values) > 0.7
    assert 1.0 <= aged.days <= 6.0
    assert fresh.measure(made.writing, made.trial.world, np.arange(3)) == {}


def test_words_are_counted_with_titles_and_eased_without(made: Made) -> None:
    one = made.written[0]
    found = readable.measure([one], judge_all([one], made.trial.judge), USERS)
    assert found["words"][one.code] == len(readable._WORD.findall(one.text))
    assert found["names shared"][one.code] == 0.0
    assert -50 < found["reading ease"][one.code] < 120
    assert np.isnan(found["words"][1:]).all()


def test_a_claims_own_words_have_no_titles(made: Made) -> None:
    one = next(w for w in made.written if w.profile.interests)
    claim = one.profile.interests[0]
    assert "such as" in claim.statement
    assert one.titles(claim)
    assert not any(title in one.words(claim) for title in one.titles(claim))


def test_told_apart_is_chance_where_words_say_nothing() -> None:
    rng = np.random.default_rng(0)
    items = np.eye(60, dtype=np.float32)
    rows = np.stack([rng.permutation(60)[:50] for _ in range(2_000)])
    lineup = specific.Lineup(rows, np.full(2_000, 5))
    nothing = np.zeros((2_000, 60), dtype=np.float32)
    assert specific.told_apart(nothing, items, lineup, rng).mean() == pytest.approx(0.1, abs=0.01)
    says = items[rows[:, :5]].sum(axis=1)
    assert (specific.told_apart(says, items, lineup, rng) == 1.0).all()


def test_directions_of_profiles_are_signed_sums(made: Made) -> None:
    claims = claim_vectors(made.written, FakeEmbedder())
    found = profile_vectors(claims, np.zeros(16), USERS + 1)
    mine = claims.owner == 2
    expected = (claims.strengths[mine, None] * claims.vectors[mine]).sum(axis=0)
    np.testing.assert_allclose(found[2], expected / np.linalg.norm(expected), atol=1e-6)
    assert not found[USERS].any()
    assert (claims.strengths < 0).any()


# Writers and judges.


def test_a_language_model_writes_what_is_then_judged(made: Made, truth: dict[str, float]) -> None:
    witness = Witness()
    writing = replace(made.writing, llm=witness.writer(), failed={})
    written = writing.write(made.drafts[:12])
    assert [w.code for w in written] == list(range(12))
    assert all(w.profile.provenance.writer == "llm" and w.account.calls and w.seconds > 0 for w in written)
    found = made.measured(written)
    assert found["worded by the model, x"] > 0.5
    assert found["interest precision, x"] > 0.9


def test_a_profile_whose_words_are_refused_is_left_out_with_the_reason(made: Made) -> None:
    class Liar(Witness):
        async def ask(self, messages, schema, max_tokens):  # type: ignore[no-untyped-def]
            answer, usage = await super().ask(messages, schema, max_tokens)
            for group in getattr(answer, "groups", []):
                group.statement = "Enjoys stories close to The Vermilion Orchard by Odalys Brandt."
            return answer, usage

    writing = replace(made.writing, llm=Liar().writer(), failed={})
    assert writing.write(made.drafts[:3]) == []
    assert sorted(writing.failed) == [0, 1, 2]
    assert "refused" in writing.failed[0]


def test_a_judge_who_agrees_with_everything_is_found_out(made: Made) -> None:
    written = made.written[:10]
    judged = judge_all(written, made.trial.judge)
    given_cases = cases(written, judged, made.trial.world.item_set, np.random.default_rng(0))
    planted = [case for case in given_cases if case.planted]
    assert planted
    assert all(not any(word in case.items for word in _categories(case.statement)) for case in planted)
    easy = sum_up(given_cases, ask_all(Witness(), given_cases), USERS)
    assert (easy.sensitivity.mean(), easy.specificity.mean(), easy.trusted) == (0.0, 1.0, False)
    assert np.isnan(easy.accepted[10:]).all()
    assert np.nanmean(easy.accepted) == 1.0


def test_a_judge_who_reads_is_trusted(made: Made) -> None:
    def honest(task: str) -> bool:
        items, _, statement = task.partition("Statement:")
        return any(word in items for word in _categories(statement))

    written = made.written[:10]
    judged = judge_all(written, made.trial.judge)
    witness = Witness(honest)
    given_cases = cases(written, judged, made.trial.world.item_set, np.random.default_rng(0))
    found = sum_up(given_cases, ask_all(witness, given_cases), USERS)
    assert len(witness.told) == len(given_cases)
    assert found.sensitivity.mean() == 1.0
    assert found.trusted


def _categories(text: str) -> list[str]:
    known = ("mystery", "detective", "cooking", "baking", "camping", "tents", "horror", "monsters")
    return [word for word in known if word in text.lower()]


def test_f1_by_hand() -> None:
    assert grounded.f1(0.5, 1.0) == pytest.approx(2 / 3)
    assert grounded.f1(0.0, 0.0) == 0.0
    assert np.isnan(grounded.f1(float("nan"), float("nan")))
