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
from eval import baselines, metrics, recommenders, splits
from eval.fused import train_fused
from eval.interactions import Floats, Interactions, Ints
from eval.recommenders import ABLATIONS, NULLS, RECOMMENDERS, Given, null
from eval.splits import Split
from eval.stats import Comparison, compare, holm
from eval.tuning import Point
from eval.world import Claims, World
from recommend.parameters import Parameters

K = 10
Cut = Callable[[Interactions, int], Split]
Tell = Callable[[str], None]

PROTOCOLS: dict[str, Cut] = {
    "same sitting": lambda events, seed: splits.same_sitting(splits.per_user_time(events, seed=seed)),
    "later visit": lambda events, seed: splits.later_visits(splits.per_user_time(events, seed=seed)),
    "global time": lambda events, seed: splits.global_time(events, seed=seed),
}
BESIDE = ("popularity", "item-kNN", "EASE", "iALS")


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
        given = self._given(case)

        def measured(model: str) -> Callable[[Point], float]:
            return lambda point: metrics.mean(case.measure(RECOMMENDERS[model](given, point, 0), 0)["ndcg"])

        self.tell(f"{name}: tuning on {len(case.users)} users, {self.trials} trials for each model")
        return recommenders.tune(measured, self.trials)

    def _given(self, case: Case, claims: Claims | None = None) -> Given:
        train = case.split.train
        return Given(self.world, train, train, case.claims if claims is None else claims, case.users)

    def _all(self, case: Case, points: Mapping[str, Point], seed: int) -> list[tuple[str, Floats]]:
        given, best = self._given(case), points["fused"]
        found = [(name, RECOMMENDERS[name](given, points.get(name, {}), seed)) for name in BESIDE]
        found.insert(3, ("Markov chain", self._markov(case.split)))
        if self.sequential:
            found.append(("SASRec", self._sasrec(given, seed)))
        found.append(("fused", recommenders.fused(given, best, seed)))
        found += [(name, recommenders.fused(given, best | change, seed)) for name, change in ABLATIONS.items()]
        for name in NULLS:
            found.append((name, recommenders.fused(self._given(case, null(case.claims, name, seed)), best, seed)))
        return found

    def validation(self, case: Case, start: Parameters) -> Callable[[Point], float]:
        """Return the mean NDCG@10 on a case as a function of a point; the rest of the parameters is `start`'s."""

        def measure(point: Point) -> float:
            model = train_fused(case.split.train, case.claims, self.world.texts, start.model_copy(update=point))
            return metrics.mean(case.measure(model.scores(case.split.train, case.users), 0)["ndcg"])

        return measure

    @staticmethod
    def _sasrec(given: Given, seed: int) -> Floats:
        from eval.sequential import SequentialSettings, train_sequential  # noqa: PLC0415 - torch-rechub is optional

        likes = given.train.take(given.train.weight > 0)
        scores = train_sequential(likes, SequentialSettings(seed=seed))(likes)[given.users]
        popular = recommenders.popularity(given, {}, seed)
        return np.where(scores.any(axis=1, keepdims=True), scores, popular)

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


KNOWN = (1, 5, 10, 20)


def first_events(events: Interactions, count: int) -> Split:
    """Let the first `count` events of each user be known, and ask for the rest."""
    starts = events.starts()
    place = np.arange(len(events)) - starts[events.user]
    return Split(events.take(place < count), events.take(place >= count))
