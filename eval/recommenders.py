"""The recommenders that are compared: each scores all items for some users, from what is known at a cut.

One that says nothing of a user without likes falls back to popularity there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sps

from agent.catalogue import unit
from eval import baselines, metrics
from eval.fused import PLAIN, Fused, train_fused
from eval.interactions import Floats, Interactions, Ints
from eval.profiles.writing import profile_vectors
from eval.tuning import Measure, Point, Space, fused_space, ials_space, parameters, search
from eval.world import Claims, World


@dataclass(frozen=True)
class Given:
    """What a recommender may use.

    Attributes:
        world: Of which only the items are read.
        train: What it learns from.
        known: Events of the users who are asked about; the same as `train`, unless these users are new.
        claims: Made of the events in `train` and `known`.
        users: `(b,)`, codes of those who are asked about.
    """

    world: World
    train: Interactions
    known: Interactions
    claims: Claims
    users: Ints

    @property
    def likes(self) -> sps.csr_matrix:
        """What each user of the training likes, `(n_users, m)`."""
        return self.train.take(self.train.weight > 0).matrix()

    @property
    def histories(self) -> sps.csr_matrix:
        """What those who are asked about are known to like, `(b, m)`."""
        return self.known.take(self.known.weight > 0).matrix()[self.users]

    @property
    def seen(self) -> sps.csr_matrix:
        """What those who are asked about are known to have had to do with, `(b, m)`."""
        return self.known.matrix()[self.users]

    def scores(self, scorer: baselines.Scorer) -> Floats:
        """Score by a baseline, falling back to popularity."""
        return baselines.with_fallback(scorer, baselines.popularity(self.likes))(self.histories)


Recommender = Callable[[Given, Point, int], Floats]
"""From what is known, parameters and a seed to scores `(b, m)`."""


def popularity(given: Given, _point: Point, _seed: int) -> Floats:
    """Score by the number of users who like an item."""
    return baselines.popularity(given.likes)(given.histories)


def most_frequent_category(given: Given, _point: Point, _seed: int) -> Floats:
    """Put the items of the user's most frequent category first, the popular ones before the others."""
    return given.scores(baselines.frequent_category(given.likes, categories(given.world)))


def item_knn(given: Given, point: Point, _seed: int) -> Floats:
    """Score by the cosines with the items that the user likes."""
    return given.scores(baselines.item_knn(given.likes, **point))


def ease(given: Given, point: Point, _seed: int) -> Floats:
    """Score by the linear autoencoder EASE."""
    return given.scores(baselines.ease(given.likes, **point))


def markov_chain(given: Given, point: Point, _seed: int) -> Floats:
    """Score by what others liked right after the item that the user liked last."""
    last = given.known.take(given.known.weight > 0).last_item()[given.users]
    return baselines.markov_chain(given.train.take(given.train.weight > 0), **point)(last)


def sasrec(given: Given, _point: Point, seed: int) -> Floats:
    """Score by SASRec, which needs torch-rechub and takes minutes to learn; it has its own fixed settings."""
    from eval.sequential import SequentialSettings, train_sequential  # noqa: PLC0415 - torch-rechub is optional

    model = train_sequential(given.train.take(given.train.weight > 0), SequentialSettings(seed=seed))
    scores = model(given.known.take(given.known.weight > 0))[given.users]
    return np.where(scores.any(axis=1, keepdims=True), scores, popularity(given, {}, seed))


def text_centroid(given: Given, _point: Point, _seed: int) -> Floats:
    """Score by the cosine with the mean text of what the user likes."""
    return given.scores(baselines.text_centroid(given.world.texts))


def ials(given: Given, point: Point, seed: int) -> Floats:
    """Score by iALS: the factorization without claims, item texts, dislikes and prior."""
    scores = fused(given, PLAIN | point, seed)
    return np.where(scores.any(axis=1, keepdims=True), scores, popularity(given, {}, seed))


def fused(given: Given, point: Point, seed: int) -> Floats:
    """Score as the service does: events and profile."""
    return trained(given, point, seed).scores(given.known, given.users)


def profile_and_crowd(given: Given, point: Point, seed: int) -> Floats:
    """Score as the service does for a user with a profile and no events: claims, and what most users like."""
    return trained(given, point, seed).scores(given.known.take(np.zeros(0, dtype=np.int64)), given.users)


def profile_only(given: Given, _point: Point, _seed: int) -> Floats:
    """Score by the profile's words alone: the cosine of an item's text with the claims' texts, by their strengths.

    Both are centred on the items' mean.
    """
    texts = given.world.texts
    mean = texts.mean(axis=0)
    profiles = profile_vectors(given.claims, mean.astype(np.float64), given.train.n_users)[given.users]
    scores = np.asarray(profiles @ unit(texts - mean).astype(np.float64).T)
    return np.where(scores.any(axis=1, keepdims=True), scores, popularity(given, {}, 0))


def trained(given: Given, point: Point, seed: int) -> Fused:
    """Train the fused scorer; new users teach it nothing."""
    learners = None
    if given.known is not given.train:
        learners = np.bincount(given.train.user, minlength=given.train.n_users) > 0
    return train_fused(given.train, given.claims, given.world.texts, parameters(point, seed=seed), learners)


def categories(world: World) -> sps.csr_matrix:
    """Return which items are of which category, `(m, c)`."""
    names = sorted({name for item in world.items for name in item.categories})
    place = {name: n for n, name in enumerate(names)}
    pairs = [(row, place[name]) for row, item in enumerate(world.items) for name in item.categories]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    return sps.csr_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(world.items), max(len(names), 1)))


RECOMMENDERS: dict[str, Recommender] = {
    "popularity": popularity,
    "most frequent category": most_frequent_category,
    "item-kNN": item_knn,
    "EASE": ease,
    "Markov chain": markov_chain,
    "iALS": ials,
    "text centroid": text_centroid,
    "profile only": profile_only,
    "profile and crowd": profile_and_crowd,
    "fused": fused,
}
SEQUENTIAL: dict[str, Recommender] = {"SASRec": sasrec}
"""On request, where the log is cut by time."""
ABLATIONS: dict[str, dict[str, Any]] = {
    "without claims": {"user_features": None},
    "without item text": {"item_features": None},
    "without rating weights": {"rating_weights": False},
    "without dislikes": {"dislike_weight": 0.0},
    "without prior": {"half_trust": 0.0, "crowd": 0.0, "popular": 0.0, "covariance": 0.0},
    "with recency": {"recency": 12.0},
}
"""The fused scorer with something else in its parameters."""
NULLS = ("random features", "a constant")
"""The fused scorer with nothing in the place of what claims say."""
SPACES: dict[str, Space] = {
    "iALS": ials_space,
    "fused": fused_space,
    "item-kNN": lambda trial: {
        "neighbours": trial.suggest_int("neighbours", 10, 500, log=True),
        "shrinkage": trial.suggest_float("shrinkage", 0.1, 500.0, log=True),
    },
    "EASE": lambda trial: {"ridge": trial.suggest_float("ridge", 10.0, 5000.0, log=True)},
    "Markov chain": lambda trial: {"smoothing": trial.suggest_float("smoothing", 0.3, 300.0, log=True)},
}
"""What is tuned, for those that have parameters; `profile and crowd` has those of `fused`, SASRec has fixed ones."""
WEAK: Point = {
    "user_features": 1e3, "item_features": 1e4, "new_items": 0.0, "dislike_weight": 0.0, "dislike_target": 0.0,
    "half_trust": 0.1, "sparse_alpha": 1.0, "crowd": 0.0, "popular": 0.0, "covariance": 0.0, "rating_weights": False,
}  # fmt: skip
"""What all but turns the fused scorer into iALS, so that its search begins no worse."""


FIXED: dict[str, Point] = {
    "iALS": {"alpha0": 0.38, "reg": 0.035},
    "fused": {},
    "item-kNN": {"neighbours": 84, "shrinkage": 44.0},
    "EASE": {"ridge": 2650.0},
    "Markov chain": {"smoothing": 10.0},
}
"""Without a search: the fused scorer has its defaults; all but the Markov chain's come from searches on later visits of
MovieLens-100K."""


def validation(given: Given, asked: Interactions, seed: int) -> Callable[[str], Measure]:
    """Return how points are judged: from a recommender's name and a point to the mean NDCG@10 of what is asked."""
    relevant = asked.take(asked.weight > 0).matrix()[given.users]

    def measured(name: str) -> Measure:
        def measure(point: Point) -> float:
            scores, rng = RECOMMENDERS[name](given, point, seed), np.random.default_rng(seed)
            return metrics.mean(metrics.ndcg(metrics.rank(scores, relevant, given.seen, 10, rng)))

        return measure

    return measured


def tune(measured: Callable[[str], Measure], trials: int) -> dict[str, Point]:
    """Search for the parameters of every recommender that has some, with the same budget for each.

    Args:
        measured: From a name to what its parameters are judged by, on validation data.
        trials: Points tried for each.
    """
    points: dict[str, Point] = {}
    for name, space in SPACES.items():
        first = points["iALS"] | WEAK if name == "fused" else FIXED[name]
        points[name], _ = search(space, measured(name), trials, first=(first,))
    return points


def null(claims: Claims, kind: str, seed: int) -> Claims:
    """Put nothing in the place of what claims say: noise of the same length, or the same vector for all."""
    rng = np.random.default_rng(seed)
    size = np.linalg.norm(claims.vectors, axis=1, keepdims=True)
    if kind == "a constant":
        vectors = np.broadcast_to(claims.vectors.mean(axis=0), claims.vectors.shape)
    else:
        noise = rng.standard_normal(claims.vectors.shape)
        vectors = noise / np.linalg.norm(noise, axis=1, keepdims=True) * size
    return Claims(claims.owner, claims.strengths, np.asarray(vectors, dtype=np.float32))
