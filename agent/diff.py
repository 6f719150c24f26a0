"""What changed between two versions of a profile: claims are matched by what they cite, events or a correction."""

from typing import NamedTuple

from agent.contract import Claim, Profile

SAME = 0.5
_NUMBER = 0.005
_CORRECTED = 2.0


_REWORDED = {
    "attributes": "other attributes tell its events apart now",
    "words": "its words do not hold of the new evidence",
    "writer": "it was asked for, or something else writes now",
}


class Change(NamedTuple):
    """A claim before and after; None where it was not there.

    Attributes:
        what: `new`, `gone`, or what differs.
        why: Why its words are others, or why it came or went; None where nobody has noted it.
    """

    before: Claim | None
    after: Claim | None
    what: tuple[str, ...]
    why: str | None = None


def weighted_jaccard(a: Claim, b: Claim) -> float:
    """Return sum of min over sum of max of the weights of cited events, 1 for the same evidence.

    A claim is compared by its evidence, not by its words: wording may change while the claim stays. Weights decay from
    version to version; they are scaled so that the events cited by both weigh the same in all.
    """
    left = {e.event_id: abs(e.weight) for e in a.evidence}
    right = {e.event_id: abs(e.weight) for e in b.evidence}
    both = left.keys() & right.keys()
    if not both:
        return 0.0
    scale = sum(left[k] for k in both) / (sum(right[k] for k in both) or 1.0)
    right = {k: weight * scale for k, weight in right.items()}
    keys = left.keys() | right.keys()
    top = sum(max(left.get(k, 0.0), right.get(k, 0.0)) for k in keys)
    return sum(min(left.get(k, 0.0), right.get(k, 0.0)) for k in keys) / top if top else 0.0


def _sameness(a: Claim, b: Claim) -> float:
    corrected = a.correction_id is not None and a.correction_id == b.correction_id
    return weighted_jaccard(a, b) + corrected * _CORRECTED


def diff(before: Profile, after: Profile) -> list[Change]:
    """List what changed, the best matches first; claims that are the same in every respect are left out.

    Claims of one kind match one to one: those that rest on the same correction, then from a weighted Jaccard of .5 on.
    """
    pairs = [(_sameness(a, b), a, b) for a in before.claims for b in after.claims if a.kind == b.kind]
    taken: dict[str, tuple[Claim, float]] = {}
    used: set[str] = set()
    for score, a, b in sorted(pairs, key=lambda pair: -pair[0]):
        if score >= SAME and a.claim_id not in used and b.claim_id not in taken:
            taken[b.claim_id] = (a, score)
            used.add(a.claim_id)
    noted = after.provenance.continues
    noted = noted if noted is not None and noted.version == before.version else None
    anew = f"themes were formed anew: {noted.clustered}" if noted and noted.clustered else None
    changes = []
    for b in after.claims:
        old = taken.get(b.claim_id)
        if old is None:
            changes.append(Change(None, b, ("new",), anew if b.kind != "intent" else None))
        elif what := _differences(old[0], b):
            reason = noted.reworded.get(b.claim_id) if noted and "wording" in what else None
            changes.append(Change(old[0], b, what, _REWORDED[reason] if reason else None))
    gone = [a for a in before.claims if a.claim_id not in used]
    return changes + [Change(a, None, ("gone",), anew if a.kind != "intent" else None) for a in gone]


def _differences(a: Claim, b: Claim) -> tuple[str, ...]:
    found = []
    if (a.name, a.statement) != (b.name, b.statement):
        found.append("wording")
    if a.locked != b.locked:
        found.append("fixed by the user" if b.locked else "no longer fixed by the user")
    if a.origin != b.origin:
        found.append(f"origin {a.origin} to {b.origin}")
    pairs = (("strength", a.strength, b.strength), ("confidence", a.confidence, b.confidence))
    found += [f"{name} {old:+.2f} to {new:+.2f}" for name, old, new in pairs if abs(old - new) > _NUMBER]
    if a.trend != b.trend:
        found.append(f"trend {a.trend} to {b.trend}")
    gained = {e.event_id for e in b.evidence} - {e.event_id for e in a.evidence}
    lost = {e.event_id for e in a.evidence} - {e.event_id for e in b.evidence}
    if gained or lost:
        found.append(f"{len(gained)} events more, {len(lost)} fewer")
    return tuple(found)
