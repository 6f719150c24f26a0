"""Themes: a user's events grouped by what their items have in common.

Liked items are clustered by average linkage on cosine, until no two groups are more alike than items of a catalogue are
by chance; negative events join the theme that they lie within, as counter-evidence, and the free ones form themes of
dislike. What is small beside the other themes is not said: it is mostly chance.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage

from agent.catalogue import Attribute, BaseRates, ItemSet, Telling, Vectors, unit
from agent.contract import Trend
from agent.evidence import (
    Bools,
    EvidenceSettings,
    Floats,
    Support,
    Weights,
    confidence,
    support,
    trend,
    weigh,
)

Ints = npt.NDArray[np.int64]
Polarity = Literal["positive", "negative"]

ALIKE = 0.08
"""Mean cosine from which two groups of items are one theme; of random pairs of a catalogue it is 0."""
LEAST_SHARE, LEAST_OF_STRONGEST = 0.1, 0.25
"""A theme is said with a tenth of the weight, or with a quarter of the weight of the strongest one."""
MAX_THEMES = 12
MAX_CLUSTERED = 2_000
MAX_EXAMPLES = 6
MAX_TELLING = 8
RADIUS_QUANTILE = 0.9
VARIETY = 0.3
MAX_TRAITS = 3
USUAL_LIFT = 1.3


@dataclass(frozen=True)
class UserLog:
    """One user's events in order of (time, event id).

    Attributes:
        event_ids: `n` ids.
        items: `n` keys of the item set: the item's id, or that of a stand-in for an event's text, or None.
        types: `n` event types.
        values: `n` values or None.
        times: `(n,)`, seconds since 1970, UTC.
        offsets: `n` offsets in minutes east of UTC, or None.
        revision: The log's revision when it was read.
    """

    user_id: str
    event_ids: Sequence[str]
    items: Sequence[str | None]
    types: Sequence[str]
    values: Sequence[float | None]
    times: Floats
    offsets: Sequence[int | None]
    revision: int = 0


@dataclass(frozen=True)
class Theme:
    """A group of a user's events with its numbers, before anyone has put it into words.

    Attributes:
        events: Rows of the log that the theme rests on (for a dislike: the negative events).
        counter: Rows of the log that speak against it.
        members: Distinct item keys of `events`, heaviest first.
        examples: At most six of them, central and varied.
        telling: The attributes that set the theme apart, most telling first.
        attribute_counts: How many of `events` bear each attribute.
    """

    polarity: Polarity
    events: Ints
    counter: Ints
    members: tuple[str, ...]
    examples: tuple[str, ...]
    telling: tuple[Telling, ...]
    attribute_counts: dict[Attribute, int]
    support: Support
    strength: float
    confidence: float
    trend: Trend | None


class Themes(NamedTuple):
    """What `find_themes` found: the supported themes of both signs, strongest first, and all event weights."""

    interests: tuple[Theme, ...]
    dislikes: tuple[Theme, ...]
    weights: Weights


def cluster(vectors: Vectors, likes: Floats) -> Ints:
    """Group rows into themes.

    Args:
        vectors: `(m, d)`, unit rows.
        likes: `(m,)`, how many positive events each row stands for; the heaviest 2,000 rows are clustered, the
            others join the nearest theme.

    Returns:
        `(m,)` labels from 0. There may be many, of single items too: most have no support.
    """
    if len(vectors) > MAX_CLUSTERED:
        heavy = np.argsort(-likes, kind="stable")[:MAX_CLUSTERED]
        core = cluster(vectors[heavy], likes[heavy])
        labels: Ints = np.argmax(vectors @ _centroids(vectors[heavy], core).T, axis=1).astype(np.int64)
        labels[heavy] = core
        return labels
    if len(vectors) < 2:  # noqa: PLR2004
        return np.zeros(len(vectors), dtype=np.int64)
    if not (norms := np.linalg.norm(vectors, axis=1)).all():
        # An item at the catalogue's centre has no direction; any one will do, if all such items get the same.
        vectors = np.where(norms[:, None] > 0, vectors, np.eye(1, vectors.shape[1], dtype=np.float32))
    tree = linkage(vectors, "average", "cosine")
    return np.asarray(fcluster(tree, 1 - ALIKE, "distance"), dtype=np.int64) - 1


def _centroids(vectors: Vectors, labels: Ints) -> Vectors:
    return unit(np.stack([vectors[labels == label].mean(axis=0) for label in range(labels.max() + 1)]))


class Earlier(NamedTuple):
    """Themes of before, by sign: for each the rows of the log that it rests on."""

    liked: Sequence[Ints]
    disliked: Sequence[Ints]


def _radius(vectors: Vectors) -> float:
    """Return the 90th percentile of the distances of vectors from their centroid."""
    return float(np.quantile(1.0 - vectors @ unit(vectors.mean(axis=0)), RADIUS_QUANTILE))


def find_themes(
    log: UserLog,
    items: ItemSet,
    settings: EvidenceSettings,
    as_of: float | None = None,
    earlier: Earlier | None = None,
) -> Themes:
    """Weigh a user's events and group them into the themes that are supported.

    Args:
        log: The user's events.
        items: Every item that the log names, with vectors.
        settings: Event types, half-life and bounds.
        as_of: Seconds since 1970; the user's last event unless given.
        earlier: Themes to go on from: their items stay together, others join the nearest one or form themes of their
            own. None clusters all items.
    """
    when = as_of if as_of is not None else float(log.times.max() if len(log.times) else 0.0)
    weights = weigh(log.types, log.values, log.times, when, settings)
    groups = Grouping(log, items, weights, settings)
    liked, disliked = earlier or (None, None)
    taken, interests = groups.form(+1, np.ones(len(log.times), dtype=bool), liked)
    _, dislikes = groups.form(-1, ~taken, disliked)
    return Themes(interests, dislikes, weights)


class Grouping:
    """Groups one user's events: knows which item each event is about, and each item's net weight."""

    def __init__(self, log: UserLog, items: ItemSet, weights: Weights, settings: EvidenceSettings) -> None:
        self.log, self.items, self.weights, self.settings = log, items, weights, settings
        keys = list(dict.fromkeys(key for key in log.items if key is not None))
        index = {key: i for i, key in enumerate(keys)}
        self.keys = keys
        self.of_event = np.array([-1 if key is None else index[key] for key in log.items], dtype=np.int64)
        known = self.of_event >= 0
        self.net = np.bincount(self.of_event[known], weights=weights.decayed[known], minlength=len(keys))
        self.vectors = items.vectors[[items.row[key] for key in keys]] if keys else items.vectors[:0]
        self.base_rates: BaseRates = items.base_rates

    def form(self, sign: int, free: Bools, earlier: Sequence[Ints] | None = None) -> tuple[Bools, tuple[Theme, ...]]:
        """Form the themes of one sign out of free events.

        Args:
            sign: +1 for what is liked, -1 for what is disliked.
            free: `(n,)`, the events to take.
            earlier: Rows of the themes to go on from; None clusters all items.

        Returns:
            Which events the supported themes have taken, and the themes, strongest first.
        """
        signed = sign * self.weights.decayed
        taken = np.zeros(len(signed), dtype=bool)
        usable = free & (self.of_event >= 0) & (signed != 0)
        present = np.unique(self.of_event[usable])
        core = present[sign * self.net[present] > 0]
        if not len(core):
            return taken, ()
        likes = np.bincount(self.of_event[usable & (signed > 0)], minlength=len(self.keys)).astype(float)
        of_item = np.full(len(self.keys), -1, dtype=np.int64)
        if earlier is None:
            of_item[core] = cluster(self.vectors[core], likes[core])
        else:
            self._go_on(core, likes, earlier, of_item)
        self._join(np.setdiff1d(present, core), core[of_item[core] >= 0], of_item)
        total = float(signed[signed > 0].sum())
        themes = []
        for rows in self._merged(usable, of_item, signed):
            found = support(signed[rows], self.weights.explicit[rows])
            if found.holds(self.settings.max_negative_share):
                themes.append((rows, self._theme(sign, rows, found, total)))
        themes.sort(key=lambda pair: -abs(pair[1].strength))
        least = min(LEAST_SHARE, LEAST_OF_STRONGEST * abs(themes[0][1].strength)) if themes else 0.0
        said = [(rows, theme) for rows, theme in themes[:MAX_THEMES] if abs(theme.strength) >= least]
        for rows, _ in said:
            taken[rows] = True
        return taken, tuple(theme for _, theme in said)

    def _merged(self, usable: Bools, of_item: Ints, signed: Floats) -> list[Ints]:
        """Return the events of each theme; groups that the same attributes (or none) set apart are one theme."""
        groups: dict[frozenset[Attribute], list[Ints]] = {}
        for label in range(int(of_item.max(initial=-1)) + 1):
            rows = np.flatnonzero(usable & (of_item[self.of_event] == label))
            events = rows[signed[rows] > 0]
            telling = most_telling(self._counts(events), len(events), self.base_rates)
            traits = frozenset(t.attribute for t in informative(telling))
            groups.setdefault(traits, []).append(rows)
        return [np.sort(np.concatenate(parts)) for parts in groups.values()]

    def _counts(self, events: Ints) -> Counter[Attribute]:
        return Counter(a for i in self.of_event[events] for a in self.items.attributes[self.keys[i]])

    def _go_on(self, core: Ints, likes: Floats, earlier: Sequence[Ints], of_item: Ints) -> None:
        """Leave items in their themes and let the others join; what lies outside forms themes that are no wider."""
        count = 0
        for rows in earlier:
            mine = np.intersect1d(self.of_event[rows], core)
            mine = mine[of_item[mine] < 0]
            of_item[mine] = count
            count += len(mine) > 0
        placed = core[of_item[core] >= 0]
        if not count:
            of_item[core] = cluster(self.vectors[core], likes[core])
            return
        self._join(np.setdiff1d(core, placed), placed, of_item)
        widest = self._spread(placed, of_item)[1].max()
        outside = core[of_item[core] < 0]
        if not len(outside):
            return
        found = cluster(self.vectors[outside], likes[outside])
        for label in np.argsort(-np.bincount(found, weights=likes[outside]), kind="stable"):
            mine = outside[found == label]
            if count < MAX_THEMES and _radius(self.vectors[mine]) <= widest:
                of_item[mine] = count
                count += 1

    def _spread(self, core: Ints, of_item: Ints) -> tuple[Vectors, Floats]:
        """Return the centroids of themes, and the 90th percentiles of their items' distances from them."""
        labels = of_item[core]
        centroids = _centroids(self.vectors[core], labels)
        return centroids, np.array([_radius(self.vectors[core[labels == k]]) for k in range(len(centroids))])

    def _join(self, others: Ints, core: Ints, of_item: Ints) -> None:
        """Let items join the nearest theme, if they lie within its 90th-percentile radius."""
        if not len(others) or not len(core):
            return
        centroids, radius = self._spread(core, of_item)
        away = 1.0 - self.vectors[others] @ centroids.T
        nearest = np.argmin(away, axis=1)
        inside = away[np.arange(len(others)), nearest] <= radius[nearest] + 1e-6
        of_item[others[inside]] = nearest[inside]

    def _theme(self, sign: int, rows: Ints, found: Support, total: float) -> Theme:
        signed, undecayed = sign * self.weights.decayed, sign * self.weights.undecayed
        events = rows[signed[rows] > 0]
        heaviest = events[np.argsort(-signed[events], kind="stable")]
        members = tuple(dict.fromkeys(self.keys[i] for i in self.of_event[heaviest]))
        counts = self._counts(events)
        return Theme(
            polarity="positive" if sign > 0 else "negative",
            events=heaviest,
            counter=rows[signed[rows] < 0],
            members=members,
            examples=self._examples(events, signed),
            telling=most_telling(counts, len(events), self.base_rates),
            attribute_counts=dict(counts),
            support=found,
            strength=sign * found.positive / total,
            confidence=confidence(undecayed[rows]),
            trend=trend(np.isin(np.arange(len(signed)), events), self.log.times),
        )

    def _examples(self, events: Ints, signed: Floats) -> tuple[str, ...]:
        """Pick at most six items: central and heavy first, each away from those picked before (MMR)."""
        ids, where = np.unique(self.of_event[events], return_inverse=True)
        weight = np.bincount(where, weights=signed[events])
        vectors = self.vectors[ids]
        score = (vectors @ unit(vectors.mean(axis=0))) * weight / weight.max()
        picked: list[int] = []
        closest = np.zeros(len(ids), dtype=np.float32)
        for _ in range(min(MAX_EXAMPLES, len(ids))):
            gain = (1 - VARIETY) * score - VARIETY * closest
            gain[picked] = -np.inf
            best = int(np.argmax(gain))
            picked.append(best)
            closest = np.maximum(closest, vectors @ vectors[best])
        return tuple(self.keys[ids[i]] for i in picked)


def is_informative(telling: Telling) -> bool:
    """Tell whether an attribute says something: a decade that is usual in the catalogue does not."""
    return telling.attribute.field != "decade" or telling.lift >= USUAL_LIFT


def informative(telling: Sequence[Telling]) -> list[Telling]:
    """Return the attributes that say something, at most three."""
    return [t for t in telling if is_informative(t)][:MAX_TRAITS]


def most_telling(counts: Counter[Attribute], total: int, base_rates: BaseRates) -> tuple[Telling, ...]:
    """Return the attributes that a sentence may name, most telling first: by share times log lift."""
    tellings = (base_rates.telling(a, c, total) for a, c in counts.items())
    held = [t for t in tellings if t.holds and t.lift > 1]
    held.sort(key=lambda t: (-t.share * np.log(t.lift), t.attribute))
    return tuple(held[:MAX_TELLING])
