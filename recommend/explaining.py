"""What a score is the sum of, and what it would take for an item to drop out of the top k.

Pure functions over arrays. That an event is removed means that it never happened: the history is summarized and
folded in anew. Items that the user has had to do with stay left out, also once their events are thought away.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve

from recommend.foldin import Floats, Folded, FoldIn, Ints
from recommend.history import Events, History, summarize
from recommend.ranking import ROUNDING, rank_of, top_k

Bools = npt.NDArray[np.bool_]
ClaimsWithout = Callable[[Bools], Floats]

RIVALS = 300
"""Items beside the top k that the search for a counterfactual looks at."""
NEARBY, TRIALS = 32, 3
LONG = 5_000
"""Items of a history from which only the most promising event is tried at each step."""


class Reasons(NamedTuple):
    """What an item's score is the sum of.

    Attributes:
        events: `(e,)`, the part of each event.
        owner: `(e,)`, the place of the claim to whose line the event goes; -1 if it stands alone.
        texts: `(q,)`, the part of each claim's text.
        crowd: The part of the crowd's mean.
    """

    events: Floats
    owner: Ints
    texts: Floats
    crowd: float

    @property
    def evidence(self) -> Floats:
        """The parts of each claim's own events, added up, `(q,)`."""
        owned = self.owner >= 0
        found = np.bincount(self.owner[owned], weights=self.events[owned], minlength=len(self.texts))
        return found.astype(np.float64)

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(self.events.sum() + self.texts.sum() + self.crowd)


def explain(
    folded: Folded,
    history: History,
    events: Events,
    item_factor: npt.NDArray[np.floating],
    claims_of_event: Mapping[str, Sequence[int]],
) -> Reasons:
    """Take a score apart.

    Args:
        folded: The user.
        history: That was folded in.
        events: That it summarizes.
        item_factor: Of the item, `(k,)`.
        claims_of_event: For each event id, the places of the claims that cite it.
    """
    items, texts, crowd = folded.parts(np.asarray(item_factor, dtype=np.float64))
    of_events = np.append(items, 0.0)[history.item] * history.share
    return Reasons(of_events, owners(events, claims_of_event), texts, crowd)


def owners(events: Events, claims_of_event: Mapping[str, Sequence[int]]) -> Ints:
    """Give each event to at most one claim, the one of whose evidence it is the largest share.

    Returns:
        `(e,)`, places of claims; -1 for an event that no claim cites.
    """
    citing = [claims_of_event.get(event_id, ()) for event_id in events.ids]
    total: dict[int, float] = {}
    for weight, places in zip(np.abs(events.weights).tolist(), citing, strict=True):
        for place in places:
            total[place] = total.get(place, 0.0) + weight
    return np.array([min(p, key=lambda c: (total[c], c)) if p else -1 for p in citing], dtype=np.int64)


class Removal(NamedTuple):
    """What would be without some events, or without a claim.

    Attributes:
        removed: Places of the events, or the place of the claim.
        rank: The item's new rank; None if it does not drop out of the top k.
        replaced_by: The row of the best item that enters the top k; None if none does.
    """

    removed: tuple[int, ...]
    rank: int | None
    replaced_by: int | None


def counterfactual(
    fold_in: FoldIn,
    events: Events,
    claims: Floats,
    row: int,
    k: int,
    excluded: Ints,
    *,
    allowed: Bools | None = None,
    removable: Bools | None = None,
    max_removed: int = 10,
    claims_without: ClaimsWithout | None = None,
) -> Removal | None:
    """Find a smallest set of events without which an item drops out of the top k.

    Greedy: each step removes the event whose removal lowers the item's margin over its nearest rival outside the top
    k most. A first-order estimate finds the events worth trying, full recomputation decides. In the end, every event
    that can be spared is put back.

    Args:
        fold_in: Of the model.
        events: Of the user.
        claims: `(q, k)`, as they are folded in.
        row: Of the item.
        k: The item is to drop out of the top `k`.
        excluded: Rows that are not recommended.
        allowed: `(m,)`, which items may be recommended at all.
        removable: `(e,)`, which events may be removed; all but those of added claims unless given.
        max_removed: How many may be removed.
        claims_without: From the mask `(e,)` of the events that are removed to the claims `(q, k)` as they would be;
            unchanged unless given.

    Returns:
        The events in the order of their removal; those that were tried, with no rank, where the item does not drop
        out. None if it is not among the top k in the first place.
    """
    search = _Search(fold_in, events, claims, claims_without)
    start = search.without(np.zeros(len(events.rows), dtype=np.bool_))
    before = _scores(fold_in, [start.folded])[0]
    if rank_of(before, row, excluded, allowed) > k:
        return None
    nearest = top_k(before, k + RIVALS, np.append(excluded, row), allowed)
    if len(nearest) < k:
        return Removal((), None, None)  # whatever happens, there are not enough others
    contest = _Contest(fold_in.factors, row, nearest, k)
    free = np.isnan(events.given) if removable is None else removable
    state, order, dropped = search.greedy(contest, start, free, max_removed)
    if not dropped:
        return Removal(tuple(order), None, None)
    for place in order[:-1]:
        gone = state.gone.copy()
        gone[place] = False
        spared = search.without(gone)
        state = spared if contest.lost(spared.folded.vector) else state
    after = _scores(fold_in, [state.folded])[0]
    rank, entered = _outcome(before, after, row, k, excluded, allowed)
    return Removal(tuple(p for p in order if state.gone[p]), rank if rank > k else None, entered)


def without_claim(
    events: Events, claims: Floats, claims_of_event: Mapping[str, Sequence[int]], place: int, rho: float = 0.0
) -> tuple[Events, Floats]:
    """Take one claim away: its text's term, and the confidence of the events that no other claim cites.

    Args:
        events: Of the user.
        claims: `(q, k)`.
        claims_of_event: For each event id, the places of the claims that cite it.
        place: Of the claim.
        rho: What the confidence of those events is multiplied by.
    """
    return damped(events, claims_of_event, {place}, rho), np.delete(claims, place, axis=0)


def damped(
    events: Events, claims_of_event: Mapping[str, Sequence[int]], places: AbstractSet[int], rho: float = 0.0
) -> Events:
    """Multiply the confidence of the events by `rho` that are cited by claims of these places, and by no others."""
    citing = [set(claims_of_event.get(i, ())) for i in events.ids]
    alone = np.array([bool(cited) and cited <= places for cited in citing], dtype=np.bool_)
    return events._replace(scale=np.where(alone, rho * events.scale, events.scale))


def claim_counterfactuals(
    fold_in: FoldIn,
    events: Events,
    claims: Floats,
    claims_of_event: Mapping[str, Sequence[int]],
    places: Sequence[int],
    row: int,
    k: int,
    excluded: Ints,
    *,
    allowed: Bools | None = None,
    rho: float = 0.0,
) -> list[tuple[int, int | None]]:
    """Say where an item would stand without each of some claims.

    Args:
        fold_in: Of the model.
        events: Of the user.
        claims: `(q, k)`, as they are folded in.
        claims_of_event: For each event id, the places of the claims that cite it.
        places: Of the claims to be taken away, one at a time.
        row: Of the item.
        k: Size of the list.
        excluded: Rows that are not recommended.
        allowed: `(m,)`, which items may be recommended at all.
        rho: What the confidence of a claim's events is multiplied by.

    Returns:
        For each claim, the item's new rank, and the row of the best item that enters the top k if it drops out.
    """
    left = [(events, claims), *(without_claim(events, claims, claims_of_event, place, rho) for place in places)]
    folded = [_folded(fold_in, summarize(kept, fold_in.parameters), texts) for kept, texts in left]
    before, *after = _scores(fold_in, folded)
    return [_outcome(before, scores, row, k, excluded, allowed) for scores in after]


def _folded(fold_in: FoldIn, history: History, claims: Floats) -> Folded:
    return fold_in(history.taste(claims))


def _scores(fold_in: FoldIn, folded: Sequence[Folded]) -> npt.NDArray[np.float32]:
    """Score all items for each, `(u, m)`."""
    vectors = np.stack([one.vector for one in folded], axis=1).astype(np.float32)
    return np.ascontiguousarray((fold_in.factors @ vectors).T, dtype=np.float32)


def _outcome(
    before: npt.NDArray[np.float32],
    after: npt.NDArray[np.float32],
    row: int,
    k: int,
    excluded: Ints,
    allowed: Bools | None,
) -> tuple[int, int | None]:
    """Return an item's new rank, and what enters the top k if the item leaves it."""
    rank = rank_of(after, row, excluded, allowed)
    if rank <= k or rank_of(before, row, excluded, allowed) > k:
        return rank, None
    was = set(top_k(before, k, excluded, allowed).tolist())
    return rank, next((int(other) for other in top_k(after, k, excluded, allowed) if int(other) not in was), None)


class _Contest:
    """An item against the rivals that may push it out of the top k.

    Only the nearest are looked at, so an item that loses here loses among all items, too.
    """

    def __init__(self, factors: npt.NDArray[np.float32], row: int, rivals: Ints, k: int) -> None:
        self.item = factors[row].astype(np.float64)
        self.rivals = factors[rivals].astype(np.float64)
        self.k = k

    def margin(self, vector: Floats) -> tuple[float, Floats]:
        """Return the item's score minus that of the k-th best rival, and the difference of their factors."""
        scores = self.rivals @ vector
        place = int(np.argpartition(-scores, self.k - 1)[self.k - 1])
        return float(self.item @ vector - scores[place]), self.item - self.rivals[place]

    def lost(self, vector: Floats) -> bool:
        """Tell whether k rivals beat the item by more than rounding."""
        return self.margin(vector)[0] < -ROUNDING * float(np.abs(self.item) @ np.abs(vector))


class _State(NamedTuple):
    """The user without some events."""

    gone: Bools
    history: History
    folded: Folded


class _Search(NamedTuple):
    fold_in: FoldIn
    events: Events
    claims: Floats
    claims_without: ClaimsWithout | None

    def without(self, gone: Bools) -> _State:
        """Fold the user in as if these events had never happened."""
        left, claims = self.events, self.claims
        if gone.any():
            left = left.without(gone)
            claims = claims if self.claims_without is None else self.claims_without(gone)
        history = summarize(left, self.fold_in.parameters)
        return _State(gone, history, _folded(self.fold_in, history, claims))

    def greedy(self, contest: _Contest, state: _State, free: Bools, limit: int) -> tuple[_State, list[int], bool]:
        """Remove events until the item loses, none helps any more, or the limit is reached."""
        order: list[int] = []
        while len(order) < limit:
            best, margin = None, contest.margin(state.folded.vector)[0]
            for place in self.promising(contest, state, free):
                gone = state.gone.copy()
                gone[place] = True
                tried = self.without(gone)
                lowered = contest.margin(tried.folded.vector)[0]
                if lowered < margin:
                    best, margin = (place, tried), lowered
            if best is None:
                break
            place, state = best
            order.append(place)
            if contest.lost(state.folded.vector):
                return state, order, True
        return state, order, False

    def promising(self, contest: _Contest, state: _State, free: Bools) -> list[int]:
        """Return the events whose removal should lower the margin most.

        Lowering an item's confidence by `c` lowers the margin by `c (d W y) (t - y x) / (1 - c y W y)`, `d` being the
        difference of the two factors, as long as nothing else changes (Sherman and Morrison 1950). The denominator
        is worked out for the strongest only.
        """
        kept, history, folded = np.flatnonzero(~state.gone), state.history, state.folded
        _, difference = contest.margin(folded.vector)
        y = self.fold_in.tastes(history.rows)
        slope = (y @ cho_solve(folded.factor, difference)) * (history.target - y @ folded.vector)
        places = np.flatnonzero((history.item >= 0) & free[kept])
        item = history.item[places]
        size = history.confidence[item] * history.share[places]
        gain = size * slope[item]
        near = np.argsort(-gain, kind="stable")[:NEARBY]
        close = y[item[near]]
        leverage = np.einsum("ij,ji->i", close, cho_solve(folded.factor, close.T))
        gain = gain[near] / np.maximum(1.0 - size[near] * leverage, 1e-9)
        tried = TRIALS if len(history.rows) < LONG else 1
        return [int(p) for p in kept[places[near[np.argsort(-gain, kind="stable")[:tried]]]]]
