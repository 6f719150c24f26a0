"""Check stored profiles: numbers must follow from the events that claims cite, words from what users have corrected."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from agent import archive
from agent.contract import Claim, Profile
from agent.corrections import added, fixing, is_about, usual_strength, words_of
from agent.errors import CheckError
from agent.evidence import EvidenceSettings, Weights, confidence, support, trend, weigh
from store import corrections, logs, profiles
from store.corrections import InForce
from store.database import Database
from store.logs import Log
from store.records import Event

_TOLERANCE = 1e-9
_CHUNK = 200


class Checked(NamedTuple):
    """What was checked: profiles, claims, and how many profiles are older than log or corrections (checked in part)."""

    profiles: int
    claims: int
    stale: int


def check_profiles(database: Database, user_ids: Sequence[str]) -> Iterator[Checked]:
    """Check the active profiles of these users, yielding running totals after each.

    Raises:
        CheckError: The first thing that differs.
    """
    done = Checked(0, 0, 0)
    for start in range(0, len(user_ids), _CHUNK):
        ids = user_ids[start : start + _CHUNK]
        with database.session() as session:
            stored = [profiles.load(session, user_id) for user_id in ids]
            read = {log.user.user_id: log for log in logs.read_logs(session, ids)}
            in_force = corrections.in_force(session, ids)
        for rows in stored:
            try:
                profile = archive.from_rows(rows)
            except ValidationError as error:
                raise CheckError(f"user {rows.row.user_id}: the stored profile does not validate: {error}") from error
            log = read.get(profile.user_id)
            if log is None:
                raise CheckError(f"user {profile.user_id} has a profile but no consent or no log")
            stale = check_profile(profile, log, in_force[profile.user_id])
            done = Checked(done.profiles + 1, done.claims + len(profile.claims), done.stale + stale)
            yield done


def check_profile(profile: Profile, log: Log, in_force: InForce) -> bool:
    """Check one profile against its user's log and corrections.

    Returns:
        Whether these have moved on since. Of an older log only the existence of the cited events is checked; what was
        corrected meanwhile is not.

    Raises:
        CheckError: Something differs.
    """
    rows = {event.event_id: row for row, event in enumerate(log.events)}
    for claim in profile.claims:
        for piece in (*claim.evidence, *claim.counter_evidence):
            if piece.event_id not in rows:
                raise CheckError(_where(profile, claim, f"cites {piece.event_id}, which is no event of this user"))
    corrected = in_force.revision != profile.provenance.corrections_revision
    if not corrected:
        _check_corrections(profile, in_force)
    if log.revision != profile.log.revision or len(log.events) != profile.log.events_read:
        return True
    settings = EvidenceSettings.model_validate(profile.provenance.evidence_settings)
    weights = _weights(log.events, profile.log.as_of, settings)
    for claim in profile.claims:
        if claim.origin == "model":
            _check_claim(profile, claim, log.events, rows, weights, settings)
    return corrected


def _check_corrections(profile: Profile, in_force: InForce) -> None:
    """Check that the words which the user has fixed are there, and that what they have rejected is not."""
    rejects = [row for row in in_force.rows if row.action == "reject"]
    left = {row.correction_id: row for row in (*fixing(in_force.rows), *added(in_force.rows))}
    usual = usual_strength(c.strength for c in profile.claims if c.origin == "model" and c.kind != "intent")
    for claim in profile.claims:
        if not claim.locked:
            evidence = frozenset(e.event_id for e in claim.evidence)
            if any(is_about(row, claim.kind, claim.name, evidence) for row in rejects):
                raise CheckError(_where(profile, claim, "was rejected by the user"))
            continue
        row = left.pop(claim.correction_id, None)
        if row is None or (claim.kind, claim.name, claim.statement) != (row.kind, *words_of(row)):
            raise CheckError(_where(profile, claim, "has not the words that the user has fixed"))
        if claim.origin == "user" and abs(abs(claim.strength) - usual) > _TOLERANCE:
            raise CheckError(_where(profile, claim, f"has the strength {claim.strength}, but the usual one is {usual}"))
    if left:
        raise CheckError(
            f"user {profile.user_id}, version {profile.version}: no claim follows correction {min(map(str, left))}"
        )


def _weights(events: Sequence[Event], as_of: datetime, settings: EvidenceSettings) -> Weights:
    times = np.array([e.ts.timestamp() for e in events])
    when = as_of.astimezone(UTC).timestamp()
    return weigh([e.type for e in events], [e.value for e in events], times, when, settings)


def _check_claim(
    profile: Profile,
    claim: Claim,
    events: Sequence[Event],
    rows: dict[str, int],
    weights: Weights,
    settings: EvidenceSettings,
) -> None:
    sign = -1 if claim.kind == "dislike" else 1
    signed, undecayed = sign * weights.decayed, sign * weights.undecayed
    for pieces, expected in ((claim.evidence, 1), (claim.counter_evidence, -1)):
        for piece in pieces:
            weight = weights.decayed[rows[piece.event_id]]
            if abs(weight - piece.weight) > _TOLERANCE or np.sign(sign * weight) != expected:
                raise CheckError(
                    _where(
                        profile,
                        claim,
                        f"gives {piece.event_id} the weight {piece.weight}, but it is {weight}",
                    )
                )
    cited = np.array([rows[e.event_id] for e in (*claim.evidence, *claim.counter_evidence)])
    found = support(signed[cited], weights.explicit[cited])
    if not claim.locked and not found.holds(settings.max_negative_share):  # the user wants to keep a locked one
        raise CheckError(_where(profile, claim, f"is not supported by its events: {found}"))
    total = float(signed[signed > 0].sum())
    member = np.isin(np.arange(len(events)), [rows[e.event_id] for e in claim.evidence])
    times = np.array([event.ts.timestamp() for event in events])
    numbers = {
        "strength": (claim.strength, sign * found.positive / total),
        "confidence": (claim.confidence, confidence(undecayed[cited])),
    }
    for name, (said, computed) in numbers.items():
        if abs(said - computed) > _TOLERANCE:
            raise CheckError(_where(profile, claim, f"has the {name} {said}, but its events give {computed}"))
    expected_trend = None if claim.kind == "intent" else trend(member, times)
    if claim.trend != expected_trend:
        raise CheckError(_where(profile, claim, f"has the trend {claim.trend}, but its events give {expected_trend}"))


def _where(profile: Profile, claim: Claim, what: str) -> str:
    return f"user {profile.user_id}, version {profile.version}: claim {claim.claim_id} ({claim.name}) {what}"
