"""Profiles to rows and back."""

from typing import Any

from agent.contract import Claim, Evidence, Intent, Profile
from store.profiles import Cited, StoredClaim, StoredProfile
from store.tables import ClaimRow, ProfileRow

_PARTS = ("summary", "habits", "tags", "log", "provenance", "quality")
_COLUMNS = (
    "claim_id",
    "kind",
    "name",
    "statement",
    "strength",
    "confidence",
    "trend",
    "origin",
    "wording",
    "locked",
)


def to_rows(profile: Profile) -> StoredProfile:
    """Turn a profile into rows without keys; its version is set when it is stored."""
    document = profile.model_dump(mode="json")
    row = ProfileRow(
        user_id=profile.user_id,
        version=profile.version,
        active=False,
        language=profile.language,
        created_at=profile.provenance.created_at,
        **{part: document[part] for part in _PARTS},
    )
    return StoredProfile(row, tuple(_claim(claim, n) for n, claim in enumerate(profile.claims)))


def _claim(claim: Claim, position: int) -> StoredClaim:
    details: dict[str, Any] = {"interpretive": list(claim.interpretive)}
    if claim.correction_id is not None:
        details["correction_id"] = claim.correction_id
    if isinstance(claim, Intent):
        details |= {"goal": claim.goal, "stage": claim.stage}
    row = ClaimRow(
        profile_id=0,
        position=position,
        attributes=claim.attributes,
        details=details,
        **{column: getattr(claim, column) for column in _COLUMNS},
    )
    pieces = [(e, False) for e in claim.evidence] + [(e, True) for e in claim.counter_evidence]
    return StoredClaim(row, tuple(Cited(e.event_id, e.weight, counter) for e, counter in pieces))


def from_rows(stored: StoredProfile) -> Profile:
    """Put a profile together again; it is validated anew."""
    claims = [_read_claim(claim) for claim in stored.claims]
    return Profile.model_validate(
        {
            "user_id": stored.row.user_id,
            "version": stored.row.version,
            "language": stored.row.language,
            "interests": [c for c in claims if c.kind == "interest"],
            "intents": [c for c in claims if c.kind == "intent"],
            "dislikes": [c for c in claims if c.kind == "dislike"],
            **{part: getattr(stored.row, part) for part in _PARTS},
        }
    )


def _read_claim(stored: StoredClaim) -> Claim:
    details = dict(stored.row.details)
    fields: dict[str, Any] = {column: getattr(stored.row, column) for column in _COLUMNS}
    fields["attributes"] = stored.row.attributes
    fields["interpretive"] = tuple(details.pop("interpretive", ()))
    for name, counter in (("evidence", False), ("counter_evidence", True)):
        fields[name] = tuple(
            Evidence(event_id=e.event_id, weight=e.weight) for e in stored.evidence if e.counter is counter
        )
    return (Intent if stored.row.kind == "intent" else Claim).model_validate(fields | details)
