"""Plots as plain numbers, for a template to draw as SVG: lines with bands, and figures as bars of their intervals."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from eval.findings import Curve, Figure

WIDTH, HEIGHT = 400.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 8.0, 10.0, 38.0
COLOURS = 6
"""Of the template's palette; further lines are dashed."""

_Place = Callable[[float], float]
"""Puts a number of the data at a place of the drawing."""

_FEW, _VISIBLE = 2, 0.05
_TINY, _WHOLE = 1e-4, 10
_DIGITS = ((100, 0), (10, 1), (1, 2), (0.001, 3))
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_OURS = frozenset({"fused", "parts", "claims", "template", "llm"})
_MARGIN = 0.05
_MOST_MARKS = 14


class Tick(NamedTuple):
    """A mark of an axis: where, in the units of the drawing, and what it says."""

    at: float
    label: str


class Line(NamedTuple):
    """A line of a plot.

    Attributes:
        points: As SVG has them: `x,y x,y …`.
        band: A polygon, likewise; None for no band.
        marks: The points one by one, where they are few.
        colour: From 0.
        dashed: Whether another line has the same colour.
    """

    subject: str
    points: str
    band: str | None
    marks: tuple[tuple[float, float], ...]
    colour: int
    dashed: bool


class Plot(NamedTuple):
    """A plot of curves that share a title."""

    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


class Bar(NamedTuple):
    """A figure on a track; places are in per cent of its width.

    Attributes:
        ours: Whether it is of what Limner does, among others.
        left: Of the interval; None where there is none. `width` likewise.
    """

    subject: str
    ours: bool
    value: str
    at: float
    left: float | None
    width: float | None
    interval: str
    n: int


class Panel(NamedTuple):
    """One metric of several subjects, on one axis.

    Attributes:
        scale: What the ends of the axis stand for.
    """

    metric: str
    note: str
    better: str
    bars: tuple[Bar, ...]
    scale: tuple[str, str]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from at or below `low` to at or above `high`.

    >>> ticks(0.0, 0.47), ticks(1.0, 37.0)
    ([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], [0.0, 10.0, 20.0, 30.0, 40.0])
    """
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * s for s in _STEPS if span / (power * s) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, max(last, first + 1) + 1)]


def show(value: float, unit: str = "") -> str:
    """Write a number as people read it: three digits, thousands apart, its unit behind it.

    >>> show(0.48213), show(1234.5, "tokens"), show(12.34, "s"), show(-0.03), show(0.00042), show(3e-16), show(0.0)
    ('0.482', '1,234 tokens', '12.3 s', '-0.030', '0.0004', '3e-16', '0')
    """
    behind, size = f" {unit}" if unit else "", abs(value)
    if size == 0 or size < _TINY:
        return f"{value:.0e}{behind}" if size else f"0{behind}"
    digits = next((digits for least, digits in _DIGITS if size >= least), 4)
    return f"{value:,.{0 if size >= _WHOLE and value == round(value) else digits}f}{behind}"


def plots(curves: Iterable[Curve]) -> list[Plot]:
    """Draw the curves of one suite: those of one title share a plot."""
    by_title: dict[str, list[Curve]] = {}
    for curve in curves:
        by_title.setdefault(curve.title, []).append(curve)
    return [_plot(group) for group in by_title.values()]


def _plot(curves: Sequence[Curve]) -> Plot:
    xs = [x for curve in curves for x in curve.x]
    ys = [y for curve in curves for part in (curve.y, curve.low or (), curve.high or ()) for y in part]
    low = min(ys)
    x_marks, y_marks = ticks(min(xs), max(xs)), ticks(0.0 if 0 < low < 0.5 * max(ys) else low, max(ys))

    def x_at(x: float) -> float:
        return _between(x, min(xs), max(xs), LEFT, WIDTH - RIGHT)

    def y_at(y: float) -> float:
        return _between(y, y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP)

    return Plot(
        title=curves[0].title,
        x_label=curves[0].x_label,
        y_label=curves[0].y_label,
        x_ticks=tuple(Tick(x_at(x), f"{x:g}") for x in x_marks if min(xs) <= x <= max(xs)),
        y_ticks=tuple(Tick(y_at(y), f"{y:g}") for y in y_marks),
        lines=tuple(
            Line(
                subject=curve.subject,
                points=_points((x_at(x), y_at(y)) for x, y in zip(curve.x, curve.y, strict=True)),
                band=_band(curve, x_at, y_at),
                marks=tuple((x_at(x), y_at(y)) for x, y in zip(curve.x, curve.y, strict=True))
                if len(curve.x) <= _MOST_MARKS
                else (),
                colour=n % COLOURS,
                dashed=n >= COLOURS,
            )
            for n, curve in enumerate(curves)
        ),
    )


def _band(curve: Curve, x_at: _Place, y_at: _Place) -> str | None:
    if curve.low is None or curve.high is None:
        return None
    there = [(x_at(x), y_at(y)) for x, y in zip(curve.x, curve.low, strict=True)]
    back = [(x_at(x), y_at(y)) for x, y in zip(curve.x, curve.high, strict=True)]
    return _points([*there, *reversed(back)])


def panel(figures: Sequence[Figure], note: str = "", *, ranked: bool = True) -> Panel:
    """Put the figures of one metric on one axis, the best first if they are ranked; shares of few run from 0 to 1."""
    first = figures[0]
    if ranked and first.better != "neither":
        figures = sorted(figures, key=lambda f: f.value, reverse=first.better == "higher")
    ends = [v for f in figures for v in (f.value, f.low, f.high) if v is not None]
    low, high = min(ends), max(ends)
    low = 0.0 if 0 < low < 0.6 * high else low  # nothing is near enough to be shown as well
    margin = _MARGIN * ((high - low) or abs(high) or 1.0)
    start, end = (low if low == 0.0 else low - margin), high + margin
    if not first.unit and min(ends) >= 0 and max(ends) <= 1:
        start, end = (0.0, 1.0) if len(figures) <= _FEW and max(ends) >= _VISIBLE else (max(0.0, start), min(1.0, end))

    def at(value: float) -> float:
        return round(_between(value, start, end, 0.0, 100.0), 2)

    bars = tuple(
        Bar(
            subject=f.subject,
            ours=f.subject in _OURS,
            value=show(f.value, f.unit),
            at=at(f.value),
            left=None if f.low is None else at(f.low),
            width=None if f.low is None or f.high is None else round(at(f.high) - at(f.low), 2),
            interval="" if f.low is None or f.high is None else f"{show(f.low)} to {show(f.high)}",
            n=f.n,
        )
        for f in figures
    )
    return Panel(first.metric, note, first.better, bars, (show(start), show(end)))


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in pairs)


def _between(value: float, low: float, high: float, start: float, end: float) -> float:
    share = (value - low) / (high - low) if high > low else 0.5
    return start + share * (end - start)
