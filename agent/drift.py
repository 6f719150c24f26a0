"""How far users have moved on from their profiles, for many of them at once and without their whole logs.

Of a user with a profile let p be the shares of the profile's interests in the positive weight (their strengths), and
what is left of 1 as one more; and q the shares of the same interests, and of what belongs to none of them, in the
positive weight of the events since (undecayed). The drift is the Jensen-Shannon distance to the base 2,

    sqrt((KL(p | m) + KL(q | m)) / 2),  m = (p + q) / 2,

in [0, 1]. An item belongs to the interest that cites it; another one to the nearest interest, by the cosine of their
vectors, if it lies within the 90th percentile of the distances of that interest's own items: the rule by which
`agent.themes` lets items join. Events without an item do not count, nor do those that came late and lie before the
last one that the profile has read.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from agent.catalogue import Vectors, item_vectors, unit
from agent.continuing import drift
from agent.themes import RADIUS_QUANTILE
from store import logs, since
from store.database import Database
from store.since import ThemeItems, Weighing

_USERS_AT_ONCE = 1_000
_ROUNDING = 1e-6


def drifts(database: Database, last: Mapping[str, datetime], embedder: str, weighing: Weighing) -> dict[str, float]:
    """Return how far each user has drifted; 0 for one without interests, or who has liked nothing since.

    Args:
        database: To read from.
        last: By user, the time of the last event that the profile has read.
        embedder: Name of the one whose vectors of items are taken.
        weighing: What events weigh.
    """
    mean = logs.mean_vector(database, "item", embedder) if last else None
    found: dict[str, float] = {}
    users = list(last)
    for start in range(0, len(users), _USERS_AT_ONCE):
        part = users[start : start + _USERS_AT_ONCE]
        liked = since.liked(database, {user_id: last[user_id] for user_id in part}, weighing)
        themes = since.theme_items(database, list(liked))
        places = _places(database, embedder, mean, liked, themes)
        for user_id in part:
            theirs, new = themes.get(user_id, []), liked.get(user_id, {})
            found[user_id] = _drift(theirs, new, places) if theirs and new else 0.0
    return found


def _places(
    database: Database,
    embedder: str,
    mean: Vectors | None,
    liked: Mapping[str, Mapping[str, float]],
    themes: Mapping[str, Sequence[ThemeItems]],
) -> dict[str, Vectors]:
    """Return the vectors that are needed: those of users who have liked what their themes do not cite."""
    needed: set[str] = set()
    for user_id, theirs in themes.items():
        cited = {item for theme in theirs for item in theme.items}
        if other := liked[user_id].keys() - cited:
            needed |= other | cited
    stored = logs.read_vectors(database, "item", embedder, sorted(needed)) if needed else {}
    if not stored or mean is None:
        return {}
    return dict(zip(stored, item_vectors(np.stack([row.vector for row in stored.values()]), mean), strict=True))


def _drift(themes: Sequence[ThemeItems], liked: Mapping[str, float], places: Mapping[str, Vectors]) -> float:
    theme_of = {item: theme.claim_id for theme in reversed(themes) for item in theme.items}
    other = [item for item in liked if item not in theme_of and item in places]
    theme_of |= _nearest(themes, other, places) if other else {}
    total = sum(liked.values())
    now = {theme.claim_id: 0.0 for theme in themes}
    for item, weight in liked.items():
        if (claim_id := theme_of.get(item)) is not None:
            now[claim_id] += weight / total
    return drift({theme.claim_id: theme.share for theme in themes}, now)


def _nearest(themes: Sequence[ThemeItems], items: Sequence[str], places: Mapping[str, Vectors]) -> dict[str, str]:
    """Return the theme that each item joins; those that join none are left out."""
    own = [
        (theme.claim_id, np.stack(rows))
        for theme in themes
        if (rows := [places[item] for item in theme.items if item in places])
    ]
    if not own:
        return {}
    centroids = unit(np.stack([rows.mean(axis=0) for _, rows in own]))
    radius = [np.quantile(1 - rows @ c, RADIUS_QUANTILE) for (_, rows), c in zip(own, centroids, strict=True)]
    away = 1 - np.stack([places[item] for item in items]) @ centroids.T
    nearest = np.argmin(away, axis=1)
    return {
        item: own[n][0]
        for item, n, distances in zip(items, nearest, away, strict=True)
        if distances[n] <= radius[n] + _ROUNDING
    }
