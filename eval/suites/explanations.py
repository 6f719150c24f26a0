"""The explanation suite: do the reasons that are given for each user's best item carry its score and its place?

Ours is compared with explainers that order events by the cosine of their items with the recommended one, and at random.
See `eval.faithfulness` for the curves. *Necessity at k*: without the k events that matter most, the item leaves the top
10; *sufficiency at k*: with these alone, it is in it (probabilities of necessity and sufficiency; Tan et al. 2022,
arXiv 2202.08816).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from agent.embedder import Embedder
from eval import sentences
from eval.errors import EmptyWorldError
from eval.faithfulness import (
    LIST,
    OURS,
    STEPS,
    Explainer,
    Walk,
    all_explainers,
    area,
    delete,
    fewest_deleted,
    first_choice,
    insert,
)
from eval.findings import Better, Curve, Figure, Findings, PairedTest, Tell, figure, paired_tests
from eval.fused import Fused, train_fused
from eval.interactions import Floats
from eval.options import Options
from eval.profiles.writing import Writing, Written
from eval.remembering import Remembering
from eval.sentences import Told
from eval.world import World
from recommend.model import Model
from recommend.parameters import Parameters
from recommend.people import Person
from recommend.wording import event_text, title

SUITE = "explanations"
PROTOCOL = "best item"
KS = (1, 3, 5, 10)
SEARCH = "counterfactual search"
REASONS = 2
TESTED = ("deletion area", "insertion area", "necessity@10", "sufficiency@1", "named share")
COUNTS = ("events to drop out", "counterfactual size")
TOLD = 50

SAYS = (
    "The best item that is new to each user, by the fused scorer with all events known. The other explainers order the "
    "same events by cosine with the item, or at random (a mean over the seeds)."
)
NOTE = (
    "Explanations: claims stay as they are while events are deleted or added; the search for a counterfactual computes "
    f"them anew, as the service does. Our sentences name claims and events, those of the others their first {REASONS} "
    "events. p-values are adjusted (Holm) within one metric."
)

METRICS: dict[str, tuple[str, Better]] = {
    "additive error": ("By how much the sum of all parts is off the served score, over the score.", "lower"),
    "adds up": ("Share of users with all parts within 0.00001 of the score, for each of the ten best items.", "higher"),
    "deletion area": (
        "Mean share of the score that is left after 0 to 10 deletions, the first reasons first.",
        "lower",
    ),
    "insertion area": ("Mean share of the score that 0 to 10 events bring back, the first reasons first.", "higher"),
    **{f"necessity@{k}": (f"Share of items that leave the top 10 without the first {k} events.", "higher") for k in KS},
    **{f"sufficiency@{k}": (f"Share of items in the top 10 with the first {k} events alone.", "higher") for k in KS},
    "events to drop out": ("Events that must go until the item leaves the top 10; 11 if 10 are too few.", "lower"),
    "counterfactual found": ("Share of items that leave the top 10 without some 10 events or fewer.", "neither"),
    "counterfactual size": ("Events of a counterfactual, where there is one; none of them can be spared.", "lower"),
    "unique sentences": ("Share of distinct sentences among all (Li et al. 2020, unique sentence ratio).", "higher"),
    "named share": ("What the reasons that the sentence names add to the score, over the score.", "higher"),
    "names a claim": ("Share of sentences that give a claim of the profile as a reason.", "neither"),
    "feature coverage": ("Share of the distinct names of all claims that some sentence gives as a reason.", "higher"),
}


def run(world: World, embedder: Embedder, options: Options, tell: Tell) -> Findings:
    """Measure explanations of the best item of each user in the sample.

    Raises:
        EmptyWorldError: There are not two users with a recommendation that rests on their events.
    """
    tell("explanations: training")
    embedder = Remembering(embedder)
    parameters, events = Parameters(seed=options.seed), world.interactions
    claims = world.template_claims(events, embedder, options.language)
    fused = train_fused(events, claims, world.texts, parameters)
    seeds = range(options.seed, options.seed + options.seeds)
    model = sentences.served_model(world, fused, parameters, embedder)
    suite = _Suite(world, embedder, options, model, fused, all_explainers(fused, world.texts, seeds))
    writing = Writing(world, embedder, options.language)
    profiles = writing.write(writing.drafts(options.sample(np.unique(events.user))))
    for number, written in enumerate(profiles, 1):
        suite.measure(written)
        if number % TOLD == 0 or number == len(profiles):
            tell(f"explanations: {number} of {len(profiles)} users")
    return suite.findings()


@dataclass
class _Suite:
    """What was measured.

    Attributes:
        values: By explainer and metric, a value for each user; nan where there is none.
        curves: By kind of curve and explainer, one for each user.
        said: By explainer, everyone's sentences.
        features: Names of all claims, and of those that a sentence names.
    """

    world: World
    embedder: Embedder
    options: Options
    model: Model
    fused: Fused
    explainers: dict[str, list[Explainer]]
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    curves: dict[str, dict[str, list[Floats]]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    features: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))

    @cached_property
    def titles(self) -> dict[str, str]:
        return {item.item_id: title(item) for item in self.world.items}

    def measure(self, written: Written) -> None:
        """Measure one user, unless no event of theirs speaks for anything."""
        case = first_choice(self.fused, self.world.interactions, written.code)
        if not len(case.used) or case.folded.score(self.fused.fitted.factors[case.row].astype(np.float64)) <= 0:
            return
        someone = sentences.person(self.world, self.model, written, self.embedder)
        told = sentences.tell(someone, case.row, self.titles, self.options.language)
        self._add_told(told, written)
        self._add(OURS, {"adds up": float(sentences.adds_up(someone))})
        for name, repeated in self.explainers.items():
            orders = [case.used[np.argsort(-explain(case), kind="stable")] for explain in repeated]
            walks = [
                (delete(self.fused, case, written.code, o), insert(self.fused, case, written.code, o)) for o in orders
            ]
            self._add(name, _of_walks(walks))
            for kind, of in (("Deletion", [w[0] for w in walks]), ("Insertion", [w[1] for w in walks])):
                mean = np.mean([walk.scores for walk in of], axis=0)
                self.curves.setdefault(kind, {}).setdefault(name, []).append(mean)
            if name != OURS:
                first = orders[0][:REASONS].tolist()
                self._add(name, {"named share": float(told.events[first].sum() / told.explanation.total)})
                self.said.setdefault(name, []).append("; ".join(self._event(someone, place) for place in first))

    def _event(self, someone: Person, place: int) -> str:
        event = someone.told[someone.events.ids[place]]
        return event_text(event.type, self.titles[event.item_id or ""], event.value, self.options.language)

    def _add_told(self, told: Told, written: Written) -> None:
        self.said.setdefault(OURS, []).append(told.explanation.text)
        self.features[0].update(claim.name for claim in written.claims)
        self.features[1].update(told.claims)
        removal = told.removal
        found = removal is not None and removal.rank is not None
        size = float(len(removal.removed)) if found and removal else np.nan
        self._add(OURS, {
            "additive error": told.additive_error,
            "named share": told.named_share,
            "names a claim": float(bool(told.claims)),
        })  # fmt: skip
        self._add(SEARCH, {
            "events to drop out": size if found else STEPS + 1.0,
            "counterfactual found": float(found),
            "counterfactual size": size,
        })  # fmt: skip

    def _add(self, subject: str, values: Mapping[str, float]) -> None:
        for metric, value in values.items():
            self.values.setdefault(subject, {}).setdefault(metric, []).append(value)

    def findings(self) -> Findings:
        """Sum up."""
        users = len(self.said.get(OURS, ()))
        if users < 2:  # noqa: PLR2004
            raise EmptyWorldError(
                "Too few users have a recommendation that rests on their events: there is nothing to explain. "
                "Ingest a longer log with `limner ingest`."
            )
        figures = [*self._figures(), *self._of_all(users)]
        return Findings(
            figures=tuple(figures),
            tests=tuple(self._tests()),
            curves=tuple(self._curves()),
            protocols={PROTOCOL: SAYS},
            metrics={name: METRICS[name][0] for name in METRICS if name in {f.metric for f in figures}},
            notes=(NOTE,),
        )

    def _figures(self) -> Iterator[Figure]:
        for subject, by_metric in self.values.items():
            for metric, values in by_metric.items():
                found = np.array(values)
                if not np.isnan(found).all():
                    yield figure(
                        found, suite=SUITE, protocol=PROTOCOL, metric=metric, subject=subject, seed=self.options.seed,
                        better=METRICS[metric][1], unit="events" if metric in COUNTS else "",
                    )  # fmt: skip

    def _of_all(self, users: int) -> Iterator[Figure]:
        """Yield what is of all sentences together, and so has no interval over users."""
        shares = {(name, "unique sentences"): len(set(said)) / len(said) for name, said in self.said.items()}
        if self.features[0]:
            shares[OURS, "feature coverage"] = len(self.features[1]) / len(self.features[0])
        for (subject, metric), value in shares.items():
            yield Figure(suite=SUITE, protocol=PROTOCOL, metric=metric, subject=subject, value=value, n=users)

    def _tests(self) -> Iterator[PairedTest]:
        for metric in TESTED:
            ours = np.array(self.values[OURS][metric])
            pairs = [
                (OURS, name, ours, np.array(self.values[name][metric])) for name in self.explainers if name != OURS
            ]
            yield from paired_tests(pairs, suite=SUITE, protocol=PROTOCOL, metric=metric, better=METRICS[metric][1])

    def _curves(self) -> Iterator[Curve]:
        for kind, by_name in self.curves.items():
            done = "deleted" if kind == "Deletion" else "added"
            for name, curves in by_name.items():
                mean = np.mean(curves, axis=0)
                off = 1.96 * np.std(curves, axis=0, ddof=1) / np.sqrt(len(curves))
                yield Curve(
                    suite=SUITE, title=f"{kind} of events", subject=name, x_label=f"events {done}",
                    y_label="share of the score", x=tuple(map(float, range(len(mean)))), y=tuple(mean.tolist()),
                    low=tuple((mean - off).tolist()), high=tuple((mean + off).tolist()),
                )  # fmt: skip


def _of_walks(walks: Sequence[tuple[Walk, Walk]]) -> dict[str, float]:
    """Return one user's figures, means over the repetitions of an explainer."""
    deleted, inserted = zip(*walks, strict=True)

    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    found = {
        "deletion area": mean(area(walk.scores) for walk in deleted),
        "insertion area": mean(area(walk.scores) for walk in inserted),
        "events to drop out": mean(fewest_deleted(walk) for walk in deleted),
    }
    for k in KS:
        found[f"necessity@{k}"] = mean(walk.ranks[k] > LIST for walk in deleted)
        found[f"sufficiency@{k}"] = mean(walk.ranks[k] <= LIST for walk in inserted)
    return found
