"""The profile contract: what a profile may and may not say."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from agent.contract import Claim, Evidence, Intent, Profile

NOW = datetime(2024, 3, 1, tzinfo=UTC)
CLAIM: dict[str, Any] = {
    "claim_id": "i1", "kind": "interest", "name": "War dramas", "statement": "Enjoys war dramas.",
    "strength": 0.6, "confidence": 0.8, "evidence": [{"event_id": "e1", "weight": 1.0}],
    "wording": "template",
}  # fmt: skip
PROFILE: dict[str, Any] = {
    "user_id": "u", "version": 1, "language": "en", "interests": [CLAIM],
    "summary": [{"text": "Likes war dramas.", "claim_ids": ["i1"], "wording": "template"}],
    "log": {"first": NOW, "last": NOW, "as_of": NOW, "events_read": 1, "revision": 0},
    "provenance": {
        "key": "0" * 64, "writer": "template", "embedder": "e@1", "evidence_settings": {}, "created_at": NOW,
    },
    "quality": {},
}  # fmt: skip


def refused(model: type[Claim | Profile], fields: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return str(caught.value)


def test_a_profile_survives_json() -> None:
    profile = Profile.model_validate(PROFILE)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert [claim.claim_id for claim in profile.claims] == ["i1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"evidence": []}, "cites no event"),
        ({"evidence": [{"event_id": "e1", "weight": 1.0}] * 2}, "cites an event twice"),
        ({"counter_evidence": [{"event_id": "e1", "weight": -1.0}]}, "cites an event twice"),
        ({"evidence": [{"event_id": "e1", "weight": 1.01}]}, "less than or equal to 1"),
        ({"strength": 1.2}, "less than or equal to 1"),
        ({"strength": -1.2}, "greater than or equal to -1"),
        ({"confidence": -0.1}, "greater than or equal to 0"),
        ({"kind": "mood"}, "kind"),
        ({"trend": "soaring"}, "trend"),
        ({"wording": "human"}, "wording"),
        ({"name": ""}, "at least 1 character"),
        ({"statement": "x" * 601}, "at most 600"),
        ({"mood": "good"}, "Extra inputs are not permitted"),
    ],
)
def test_claims_that_are_refused(change: dict[str, Any], said: str) -> None:
    assert said in refused(Claim, CLAIM | change)


def test_a_users_own_claim_needs_no_event() -> None:
    claim = Claim.model_validate(CLAIM | {"origin": "user", "evidence": [], "locked": True, "correction_id": 1})
    assert claim.locked


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"interests": [CLAIM, CLAIM]}, "the same claim_id"),
        ({"dislikes": [CLAIM | {"kind": "dislike", "strength": -0.1}]}, "the same claim_id"),
        ({"summary": [{"text": "x", "claim_ids": ["i9"], "wording": "llm"}]}, "do not exist: ['i9']"),
        ({"summary": [{"text": "x", "claim_ids": [], "wording": "llm"}]}, "at least 1 item"),
        ({"version": 0}, "greater than or equal to 1"),
        ({"language": "tlh"}, "language"),
        ({"mood": "good"}, "Extra inputs are not permitted"),
    ],
)
def test_profiles_that_are_refused(change: dict[str, Any], said: str) -> None:
    assert said in refused(Profile, PROFILE | change)


def test_an_intent_has_a_goal_and_a_stage() -> None:
    needs = {"kind": "intent", "goal": "Seems to be comparing tents.", "stage": "comparing"}
    intent = Intent.model_validate(CLAIM | needs)
    assert (intent.kind, intent.stage) == ("intent", "comparing")
    assert "stage" in refused(Intent, CLAIM | needs | {"stage": "dreaming"})
    assert "goal" in refused(Intent, CLAIM | {"kind": "intent", "stage": "comparing"})


def test_claims_are_listed_in_the_order_shown() -> None:
    need = CLAIM | {"claim_id": "n1", "kind": "intent", "goal": "Seems to want it.", "stage": "exploring"}
    dislike = CLAIM | {"claim_id": "d1", "kind": "dislike", "strength": -0.2}
    profile = Profile.model_validate(PROFILE | {"intents": [need], "dislikes": [dislike]})
    assert [claim.claim_id for claim in profile.claims] == ["i1", "n1", "d1"]


def test_nothing_changes_later() -> None:
    evidence = Evidence(event_id="e", weight=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        evidence.weight = 0.6  # type: ignore[misc]
