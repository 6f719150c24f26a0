"""What a suite finds: figures, tests, curves and examples, of one form for all, so that they can be shown and compared.

A figure is known by its suite, protocol, metric, subject (the model or writer judged) and segment of users; two runs
are compared figure by figure.
"""

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy import stats

from eval.interactions import Floats
from eval.stats import BATCH, compare, holm, user_differences

Better = Literal["higher", "lower", "neither"]
Tell = Callable[[str], None]
EVERYONE = "all"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FigureKey(NamedTuple):
    """What a figure is known by."""

    suite: str
    protocol: str
    metric: str
    subject: str
    segment: str


class Figure(_Part):
    """A measured number.

    Attributes:
        suite: `ranking`, `profiles`, `explanations`, `cost` or `simulated`.
        protocol: How it was measured, as named in the notes of the findings; such as `later visit`.
        metric: Such as `ndcg@10`.
        subject: The model, writer or explainer that is judged.
        segment: Of users; `all` for everyone.
        value: The number.
        low: Lower end of its 95 % interval; None where none is known.
        high: Upper end.
        n: How many users (or claims, events; the notes say) it is a mean of.
        better: Which way is better.
        unit: Such as `s` or `tokens`; empty for shares and scores.
        by_user: The number of each user, by the user's place among all users; kept of few users only.
    """

    suite: str
    protocol: str = ""
    metric: str
    subject: str
    segment: str = EVERYONE
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    better: Better = "higher"
    unit: str = ""
    by_user: dict[int, float] = {}

    @property
    def key(self) -> FigureKey:
        """What it is known by."""
        return FigureKey(self.suite, self.protocol, self.metric, self.subject, self.segment)


class PairedTest(_Part):
    """A paired comparison of two subjects over the same users.

    Attributes:
        difference: Mean of the first's less the second's; `low` and `high` are its 95 % interval.
        p: Two-sided, by Wilcoxon's signed-rank test, after Holm's correction over the tests that were made together.
        wins: Users with whom the first is the higher; `losses` those with whom it is the lower.
        better: Which way is better.
    """

    suite: str
    protocol: str = ""
    metric: str
    first: str
    second: str
    segment: str = EVERYONE
    difference: float
    low: float
    high: float
    p: float
    wins: int
    losses: int
    n: int
    better: Better = "higher"


class Curve(_Part):
    """A line of a plot; those of one suite and title share the plot.

    Attributes:
        low: `(n,)`, a band's lower edge; None for no band. `high` likewise.
    """

    suite: str
    title: str
    subject: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None


class Example(_Part):
    """Something to read: a profile that did well, or badly."""

    suite: str
    title: str
    verdict: Literal["best", "worst"]
    text: str


class Findings(_Part):
    """What one suite, or several, found.

    Attributes:
        protocols: What each protocol is, in a sentence or two, by its name.
        metrics: What each metric is, in a sentence, by its name.
        notes: What a reader must know: what could not be measured, and why.
    """

    figures: tuple[Figure, ...] = ()
    tests: tuple[PairedTest, ...] = ()
    curves: tuple[Curve, ...] = ()
    examples: tuple[Example, ...] = ()
    protocols: dict[str, str] = {}
    metrics: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    def __add__(self, other: "Findings") -> "Findings":
        """Return the findings of both."""
        return Findings(
            figures=self.figures + other.figures,
            tests=self.tests + other.tests,
            curves=self.curves + other.curves,
            examples=self.examples + other.examples,
            protocols=self.protocols | other.protocols,
            metrics=self.metrics | other.metrics,
            notes=self.notes + other.notes,
        )


def figure(values: Floats, *, seed: int = 0, resamples: int = 2_000, **of: object) -> Figure:
    """Make a figure of the mean over users, with a percentile bootstrap interval (Efron 1979).

    Args:
        values: `(users,)` or `(seeds, users)`; nan where there is none. A user's are averaged over the seeds first.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
        of: The other fields of `Figure`.

    Raises:
        ValueError: No user has a value.
    """
    per_user = user_differences(values, np.zeros_like(values))
    if not len(per_user):
        raise ValueError("no user has a value")
    low = high = None
    if len(per_user) > 1:
        low, high = stats.bootstrap(
            (per_user,), np.mean, n_resamples=resamples, method="percentile",
            batch=max(1, BATCH // len(per_user)), rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
    return Figure.model_validate({"value": per_user.mean(), "low": low, "high": high, "n": len(per_user)} | of)


def paired_tests(pairs: Iterable[tuple[str, str, Floats, Floats]], **of: object) -> tuple[PairedTest, ...]:
    """Compare pairs of subjects, and adjust the p-values for the number of pairs (Holm 1979).

    Args:
        pairs: Names of the first and of the second, and their values, `(users,)` or `(seeds, users)` each, nan in the
            same places.
        of: The other fields of `PairedTest`.
    """
    made = []
    for first, second, ours, theirs in pairs:
        differences = user_differences(ours, theirs)
        made.append((first, second, compare(ours, theirs), int((differences > 0).sum()), int((differences < 0).sum())))
    adjusted = holm(np.array([found.wilcoxon for _, _, found, _, _ in made]))
    return tuple(
        PairedTest.model_validate(
            {"first": first, "second": second, "difference": found.difference, "low": found.low, "high": found.high,
             "p": p, "wins": wins, "losses": losses, "n": found.users} | of
        )
        for (first, second, found, wins, losses), p in zip(made, adjusted.tolist(), strict=True)
    )  # fmt: skip
