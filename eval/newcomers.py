"""New users and new items: what is recommended when training knows nothing of them.

New users (`users`): each user is new in one of five folds. Training has none of the fold's events; of a new user the
first K events are known (ties in random order), and all their later likes are asked for, ranked among all items but
the known ones. Claims of the new users are made of their known events alone. The parameters of a fold are chosen on
the users of the next fold, by training on the other three.

New items (`items`): each item is new in one of five folds, whose events no model sees. The likes of these items are
asked for, ranked among all items that the user has not met in training, and among the new ones alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import optuna
import scipy.sparse as sps

from agent.embedder import Embedder
from eval import baselines, metrics
from eval.findings import Tell
from eval.fused import PLAIN, Fused, train_fused
from eval.interactions import Bools, Floats, Interactions, Ints
from eval.splits import Split, cold_items, cold_users, rescaled
from eval.stats import compare
from eval.tuning import Point, Space, parameters, search
from eval.world import Claims, World
from recommend.model import Projection
from recommend.parameters import Parameters

K = 10
FOLDS = 5
KNOWN = (1, 5, 10, 20)
"""Numbers of events that are known of a new user."""
MARGIN = 0.02
"""Share of popularity's value by which new users may be served worse."""
SIGNIFICANT = 0.001

FEATURES = ("alpha0", "reg", "user_features", "item_features", "new_items")
USER_MODELS = ("popularity", "iALS for known users", "naive iALS", "fused", "fused without claims")
ITEM_MODELS = ("fused", "text centroid", "random")
AMONG = ("all items", "new items")

Figures = dict[str, list[Floats]]


def plain_space(trial: optuna.Trial) -> Point:
    """Return parameters of iALS alone; short histories want more regularization than `ials_space` has."""
    return {
        "alpha0": trial.suggest_float("alpha0", 0.03, 10.0, log=True),
        "reg": trial.suggest_float("reg", 5e-4, 1.0, log=True),
    }


def feature_space(trial: optuna.Trial) -> Point:
    """Return these and those of claims and item texts."""
    return plain_space(trial) | {
        "user_features": trial.suggest_float("user_features", 1.0, 1e5, log=True),
        "item_features": trial.suggest_float("item_features", 1.0, 1e5, log=True),
        "new_items": trial.suggest_float("new_items", 0.0, 1.5),
    }


def newcomer_space(trial: optuna.Trial) -> Point:
    """Return these and those of the prior; a scorer without dislikes."""
    return feature_space(trial) | {
        "half_trust": trial.suggest_float("half_trust", 0.1, 100.0, log=True),
        "sparse_alpha": trial.suggest_float("sparse_alpha", 1e-3, 1.0, log=True),
        "crowd": trial.suggest_float("crowd", 0.01, 20.0, log=True),
        "popular": trial.suggest_float("popular", 0.01, 10.0, log=True),
        "covariance": trial.suggest_float("covariance", 0.0, 1.0),
    }


FOR_KNOWN_USERS: Point = {"alpha0": 1.0, "reg": 0.005}
"""What iALS has where users are known: the search on a split by time."""
DEFAULTS: Point = FOR_KNOWN_USERS | {
    "user_features": 100.0, "item_features": 100.0, "new_items": 1.0,
    "half_trust": 5.0, "sparse_alpha": 0.1, "crowd": 1.0, "popular": 0.3, "covariance": 0.5,
}  # fmt: skip
WEAK: Point = {
    "user_features": 1e5, "item_features": 1e5, "new_items": 0.0,
    "half_trust": 0.1, "sparse_alpha": 1.0, "crowd": 0.01, "popular": 0.01, "covariance": 0.0,
}  # fmt: skip
"""What all but turns the fused scorer into iALS, so that its search begins no worse."""


@dataclass(frozen=True)
class Newcomers:
    """Runs both protocols.

    Attributes:
        world: The data.
        embedder: Of claims.
        seeds: How many times the folds are dealt, and the ties ordered.
        trials: Points tried for each model and fold.
        tell: Called with what is being done.
    """

    world: World
    embedder: Embedder
    seeds: int = 1
    trials: int = 40
    tell: Tell = print

    def run(self) -> dict[str, Any]:
        """Run both; returns figures for JSON."""
        return {"users": self.users(), "items": self.items()}

    def users(self) -> dict[str, Any]:
        """Serve each user once as a new one, by number of known events."""
        full = self.world.template_claims(self.world.interactions, self.embedder)
        found: dict[int, Figures] = {count: {name: [] for name in USER_MODELS} for count in KNOWN}
        points: list[dict[str, Point]] = []
        for seed in range(self.seeds):
            events = self.world.interactions.shuffled_ties(np.random.default_rng(seed))
            splits = {count: first_events(events, count) for count in KNOWN}
            early = {count: self.world.template_claims(split.train, self.embedder) for count, split in splits.items()}
            fold_of = cold_users(events.n_users, FOLDS, seed)
            for by_model in found.values():
                for figures in by_model.values():
                    figures.append(np.full(events.n_users, np.nan))
            for fold in range(FOLDS):
                self.tell(f"new users: seed {seed + 1} of {self.seeds}, fold {fold + 1} of {FOLDS}")
                validation = (fold + 1) % FOLDS
                others = ~np.isin(fold_of, [fold, validation])
                tuning = _NewUsers(self.world, events, splits, early, full, others, fold_of == validation, seed)
                naive = self._search(plain_space, tuning.naive, (FOR_KNOWN_USERS,))
                fused = self._search(newcomer_space, tuning.fused, (DEFAULTS, naive | WEAK))
                chosen = {"naive iALS": naive, "fused": fused}
                points.append(chosen)
                asked = replace(tuning, learners=fold_of != fold, new=fold_of == fold)
                for (count, model), values in asked.measured(chosen).items():
                    found[count][model][-1][asked.new] = values
        return {"by_known": {str(count): _users_summary(found[count]) for count in KNOWN}, "points": points} | _aims(
            {count: _users_summary(found[count]) for count in KNOWN}
        )

    def items(self) -> dict[str, Any]:
        """Rank each item once as a new one."""
        found: dict[str, Figures] = {among: {name: [] for name in ITEM_MODELS} for among in AMONG}
        points: list[Point] = []
        for seed in range(self.seeds):
            fold_of = cold_items(self.world.interactions.n_items, FOLDS, seed)
            for fold in range(FOLDS):
                self.tell(f"new items: seed {seed + 1} of {self.seeds}, fold {fold + 1} of {FOLDS}")
                validation = (fold + 1) % FOLDS
                tuning = self._new_items(np.isin(fold_of, [fold, validation]), fold_of == validation, seed)
                points.append(self._search(feature_space, tuning.tuned, ({name: DEFAULTS[name] for name in FEATURES},)))
                asked = self._new_items(fold_of == fold, fold_of == fold, seed)
                for (among, model), values in asked.measured(points[-1]).items():
                    found[among][model].append(values)
        return {"among": {among: _items_summary(found[among]) for among in AMONG}, "points": points}

    def _new_items(self, hidden: Bools, asked: Bools, seed: int) -> "_NewItems":
        events = self.world.interactions
        split = Split(
            rescaled(events.take(~hidden[events.item])), events.take(asked[events.item] & (events.weight > 0))
        )
        claims = self.world.template_claims(split.train, self.embedder)
        return _NewItems(self.world, split, claims, hidden, asked, seed)

    def _search(self, space: Space, measure: Callable[[Point], float], first: tuple[Point, ...]) -> Point:
        return search(space, measure, self.trials, first=first)[0]


@dataclass(frozen=True)
class _NewUsers:
    """One fold of new users.

    Attributes:
        events: Of all users, ties in random order.
        splits: By number of known events.
        early: Claims made of the known events, by their number.
        full: Claims made of all events; only those of the learners are used.
        learners: `(u,)`, whose events are learned from.
        new: `(u,)`, who is asked about.
    """

    world: World
    events: Interactions
    splits: Mapping[int, Split]
    early: Mapping[int, Claims]
    full: Claims
    learners: Bools
    new: Bools
    seed: int

    @cached_property
    def users(self) -> Ints:
        return np.flatnonzero(self.new)

    @cached_property
    def known(self) -> dict[int, Interactions]:
        return {count: split.train.take(self.new[split.train.user]) for count, split in self.splits.items()}

    @cached_property
    def popular(self) -> Floats:
        likes = self.events.take(self.learners[self.events.user] & (self.events.weight > 0)).matrix()
        return np.asarray(baselines.popularity(likes)(likes[:1])[0])

    def train(self, point: Point) -> Fused:
        """Train without the new users."""
        learned = self.events.take(self.learners[self.events.user])
        claims = _of(self.full, self.learners)
        return train_fused(learned, claims, self.world.texts, parameters(point, seed=self.seed), self.learners)

    def measure(self, scores: Floats, count: int) -> Floats:
        """Return NDCG@10 of the new users, `(b,)`; nan for one without later likes."""
        later = self.splits[count].test
        relevant = later.take(later.weight > 0).matrix()[self.users]
        hits = metrics.rank(
            scores, relevant, self.known[count].matrix()[self.users], K, np.random.default_rng(self.seed)
        )
        return metrics.ndcg(hits)

    def naive_scores(self, model: Fused, count: int) -> Floats:
        """Score by iALS alone, and by popularity where it says nothing."""
        scores = model.scores(self.known[count], self.users, claims=False)
        return np.where(scores.any(axis=1, keepdims=True), scores, self.popular)

    def fused_scores(self, model: Fused, count: int, *, claims: bool = True) -> Floats:
        """Score by the known events and the claims made of these."""
        told = told_later(model, _of(self.early[count], self.new), self.world)
        return told.scores(self.known[count], self.users, claims=claims)

    def naive(self, point: Point) -> float:
        """Measure a point of iALS, as the mean over all numbers of known events."""
        model = self.train(PLAIN | point)
        return float(np.mean([metrics.mean(self.measure(self.naive_scores(model, k), k)) for k in self.splits]))

    def fused(self, point: Point) -> float:
        """Measure a point of the fused scorer likewise."""
        model = self.train(point)
        return float(np.mean([metrics.mean(self.measure(self.fused_scores(model, k), k)) for k in self.splits]))

    def measured(self, points: Mapping[str, Point]) -> dict[tuple[int, str], Floats]:
        """Measure every model."""
        naive, fused = self.train(PLAIN | points["naive iALS"]), self.train(points["fused"])
        usual = self.train(PLAIN | FOR_KNOWN_USERS)
        silent = self.train(points["fused"] | {"user_features": None})
        found: dict[tuple[int, str], Floats] = {}
        for count in self.splits:
            scores = {
                "popularity": np.tile(self.popular, (len(self.users), 1)),
                "iALS for known users": self.naive_scores(usual, count),
                "naive iALS": self.naive_scores(naive, count),
                "fused": self.fused_scores(fused, count),
                "fused without claims": silent.scores(self.known[count], self.users, claims=False),
            }
            found |= {(count, name): self.measure(values, count) for name, values in scores.items()}
        return found


@dataclass(frozen=True)
class _NewItems:
    """One fold of new items.

    Attributes:
        split: Training without the hidden items; likes of those that are asked about.
        claims: Made of the training part.
        hidden: `(m,)`, without any event in training.
        asked: `(m,)`, those of them that the test is about.
    """

    world: World
    split: Split
    claims: Claims
    hidden: Bools
    asked: Bools
    seed: int

    @cached_property
    def users(self) -> Ints:
        return np.unique(self.split.test.user)

    def scores(self, point: Point) -> Floats:
        """Score all items by the fused scorer; the new ones have their factors from their texts."""
        model = train_fused(self.split.train, self.claims, self.world.texts, parameters(point, seed=self.seed))
        return model.scores(self.split.train, self.users)

    def measure(self, scores: Floats, among: str) -> Floats:
        """Return NDCG@10, `(u,)`; nan for a user who likes none of the new items."""
        seen = self.split.train.matrix()[self.users]
        left_out = self.hidden & ~self.asked if among == AMONG[0] else ~self.asked
        scores = np.where(left_out, -np.inf, scores)
        hits = metrics.rank(scores, self.split.test.matrix()[self.users], seen, K, np.random.default_rng(self.seed))
        found = np.full(self.split.test.n_users, np.nan)
        found[self.users] = metrics.ndcg(hits)
        return found

    def tuned(self, point: Point) -> float:
        """Measure a point, as the mean of both rankings."""
        scores = self.scores(point)
        return float(np.mean([metrics.mean(self.measure(scores, among)) for among in AMONG]))

    def measured(self, point: Point) -> dict[tuple[str, str], Floats]:
        """Measure every model."""
        likes = self.split.train.take(self.split.train.weight > 0).matrix()[self.users]
        scores = {
            "fused": self.scores(point),
            "text centroid": baselines.text_centroid(self.world.texts)(sps.csr_matrix(likes)),
            "random": np.random.default_rng(self.seed).random(likes.shape),
        }
        return {(among, name): self.measure(values, among) for among in AMONG for name, values in scores.items()}


def first_events(events: Interactions, count: int) -> Split:
    """Let the first `count` events of each user be known, with the weights that these alone give, and ask the rest."""
    place = np.arange(len(events)) - events.starts()[events.user]
    return Split(rescaled(events.take(place < count)), events.take(place >= count))


def told_later(model: Fused, claims: Claims, world: World) -> Fused:
    """Return a model that knows these claims in the place of those of its training."""
    weights = model.fitted.user_weights.astype(np.float64)
    if not len(weights):
        return replace(model, claims=np.zeros((0, model.fitted.factors.shape[1])), owner=claims.owner[:0])
    projected = _projection(world, model.fold_in.parameters)(claims.vectors).astype(np.float64)
    order = np.argsort(claims.owner, kind="stable")
    mapped = claims.strengths[:, None] * (projected @ weights)
    return replace(model, claims=mapped[order], owner=claims.owner[order])


def _projection(world: World, of: Parameters) -> Projection:
    return Projection.learn(world.texts, of.projection)


def _of(claims: Claims, users: Bools) -> Claims:
    """Keep the claims of some users."""
    kept = np.flatnonzero(users[claims.owner])
    return Claims(claims.owner[kept], claims.strengths[kept], claims.vectors[kept])


class _Pair(NamedTuple):
    """A comparison, and the value that it is relative to."""

    value: float
    figures: dict[str, float]


def _against(first: list[Floats], second: list[Floats]) -> _Pair:
    test = compare(np.stack(first), np.stack(second))
    figures = {"difference": test.difference, "low": test.low, "high": test.high, "p": test.wilcoxon}
    return _Pair(_mean(second), figures)


def _mean(values: list[Floats]) -> float:
    """Return the mean over users of their means, which is what the tests compare."""
    stacked = np.stack(values)
    return metrics.mean(np.nanmean(stacked[:, ~np.isnan(stacked).all(axis=0)], axis=0))


def _users_summary(found: Figures) -> dict[str, Any]:
    summary: dict[str, Any] = {"ndcg": {name: _mean(values) for name, values in found.items()}}
    for name in ("fused", "fused without claims"):
        popular = _against(found[name], found["popularity"])
        relative = {f"relative_{end}": popular.figures[end] / popular.value for end in ("difference", "low", "high")}
        summary[name] = {
            "over iALS for known users": _against(found[name], found["iALS for known users"]).figures,
            "over naive iALS": _against(found[name], found["naive iALS"]).figures,
            "over popularity": popular.figures | relative,
        }
    summary["claims"] = _against(found["fused"], found["fused without claims"]).figures
    return summary


def _aims(by_known: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """Say which aims hold, and from which number of known events on popularity is beaten."""
    naive = {count: found["fused"]["over naive iALS"] for count, found in by_known.items()}
    popular = {count: found["fused"]["over popularity"] for count, found in by_known.items()}
    beaten = [count for count in sorted(popular) if all(popular[k]["low"] > 0 for k in popular if k >= count)]
    return {
        "above_naive": {str(k): f["difference"] > 0 and f["p"] < SIGNIFICANT for k, f in naive.items()},
        "not_below_popularity": {str(k): f["relative_low"] >= -MARGIN for k, f in popular.items()},
        "beats_popularity_from": beaten[0] if beaten else None,
    }


def _items_summary(found: Figures) -> dict[str, Any]:
    others = [name for name in ITEM_MODELS if name != "fused"]
    return {"ndcg": {name: _mean(values) for name, values in found.items()}} | {
        f"over {name}": _against(found["fused"], found[name]).figures for name in others
    }


def run(world: World, embedder: Embedder, seeds: int = 1, trials: int = 40, tell: Tell = print) -> dict[str, Any]:
    """Measure new users and new items; see the module."""
    return Newcomers(world, embedder, seeds, trials, tell).run()
