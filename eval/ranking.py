"""The ranking suite: the fused scorer beside tuned baselines, by protocol, with paired tests.

Protocols (design: 78 % of MovieLens' last 20 % lies within an hour of the last training event): *same sitting* and
*later visit* part each user's last 20 % at one hour after their last training event; *global time* cuts the whole log.
All items are ranked but those of the training part; an item is relevant if its event weighs more than 0 (a rating of 4
or 5). A baseline that says nothing of a new user falls back to popularity there. Ties in time are in random order, by
seed. Every model is tuned on the training part of the first seed, which is split once more in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.embedder import Embedder
from eval import baselines, metrics, splits
from eval.fused import PLAIN, train_fused
from eval.interactions import Floats, Interactions, Ints
from eval.splits import Split
from eval.stats import Comparison, compare, holm
from eval.tuning import Point, fused_space, ials_space, parameters, search
from eval.world import Claims, World
from recommend.parameters import Parameters

K = 10
Cut = Callable[[Interactions, int], Split]
Scores = Callable[[Split, Claims, Point, int], Floats]
Tell = Callable[[str], None]

PROTOCOLS: dict[str, Cut] = {
    "same sitting": lambda events, seed: splits.same_sitting(splits.per_user_time(events, seed=seed)),
    "later visit": lambda events, seed: splits.later_visits(splits.per_user_time(events, seed=seed)),
    "global time": lambda events, seed: splits.global_time(events, seed=seed),
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "fused": {},
    "without claims": {"user_features": None},
    "without item text": {"item_features": None},
    "without rating weights": {"rating_weights": False},
    "without dislikes": {"dislike_weight": 0.0},
    "without prior": {"half_trust": 0.0, "crowd": 0.0, "popular": 0.0, "covariance": 0.0},
    "with recency": {"recency": 12.0},
}
NULLS = ("random features", "a constant")


@dataclass(frozen=True)
class Case:
    """One split, and the claims made of its training part."""

    split: Split
    claims: Claims

    @property
    def users(self) -> Ints:
        """Codes of the users who are asked about."""
        return np.unique(self.split.test.user)

    def measure(self, scores: Floats, seed: int) -> dict[str, Floats]:
        """Measure scores `(b, m)` of these users; one value per user."""
        users, test = self.users, self.split.test
        relevant = test.take(test.weight > 0).matrix()[users]
        seen = self.split.train.matrix()[users]
        hits = metrics.rank(scores, relevant, seen, K, np.random.default_rng(seed))
        return {"ndcg": metrics.ndcg(hits), "recall": metrics.recall(hits)}


@dataclass(frozen=True)
class Suite:
    """Runs the protocols.

    Attributes:
        world: The data.
        embedder: Of claims.
        seeds: How many.
        trials: Points tried for each model.
        tell: Called with what is being done.
        sequential: Whether SASRec is measured as well; it is not tuned, and needs torch-rechub.
    """

    world: World
    embedder: Embedder
    seeds: int = 5
    trials: int = 40
    tell: Tell = print
    sequential: bool = False

    def case(self, cut: Cut, events: Interactions, seed: int) -> Case:
        """Split, and make the claims of the training part."""
        split = cut(events, seed)
        return Case(split, self.world.template_claims(split.train, self.embedder))

    def run(self) -> dict[str, Any]:
        """Run all protocols; returns figures by protocol and model."""
        return {name: self.protocol(name, cut) for name, cut in PROTOCOLS.items()}

    def protocol(self, name: str, cut: Cut) -> dict[str, Any]:
        """Tune every model on the training part, then measure it on the test by seed."""
        first = self.case(cut, self.world.interactions, 0)
        validation = self.case(cut, first.split.train, 0)
        points = self._tuned(name, validation)
        found: dict[str, dict[str, list[Floats]]] = {}
        for seed in range(self.seeds):
            case = first if seed == 0 else self.case(cut, self.world.interactions, seed)
            self.tell(f"{name}: seed {seed + 1} of {self.seeds}, {len(case.users)} users")
            for model, scores in self._all(case, points, seed):
                for metric, values in case.measure(scores, seed).items():
                    by_user = np.full(len(self.world.user_ids), np.nan)
                    by_user[case.users] = values
                    found.setdefault(model, {}).setdefault(metric, []).append(by_user)
        return {"points": points, "models": self._summary(found)}

    def _tuned(self, name: str, case: Case) -> dict[str, Point]:
        def measured(scorer: Scores) -> Callable[[Point], float]:
            return lambda point: metrics.mean(case.measure(scorer(case.split, case.claims, point, 0), 0)["ndcg"])

        points: dict[str, Point] = {}
        self.tell(f"{name}: tuning on {len(case.users)} users, {self.trials} trials for each model")
        points["ials"], _ = search(
            ials_space, measured(self._ials), self.trials, first=({"alpha0": 1.0, "reg": 0.005},)
        )
        weak = {
            "user_features": 1e3, "item_features": 1e4, "new_items": 0.0, "dislike_weight": 0.0, "dislike_target": 0.0,
            "half_trust": 0.1, "sparse_alpha": 1.0, "crowd": 0.0, "popular": 0.0, "covariance": 0.0,
            "rating_weights": False,
        }  # fmt: skip
        points["fused"], _ = search(fused_space, measured(self._fused), self.trials, first=(points["ials"] | weak,))
        points["item-kNN"], _ = search(
            lambda t: {"neighbours": t.suggest_int("neighbours", 10, 500, log=True),
                       "shrinkage": t.suggest_float("shrinkage", 0.1, 500.0, log=True)},
            measured(self._knn), self.trials,
        )  # fmt: skip
        points["EASE"], _ = search(
            lambda t: {"ridge": t.suggest_float("ridge", 10.0, 5000.0, log=True)}, measured(self._ease), self.trials
        )
        return points

    def _all(self, case: Case, points: Mapping[str, Point], seed: int) -> list[tuple[str, Floats]]:
        split, claims = case.split, case.claims
        found = [
            ("popularity", self._popular(split, claims, {}, seed)),
            ("item-kNN", self._knn(split, claims, points["item-kNN"], seed)),
            ("EASE", self._ease(split, claims, points["EASE"], seed)),
            ("Markov chain", self._markov(split)),
            ("iALS", self._ials(split, claims, points["ials"], seed)),
        ]
        if self.sequential:
            found.append(("SASRec", self._sasrec(split, seed)))
        found += [(n, self._fused(split, claims, points["fused"] | change, seed)) for n, change in ABLATIONS.items()]
        found += [(n, self._fused(split, null(claims, n, seed), points["fused"], seed)) for n in NULLS]
        return found

    def validation(self, case: Case, start: Parameters) -> Callable[[Point], float]:
        """Return the mean NDCG@10 on a case as a function of a point; the rest of the parameters is `start`'s."""

        def measure(point: Point) -> float:
            model = train_fused(case.split.train, case.claims, self.world.texts, start.model_copy(update=point))
            return metrics.mean(case.measure(model.scores(case.split.train, case.users), 0)["ndcg"])

        return measure

    def _fused(self, split: Split, claims: Claims, point: Point, seed: int) -> Floats:
        model = train_fused(split.train, claims, self.world.texts, parameters(point, seed=seed))
        return model.scores(split.train, np.unique(split.test.user))

    def _ials(self, split: Split, claims: Claims, point: Point, seed: int) -> Floats:
        scores = self._fused(split, claims, PLAIN | point, seed)
        likes, rows = self._likes(split)
        return np.where(scores.any(axis=1, keepdims=True), scores, baselines.popularity(likes)(rows))

    def _likes(self, split: Split) -> tuple[Any, Any]:
        likes = split.train.take(split.train.weight > 0).matrix()
        return likes, likes[np.unique(split.test.user)]

    def _popular(self, split: Split, _claims: Claims, _point: Point, _seed: int) -> Floats:
        likes, rows = self._likes(split)
        return baselines.popularity(likes)(rows)

    def _knn(self, split: Split, _claims: Claims, point: Point, _seed: int) -> Floats:
        likes, rows = self._likes(split)
        return baselines.with_fallback(baselines.item_knn(likes, **point), baselines.popularity(likes))(rows)

    def _ease(self, split: Split, _claims: Claims, point: Point, _seed: int) -> Floats:
        likes, rows = self._likes(split)
        return baselines.with_fallback(baselines.ease(likes, **point), baselines.popularity(likes))(rows)

    def _sasrec(self, split: Split, seed: int) -> Floats:
        from eval.sequential import SequentialSettings, train_sequential  # noqa: PLC0415 - torch-rechub is optional

        likes = split.train.take(split.train.weight > 0)
        scores = train_sequential(likes, SequentialSettings(seed=seed))(likes)[np.unique(split.test.user)]
        return np.where(
            scores.any(axis=1, keepdims=True),
            scores,
            baselines.popularity(self._likes(split)[0])(self._likes(split)[1]),
        )

    @staticmethod
    def _markov(split: Split) -> Floats:
        likes = Split(split.train.take(split.train.weight > 0), split.test)
        return baselines.markov_chain(likes.train)(likes.train.last_item()[np.unique(split.test.user)])

    @staticmethod
    def _summary(found: Mapping[str, Mapping[str, list[Floats]]]) -> dict[str, Any]:
        models: dict[str, Any] = {}
        others = [name for name in found if name != "iALS"]
        tests: dict[str, Comparison] = {
            name: compare(np.stack(found[name]["ndcg"]), np.stack(found["iALS"]["ndcg"])) for name in others
        }
        corrected = dict(zip(others, holm(np.array([tests[n].wilcoxon for n in others])), strict=True))
        for name, by_metric in found.items():
            figures: dict[str, Any] = {m: float(np.nanmean(np.stack(v))) for m, v in by_metric.items()}
            if name in tests:
                test = tests[name]
                figures |= {"difference": test.difference, "low": test.low, "high": test.high, "p": corrected[name]}
            models[name] = figures
        return models


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


KNOWN = (1, 5, 10, 20)


def first_events(events: Interactions, count: int) -> Split:
    """Let the first `count` events of each user be known, and ask for the rest."""
    starts = events.starts()
    place = np.arange(len(events)) - starts[events.user]
    return Split(events.take(place < count), events.take(place >= count))
