"""Words that claims keep from one version to the next: as long as they hold, nobody is asked for new ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from agent.catalogue import Attribute, Telling
from agent.continuing import Before
from agent.contract import Claim, Profile
from agent.corrections import Kept
from agent.drafting import DraftClaim
from agent.themes import informative
from agent.verify import verify_claim
from agent.words import Worded, is_main
from agent.writer import LlmWriter, SummaryLine, SummaryTask

SUMMED_UP, SUMMED_UP_DISLIKES = 4, 2

Reason = Literal["attributes", "words", "writer"]


class Carried(NamedTuple):
    """What a version keeps of the words of the one before.

    Attributes:
        words: By the claim's place in the draft.
        reworded: Why the other claims that were there before are worded anew, by id.
    """

    words: dict[int, Worded]
    reworded: dict[str, Reason]


def carry(before: Before, kept: Kept, written_by: Mapping[str, Any]) -> Carried:
    """Find the claims whose words stand.

    They do if the same writer would be asked, if the attributes that tell the theme apart are the same, and if the
    verifier still passes them on the evidence of now.

    Args:
        before: The version before.
        kept: The draft, as the user's corrections leave it.
        written_by: What the words depend on besides their theme: fields of the provenance.
    """
    provenance = before.profile.provenance
    same_writer = all(getattr(provenance, name) == value for name, value in written_by.items())
    known = {claim.claim_id: claim for claim in before.drafted if not claim.locked}
    words: dict[int, Worded] = {}
    reworded: dict[str, Reason] = {}
    for n, claim in enumerate(kept.draft.claims):
        old = known.get(claim.claim_id)
        if old is None or n in kept.fixed or old.wording == "user":
            continue
        if before.afresh or not same_writer or before.profile.language != kept.draft.language:
            reworded[claim.claim_id] = "writer"
        elif described(old) != described(claim):
            reworded[claim.claim_id] = "attributes"
        elif (stands := _standing(old, claim)) is None:
            reworded[claim.claim_id] = "words"
        else:
            words[n] = stands
    return Carried(words, reworded)


def _standing(old: Claim, claim: DraftClaim) -> Worded | None:
    if old.wording == "template":  # it follows from the theme
        return claim.task.fallback
    verdict = verify_claim(old.name, old.statement, claim.task.grounds)
    if not verdict.passes:
        return None
    return Worded(old.name, old.statement, "llm", verdict.interpretive, verdict.words, rendered=True)


def described(claim: Claim | DraftClaim) -> frozenset[tuple[str, bool]]:
    """Return the attributes that tell a claim's theme apart, and whether each describes the whole of it."""
    telling = _telling(claim) if isinstance(claim, Claim) else claim.task.telling
    shown = enumerate(informative(telling))
    return frozenset((f"{t.attribute.field}:{t.attribute.value}", is_main(t, n)) for n, t in shown)


def _telling(claim: Claim) -> Sequence[Telling]:
    """Read a claim's attributes, which have no order in the store."""
    found = []
    for name, numbers in claim.attributes.items():
        field, _, value = name.partition(":")
        found.append(Telling(Attribute(field, value), 0, numbers["share"], numbers["lift"]))
    return sorted(found, key=lambda t: (-t.share * np.log(max(t.lift, 1.0)), t.attribute))


def kept_summary(before: Before, kept: Kept, task: SummaryTask, writer: LlmWriter) -> list[SummaryLine] | None:
    """Return the summary of before, if it sums up the same claims and its sentences still hold; else None.

    An empty one stands for the template's: it was refused before, and the claims are the same.
    """
    claims = kept.draft.claims
    place = {claims[n].claim_id: n for n in task.order}
    if before.afresh or not set(task.order) <= kept.settled.keys() or not _same_claims(before.profile, list(place)):
        return None
    lines = []
    for sentence in before.profile.summary:
        if sentence.wording == "llm":
            if not set(sentence.claim_ids) <= place.keys():
                return None
            places = [place[claim_id] for claim_id in sentence.claim_ids]
            if not writer.still_sums_up(sentence.text, [task.order.index(n) for n in places], task):
                return None
            lines.append(SummaryLine(sentence.text, tuple(places), by_model=True, tries=0))
    return lines


def _same_claims(profile: Profile, now: Sequence[str]) -> bool:
    """Tell whether a profile's summary was made of these claims, the strongest being the same."""

    def ids(claims: Sequence[Claim], most: int) -> list[str]:
        return [c.claim_id for c in claims if c.evidence and c.wording != "user" and described(c)][:most]

    then = [*ids(profile.interests, SUMMED_UP), *ids(profile.dislikes, SUMMED_UP_DISLIKES)]
    return set(then) == set(now) and then[:1] == list(now[:1])
