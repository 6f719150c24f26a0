"""Compare two reports figure by figure: which changes are beyond chance, by the first one's interval or by user."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from eval.findings import Better, Figure, FigureKey
from eval.report import Report
from eval.stats import holm, wilcoxon

Verdict = Literal["better", "worse", "changed", "within", "no interval", "missing", "new"]
TIMED = frozenset({"s", "1/s"})
"""Units of what the machine decides, and what else runs on it: told, never judged."""

SIGNIFICANT = 0.05
_EQUAL = 1e-9
_RULE_OF_THREE = 3.0


class Change(BaseModel):
    """A figure of two reports.

    Attributes:
        before: None for a figure that only the second has; `after` likewise.
        low: Lower end of the first's 95 % interval.
        high: Upper end.
        p: Where both reports hold the number of each user, and anyone's differs: two-sided, by Wilcoxon's signed-rank
            test over the users whom both have measured, after Holm's correction over all figures tested.
        verdict: `better` or `worse`: p is below .05, or, where there is none, it is beyond the first's interval;
            `changed`: the same, and neither way is better; `within`: it is not; `no interval`: it has changed, and
            nothing says by how much it may; `missing`: the second lacks it; `new`: the first does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    suite: str
    protocol: str
    metric: str
    subject: str
    segment: str
    before: float | None
    after: float | None
    low: float | None
    high: float | None
    p: float | None = None
    better: Better
    unit: str
    verdict: Verdict


class Comparison(BaseModel):
    """Two reports, compared.

    Attributes:
        differences: In what was measured, and on what: where there are any, a change of a figure may come from them.
        changes: By figure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    differences: tuple[str, ...]
    changes: tuple[Change, ...]

    def of(self, *verdicts: Verdict) -> tuple[Change, ...]:
        """Return the changes with these verdicts."""
        return tuple(change for change in self.changes if change.verdict in verdicts)


def compare(first: Report, second: Report) -> Comparison:
    """Compare the figures of two reports by their keys, in the order of the first."""
    before, after = first.figures(), second.figures()
    p = _paired(before, after) if first.data.sha256 == second.data.sha256 else {}
    return Comparison(
        differences=_differences(first, second),
        changes=tuple(
            _change(key, before.get(key), after.get(key), p.get(key)) for key in dict.fromkeys((*before, *after))
        ),
    )


def _paired(before: Mapping[FigureKey, Figure], after: Mapping[FigureKey, Figure]) -> dict[FigureKey, float]:
    """Test the figures whose numbers of each user both reports hold, on the users whom both have measured.

    Those that are equal for every user can never be significant, so they do not count among the tests (Tarone 1990).
    """
    found = {}
    for key in before.keys() & after.keys():
        ours, theirs = after[key].by_user, before[key].by_user
        differences = np.array([ours[user] - theirs[user] for user in sorted(ours.keys() & theirs.keys())])
        if len(differences) > 1 and (np.abs(differences) > _EQUAL).any() and before[key].unit not in TIMED:
            found[key] = wilcoxon(differences)
    return dict(zip(found, holm(np.array(list(found.values()))).tolist(), strict=True))


def judge(before: Figure, after: Figure, p: float | None = None) -> Verdict:
    """Say how the second of two figures stands to the first's interval, or by the p-value of a paired test.

    Where all users have the same share, the bootstrap gives no width; then it is 3/n, by the rule of three (Hanley and
    Lippman-Hand 1983).

    >>> one = Figure(suite="ranking", metric="ndcg@10", subject="EASE", value=0.3, low=0.28, high=0.32, n=200)
    >>> [judge(one, one.model_copy(update={"value": value})) for value in (0.27, 0.29, 0.33)]
    ['worse', 'within', 'better']
    """
    change = after.value - before.value
    if abs(change) <= _EQUAL:
        return "within"
    if p is not None:
        within = p >= SIGNIFICANT
    elif before.low is None or before.high is None or before.unit in TIMED:
        return "no interval"
    else:
        slack = _EQUAL if before.low < before.high or before.unit else _RULE_OF_THREE / before.n
        within = before.low - slack <= after.value <= before.high + slack
    if within:
        return "within"
    if before.better == "neither":
        return "changed"
    return "better" if (change > 0) == (before.better == "higher") else "worse"


def _change(key: FigureKey, before: Figure | None, after: Figure | None, p: float | None) -> Change:
    of = before or after
    assert of is not None  # noqa: S101 - for the type checker: the key is of one of both
    verdict: Verdict = judge(before, after, p) if before and after else "missing" if before else "new"
    return Change(
        **key._asdict(),
        before=before.value if before else None,
        after=after.value if after else None,
        low=before.low if before else None,
        high=before.high if before else None,
        p=p,
        better=of.better,
        unit=of.unit,
        verdict=verdict,
    )


def _differences(first: Report, second: Report) -> tuple[str, ...]:
    """Say in what two reports differ beside their figures."""
    asked, asked_then = second.parameters.model_dump(), first.parameters.model_dump()
    pairs = {
        "the data": (first.data.sha256[:12], second.data.sha256[:12]),
        "the embedder": (first.embedder, second.embedder),
        "the language model": (_model(first), _model(second)),
        "Limner's version": (first.limner, second.limner),
        **{f"the option {name}": (asked_then[name], asked[name]) for name in asked},
        **{
            f"the prompt {role}": (first.prompts.get(role), second.prompts.get(role))
            for role in dict.fromkeys((*first.prompts, *second.prompts))
        },
    }
    return tuple(f"{name}: {then} before, {now} now" for name, (then, now) in pairs.items() if then != now)


def _model(report: Report) -> str:
    return f"{report.model} {report.weights_hash or ''}".strip() if report.model else "none"
