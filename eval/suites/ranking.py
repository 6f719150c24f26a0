"""The ranking suite: how good recommendations are on held-out events, by protocol, beside baselines and ablations.

All items are ranked but those that are known of the user; an item is relevant if its event weighs more than 0 (a rating
of 4 or 5). Ties in time and in scores are in random order, by seed. With `trials` the recommenders are tuned for a
protocol, each with the same budget, on the training part of the first seed, cut once more in the same way; without,
they have fixed parameters. A sample of users with fixed parameters is the quick run, which keeps to the cuts by time.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.embedder import Embedder
from eval import cuts, lists, metrics, recommenders, showing, splits
from eval import ratings as rated
from eval.cuts import Cut, Part
from eval.errors import EmptyWorldError
from eval.findings import Curve, Figure, Findings, PairedTest, Tell, figure, paired_tests
from eval.interactions import Bools, Floats, Interactions, Ints
from eval.options import Options
from eval.ranking_terms import PROTOCOLS, better, describe, unit
from eval.recommenders import ABLATIONS, FIXED, NULLS, RECOMMENDERS, SEQUENTIAL, Given, Recommender, null
from eval.remembering import Remembering
from eval.segments import segments
from eval.stats import pooled, user_differences
from eval.tuning import Point
from eval.world import Claims, World

SUITE = "ranking"
OURS = "fused"
KS = (5, 10, 20)
LISTED, DEEPEST = 10, 20
MAIN = "ndcg@10"
OF_ABLATIONS = (MAIN, "recall@10")
SAMPLED, NEGATIVES = "1 + 99", 99
FEWEST = 10
"""Users whom a paired test and a search, and ratings whom an error, takes at least."""
PLOTTED = ("later visit", "global time", "new users")
LATER = "later visit"
TUNED_ON: dict[str, Cut] = {LATER: cuts.last_events, "same sitting": cuts.last_events, "global time": cuts.last_days}
"""The protocols that parameters are chosen for, by their cuts; all others have those of later visits."""


def run(world: World, embedder: Embedder, options: Options, tell: Tell) -> Findings:
    """Measure recommendations by every protocol.

    Raises:
        EmptyWorldError: There is nobody of whom something that they like can be asked.
    """
    return _Suite(world, Remembering(embedder), options, tell).run()


@dataclass
class _Found:
    """What one protocol found.

    Attributes:
        n_users: Number of user codes.
        by_user: By recommender and metric, what each seed gave, `(n_users,)` each; nan for users without a figure.
        tops: By recommender, the lists of each seed.
        segments: Who is in which by the first seed's training, `(n_users,)` each.
    """

    n_users: int
    by_user: dict[str, dict[str, list[Floats]]] = field(default_factory=dict)
    tops: dict[str, list[list[Ints]]] = field(default_factory=dict)
    segments: dict[str, Bools] = field(default_factory=dict)

    def add(self, model: str, place: int, users: Ints, values: dict[str, Floats]) -> None:
        """Add what some users have under the seed in this place."""
        for metric, found in values.items():
            by_seed = self.by_user.setdefault(model, {}).setdefault(metric, [])
            if len(by_seed) == place:
                by_seed.append(np.full(self.n_users, np.nan))
            by_seed[place][users] = found

    def add_lists(self, model: str, place: int, top: Ints) -> None:
        """Add recommended lists, `(b, k)`."""
        by_seed = self.tops.setdefault(model, [])
        if len(by_seed) == place:
            by_seed.append([])
        by_seed[place].append(top)

    def values(self, model: str, metric: str, segment: str | None = None) -> Floats:
        """Return `(seeds, n_users)`."""
        found = np.stack(self.by_user[model][metric])
        return found if segment is None else np.where(self.segments[segment], found, np.nan)


@dataclass
class _Suite:
    world: World
    embedder: Embedder
    options: Options
    tell: Tell
    found: dict[str, _Found] = field(default_factory=dict)
    points: dict[str, dict[str, Point]] = field(default_factory=dict)
    shown: list[Figure] = field(default_factory=list)
    full: Claims | None = None

    def run(self) -> Findings:
        quick = not self.options.trials and self.options.users is not None
        for cut in cuts.BY_TIME if quick else cuts.BY_TIME + cuts.OTHERS:
            for place in range(self.options.seeds if cut in cuts.BY_TIME else 1):
                self._measure_cut(cut, place)
        self.found = {
            name: found for name, found in self.found.items() if found.by_user and _known(found.values(OURS, MAIN))
        }
        if not self.found:
            raise EmptyWorldError(
                "Of nobody can something be asked that they like: who is asked has 5 events or more. "
                "Ingest a longer log with `limner ingest`."
            )
        self.tell("ranking: intervals and tests")
        figures = [*self._figures(), *self._rating_errors(), *self.shown]
        return Findings(
            figures=tuple(figures),
            tests=tuple(self._tests()),
            curves=tuple(self._curves()),
            protocols={name: PROTOCOLS[name] for name in PROTOCOLS if name in {f.protocol for f in figures}},
            metrics={name: describe(name) for name in sorted({f.metric for f in figures})},
            notes=self._notes(quick=quick),
        )

    def _measure_cut(self, cut: Cut, place: int) -> None:
        seed = self.options.seed + place
        parts = cut(self.world.interactions, seed)
        askable = [np.unique(np.concatenate([part.askable(protocol) for protocol in part.asked])) for part in parts]
        sample = self.options.sample(np.unique(np.concatenate(askable)))
        for number, part in enumerate(parts, 1):
            users = np.intersect1d(sample, askable[number - 1])
            if not len(users) or not (part.train.weight > 0).any():
                continue
            of = f"seed {place + 1}, part {number} of {len(parts)}, {len(users)} users"
            self.tell(f"ranking: {', '.join(part.asked)}; {of}")
            given = Given(self.world, part.train, part.known, self._claims(part), users)
            members = segments(part.known, users)
            for protocol in part.asked:
                found = self.found.setdefault(protocol, _Found(len(self.world.user_ids)))
                for name, inside in members.items() if not place else ():
                    found.segments.setdefault(name, np.zeros(found.n_users, dtype=np.bool_))[users] = inside
            for points, protocols in self._points(part):
                for model, scores in self._scored(cut, given, points, seed):
                    for protocol in protocols:
                        self._measure(protocol, model, given, part.asked[protocol], scores, place)
                    if cut is cuts.last_days and not place and model in self.recommenders:
                        since = float(part.asked["global time"].time.min())
                        self.shown += showing.figures(self.world, model, given.users, scores, since, seed)

    @property
    def recommenders(self) -> dict[str, Recommender]:
        return RECOMMENDERS | (SEQUENTIAL if self.options.sequential else {})

    def _scored(self, cut: Cut, given: Given, points: dict[str, Point], seed: int) -> Iterator[tuple[str, Floats]]:
        ours = points[OURS]
        for name, recommend in self.recommenders.items():
            if name in SEQUENTIAL and cut not in cuts.BY_TIME:
                continue
            yield name, recommend(given, ours if name == "profile and crowd" else points.get(name, {}), seed)
        for name, change in ABLATIONS.items():
            yield name, recommenders.fused(given, ours | change, seed)
        for name in NULLS:
            without = Given(self.world, given.train, given.known, null(given.claims, name, seed), given.users)
            yield name, recommenders.fused(without, ours, seed)

    def _measure(
        self, protocol: str, model: str, given: Given, asked: Interactions, scores: Floats, place: int
    ) -> None:
        rng = np.random.default_rng(self.options.seed + place)
        relevant, excluded = asked.take(asked.weight > 0).matrix()[given.users], given.seen
        sampled = protocol.endswith(SAMPLED)
        if sampled:
            excluded = metrics.sampled(relevant, excluded, NEGATIVES, rng)
        top = metrics.best(scores, excluded, DEEPEST, rng)
        hits = metrics.hits_of(top, relevant, excluded)
        values = {f"{name}@{k}": of(hits.at(k)) for k in KS for name, of in metrics.METRICS.items()}
        found = self.found[protocol]
        if model not in self.recommenders:
            values = {name: values[name] for name in OF_ABLATIONS}
        else:
            values["auc"] = metrics.auc(scores, relevant, excluded)
            # What the curves show; no figures are made of it.
            values |= {f"curve {k}": metrics.ndcg(hits.at(k)) for k in range(1, DEEPEST + 1)}
            if not sampled:
                wanted = hits.relevant > 0
                values |= self._of_lists(given, np.where(wanted[:, None], top[:, :LISTED], -1))
                found.add_lists(model, place, top[wanted, :LISTED])
        found.add(model, place, given.users, values)

    def _of_lists(self, given: Given, top: Ints) -> dict[str, Floats]:
        met = given.train.matrix()
        users_of = np.asarray(met.sum(axis=0), dtype=np.float64).ravel()
        learned = int(np.count_nonzero(met.getnnz(axis=1)))
        texts = self.world.texts - self.world.texts.mean(axis=0)
        return {
            f"novelty@{LISTED}": lists.novelty(top, users_of, learned),
            f"diversity@{LISTED}": lists.diversity(top, texts),
            f"popularity lift@{LISTED}": lists.popularity_lift(top, users_of, given.histories.toarray() > 0),
        }

    def _claims(self, part: Part) -> Claims:
        """Make the claims of everyone: of new users by what is known, of the others by what is learned from."""
        known = self._template(part.known)
        if part.known is part.train:
            return known
        if self.full is None:
            self.full = self._template(self.world.interactions)
        learned = np.isin(self.full.owner, part.train.user)
        return Claims(
            np.concatenate([self.full.owner[learned], known.owner]),
            np.concatenate([self.full.strengths[learned], known.strengths]),
            np.concatenate([self.full.vectors[learned], known.vectors]),
        )

    def _template(self, events: Interactions) -> Claims:
        return self.world.template_claims(events, self.embedder, self.options.language)

    def _points(self, part: Part) -> Iterator[tuple[dict[str, Point], list[str]]]:
        """Yield parameters, and the protocols of a part that are measured with them."""
        groups: dict[str, list[str]] = {}
        for protocol in part.asked:
            if len(part.askable(protocol)):
                groups.setdefault(protocol if protocol in TUNED_ON else LATER, []).append(protocol)
        if not self.options.trials:
            yield FIXED, [protocol for protocols in groups.values() for protocol in protocols]
            return
        for tuned_on, protocols in groups.items():
            if tuned_on not in self.points:
                self.points[tuned_on] = self._tuned(tuned_on, part.train)
            yield self.points[tuned_on], protocols

    def _tuned(self, protocol: str, train: Interactions) -> dict[str, Point]:
        """Search on a cut of training events; where too few users can be asked, parameters are the fixed ones."""
        inner = TUNED_ON[protocol](train, self.options.seed)[0]
        users = inner.askable(protocol)
        if len(users) < FEWEST:
            self.tell(f"ranking: too few users to tune for {protocol}: parameters are fixed")
            return FIXED
        given = Given(self.world, inner.train, inner.known, self._claims(inner), users)
        trials = f"{self.options.trials} trials for each recommender, {len(users)} users"
        self.tell(f"ranking: tuning for {protocol}, {trials}")
        return recommenders.tune(
            recommenders.validation(given, inner.asked[protocol], self.options.seed), self.options.trials
        )

    def _figures(self) -> Iterator[Figure]:
        for protocol, found in self.found.items():
            of: dict[str, Any] = {"suite": SUITE, "protocol": protocol, "seed": self.options.seed}
            for model, by_metric in found.by_user.items():
                for metric in by_metric:
                    values = found.values(model, metric)
                    if not metric.startswith("curve") and _known(values):
                        yield figure(
                            values, metric=metric, subject=model, better=better(metric), unit=unit(metric), **of
                        )
                if model in self.recommenders:
                    for segment in found.segments:
                        values = found.values(model, MAIN, segment)
                        if _known(values):
                            yield figure(values, metric=MAIN, subject=model, segment=segment, **of)
            yield from self._of_catalogue(protocol, found)

    def _of_catalogue(self, protocol: str, found: _Found) -> Iterator[Figure]:
        """Yield what is of all lists together, and so has no interval over users."""
        size = len(self.world.items)
        for model, by_seed in found.tops.items():
            stacked = [np.concatenate(tops) for tops in by_seed]
            for name, of in (("coverage", lists.coverage), ("gini", lists.gini)):
                metric = f"{name}@{LISTED}"
                value = float(np.mean([of(tops, size) for tops in stacked]))
                yield Figure(
                    suite=SUITE, protocol=protocol, metric=metric, subject=model, value=value, n=len(stacked[0]),
                    better=better(metric),
                )  # fmt: skip

    def _tests(self) -> Iterator[PairedTest]:
        for protocol, found in self.found.items():
            for segment in (None, *found.segments):
                ours = found.values(OURS, MAIN, segment)
                if _known(ours) < FEWEST:
                    continue
                others = [
                    name for name in found.by_user if name != OURS and (segment is None or name in self.recommenders)
                ]
                pairs = [(OURS, other, ours, found.values(other, MAIN, segment)) for other in others]
                of = {} if segment is None else {"segment": segment}
                yield from paired_tests(pairs, suite=SUITE, protocol=protocol, metric=MAIN, **of)

    def _curves(self) -> Iterator[Curve]:
        for protocol in PLOTTED:
            if protocol not in self.found:
                continue
            found = self.found[protocol]
            for model in [name for name in self.recommenders if name in found.by_user]:
                ks = range(1, DEEPEST + 1)
                means = [float(np.nanmean(found.values(model, f"curve {k}"))) for k in ks]
                yield Curve(
                    suite=SUITE, title=f"NDCG by length of the list, {protocol}", subject=model, x_label="k",
                    y_label="NDCG@k", x=tuple(map(float, ks)), y=tuple(means),
                )  # fmt: skip

    def _rating_errors(self) -> Iterator[Figure]:
        """Yield the errors of predicted ratings, on the last 20 % of the first seed."""
        seed = self.options.seed
        events = rated.only_ratings(self.world)
        split = splits.per_user_time(events, seed=seed)
        train, test = (part.take(~np.isnan(part.value)) for part in split)
        test = test.take(np.isin(test.user, self.options.sample(np.unique(test.user))))
        if len(test) < FEWEST or len(train) < FEWEST or len(np.unique(test.user)) < FEWEST:
            return
        for subject, predicted in rated.predictions(self.world, split.train, train, test, seed).items():
            for metric, power in (("mae", 1), ("rmse", 2)):
                errors = np.abs(predicted - test.value) ** power
                error = pooled(errors, np.ones(len(test)), test.user, power, seed)
                yield Figure(
                    suite=SUITE, protocol="last 20 %", metric=metric, subject=subject, value=error.value,
                    low=error.low, high=error.high, n=len(np.unique(test.user)), better="lower", unit=unit(metric),
                )  # fmt: skip

    def _notes(self, *, quick: bool) -> tuple[str, ...]:
        o = self.options
        of_all = (
            f"Ranking: the cuts by time are made with {o.seeds} seed(s), the others with one; a user's figures are "
            "averaged over the seeds before anything is tested. p-values are adjusted (Holm) over what is compared "
            "within one protocol and segment. Coverage and Gini are of all lists together and have no interval."
        )
        notes = [of_all]
        if o.trials:
            chosen = "; ".join(
                f"{protocol}: " + ", ".join(f"{name} {_shown(point)}" for name, point in points.items())
                for protocol, points in self.points.items()
            )
            notes.append(
                f"Ranking: every recommender with parameters had {o.trials} trials on the training part, cut again, "
                "for later visits, same sitting and global time each; all other protocols have the parameters of later "
                f"visits. {chosen}."
            )
        else:
            notes.append("Ranking: parameters are fixed, from searches on MovieLens-100K; `--trials` searches anew.")
        if quick:
            notes.append("Ranking: a sample of users without a search keeps to the cuts by time.")
        if o.sequential:
            notes.append(
                "Ranking: SASRec keeps to the cuts by time, and has fixed settings, also where the others are tuned."
            )
        notes.append(f"Ranking: {'; '.join(f'{name}, {what}' for name, what in SUBJECTS.items())}.")
        return tuple(notes)


SUBJECTS = {
    "profile only": "the words of the claims against those of the items",
    "profile and crowd": "what the service gives to a user with a profile and no events",
    "fused": "what it gives with both",
}


def _known(values: Floats) -> int:
    """Return how many users have a value."""
    return len(user_differences(values, np.zeros_like(values)))


def _shown(point: Point) -> str:
    values = (f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in point.items())
    return f"({', '.join(values)})"
