"""The map: users and items in two dimensions, and users in segments that are named by what tells them apart.

A user lies at the mean of the vectors of their likes, weighted by strength and of unit length; the map shows the first
two principal components of these, and items in the same coordinates. Segments are k-means in the first components,
k by the best silhouette. Segments of fewer than 20 users are not shown, nor are the users in them: few people are not
to be told apart by where they lie.
"""

import re
import threading
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from threadpoolctl import threadpool_limits

from agent.catalogue import unit
from agent.words import title_of
from store import logs, overview, vectors
from store.database import Database
from store.vectors import ClaimVectors

Matrix = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST_USERS, MOST_ITEMS = 1_500, 300
FEWEST = 20
"""Users of a segment that is shown."""
MOST_SEGMENTS = 8
COMPONENTS = 12
"""Principal components in which segments are sought."""
_JUDGED = 600
"""Users by whom the silhouette is measured."""
_NAMES = 2
_LINE, _ACROSS = 0.05, 0.3
_MARGIN = 0.004
FRESH_S = 900.0


class UserPoint(NamedTuple):
    """A user on the map; places are in [0, 1], from the left and from the top."""

    user_id: str
    x: float
    y: float
    segment: int


class ItemPoint(NamedTuple):
    """An item on the map."""

    item_id: str
    title: str
    x: float
    y: float


class Segment(NamedTuple):
    """Users who are alike.

    Attributes:
        names: Of the claims that tell them apart, the most telling first.
        users: How many there are in the sample.
        x: Of their middle.
        y: Of their middle, moved where another name stands.
    """

    names: list[str]
    users: int
    x: float
    y: float


class Map(NamedTuple):
    """The map.

    Attributes:
        users: Those in segments that are shown.
        items: Some items.
        segments: The largest first.
        sampled: How many users were looked at.
        silhouette: Of the segments, in [-1, 1].
    """

    users: list[UserPoint]
    items: list[ItemPoint]
    segments: list[Segment]
    sampled: int
    silhouette: float


class _Kept(NamedTuple):
    at: float
    user_ids: list[str]
    map: Map | None


class Maps:
    """Draws the map, and keeps it for a quarter of an hour, or until one of its users is erased or consents no more.

    Args:
        database: To read from.
        seed: Of the clustering.
    """

    def __init__(self, database: Database, seed: int = 0) -> None:
        self._database = database
        self._seed = seed
        self._drawing = threading.Lock()
        self._kept: _Kept | None = None

    def get(self, model: str) -> Map | None:
        """Return the map of the vectors by this embedder; None if there are too few profiles for one."""
        with self._drawing:
            if self._kept is None or not self._holds(self._kept):
                began = time.monotonic()
                with self._database.session() as session:
                    wanted = overview.some_users(session, MOST_USERS)
                with threadpool_limits(1):  # among so few points, threads would mostly wait for each other
                    self._kept = _Kept(began, wanted, self._draw(model, wanted))
            return self._kept.map

    def _holds(self, kept: "_Kept") -> bool:
        if time.monotonic() - kept.at > FRESH_S:
            return False
        with self._database.session() as session:
            return overview.all_consent(session, kept.user_ids)

    def _draw(self, model: str, wanted: list[str]) -> Map | None:
        with self._database.session() as session:
            item_ids = overview.some_items(session, model, MOST_ITEMS)
            items = logs.read_items(session, item_ids)
        if len(wanted) < FEWEST:
            return None
        found = logs.read_vectors(self._database, "item", model, item_ids)
        shown = [item_id for item_id in item_ids if item_id in found and item_id in items]
        matrix = np.stack([found[i].vector for i in shown]) if shown else np.zeros((0, 0), dtype=np.float32)
        titles = [title_of(items[i]) for i in shown]
        claims = vectors.claim_vectors(self._database, model, wanted)
        return draw(claims, shown, titles, matrix, self._seed)


def draw(
    claims: ClaimVectors, item_ids: list[str], titles: list[str], items: npt.NDArray[np.float32], seed: int
) -> Map | None:
    """Draw a map.

    Args:
        claims: Of the users.
        item_ids: `m` ids.
        titles: Theirs.
        items: `(m, d)`, their vectors.
        seed: Of the clustering.

    Returns:
        The map; None if fewer than 20 users have a like.
    """
    user_ids, users = likes(claims)
    if len(user_ids) < FEWEST:
        return None
    space = PCA(min(COMPONENTS, *users.shape), random_state=seed).fit(users)
    placed = space.transform(users)
    labels, silhouette = segments(placed, seed)
    flat = placed[:, :2]
    others = space.transform(unit(items.astype(np.float64)))[:, :2] if len(items) else np.zeros((0, 2))
    flat, others = _in_frame(flat, others)
    order = [label for label, size in Counter(labels.tolist()).most_common() if size >= FEWEST]
    names = _names(claims, user_ids, labels, order)
    return Map(
        users=[
            UserPoint(user_id, float(x), float(y), order.index(label))
            for user_id, (x, y), label in zip(user_ids, flat, labels.tolist(), strict=True)
            if label in order
        ],
        items=[ItemPoint(i, t, float(x), float(y)) for i, t, (x, y) in zip(item_ids, titles, others, strict=True)],
        segments=[
            Segment(names[label], int((labels == label).sum()), x, y)
            for label, (x, y) in zip(order, _apart([np.median(flat[labels == n], axis=0) for n in order]), strict=True)
        ],
        sampled=len(user_ids),
        silhouette=silhouette,
    )


def likes(claims: ClaimVectors) -> tuple[list[str], Matrix]:
    """Return the users who like something, and the mean of their likes by strength, `(u, d)` of unit length."""
    liked = np.flatnonzero(claims.strengths > 0)
    user_ids = list(dict.fromkeys(claims.user_ids[n] for n in liked))
    place = {user_id: n for n, user_id in enumerate(user_ids)}
    total = np.zeros((len(user_ids), claims.vectors.shape[1]))
    np.add.at(
        total,
        [place[claims.user_ids[n]] for n in liked],
        claims.strengths[liked, None] * claims.vectors[liked].astype(np.float64),
    )
    return user_ids, np.asarray(unit(total), dtype=np.float64)


def segments(placed: Matrix, seed: int) -> tuple[Ints, float]:
    """Cluster users, `(u, c)`, by k-means with the k of the best silhouette; returns labels and that silhouette."""
    most = min(MOST_SEGMENTS, len(placed) // FEWEST)
    judged = np.random.default_rng(seed).permutation(len(placed))[:_JUDGED]
    best: tuple[Ints, float] = (np.zeros(len(placed), dtype=np.int64), 0.0)
    for k in range(2, most + 1):
        labels = KMeans(k, n_init=4, random_state=seed).fit_predict(placed).astype(np.int64)
        if len(set(labels[judged].tolist())) < 2:  # noqa: PLR2004 - a silhouette needs two
            continue
        score = float(silhouette_score(placed[judged], labels[judged]))
        if score > best[1]:
            best = (labels, score)
    return best


def _names(claims: ClaimVectors, user_ids: list[str], labels: Ints, order: list[int]) -> dict[int, list[str]]:
    """Name each segment by the likes nearest to what tells its mean from everyone's; frequent ones count more.

    What a user has said in their own words names no segment: others would read it.
    """
    label_of = dict(zip(user_ids, labels.tolist(), strict=True))
    liked = [n for n in np.flatnonzero(claims.strengths > 0) if claims.user_ids[n] in label_of]
    spread = claims.vectors[liked].astype(np.float64)
    centre = spread.mean(axis=0)
    found: dict[int, list[str]] = {}
    for label in order:
        own = [place for place, n in enumerate(liked) if label_of[claims.user_ids[n]] == label]
        direction = spread[own].mean(axis=0) - centre
        near = (spread[own] - centre) @ direction
        worth: dict[str, float] = {}
        for place, score in zip(own, near.tolist(), strict=True):
            if claims.wordings[liked[place]] != "user":
                name = claims.names[liked[place]]
                worth[name] = worth.get(name, 0.0) + score
        names = _varied(sorted(worth, key=lambda name: (-worth[name], name)))
        found[label] = names or [f"Segment {len(found) + 1}"]
    return found


def _varied(names: list[str]) -> list[str]:
    """Return the first names of which none says again what one before it says: half of its words at most.

    >>> _varied(["Baking and gifts", "Gifts, baking", "Camping"])
    ['Baking and gifts', 'Camping']
    """
    chosen: list[str] = []
    words: list[set[str]] = []
    for name in names:
        said = set(re.findall(r"\w+", name.casefold())) - {"and", "partly"}
        if all(2 * len(said & other) <= min(len(said), len(other)) for other in words):
            chosen.append(name)
            words.append(said)
        if len(chosen) == _NAMES:
            break
    return chosen


def _apart(places: list[Matrix]) -> list[tuple[float, float]]:
    """Move names down where they would stand on one that is placed already."""
    done: list[tuple[float, float]] = []
    for x, y in places:
        free = float(y)
        while any(abs(free - other) < _LINE and abs(float(x) - across) < _ACROSS for across, other in done):
            free += _LINE / 4
        done.append((float(x), free))
    return done


def _in_frame(users: Matrix, items: Matrix) -> tuple[Matrix, Matrix]:
    """Scale places into [0, 1]: by what nearly all take up; who lies outside stands at the edge."""
    every = np.concatenate([users, items])
    low, high = np.quantile(every, _MARGIN / 2, axis=0), np.quantile(every, 1 - _MARGIN / 2, axis=0)
    span = np.where(high > low, high - low, 1.0)
    scaled = [np.clip((points - low) / span, 0.0, 1.0) for points in (users, items)]
    return scaled[0], scaled[1]
