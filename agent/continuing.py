"""How a profile goes on from the one before it: themes keep their events and their ids, claims keep their words.

Themes are formed anew only when the user has moved on: when too much of what they like lies outside the themes, or
the shares of the themes have shifted too far since the last time. A claim is worded anew only when its words do not
hold any more, or something else tells its theme apart.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr

from agent.catalogue import ItemSet
from agent.contract import Claim, Clustering, Kind, Profile
from agent.evidence import EvidenceSettings, Weights
from agent.themes import Earlier, Ints, Theme, Themes, UserLog, find_themes

SAME_THEME = 0.5
MAX_OUTSIDE = 0.1
MAX_DRIFT = 0.25
_REST = "rest"
_FIRST_LETTERS: dict[Kind, str] = {"interest": "i", "intent": "n", "dislike": "d"}


class Known(NamedTuple):
    """A theme of before: the claim that it made, or would have made, and the ids of its events."""

    claim_id: str
    kind: str
    events: frozenset[str]


@dataclass(frozen=True)
class Before:
    """What a profile goes on from.

    Attributes:
        profile: The active version.
        rejected: The themes of claims that the user has rejected: they stand, unsaid, and are there again when a
            rejection is taken back.
        afresh: Whether to form the themes and to find the words anew all the same: only the ids are kept.
    """

    profile: Profile
    rejected: tuple[Known, ...] = ()
    afresh: bool = False

    @property
    def drafted(self) -> list[Claim]:
        """The claims that stand for themes, not beside them."""
        return [c for c in self.profile.claims if _stands_for_a_theme(c.claim_id, c.kind) and c.evidence]

    @property
    def known(self) -> list[Known]:
        """The themes, each id once."""
        found = {c.claim_id: Known(c.claim_id, c.kind, frozenset(e.event_id for e in c.evidence)) for c in self.drafted}
        for theme in self.rejected:
            if _stands_for_a_theme(theme.claim_id, theme.kind):
                found.setdefault(theme.claim_id, theme)
        return list(found.values())

    def earlier(self, log: UserLog) -> Earlier:
        """Return the rows of the log that each theme rests on."""
        row = {event_id: n for n, event_id in enumerate(log.event_ids)}

        def rows(kind: Kind) -> list[Ints]:
            themes = [theme.events & row.keys() for theme in self.known if theme.kind == kind]
            return [np.array(sorted(row[event_id] for event_id in events), dtype=np.int64) for events in themes]

        return Earlier(rows("interest"), rows("dislike"))


def _stands_for_a_theme(claim_id: str, kind: str) -> bool:
    return any(kind == known and claim_id[:1] == letter for known, letter in _FIRST_LETTERS.items())


class Grouped(NamedTuple):
    """Themes, the ids that they go by, and how they came about.

    Attributes:
        clustering: When themes were last formed anew, and their shares then.
        anew: Why they were formed anew; None if they were kept.
    """

    themes: Themes
    interest_ids: tuple[str, ...]
    dislike_ids: tuple[str, ...]
    clustering: Clustering
    anew: str | None


def group(
    log: UserLog, items: ItemSet, settings: EvidenceSettings, as_of: float | None, before: Before | None
) -> Grouped:
    """Find a user's themes, going on from those before where they still fit."""
    if before is None or before.afresh or before.profile.provenance.clustering is None:
        return _formed(find_themes(log, items, settings, as_of), log, before, "as it was asked for" if before else None)
    then = before.profile.provenance.clustering
    themes = find_themes(log, items, settings, as_of, before.earlier(log))
    ids = number(themes.interests, "interest", log, themes.weights, before.known)
    anew = outgrown(then, shares(ids, themes))
    if anew is not None:
        return _formed(find_themes(log, items, settings, as_of), log, before, anew)
    dislikes = number(themes.dislikes, "dislike", log, themes.weights, before.known)
    return Grouped(themes, ids, dislikes, then, None)


def _formed(themes: Themes, log: UserLog, before: Before | None, anew: str | None) -> Grouped:
    known = before.known if before else []
    interests = number(themes.interests, "interest", log, themes.weights, known)
    dislikes = number(themes.dislikes, "dislike", log, themes.weights, known)
    formed = Clustering(events=len(log.event_ids), shares=shares(interests, themes))
    return Grouped(themes, interests, dislikes, formed, anew)


def shares(ids: Sequence[str], themes: Themes) -> dict[str, float]:
    """Return the themes' shares of the positive weight, by id; what lies outside all of them is the rest of 1."""
    return {claim_id: theme.strength for claim_id, theme in zip(ids, themes.interests, strict=True)}


def outgrown(then: Clustering, now: Mapping[str, float]) -> str | None:
    """Tell why themes must be formed anew; None if they need not be.

    They must when the share of the positive weight that lies outside of them has grown by more than 10 points, or
    when the shares have drifted by more than .25.
    """
    grown = outside(now) - outside(then.shares)
    if grown > MAX_OUTSIDE:
        return f"{grown:.0%} more of what is liked lies outside the themes"
    moved = drift(then.shares, now)
    return f"the shares of the themes have drifted by {moved:.2f}" if moved > MAX_DRIFT else None


def outside(shares: Mapping[str, float]) -> float:
    """Return the share that lies outside all themes."""
    return max(0.0, 1.0 - sum(shares.values()))


def drift(then: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Return the Jensen-Shannon distance (to the base 2, in [0, 1]) between the shares of themes then and now.

    What lies outside all themes counts as one more of them.

    >>> drift({"i1": 1.0}, {"i1": 1.0})
    0.0
    >>> drift({"i1": 1.0}, {"i2": 1.0})
    1.0
    """
    ids = sorted(then.keys() | now.keys())
    left = [*(then.get(i, 0.0) for i in ids), outside(then)]
    right = [*(now.get(i, 0.0) for i in ids), outside(now)]
    p, q = np.array(left) / sum(left), np.array(right) / sum(right)
    middle = (p + q) / 2
    divergence = float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2 / math.log(2)
    return math.sqrt(max(divergence, 0.0))


def number(
    themes: Sequence[Theme], kind: Kind, log: UserLog, weights: Weights, known: Iterable[Known]
) -> tuple[str, ...]:
    """Give themes the ids of those that they go on from, one to one, and new ids to the others.

    A theme goes on from one of its kind when the weighted Jaccard of their events is at least .5; the weights are
    those of now.

    Args:
        themes: Strongest first.
        kind: Of the themes.
        log: That they are of.
        weights: Of its events.
        known: The themes before.
    """
    letter = _FIRST_LETTERS[kind]
    earlier = [theme for theme in known if theme.kind == kind]
    now = {event_id: abs(float(w)) for event_id, w in zip(log.event_ids, weights.decayed, strict=True)}
    fits = []
    for n, theme in enumerate(themes):
        mine = {log.event_ids[row] for row in theme.events}
        for m, other in enumerate(earlier):
            theirs = other.events & now.keys()
            both, either = mine & theirs, mine | theirs
            if both and (same := sum(map(now.get, both)) / sum(map(now.get, either))) >= SAME_THEME:  # type: ignore[arg-type]
                fits.append((same, -m, n))
    ids: dict[int, str] = {}
    for _, m, n in sorted(fits, reverse=True):
        if n not in ids and earlier[-m].claim_id not in ids.values():
            ids[n] = earlier[-m].claim_id
    last = max((int(theme.claim_id.removeprefix(letter)) for theme in earlier), default=0)
    for n in range(len(themes)):
        if n not in ids:
            last += 1
            ids[n] = f"{letter}{last}"
    return tuple(ids[n] for n in range(len(themes)))
