"""The world before a cut knows nothing of what comes after it, and a leak is found."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from agent.contract import Evidence, Profile
from agent.themes import UserLog
from eval.correcting import corrector_of
from eval.fused import train_fused
from eval.interactions import Interactions
from eval.leakage import LeakError, assert_before
from eval.past import after, before, cuts
from eval.profiles.measuring import Trial
from eval.profiles.steerable import correctable, steer, strongest
from eval.profiles.useful import by_factors, by_text
from eval.profiles.writing import Writing, Written, claim_vectors
from eval.world import World
from recommend.parameters import Parameters
from recommend.theme_factors import ThemeParameters
from tests.evaluated_world import EVENTS, USERS, evaluated_world
from tests.small_world import NOW, FakeEmbedder
from tests.witness import Witness

SMALL = Parameters(factors=8, epochs=3, projection=6)


def events_at(*times: list[float]) -> Interactions:
    rows = [(user, 0, t, 1.0, np.nan) for user, of_user in enumerate(times) for t in of_user]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Interactions(columns[0].astype(np.int64), columns[1].astype(np.int64), *columns[2:], len(times), 1)


def test_events_at_one_time_are_never_parted() -> None:
    ten = [float(n) for n in range(10)]
    tied = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 8.0, 8.0]
    found = cuts(events_at(ten, tied, ten[:4], [3.0] * 10))
    assert found.tolist() == [8.0, 8.0, np.inf, np.inf]  # too few events, and nothing left before the cut


def test_a_share_lies_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        cuts(events_at([1.0]), share=1.0)


def test_each_event_is_before_or_after() -> None:
    world = evaluated_world()
    cut = cuts(world.interactions)
    past, later = before(world, cut), after(world, cut)
    assert len(past.interactions) + len(later) == USERS * EVENTS
    assert (past.interactions.last_time() < cut).all()
    assert (later.time >= cut[later.user]).all()
    assert sum(len(log.event_ids) for log in past.logs) == len(past.interactions)


def test_weights_of_the_past_are_not_scaled_by_the_future() -> None:
    world = evaluated_world()
    log = world.logs[0]
    values = [4.0] * 24 + [5.0] * 6  # a 5 weighs 1, a 4 beside it a half
    world = replace(world, logs=[replace(log, values=values), *world.logs[1:]])
    past = before(world, np.full(USERS, np.unique(log.times)[-2])).interactions
    assert set(past.weight[past.user == 0].tolist()) == {1.0}


def test_what_is_no_item_is_left_out_of_a_log() -> None:
    world = evaluated_world()
    log = world.logs[0]
    searched = replace(log, items=["text:abc", *log.items[1:]])
    past = before(replace(world, logs=[searched, *world.logs[1:]]), np.full(USERS, np.inf))
    assert past.logs[0].items == [None, *log.items[1:]]
    assert np.count_nonzero(past.interactions.user == 0) == EVENTS - 1


# Nothing after the cut reaches what is made of before.


def changed_after(world: World, cut: np.ndarray, seed: int) -> World:
    """Replace whatever lies after the cuts: other events, more of them, of other types, values, items and times."""
    rng = np.random.default_rng(seed)
    known = before(world, cut).logs
    logs = []
    for log, past, at in zip(world.logs, known, cut.tolist(), strict=True):
        count = int(rng.integers(5, 40))
        logs.append(
            UserLog(
                user_id=log.user_id,
                event_ids=[*past.event_ids, *(f"{log.user_id}-other-{n}" for n in range(count))],
                items=[*past.items, *(world.items[i].item_id for i in rng.integers(len(world.items), size=count))],
                types=[*past.types, *rng.choice(["rating", "view", "purchase", "dislike", "search"], count)],
                values=[*past.values, *rng.choice([1.0, 2.0, 5.0], count)],
                times=np.append(past.times, at + np.sort(rng.integers(0, 9_000_000, count))),
                offsets=[None] * (len(past.event_ids) + count),
                revision=int(rng.integers(1_000)),
            )
        )
    whole = replace(world, logs=logs)
    return replace(whole, interactions=before(whole, np.full(len(logs), np.inf)).interactions)


def everything_made(world: World, cut: np.ndarray) -> dict[str, object]:
    """Make all that is judged: profiles by both writers with their prompts, features, factors, rankings."""
    embedder, witness = FakeEmbedder(), Witness()
    trial = Trial(world, cut, embedder, parameters=SMALL)
    writing = Writing(trial.past, embedder, clock=lambda: NOW)
    drafts = writing.drafts(range(USERS))
    by_template = writing.write(drafts)
    by_llm = replace(writing, llm=witness.writer(), at_once=1).write(drafts[:8])
    claims = claim_vectors(by_template, embedder)
    fused = train_fused(trial.past.interactions, claims, world.texts, SMALL)
    users = correctable(by_template, embedder)
    corrector = corrector_of(trial.past, embedder, users, SMALL)
    claim = strongest(users[0])
    assert claim is not None
    made = {
        "profiles": [dumped(one.profile) for one in (*by_template, *by_llm)],
        "drafts": [[(c.theme.events.tolist(), c.theme.counter.tolist(), c.task.described) for c in d.draft.claims]
                   for d in drafts],
        "prompts": sorted(map(repr, witness.told)),
        "claims": (claims.owner.tobytes(), claims.strengths.tobytes(), claims.vectors.tobytes()),
        "factors": (trial.factors.tobytes(), fused.fitted.factors.tobytes(), fused.fitted.user_weights.tobytes()),
        "features": fused.claims.tobytes(),
        "rankings": (by_text(claims, world).tobytes(), by_factors(by_template, world, trial.factors).tobytes()),
        "steered": steer(corrector, users[0], np.arange(20), claim),
    }  # fmt: skip
    assert len(by_template) == USERS
    assert len(by_llm) == 8
    assert made["prompts"]
    return made


def dumped(profile: Profile) -> str:
    timed = profile.provenance.model_copy(update={"seconds": 0.0})
    return profile.model_copy(update={"provenance": timed}).model_dump_json()


def test_nothing_after_the_cut_reaches_evidence_prompts_features_or_factors() -> None:
    world = replace(evaluated_world(), themes_by=ThemeParameters(factors=4))
    cut = cuts(world.interactions)
    first = everything_made(world, cut)
    for seed in (1, 2):
        other = changed_after(world, cut, seed)
        assert not np.array_equal(after(other, cut).item, after(world, cut).item)
        assert everything_made(other, cut) == first


# What leaks is found.


@pytest.fixture(scope="module")
def made() -> tuple[World, np.ndarray, list[Written]]:
    world = evaluated_world()
    cut = cuts(world.interactions)
    writing = Writing(before(world, cut), FakeEmbedder())
    return world, cut, writing.write(writing.drafts(range(USERS)))


def check(world: World, cut: np.ndarray, profile: Profile) -> int:
    of = dict(zip(world.user_ids, cut.tolist(), strict=True))
    return assert_before(of, [profile], {log.user_id: log for log in world.logs})


def test_what_was_made_from_the_past_does_not_leak(made: tuple[World, np.ndarray, list[Written]]) -> None:
    world, cut, written = made
    assert all(check(world, cut, one.profile) > 0 for one in written)


def citing(profile: Profile, event_id: str) -> Profile:
    claim = profile.interests[0]
    evidence = (*claim.counter_evidence, Evidence(event_id=event_id, weight=0))
    more = claim.model_copy(update={"counter_evidence": evidence})
    return profile.model_copy(update={"interests": (more, *profile.interests[1:])})


def test_a_future_event_that_is_cited_is_a_leak(made: tuple[World, np.ndarray, list[Written]]) -> None:
    world, cut, written = made
    future = world.logs[3].event_ids[-1]
    with pytest.raises(LeakError, match=f"cites {future}, which is held out"):
        check(world, cut, citing(written[3].profile, future))


def test_another_users_event_that_is_cited_is_a_leak(made: tuple[World, np.ndarray, list[Written]]) -> None:
    world, cut, written = made
    with pytest.raises(LeakError, match="no event of theirs"):
        check(world, cut, citing(written[3].profile, world.logs[4].event_ids[0]))


@pytest.mark.parametrize("field", ["last", "as_of"])
def test_a_log_that_ends_after_the_cut_is_a_leak(made: tuple[World, np.ndarray, list[Written]], field: str) -> None:
    world, cut, written = made
    at = datetime.fromtimestamp(cut[3], UTC)
    span = written[3].profile.log
    check(world, cut, written[3].profile.model_copy(update={"log": span.model_copy(update={field: at - timedelta(1)})}))
    with pytest.raises(LeakError, match="which is held out"):
        check(world, cut, written[3].profile.model_copy(update={"log": span.model_copy(update={field: at})}))


def test_events_counted_that_lie_after_the_cut_are_a_leak(made: tuple[World, np.ndarray, list[Written]]) -> None:
    world, cut, written = made
    span = written[3].profile.log.model_copy(update={"events_read": EVENTS})
    with pytest.raises(LeakError, match=f"read from {EVENTS} events"):
        check(world, cut, written[3].profile.model_copy(update={"log": span}))
