"""The suite of simulated users: are interests found, and changes noticed, where the truth is known?

It reads nothing of the world that is evaluated but the settings of the evidence. `eval/noise.json` says what is
simulated, and is not changed for the sake of a figure. What a right claim is, is said in `eval.interests`; what a
detected drift is, in `eval.drifting`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.contract import Language
from agent.embedder import Embedder
from agent.evidence import EvidenceSettings
from eval.detecting import NOISE, Segments
from eval.drifting import Noticed, Watched, calibrate, notice, watch
from eval.findings import EVERYONE, Curve, Figure, Findings, PairedTest, Tell, figure, paired_tests
from eval.interactions import Floats
from eval.interests import Cited, match
from eval.options import Options
from eval.simulation.factors import with_factors
from eval.simulation.judging import Judge, Judgement, judge_histogram
from eval.simulation.memory import Invented, invent, populate
from eval.simulation.plan import Drift, Simulation
from eval.simulation.settings import NoiseSettings, read_settings
from eval.world import World

SUITE = "simulated"
TEMPLATE, FACTORS, HISTOGRAM = "template", "template with factors", "category histogram"
TEXTS, TEXTS_AND_FACTORS, KNOWN = "item texts", "item texts and factors", "groups known"
CAPS = range(2, 10)
HABITS_AT = 0.2
CROWD = 400
FALSE_ALARMS = 0.5
SOON = 20
LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "Chinese"}
DRIFTS: Mapping[Drift, str] = {"main": "drift of the main interest", "all": "drift of all interests"}

METRICS = {
    "precision": "Share of a user's claims of interests that are right: the first claim of each planted interest, by "
    "the items of the events that it cites; users without a claim are left out.",
    "recall": "Share of a user's planted interests that a claim names, of those that the log supports.",
    "f1": "Harmonic mean of a user's precision and recall, 2 right / (claims + interests); users whose log supports "
    "no interest are left out.",
    "recall of planted": "Share of all planted interests that a claim names, whether or not the log supports them.",
    "claims": "Claims of interests that a user gets.",
    "dislike precision": "Share of the claims of dislikes that name the planted dislike.",
    "dislike recall": "Share of the planted dislikes that a claim names, of those that the log supports.",
    "peak hour": "Share of users with 20 events or more whose busiest three hours have their middle within 2 hours of "
    "the planted hour; by chance it would be 1/6.",
    "weekend": "Share of such users whose busiest day is one of the weekend if and only if they come at weekends.",
    "delay": "Median number of a user's events from the drift to the alarm; users in whom it is never noticed count as "
    "infinite, and where the median is infinite there is no figure.",
    "noticed": "Share of the users who drift in whom it is noticed before their log ends.",
    "noticed in 20": "Share of the users who drift in whom it is noticed within 20 of their events.",
    "false alarms": "False alarms in 1,000 events of users who do not drift.",
}
BOTS = "bots"


def run(world: World, embedder: Embedder, options: Options, tell: Tell) -> Findings:
    """Simulate users, and measure what their profiles and the detector of drift get right."""
    return measure(read_settings(), embedder, world.settings, options, tell)


def measure(
    settings: NoiseSettings, embedder: Embedder, evidence: EvidenceSettings, options: Options, tell: Tell
) -> Findings:
    """Measure what the settings say; `options.users` bounds the users of each domain and language."""
    interests = _Interests(settings, embedder, evidence, options, tell).findings()
    return interests + _Drifts(settings, embedder, evidence, options, tell).findings()


def _users(options: Options, most: int) -> int:
    return most if options.users is None else min(options.users, most)


def _level(noise: float) -> str:
    return f"{noise:.0%} noise"


@dataclass
class _Found:
    """What was found of one subject at one level: a judgement for each person, and their language."""

    judged: list[Judgement] = field(default_factory=list)
    languages: list[Language] = field(default_factory=list)

    def values(self, of: Callable[[Judgement], float], language: str) -> Floats:
        """Return a number of each person, `(n,)`; those of another language are left out."""
        pairs = zip(self.judged, self.languages, strict=True)
        return np.array([of(one) for one, spoken in pairs if language in (EVERYONE, LANGUAGES[spoken])])


@dataclass
class _Interests:
    """Measures interests at all levels of noise."""

    settings: NoiseSettings
    embedder: Embedder
    evidence: EvidenceSettings
    options: Options
    tell: Tell
    found: dict[tuple[str, float], _Found] = field(default_factory=dict)
    counted: dict[float, list[tuple[Language, list[Cited], set[int]]]] = field(default_factory=dict)
    bots: dict[str, list[int]] = field(default_factory=dict)

    def findings(self) -> Findings:
        """Measure."""
        for seed in range(self.options.seed, self.options.seed + self.options.seeds):
            self.tell(f"simulated users: seed {seed}")
            for language in self.settings.languages:
                for invented in self._catalogues(seed, language):
                    self._catalogue(invented, language)
        figures, tests, curves = self._summary()
        s = self.settings
        protocols = {
            _level(level): f"Users of {', '.join(s.domains)} in {' and '.join(LANGUAGES[x] for x in s.languages)} with "
            f"two to four planted interests; {level:.0%} of their events are about something else. Half of the "
            "interests are no categories of the catalogue."
            for level in s.levels
        }
        note = (
            f"{FACTORS}: item vectors with factors learned from {CROWD} other users, as `limner themes learn` does. "
            f"{HISTOGRAM}: with the bound on the number of claims (2 to 9) that suits it best, set with the truth at "
            "hand for each level and language."
        )
        return Findings(
            figures=tuple(figures), tests=tuple(tests), curves=tuple(curves), protocols=protocols, notes=(note,),
            metrics={name: text for name, text in METRICS.items() if name in {f.metric for f in figures}},
        )  # fmt: skip

    def _catalogues(self, seed: int, language: Language) -> Iterator[Invented]:
        s = self.settings
        for domain in s.domains:
            users = _users(self.options, s.users)
            yield invent(
                Simulation(users, seed, s.items, domain, s.events_per_user, language, bots=s.bots), self.embedder
            )

    def _catalogue(self, invented: Invented, language: Language) -> None:
        for level in self.settings.levels:
            users = populate(invented, noise=level)
            judges = {
                TEMPLATE: Judge(invented, self.evidence, language),
                FACTORS: Judge(with_factors(invented, self.embedder, CROWD, level), self.evidence, language),
            }
            for n, bot in enumerate(users.tastes.bot.tolist()):
                for subject, judge in judges.items():
                    if not bot:
                        mine = self.found.setdefault((subject, level), _Found())
                        mine.judged.append(judge.judge(users, n))
                        mine.languages.append(language)
                    elif level == HABITS_AT:
                        count = sum(c.kind == "interest" for c in judge.draft(users, n).claims)
                        self.bots.setdefault(subject, []).append(count)
                if not bot:
                    claims, wanted = judge_histogram(invented, invented.items, users, n, self.evidence)
                    self.counted.setdefault(level, []).append((language, claims, wanted))

    def _summary(self) -> tuple[list[Figure], list[PairedTest], list[Curve]]:
        figures: list[Figure] = []
        tests: list[PairedTest] = []
        segments = [EVERYONE, *(LANGUAGES[language] for language in self.settings.languages)]
        lines: dict[tuple[str, str], list[Figure]] = {}
        for level in self.settings.levels:
            for segment in segments:
                f1: dict[str, Floats] = {}
                for subject in (TEMPLATE, FACTORS):
                    f1[subject] = self._of_template(figures, subject, level, segment)
                f1[HISTOGRAM] = self._of_histogram(figures, level, segment)
                for subject in f1:
                    line = lines.setdefault((segment, subject), [])
                    line += [x for x in figures if x.key == (SUITE, _level(level), "f1", subject, segment)]
                pairs = [(s, HISTOGRAM, f1[s], f1[HISTOGRAM]) for s in (TEMPLATE, FACTORS)]
                tests += paired_tests(pairs, suite=SUITE, protocol=_level(level), metric="f1", segment=segment)
        for subject, counts in self.bots.items():
            of: dict[str, Any] = {"suite": SUITE, "protocol": _level(HABITS_AT), "subject": subject, "segment": BOTS}
            figures.append(figure(np.array(counts, dtype=float), metric="claims", better="lower", **of))
        return figures, tests, [self._curve(*key, line) for key, line in lines.items() if line]

    def _of_template(self, figures: list[Figure], subject: str, level: float, segment: str) -> Floats:
        found = self.found[subject, level]
        metrics: dict[str, Callable[[Judgement], float]] = {
            "precision": lambda one: one.interests.precision,
            "recall": lambda one: one.interests.recall,
            "f1": lambda one: one.interests.f1,
            "claims": lambda one: one.interests.claims,
            "recall of planted": lambda one: one.interests.right / one.planted,
        }
        if level == HABITS_AT:
            metrics |= {
                "dislike precision": lambda one: one.dislikes.precision,
                "dislike recall": lambda one: one.dislikes.recall,
                "peak hour": lambda one: np.nan if one.hour is None else float(one.hour),
                "weekend": lambda one: np.nan if one.weekend is None else float(one.weekend),
            }
        for metric, of in metrics.items():
            better = "neither" if metric == "claims" else "higher"
            self._add(figures, found.values(of, segment), subject, level, metric, segment, better)
        if segment == EVERYONE:
            named = found.values(lambda one: _share(*one.named), segment)
            latent = found.values(lambda one: _share(*one.latent), segment)
            self._add(figures, named, subject, level, "recall", "named interests")
            self._add(figures, latent, subject, level, "recall", "unnamed interests")
        return found.values(lambda one: one.interests.f1, segment)

    def _of_histogram(self, figures: list[Figure], level: float, segment: str) -> Floats:
        mine = [row for row in self.counted[level] if segment in (EVERYONE, LANGUAGES[row[0]])]
        capped = [[match(claims[:cap], wanted) for _, claims, wanted in mine] for cap in CAPS]
        best = max(capped, key=lambda matched: float(np.nanmean([one.f1 for one in matched])))
        for metric in ("precision", "recall", "f1"):
            values = np.array([getattr(one, metric) for one in best])
            self._add(figures, values, HISTOGRAM, level, metric, segment)
        return np.array([one.f1 for one in best])

    def _add(
        self,
        figures: list[Figure],
        values: Floats,
        subject: str,
        level: float,
        metric: str,
        segment: str,
        better: str = "higher",
    ) -> None:
        if not np.isnan(values).all():
            of: dict[str, Any] = {"protocol": _level(level), "subject": subject, "segment": segment, "better": better}
            figures.append(figure(values, suite=SUITE, metric=metric, **of))

    def _curve(self, segment: str, subject: str, line: Sequence[Figure]) -> Curve:
        return Curve(
            suite=SUITE, title=f"F1 of interests by noise: {segment}", subject=subject, x_label="share of noise",
            y_label="F1", x=self.settings.levels[: len(line)], y=tuple(x.value for x in line),
            low=tuple(x.value if x.low is None else x.low for x in line),
            high=tuple(x.value if x.high is None else x.high for x in line),
        )  # fmt: skip


def _share(count: int, found: int) -> float:
    return found / count if count else float("nan")


@dataclass
class _Drifts:
    """Measures the detector of drift: the threshold is set on one seed, and measured on others."""

    settings: NoiseSettings
    embedder: Embedder
    evidence: EvidenceSettings
    options: Options
    tell: Tell

    def findings(self) -> Findings:
        """Measure."""
        seed = self.settings.drift.calibration_seed
        self.tell(f"simulated drift: the threshold is set on seed {seed}")
        calibrated = self._watched([seed], "main", self.settings.drift.users)
        thresholds = {
            subject: calibrate([user for _, user in users], FALSE_ALARMS) for subject, users in calibrated.items()
        }
        figures: list[Figure] = []
        notes = [
            f"Threshold of the detector, set on seed {seed} for at most {FALSE_ALARMS} false alarms in 1,000 events: "
            + ", ".join(f"{subject} {value:g}" for subject, value in thresholds.items())
            + f". {KNOWN}: the same test, told the planted group of each item, to show what the rest costs."
        ]
        seeds = range(self.options.seed, self.options.seed + self.options.seeds)
        for drift, protocol in DRIFTS.items():
            self.tell(f"simulated drift: {protocol}")
            for subject, users in self._watched(seeds, drift, _users(self.options, self.settings.drift.users)).items():
                for segment in (EVERYONE, *(LANGUAGES[language] for language in self.settings.languages)):
                    mine = [user for spoken, user in users if segment in (EVERYONE, LANGUAGES[spoken])]
                    noticed = notice(mine, thresholds[subject])
                    figures += _figures(noticed, protocol, subject, segment)
        protocols = {
            protocol: f"A third of the users gives up 85 % of {given} for something new, at once, on a day from 60 to "
            f"119 of 180; {self.settings.drift.noise:.0%} noise. The profile is of day "
            f"{self.settings.drift.profile_day}, later events are monitored."
            for protocol, given in zip(DRIFTS.values(), ("the main interest", "every interest"), strict=True)
        }
        of_drift = ("delay", "noticed", "noticed in 20", "false alarms")
        metrics = {name: METRICS[name] for name in of_drift}
        return Findings(figures=tuple(figures), protocols=protocols, metrics=metrics, notes=tuple(notes))

    def _watched(self, seeds: Sequence[int], drift: Drift, count: int) -> dict[str, list[tuple[Language, Watched]]]:
        s, d = self.settings, self.settings.drift
        found: dict[str, list[tuple[Language, Watched]]] = {TEXTS: [], TEXTS_AND_FACTORS: [], KNOWN: []}
        for seed in seeds:
            for language in s.languages:
                for domain in s.domains:
                    wanted = Simulation(
                        count, seed, s.items, domain, d.events_per_user, language,
                        noise=d.noise, bots=0.0, drift=drift,
                    )  # fmt: skip
                    invented = invent(wanted, self.embedder)
                    users = populate(invented)
                    for subject, densities in self._densities(invented).items():
                        watched = watch(invented, densities, users, d.profile_day, self.evidence)
                        found[subject] += [(language, user) for user in watched]
        return found

    def _densities(self, invented: Invented) -> dict[str, Floats]:
        """Return the log densities of items and stand-ins by each way of telling groups, `(m, k)`."""
        count = len(invented.catalogue.ids)
        seed = invented.wanted.seed
        both = {
            TEXTS: invented,
            TEXTS_AND_FACTORS: with_factors(invented, self.embedder, CROWD, self.settings.drift.noise),
        }
        found: dict[str, Floats] = {}
        for subject, one in both.items():
            segments = Segments.of(one.items.vectors[:count], np.random.default_rng(seed))
            found[subject] = segments.log_densities(one.items.vectors)
        groups = len(invented.named)
        theirs = np.bincount(invented.theme[:count], minlength=groups) / count
        within = (invented.theme[:, None] == np.arange(groups)) / theirs
        return found | {KNOWN: np.log((1.0 - NOISE) * within + NOISE)}


def _figures(noticed: Noticed, protocol: str, subject: str, segment: str) -> list[Figure]:
    of: dict[str, Any] = {"suite": SUITE, "protocol": protocol, "subject": subject, "segment": segment}
    found = []
    if len(noticed.delays):
        if np.isfinite(noticed.median):
            found.append(_delay(noticed, of))
        found.append(figure(np.isfinite(noticed.delays).astype(float), metric="noticed", **of))
        found.append(figure((noticed.delays <= SOON).astype(float), metric="noticed in 20", **of))
    if noticed.events:
        of |= {"value": noticed.per_thousand, "n": noticed.events, "better": "lower", "unit": "/1,000 events"}
        found.append(Figure.model_validate({"metric": "false alarms", **of}))
    return found


def _delay(noticed: Noticed, of: dict[str, Any]) -> Figure:
    return Figure.model_validate(
        {
            "metric": "delay",
            "value": noticed.median,
            "n": len(noticed.delays),
            "better": "lower",
            "unit": "events",
            **of,
        }
    )
