"""From a user's signed events to what is folded in: confidence and target of each distinct item.

A history holds arrays over events; that an event never happened is a history without its row.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recommend.foldin import Taste
from recommend.parameters import Parameters

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Events(NamedTuple):
    """The events of one user that the model can use, in order of time.

    Attributes:
        ids: `n` event ids.
        rows: `(n,)`, rows of the factors.
        weights: `(n,)`, signed and undecayed weights of the evidence, in [-1, 1]; 0 is neutral.
        scale: `(n,)`, what corrections multiply an event's confidence by; 1 where there are none.
        given: `(n,)`, the target of an event that stands for a claim the user has added or rejected, whose confidence
            is its scale; nan for all others.
    """

    ids: Sequence[str]
    rows: Ints
    weights: Floats
    scale: Floats
    given: Floats

    def without(self, removed: npt.NDArray[np.bool_]) -> "Events":
        """Return the events as if these had never happened."""
        kept = np.flatnonzero(~removed)
        arrays = (self.rows[kept], self.weights[kept], self.scale[kept], self.given[kept])
        return Events([self.ids[i] for i in kept], *arrays)

    @classmethod
    def told(cls, ids: Sequence[str], rows: Ints, weights: Floats, scale: Floats | None = None) -> "Events":
        """Return events that have happened, none of them standing for a claim."""
        count = len(rows)
        return cls(ids, rows, weights, np.ones(count) if scale is None else scale, np.full(count, np.nan))


class History(NamedTuple):
    """What is known of each distinct item.

    Attributes:
        rows: `(n,)`, rows of the factors in the order in which they came; distinct but for those of corrections.
        confidence: `(n,)`, at least 0.
        target: `(n,)`.
        item: `(e,)`, for each event, the place of its item in `rows`; -1 for an item that is left out.
        share: `(e,)`, the event's share of its item's confidence; the shares of an item add up to 1.
        known: Number of the items that have events that have happened.
    """

    rows: Ints
    confidence: Floats
    target: Floats
    item: Ints
    share: Floats
    known: int

    def taste(self, claims: Floats) -> Taste:
        """Return what is folded in, with the user's claims `(q, k)`."""
        return Taste(self.rows, self.confidence, self.target, claims, self.known)


def summarize(events: Events, parameters: Parameters) -> History:
    """Add up the events of each item.

    An item is liked if its weights add up to more than 0, disliked if to less, else left out; disliked ones are left
    out as well where `dislike_weight` is 0. The confidence of an event is its weight's size, or 1 without
    `rating_weights`, times its scale and its bonus for recency.
    """
    p, count = parameters, len(events.rows)
    added = ~np.isnan(events.given)
    # An event that stands for a correction is an entry of its own, whatever else is known of its item.
    entry = np.where(added, -1 - np.arange(count), events.rows)
    distinct, first, place = np.unique(entry, return_index=True, return_inverse=True)
    net = np.bincount(place, weights=np.where(added, events.given, events.weights), minlength=len(distinct))
    sign = np.sign(net)
    size = np.abs(events.weights) if p.rating_weights else np.ones(count)
    if p.recency:
        size = size * (1.0 + p.recency * np.exp2(-np.arange(count)[::-1] / p.recency_half))
    size = np.where(added, 1.0, size) * events.scale
    # An event of the other sign says nothing for its item's part; it has weakened the net.
    size = np.where(added | ((np.sign(events.weights) == sign[place]) & (sign[place] != 0)), size, 0.0)
    total: Floats = np.bincount(place, weights=size, minlength=len(distinct)).astype(np.float64)
    confidence = np.where((net < 0) & ~added[first], p.dislike_weight, 1.0) * total
    kept = np.flatnonzero(confidence > 0)
    kept = kept[np.argsort(first[kept])]
    where = np.full(len(distinct), -1, dtype=np.int64)
    where[kept] = np.arange(len(kept))
    item = where[place]
    share = np.divide(size, total[place], out=np.zeros(count), where=(total[place] > 0) & (item >= 0))
    target = np.where(net[kept] > 0, 1.0, -p.dislike_target)
    target = np.where(added[first[kept]], events.given[first[kept]], target)
    known = int(np.count_nonzero(~added[first[kept]]))
    return History(events.rows[first[kept]], confidence[kept], target, item, share, known)


def to_events(
    ids: Sequence[str],
    items: Sequence[str | None],
    weights: Floats,
    row_of: Mapping[str, int],
    scale: Mapping[str, float] | None = None,
) -> Events:
    """Take what the model can use: events about an item that has a factor."""
    kept = [i for i, item in enumerate(items) if item is not None and item in row_of]
    chosen = [ids[i] for i in kept]
    return Events.told(
        ids=chosen,
        rows=np.array([row_of[items[i]] for i in kept], dtype=np.int64),  # type: ignore[index]
        weights=np.asarray(weights, dtype=np.float64)[kept],
        scale=np.array([(scale or {}).get(event_id, 1.0) for event_id in chosen], dtype=np.float64),
    )
