"""Corrections in the evaluation act as served ones do, and are undone exactly."""

from typing import NamedTuple

import numpy as np
import pytest

from eval import correcting
from eval.correcting import Corrector, User, add, corrector_of, reject, write_claims
from eval.world import World
from recommend.parameters import Parameters
from tests.evaluated_world import USERS, evaluated_world
from tests.small_world import FakeEmbedder

SMALL = Parameters(factors=8, epochs=3, projection=6)


class Corrected(NamedTuple):
    world: World
    users: list[User]
    corrector: Corrector


@pytest.fixture(scope="module")
def corrected() -> Corrected:
    world = evaluated_world()
    users = write_claims(world, FakeEmbedder())
    return Corrected(world, users, corrector_of(world, FakeEmbedder(), users, SMALL))


def test_without_corrections_scores_are_those_of_the_fused_scorer(corrected: Corrected) -> None:
    world, users, corrector = corrected
    assert len(users) == USERS
    for user in users[:5]:
        expected = corrector.model.scores(world.interactions, np.array([user.code]))[0]
        np.testing.assert_allclose(corrector.scores(user, []), expected, atol=1e-6)


def test_a_rejected_claim_goes_with_its_events(corrected: Corrected) -> None:
    world, users, corrector = corrected
    user = users[0]
    claim = max((c for c in user.claims if c.kind == "interest"), key=lambda c: c.strength)
    cited = {e.event_id for e in claim.evidence} - {
        e.event_id for other in user.claims if other is not claim for e in other.evidence
    }
    item_of = dict(zip(user.log.event_ids, user.log.items, strict=True))
    gone = [corrector.row_of[item_of[event_id]] for event_id in cited]
    events = world.interactions
    left = events.take(~((events.user == user.code) & np.isin(events.item, gone)))
    kept = [n for n, c in enumerate(user.claims) if c is not claim]
    own = corrector.model.claims[corrector.model.owner == user.code][kept]
    model = correcting.Fused(
        corrector.model.fitted, corrector.model.fold_in, own, np.full(len(kept), user.code, dtype=np.int64)
    )
    expected = model.scores(left, np.array([user.code]))[0]
    row = correcting._row(user, "reject", claim)
    row.weight = 1e-9  # as good as no pseudo-events
    np.testing.assert_allclose(corrector.scores(user, [row]), expected, atol=1e-6)


def test_rejecting_the_strongest_interest_lowers_items_like_it(corrected: Corrected) -> None:
    _, users, corrector = corrected
    found = [reject(corrector, user) for user in users[:10]]
    assert all(r is not None and r.falls and r.undone for r in found)


def test_a_user_without_interests_rejects_nothing(corrected: Corrected) -> None:
    _, users, corrector = corrected
    user = users[0]
    places = [n for n, claim in enumerate(user.claims) if claim.kind == "dislike"]
    sour = user._replace(claims=tuple(user.claims[n] for n in places), texts=user.texts[places])
    assert reject(corrector, sour) is None


def test_an_added_claim_raises_the_items_near_its_text(corrected: Corrected) -> None:
    _, users, corrector = corrected
    found = [add(corrector, user, "Horror and monsters") for user in users[:10]]
    assert all(a.rises and a.undone for a in found)
    vector = FakeEmbedder().embed(["Horror and monsters"])[0]
    items = list(corrector.row_of)
    assert {items[row][0] for row in corrector.nearest(vector)} == {"h"}


def test_shares_are_over_those_to_whom_they_apply() -> None:
    found = correcting._rejected(
        [
            correcting.Rejection(falls=True, before=0.4, after=0.2, undone=True),
            correcting.Rejection(falls=True, before=0.4, after=0.3, undone=True),
            correcting.Rejection(falls=False, before=0.0, after=0.0, undone=True),
            correcting.Rejection(falls=False, before=float("nan"), after=float("nan"), undone=True),
        ]
    )
    assert (found["falls"], found["halves"], found["halves_or_absent"]) == (0.5, 0.5, pytest.approx(2 / 3))
    assert (found["single_claim"], found["theme_not_in_top"]) == (1, 1)


def test_run_needs_claims(corrected: Corrected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correcting, "write_claims", lambda *_: [])
    with pytest.raises(ValueError, match="nobody has a claim"):
        correcting.run(corrected.world, FakeEmbedder())
