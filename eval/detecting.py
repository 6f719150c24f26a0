"""When a user has moved on: a sequential test over visits, event by event.

What a visit is about is one of the catalogue's segments (k-means of the items' vectors). The density of an item x in
a segment with centroid c, over that of the whole catalogue, is

    f_c(x) = (1 - e) exp(k cos(x, c)) / mean_y exp(k cos(y, c)) + e,

e being the share of events that are about anything. A visit's likelihood L_c is the product over its events, so that a
visit counts as one draw of a segment and not as many. The user's shares of the segments are learned visit by visit,
from a Dirichlet prior: p_c is a segment's share of what was seen before the visit, and m = sum_c p_c L_c. Against that
stand the taste in which the share a of all visits is about one segment g, one for each, and the taste that is spread
over all segments alike:

    S_g <- max(0, S_g) + log((1 - a) + a L_g / m)

after each event of a visit (Page's CUSUM, 1954, in parallel for all g; the likelihood is that of mixtures). The
statistic is the largest S_g; an alarm is raised when it passes the threshold.

It is a measure: `limner batch` selects users by the distance of shares in `agent.drift`, which needs no order.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from agent.catalogue import Vectors, unit
from agent.evidence import Bools, Floats
from agent.themes import Ints

SEGMENTS = range(6, 25, 2)
SAMPLE = 2_000
NOISE = 0.2
SHARPNESS = 8.0
MOVED = 0.8
PRIOR = 1.0


@dataclass(frozen=True)
class Segments:
    """A catalogue's segments.

    Attributes:
        centroids: `(k, d)`, unit rows.
        level: `(k,)`, the mean over the catalogue of `exp(8 cos(y, c))`.
    """

    centroids: Vectors
    level: Floats

    @classmethod
    def of(cls, vectors: Vectors, rng: np.random.Generator) -> Self:
        """Find segments: as many, from 6 to 24, as give the largest mean silhouette (Rousseeuw 1987).

        Args:
            vectors: `(m, d)`, unit rows, of the whole catalogue; 2,000 of them, drawn at random, are looked at.
            rng: Of the sample and of k-means.

        Raises:
            ValueError: There are fewer than 8 items.
        """
        if len(vectors) < SEGMENTS[0] + 2:
            raise ValueError(f"{len(vectors)} items make no segments: at least {SEGMENTS[0] + 2} are needed")
        some = vectors if len(vectors) <= SAMPLE else vectors[rng.choice(len(vectors), SAMPLE, replace=False)]
        best, found = -np.inf, some[:1]
        for count in SEGMENTS:
            if count >= len(some) - 1:
                break
            model = KMeans(count, n_init=5, random_state=int(rng.integers(2**31))).fit(some)
            score = float(silhouette_score(some, model.labels_, metric="cosine"))
            if score > best:
                best, found = score, model.cluster_centers_
        return cls.around(unit(found), vectors)

    @classmethod
    def around(cls, centroids: Vectors, vectors: Vectors) -> Self:
        """Take given centroids `(k, d)` for segments of a catalogue."""
        return cls(centroids, np.exp(SHARPNESS * (vectors @ centroids.T).astype(np.float64)).mean(axis=0))

    def log_densities(self, vectors: Vectors) -> Floats:
        """Return `log f_c(x)` for items `(n, d)`, `(n, k)`."""
        close = np.exp(SHARPNESS * (vectors @ self.centroids.T).astype(np.float64)) / self.level
        return np.asarray(np.log((1.0 - NOISE) * close + NOISE))


class Monitored(NamedTuple):
    """A user's liked events in order of time.

    Attributes:
        log_densities: `(n, k)`, of the items of the events.
        visits: `(n,)`, numbers of visits, ascending.
        known: `(n,)`, what the profile has read: it is learned from, and no alarm is raised there.
    """

    log_densities: Floats
    visits: Ints
    known: Bools


def statistic(user: Monitored) -> Floats:
    """Return the statistic after each event, `(n,)`; 0 for what was known."""
    n, k = user.log_densities.shape
    seen, sums, found = np.full(k, PRIOR / k), np.zeros(k + 1), np.zeros(n)
    starts = np.flatnonzero(np.diff(user.visits, prepend=-1))
    for rows in np.split(np.arange(n), starts[1:]):
        shares = seen / seen.sum()
        logs = np.cumsum(user.log_densities[rows], axis=0)
        likely = np.exp(logs - logs.max(axis=1, keepdims=True))
        expected = likely @ shares
        if not user.known[rows].any():
            other = np.column_stack([likely, likely.mean(axis=1)]) / expected[:, None]
            risen = np.maximum(sums, 0.0) + np.log((1.0 - MOVED) + MOVED * other)
            found[rows], sums = risen.max(axis=1), risen[-1]
        seen += shares * likely[-1] / expected[-1]
    return found


def first_alarm(values: Floats, threshold: float) -> int | None:
    """Return the place of the first value above the threshold.

    >>> first_alarm(np.array([0.0, 3.0, 9.0, 8.5]), 8.25)
    2
    """
    above = np.flatnonzero(values > threshold)
    return int(above[0]) if len(above) else None
