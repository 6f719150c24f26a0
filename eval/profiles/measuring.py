"""Everything that is asked of one writer's profiles, as rows of values by user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import scipy.sparse as sps

from agent.catalogue import unit
from agent.embedder import Embedder
from agent.verify import Repetition, Vocabulary
from eval.fused import PLAIN, train_fused
from eval.interactions import Floats, Interactions, Ints
from eval.past import after, before, cuts
from eval.profiles import grounded, readable, specific, stable, steerable, telling, useful
from eval.profiles.grounded import Judge, Judged
from eval.profiles.writing import Metric, Written, claim_vectors, profile_vectors
from eval.world import Claims, World
from recommend.parameters import Parameters

HELD_OUT = "last 20 %"
AGAIN = "same log again"
ONE_MORE = "one more event"
CORRECTED = "corrected"
TAGS = "tags"
BY_AGE = "by age"
PROTOCOLS = {
    HELD_OUT: "Profiles are made of each user's events but the last 20 % by time (those at the time of the first that "
              "is held out go with it), factors of everyone's events before their cuts; what is held out is the test.",
    TAGS: "The categories that tags foretell, against those of the items liked in the last 20 %.",
    AGAIN: "The profile of the same events is written twice, the second time with events of one time and items in "
           "another order.",
    ONE_MORE: "The last 5 events before the cut come one by one; each profile goes on from the one before.",
    CORRECTED: "The strongest interest with a category is corrected; items that the user has not met before the cut "
               "are ranked anew by the served scorer.",
    BY_AGE: "Profiles made with the last 20, 40 and 60 % held out, of users whose log spans a week or more; later "
            "likes by the age of the profile at that time.",
}  # fmt: skip
METRICS: dict[str, Metric] = (
    grounded.METRICS | specific.METRICS | telling.METRICS | useful.METRICS | stable.METRICS | steerable.METRICS
    | readable.METRICS | {"AUC": Metric("Share of the items not met that a later like outranks; .5 is chance.")}
)  # fmt: skip


class Row(NamedTuple):
    """Values of one metric: `(users,)` or `(seeds, users)`, nan where there is none."""

    protocol: str
    metric: str
    subject: str
    values: Floats


@dataclass(frozen=True)
class Trial:
    """What profiles are measured against, at one cut.

    Attributes:
        world: All of it.
        cut: `(users,)`, from `eval.past.cuts`.
        embedder: Of texts.
        seeds: Each gives other draws and orders of equals.
        parameters: Of the scorers.
    """

    world: World
    cut: Floats
    embedder: Embedder
    seeds: Sequence[int] = (0,)
    parameters: Parameters = field(default_factory=Parameters)

    @classmethod
    def of(cls, world: World, embedder: Embedder, seeds: Sequence[int] = (0,)) -> "Trial":
        """Cut every user's log."""
        return cls(world, cuts(world.interactions), embedder, seeds)

    @cached_property
    def past(self) -> World:
        """What may be known."""
        return before(self.world, self.cut)

    @cached_property
    def later(self) -> Interactions:
        """What is asked for."""
        return after(self.world, self.cut)

    @cached_property
    def judge(self) -> Judge:
        """Judges claims."""
        vocabulary = Vocabulary.of(self.world.item_set.base_rates)
        return Judge(self.world.item_set, self.world.settings, vocabulary, Repetition(self.embedder.embed))

    @cached_property
    def factors(self) -> Floats:
        """Item factors `(m, k)` of plain iALS over the past."""
        nothing = np.zeros(0, dtype=np.int64)
        claims = Claims(nothing, np.zeros(0), np.zeros((0, self.world.texts.shape[1]), dtype=np.float32))
        plain = self.parameters.model_copy(update=PLAIN)
        fused = train_fused(self.past.interactions, claims, self.world.texts, plain)
        return np.asarray(fused.fitted.factors, dtype=np.float64)

    @cached_property
    def categories(self) -> tuple[sps.csr_matrix, list[str]]:
        """Which items have which category."""
        return useful.category_matrix(self.world)

    def rows(self, written: Sequence[Written], judged: Sequence[Sequence[Judged]], subject: str) -> list[Row]:
        """Measure one writer's profiles."""
        users = len(self.world.user_ids)
        claims = claim_vectors(written, self.embedder)
        codes = np.array([one.code for one in written], dtype=np.int64)
        found = _rows(HELD_OUT, subject, grounded.measure(written, judged, self.judge, users))
        found += _rows(HELD_OUT, subject, readable.measure(written, judged, users))
        specificity = [specific.measure(written, self.world, self.embedder, seed) for seed in self.seeds]
        found.append(Row(HELD_OUT, "specificity", subject, np.stack(specificity)))
        found += self._telling(claims, codes, subject)
        found += self._ranked(f"{subject}, by texts", useful.by_text(claims, self.world), codes)
        found += self._ranked(f"{subject}, by factors", useful.by_factors(written, self.world, self.factors), codes)
        steered = steerable.measure(written, self.past, self.embedder, self.parameters)
        return found + _rows(CORRECTED, subject, steered)

    def baselines(self, written: Sequence[Written]) -> list[Row]:
        """Measure what needs no writer: popularity, most frequent categories, and tags, which are counted."""
        codes = np.array([one.code for one in written], dtype=np.int64)
        matrix, names = self.categories
        found = []
        for name, scores in useful.by_baselines(self.past.interactions, matrix).items():
            found += self._ranked(name, scores, codes)
        for subject, values in useful.tags(written, self.past.interactions, self.later, matrix, names).items():
            found += _rows(TAGS, subject, values)
        return found

    def _telling(self, claims: Claims, codes: Ints, subject: str) -> list[Row]:
        mean = self.world.texts.mean(axis=0)
        profiles = profile_vectors(claims, mean, len(self.world.user_ids))
        behaved = telling.behaviour(self.later, unit(self.world.texts - mean).astype(np.float64))
        try:
            picked = [telling.pick(profiles, behaved, codes, np.random.default_rng(seed)) for seed in self.seeds]
        except ValueError:  # fewer than ten profiles
            return []
        return [
            Row(HELD_OUT, "picked out of 10", subject, picked[0].own),
            Row(HELD_OUT, "picked out of 10", f"{subject}, chance", np.stack([found.another for found in picked])),
            Row(HELD_OUT, "picked out of 10 at random", subject, np.stack([found.at_random for found in picked])),
        ]

    def _ranked(self, subject: str, scores: Floats, codes: Ints) -> list[Row]:
        past = self.past.interactions
        by_seed = [useful.rank(scores, past, self.later, codes, seed) for seed in self.seeds]
        found = [Row(HELD_OUT, name, subject, np.stack([values[name] for values in by_seed])) for name in by_seed[0]]
        area = np.full(len(self.world.user_ids), np.nan)
        area[codes] = useful.auc(scores, past, self.later)[codes]
        return [*found, Row(HELD_OUT, "AUC", subject, area)]


def _rows(protocol: str, subject: str, values: Mapping[str, Floats]) -> list[Row]:
    return [Row(protocol, metric, subject, of_users) for metric, of_users in values.items()]
