"""A report as one page that needs nothing else: no network, no script, no font."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2

from eval.findings import EVERYONE, Example, Figure, PairedTest
from eval.headlines import ALPHA, Headline, headlines
from eval.plots import Panel, Plot, panel, plots, show
from eval.report import Report
from eval.running import NAMES

_FIRST = (
    "interest precision", "interest recall", "interest F1", "picked out of 10", "specificity", "AUC", "ndcg@10",
    "recall@10", "words", "seconds", "deletion area", "insertion area",
)  # fmt: skip
_SHOWN_PANELS = 9
_SHOWN_OF_MANY = 3
_FEW_SUBJECTS = 6
_SHOWN_GROUPS = 4
_SHOWN_TESTS = 12
_USUAL_K = "@10"
_SMALL_P = 0.001

TITLES = {
    "profiles": (
        "Profiles",
        "Is what the profiles say true, does it tell one user from another, and does it help to foresee what they do?",
    ),
    "ranking": (
        "Recommendations",
        "How well what was hidden is foreseen. Fused is what the service recommends by: events and profile together.",
    ),
    "explanations": (
        "Explanations",
        "Whether the reasons given are the ones that made the score: take them away, and it must fall.",
    ),
    "simulated": (
        "Simulated users",
        "Users whose tastes we invented, so that the truth is known.",
    ),
    "cost": ("Cost", "What a profile takes: time, calls and tokens."),
}


class Cell(NamedTuple):
    """A figure in a table."""

    value: str
    interval: str


class SegmentRow(NamedTuple):
    """A metric of a subject, by segment."""

    metric: str
    subject: str
    cells: tuple[Cell, ...]


class Segments(NamedTuple):
    """Figures by segment of users."""

    names: tuple[str, ...]
    rows: tuple[SegmentRow, ...]


class Group(NamedTuple):
    """The figures of a protocol: those shown, those a click away, and those by segment; `folded`: all a click away."""

    name: str
    note: str
    panels: tuple[Panel, ...]
    more: tuple[Panel, ...]
    segments: Segments | None
    folded: bool


class TestRow(NamedTuple):
    """A paired test, told so that a win is the better figure."""

    first: str
    second: str
    metric: str
    where: str
    wins: int
    ties: int
    losses: int
    n: int
    difference: str
    interval: str
    p: str
    tone: str


class SuiteView(NamedTuple):
    """A suite on the page."""

    name: str
    title: str
    intro: str
    groups: tuple[Group, ...]
    tests: tuple[TestRow, ...]
    plots: tuple[Plot, ...]
    examples: tuple[Example, ...]


class Page(NamedTuple):
    """All that the template shows beside the report itself."""

    title: str
    lead: str
    headlines: tuple[Headline, ...]
    suites: tuple[SuiteView, ...]
    facts: tuple[tuple[str, str], ...]
    most_tests: int


def to_page(report: Report) -> str:
    """Return a report as a page."""
    return _templates().get_template("report.html.j2").render(report=report, page=view(report))


def view(report: Report) -> Page:
    """Arrange a report for its reader."""
    data = report.data
    return Page(
        title=f"How good is Limner on {'your own data' if data.name == 'own' else data.name}?",
        lead=(
            "Limner reads what people did and draws each of them a written profile; it recommends by it, and says why. "
            f"Here it read {data.events:,} events of {data.users:,} users with {data.items:,} items. What each user "
            "did last was hidden from it, and then served to judge what it had written and recommended. In each bar, "
            "the line is the figure and the shade its 95 % interval."
        ),
        headlines=headlines(report.findings),
        suites=tuple(_suite(name, report) for name in _names(report)),
        facts=_facts(report),
        most_tests=_SHOWN_TESTS,
    )


def _names(report: Report) -> list[str]:
    findings = report.findings
    found = {f.suite for f in findings.figures} | {t.suite for t in findings.tests}
    found |= {c.suite for c in findings.curves} | {e.suite for e in findings.examples}
    return [name for name in NAMES if name in found] + sorted(found - set(NAMES))


def _suite(name: str, report: Report) -> SuiteView:
    found = report.findings
    title, intro = TITLES.get(name, (name.capitalize(), ""))
    figures = [figure for figure in found.figures if figure.suite == name]
    tests = [test for test in found.tests if test.suite == name]
    return SuiteView(
        name=name,
        title=title,
        intro=intro,
        groups=tuple(
            _group(name, [f for f in figures if _family(f.protocol) == name], report, place)
            for place, name in enumerate(dict.fromkeys(_family(figure.protocol) for figure in figures))
        ),
        tests=tuple(_test(test) for test in sorted(tests, key=lambda test: test.segment != EVERYONE)),
        plots=tuple(plots(curve for curve in found.curves if curve.suite == name)),
        examples=tuple(example for example in found.examples if example.suite == name),
    )


def _family(protocol: str) -> str:
    """Return the name that protocols share which differ after a colon: they are shown together."""
    return protocol.partition(": ")[0]


def _group(name: str, figures: Sequence[Figure], report: Report, place: int) -> Group:
    """Show the figures of everyone as panels, the first metrics at once; the rest in a table by segment."""
    overall: dict[str, list[Figure]] = {}
    protocols = list(dict.fromkeys(figure.protocol for figure in figures))
    if len(protocols) > 1:
        figures = [f.model_copy(update={"subject": f"{f.subject}, {f.protocol.partition(': ')[2]}"}) for f in figures]
    for figure in figures:
        if figure.segment == EVERYONE:
            overall.setdefault(figure.metric, []).append(figure)
    usual = [metric for metric in overall if "@" not in metric or metric.endswith(_USUAL_K)] or list(overall)
    usual.sort(key=lambda metric: _FIRST.index(metric) if metric in _FIRST else len(_FIRST))
    many = any(len(of) > _FEW_SUBJECTS for of in overall.values())
    usual = usual[: _SHOWN_OF_MANY if many else _SHOWN_PANELS]
    says, ranked = report.findings, len(protocols) == 1
    made = {metric: panel(of, says.metrics.get(metric, ""), ranked=ranked) for metric, of in overall.items()}
    return Group(
        name=name,
        note=says.protocols.get(name, says.protocols.get(protocols[0], "")),
        panels=tuple(made[metric] for metric in usual),
        more=tuple(shown for metric, shown in made.items() if metric not in usual),
        segments=_segments(figures),
        folded=many and place >= _SHOWN_GROUPS,
    )


def _segments(figures: Iterable[Figure]) -> Segments | None:
    rows: dict[tuple[str, str], dict[str, Figure]] = {}
    for figure in figures:
        rows.setdefault((figure.metric, figure.subject), {})[figure.segment] = figure
    kept = {key: row for key, row in rows.items() if set(row) - {EVERYONE}}
    if not kept:
        return None
    names = tuple(dict.fromkeys(name for row in kept.values() for name in row))
    return Segments(
        names, tuple(SegmentRow(*key, tuple(_cell(row.get(name)) for name in names)) for key, row in kept.items())
    )


def _cell(figure: Figure | None) -> Cell:
    if figure is None:
        return Cell("-", "")
    interval = "" if figure.low is None or figure.high is None else f"{show(figure.low)} to {show(figure.high)}"
    return Cell(show(figure.value, figure.unit), interval)


def _test(test: PairedTest) -> TestRow:
    gain = test.difference if test.better != "lower" else -test.difference
    wins, losses = (test.wins, test.losses) if test.better != "lower" else (test.losses, test.wins)
    return TestRow(
        first=test.first,
        second=test.second,
        metric=test.metric,
        where=", ".join(part for part in (test.protocol, test.segment) if part),
        wins=wins,
        ties=test.n - wins - losses,
        losses=losses,
        n=test.n,
        difference=_signed(test.difference),
        interval=f"{_signed(test.low)} to {_signed(test.high)}",
        p=f"< {_SMALL_P}" if test.p < _SMALL_P else f"{test.p:.3f}",
        tone="" if test.p >= ALPHA or test.better == "neither" else "good" if gain > 0 else "bad",
    )


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + show(value)


def _facts(report: Report) -> tuple[tuple[str, str], ...]:
    asked = report.parameters
    return (
        ("Limner", report.limner),
        ("data", f"{report.data.name}, SHA-256 {report.data.sha256}"),
        ("users measured", "all" if asked.users is None else f"a random sample of {asked.users}"),
        ("seeds", f"{asked.seeds}, from {asked.seed} on"),
        ("tuning", f"{asked.trials} points for each model" if asked.trials else "none: fixed parameters"),
        ("profiles by", " and ".join(asked.writers)),
        ("language model", _model(report)),
        ("prompts", ", ".join(report.prompts.values()) or "none"),
        ("embedder", report.embedder),
        ("intervals", "95 %, by the bootstrap over users, unless a protocol says otherwise"),
        ("seconds", ", ".join(f"{suite.name} {suite.seconds:,.0f}" for suite in report.suites)),
    )


def _model(report: Report) -> str:
    if report.model is None:
        return "none"
    return f"{report.model}, weights {report.weights_hash}" if report.weights_hash else report.model


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
