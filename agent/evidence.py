"""Evidence arithmetic: what an event weighs, when a theme is a claim, and the numbers of a claim.

Pure functions over arrays. Support follows GISTBench (arXiv 2603.29112) with a relative bound on negatives.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import betaincinv

from agent.contract import Trend

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SECONDS_PER_DAY = 86_400.0
RECENT_EVENTS = 10
RECENT_SHARE = 0.2
RISE = 1.5


class EventType(BaseModel):
    """How much a type of event says.

    Attributes:
        weight: Signed; negative for a type that speaks against the item.
        explicit: Whether the user meant to say something about the item.
        value: What the event's value does: `ignored`, `centred` (a rating around the neutral value) or
            `fraction` (a share of completion in [0, 1]).
        intent: Whether the type can show a need that is still open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    weight: float
    explicit: bool = False
    value: Literal["ignored", "centred", "fraction"] = "ignored"
    intent: bool = False


DEFAULT_TYPES: dict[str, EventType] = {
    "view": EventType(weight=0.2, intent=True),
    "click": EventType(weight=0.3, intent=True),
    "search": EventType(weight=0.3, intent=True),
    "play": EventType(weight=0.5, value="fraction"),
    "save": EventType(weight=0.6, explicit=True, intent=True),
    "add_to_cart": EventType(weight=0.6, intent=True),
    "share": EventType(weight=0.8, explicit=True),
    "like": EventType(weight=1.0, explicit=True),
    "purchase": EventType(weight=1.0, explicit=True),
    "rating": EventType(weight=1.0, explicit=True, value="centred"),
    "review": EventType(weight=1.0, explicit=True, value="centred"),
    "skip": EventType(weight=-0.3),
    "hide": EventType(weight=-0.8, explicit=True),
    "return": EventType(weight=-0.8, explicit=True),
    "dislike": EventType(weight=-1.0, explicit=True),
}


class EvidenceSettings(BaseModel):
    """What the evidence arithmetic depends on; its hash goes into every profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    types: dict[str, EventType] = Field(default_factory=lambda: dict(DEFAULT_TYPES))
    half_life_days: float = Field(default=365.0, gt=0)
    neutral: float = 3.0
    best: float = 5.0
    session_gap_minutes: float = Field(default=30.0, gt=0)
    max_negative_share: float = Field(default=0.4, ge=0, le=1)


class Weights(NamedTuple):
    """Signed weights of one user's events.

    Attributes:
        decayed: `(n,)`, in [-1, 1].
        undecayed: `(n,)`, the same without decay.
        explicit: `(n,)`, whether the event's type is explicit.
    """

    decayed: Floats
    undecayed: Floats
    explicit: Bools


class Support(NamedTuple):
    """What speaks for a theme and against it.

    Attributes:
        implicit: Number of implicit positive events.
        explicit: Number of explicit positive events.
        positive: Sum of decayed positive weights.
        negative: Sum of decayed negative weights, without their sign.
    """

    implicit: int
    explicit: int
    positive: float
    negative: float

    def holds(self, max_negative_share: float = 0.4) -> bool:
        """Tell whether the theme is a claim.

        It is with >=3 implicit, or >=2 explicit, or 1 explicit and >=2 implicit positive events, and a negative
        share below the bound.

        >>> Support(2, 1, 2.0, 0.5).holds()
        True
        >>> Support(2, 0, 2.0, 0.0).holds()
        False
        >>> Support(9, 9, 6.0, 4.0).holds()
        False
        """
        enough = self.implicit >= 3 or self.explicit >= 2 or (self.explicit >= 1 and self.implicit >= 2)  # noqa: PLR2004
        total = self.positive + self.negative
        return enough and total > 0 and self.negative / total < max_negative_share


def raw_weight(kind: EventType, value: float | None, settings: EvidenceSettings) -> float:
    """Return `s(type) * v(value)`, before scaling and decay.

    A rating without a value says nothing (0); a fraction without a value counts whole.
    """
    if value is not None and math.isnan(value):
        return 0.0
    if kind.value == "centred":
        if value is None:
            return 0.0
        span = settings.best - settings.neutral
        return kind.weight * max(-1.0, min(1.0, (value - settings.neutral) / span))
    if kind.value == "fraction" and value is not None:
        return kind.weight * max(0.0, min(1.0, value))
    return kind.weight


def total_weight(types: Sequence[str], values: Sequence[float | None], settings: EvidenceSettings) -> float:
    """Return the sum of `|s(type) * v(value)|`, before scaling and decay: it only grows with the log."""
    silent = EventType(weight=0.0)
    pairs = zip(types, values, strict=True)
    return sum(abs(raw_weight(settings.types.get(kind, silent), value, settings)) for kind, value in pairs)


def weigh(
    types: Sequence[str],
    values: Sequence[float | None],
    times: Floats,
    as_of: float,
    settings: EvidenceSettings,
) -> Weights:
    """Weigh one user's events: `w = s(type) * v(value) * 2^(-age / half_life)`, the strongest `|s * v|` being 1.

    Args:
        types: `n` names of event types; a type that the settings do not know weighs nothing.
        values: `n` values, or None.
        times: `(n,)`, seconds since 1970.
        as_of: The time that ages are counted to, in seconds since 1970; later events count as of age 0.
        settings: The table of types and the half-life.
    """
    table = settings.types
    silent = EventType(weight=0.0)
    pairs = zip(types, values, strict=True)
    raw = np.array([raw_weight(table.get(t, silent), v, settings) for t, v in pairs], dtype=float)
    top = np.abs(raw).max(initial=0.0)
    undecayed = raw / top if top > 0 else raw
    age_days = np.maximum(as_of - times, 0.0) / SECONDS_PER_DAY
    explicit = np.array([table.get(t, silent).explicit for t in types], dtype=bool)
    return Weights(undecayed * np.exp2(-age_days / settings.half_life_days), undecayed, explicit)


def support(decayed: Floats, explicit: Bools) -> Support:
    """Count and sum the events of one theme (positive and negative ones), `(m,)` each."""
    positive = decayed > 0
    return Support(
        implicit=int(np.count_nonzero(positive & ~explicit)),
        explicit=int(np.count_nonzero(positive & explicit)),
        positive=float(decayed[positive].sum()),
        negative=float(-decayed[decayed < 0].sum()),
    )


def confidence(undecayed: Floats) -> float:
    """Return the 5 % quantile of Beta(1 + S+, 1 + S-) over undecayed weights, each at most 1 in size.

    >>> round(confidence(np.ones(10)), 3)
    0.762
    """
    clipped = np.clip(undecayed, -1.0, 1.0)
    plus, minus = float(clipped[clipped > 0].sum()), float(-clipped[clipped < 0].sum())
    return float(betaincinv(1.0 + plus, 1.0 + minus, 0.05))


def trend(member: Bools, times: Floats) -> Trend | None:
    """Compare a theme's share among the user's latest events with its share before.

    Args:
        member: `(n,)`, for each of the user's events, in order of time, whether the theme rests on it.
        times: `(n,)`, their times in seconds.

    Returns:
        `new` if all is recent, `rising` above a ratio of 1.5 of the smoothed shares, `fading` below 1/1.5, else
        `steady`; None for fewer than 20 events or a span under 7 days. Recent are the last max(10, 20 %).
    """
    n = len(member)
    if n < 20 or times[-1] - times[0] < 7 * SECONDS_PER_DAY:  # noqa: PLR2004
        return None
    recent = max(RECENT_EVENTS, math.ceil(RECENT_SHARE * n))
    before = n - recent
    now_count, before_count = int(member[before:].sum()), int(member[:before].sum())
    if before_count == 0:
        return "new"
    ratio = ((now_count + 0.5) / (recent + 0.5)) / ((before_count + 0.5) / (before + 0.5))
    if ratio > RISE:
        return "rising"
    return "fading" if ratio < 1 / RISE else "steady"
