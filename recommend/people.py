"""One user as the recommender sees them: events, claims, corrections, and the vector that these make."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from agent.contract import Claim
from agent.evidence import EvidenceSettings, support
from recommend.contract import Basis
from recommend.explaining import damped
from recommend.foldin import Floats, Folded, Ints
from recommend.history import Events, History, summarize
from recommend.model import Model
from recommend.ranking import ROUNDING
from store.records import Event

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class KnownClaim:
    """A claim that acts: of the profile, or added by the user.

    Attributes:
        claim_id: Within the profile; `+` and a number for added ones.
        name: As it is shown.
        strength: Signed.
        evidence: Signed weights by event id: what the claim rests on, and what speaks against it.
        cited: Ids of the events that it rests on.
        locked: Whether the user has fixed it: it stays, however few of its events are left.
    """

    claim_id: str
    name: str
    strength: float
    evidence: Mapping[str, float]
    cited: frozenset[str]
    locked: bool = False

    @classmethod
    def of(cls, claim: Claim) -> "KnownClaim":
        """Take a claim of a profile."""
        pieces = {e.event_id: e.weight for e in (*claim.evidence, *claim.counter_evidence)}
        cited = frozenset(e.event_id for e in claim.evidence)
        return cls(claim.claim_id, claim.name, claim.strength, pieces, cited, claim.locked)


@dataclass(frozen=True)
class Person:
    """What is known of a user, ready to be folded in.

    Attributes:
        user_id: The user.
        model: That folds in.
        events: That the model can use, the pseudo-events of added claims among them.
        told: The stored events by id.
        decayed: Weights of all stored events by id, as the profile's arithmetic has them.
        explicit: Ids of the events of an explicit type.
        claims: That act.
        texts: `(q, k)`, of the claims' texts in factor space, each for strength 1.
        settings: Of the evidence.
        has_profile: Whether there is an active profile.
    """

    user_id: str
    model: Model
    events: Events
    told: Mapping[str, Event]
    decayed: Mapping[str, float]
    explicit: frozenset[str]
    claims: Sequence[KnownClaim]
    texts: Floats
    settings: EvidenceSettings
    has_profile: bool

    @cached_property
    def claim_factors(self) -> Floats:
        """The claims' texts times their strengths, `(q, k)`."""
        return self.texts * np.array([c.strength for c in self.claims], dtype=np.float64).reshape(-1, 1)

    @cached_property
    def history(self) -> History:
        """The events by item."""
        return summarize(self.events, self.model.card.parameters)

    @cached_property
    def folded(self) -> Folded:
        """The user's vector and its parts."""
        history = self.history
        return self.model.fold_in(history.taste(self.claim_factors))

    def scores(self, row: int) -> Floats:
        """Score every item, `(m,)`, in single precision; those that it cannot tell from one item's, in double."""
        factors, vector = self.model.factors, self.folded.vector
        found = (factors @ vector.astype(np.float32)).astype(np.float64)
        rounding = ROUNDING * float(np.abs(factors[row].astype(np.float64)) @ np.abs(vector))
        near = np.flatnonzero(np.abs(found - found[row]) <= rounding)
        found[near] = factors[near].astype(np.float64) @ vector
        return found

    @property
    def basis(self) -> Basis:
        """What the scores rest on."""
        if self.history.known > 0:
            return "events and profile" if self.claims else "events"
        return "profile" if self.claims else "popularity"

    @property
    def removable(self) -> Bools:
        """Which events have happened, and do not only stand for a claim, `(e,)`."""
        return np.isnan(self.events.given)

    @cached_property
    def seen(self) -> Ints:
        """Rows of the items that the user has had to do with; to have been shown one is not enough for that."""
        met = self.removable
        if shown := {name for name, kind in self.settings.types.items() if kind.weight == 0}:
            kinds = (self.told[event_id].type if event_id in self.told else "" for event_id in self.events.ids)
            met = met & np.array([kind not in shown for kind in kinds], dtype=np.bool_)
        return np.unique(self.events.rows[met])

    @cached_property
    def claims_of_event(self) -> dict[str, list[int]]:
        """For each event, the places of the claims that rest on it."""
        found: dict[str, list[int]] = {}
        for place, claim in enumerate(self.claims):
            for event_id in claim.cited:
                found.setdefault(event_id, []).append(place)
        return found

    def without(self, event_ids: AbstractSet[str], claim_ids: AbstractSet[str]) -> "Person":
        """Return the user as if these events had never happened, and without these claims.

        What goes with a claim is the term of its text, and the confidence of the events that no other claim cites.
        Items that the user has had to do with are still known by `seen` of the present person alone.
        """
        gone = np.array([event_id in event_ids for event_id in self.events.ids], dtype=np.bool_)
        places = {place for place, claim in enumerate(self.claims) if claim.claim_id in claim_ids}
        strengths = self._strengths_without(gone)
        kept = [place for place in range(len(self.claims)) if place not in places]
        return replace(
            self,
            events=damped(self.events.without(gone), self.claims_of_event, places),
            claims=[replace(self.claims[place], strength=strengths[place]) for place in kept],
            texts=self.texts[kept],
        )

    def claims_without(self, gone: Bools) -> Floats:
        """Return the claims as they would be if some events had never happened, `(q, k)`.

        A claim's strength is computed anew; one that its other events no longer support is gone. Claims that the user
        has added stay.
        """
        return self.texts * np.array(self._strengths_without(gone), dtype=np.float64).reshape(-1, 1)

    def _strengths_without(self, gone: Bools) -> list[float]:
        removed = {self.events.ids[i] for i in np.flatnonzero(gone)}
        kept = np.array([w for event_id, w in self.decayed.items() if event_id not in removed], dtype=np.float64)
        total = {1: kept[kept > 0].sum(), -1: -kept[kept < 0].sum()}
        was = np.array(list(self.decayed.values()), dtype=np.float64)
        before = {1: was[was > 0].sum(), -1: -was[was < 0].sum()}
        strengths = []
        for claim in self.claims:
            sign = 1 if claim.strength >= 0 else -1
            left = [(e, sign * w) for e, w in claim.evidence.items() if e not in removed]
            if not claim.evidence:
                strengths.append(claim.strength)
                continue
            weights = np.array([w for _, w in left])
            found = support(weights, np.array([e in self.explicit for e, _ in left], dtype=bool))
            if not (claim.locked or found.holds(self.settings.max_negative_share)) or not total[sign]:
                strengths.append(0.0)
                continue
            # A correction may have damped the strength: it is damped alike.
            full = sum(max(sign * w, 0.0) for w in claim.evidence.values()) / before[sign]
            strengths.append(claim.strength * (found.positive / total[sign]) / full)
        return strengths
