"""What was shown to people and what they did: click and conversion rates, and those that another policy would have had.

An impression is an event of the type `impression` about an item; its `context` may hold the `propensity`, the
probability with which the item was shown. It was clicked, or led to a purchase, if such an event of the same user about
the same item follows it within a window and before the next impression of that item.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from eval.interactions import Bools, Floats, Ints
from store.records import Event

IMPRESSION = "impression"
CLICKED, CONVERTED = ("click",), ("purchase",)
ACTS = frozenset({IMPRESSION, *CLICKED, *CONVERTED})
WINDOW = 86_400.0
"""Seconds in which what follows an impression is its outcome."""


class Impressions(NamedTuple):
    """What was shown.

    Attributes:
        user: `(n,)`, codes: the place of the user's log.
        item: `n` item ids.
        time: `(n,)`, seconds since 1970.
        clicked: `(n,)`.
        converted: `(n,)`.
        propensity: `(n,)`, with which the item was shown; nan where it was not logged.
    """

    user: Ints
    item: list[str]
    time: Floats
    clicked: Bools
    converted: Bools
    propensity: Floats


def impressions(logs: Iterable[Sequence[Event]], window: float = WINDOW) -> Impressions:
    """Find the impressions in logs, and what came of them.

    Args:
        logs: Each user's events, in order of time.
        window: Seconds in which an outcome counts.
    """
    users: list[int] = []
    items: list[str] = []
    times: list[float] = []
    outcomes: list[list[bool]] = []
    propensities: list[float] = []
    for user, events in enumerate(logs):
        last: dict[str, tuple[int, float]] = {}
        for event in events:
            if event.item_id is None:
                continue
            at = event.ts.timestamp()
            if event.type == IMPRESSION:
                last[event.item_id] = len(items), at
                users.append(user)
                items.append(event.item_id)
                times.append(at)
                outcomes.append([False, False])
                propensities.append(_propensity(event))
                continue
            shown, since = last.get(event.item_id, (-1, -np.inf))
            if at - since <= window:
                outcomes[shown][0] |= event.type in CLICKED
                outcomes[shown][1] |= event.type in CONVERTED
    done = np.array(outcomes, dtype=np.bool_).reshape(-1, 2)
    return Impressions(
        np.array(users, dtype=np.int64), items, np.array(times), done[:, 0], done[:, 1], np.array(propensities)
    )


def _propensity(event: Event) -> float:
    """Return what the context says; nan where it says nothing, or no probability."""
    value = event.context.get("propensity")
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
    return float(value) if known else np.nan  # type: ignore[arg-type]


class OffPolicy(NamedTuple):
    """What a policy would have earned, estimated from what another one has shown.

    Attributes:
        ips: By inverse propensity scores; unbiased, and of high variance.
        snips: The same over the sum of the weights (self-normalized): a little biased, much steadier.
        effective: Effective sample size; the impressions that the estimates are worth.
        n: Number of impressions.
    """

    ips: float
    snips: float
    effective: float
    n: int


def off_policy(reward: Floats, propensity: Floats, target: Floats, clip: float = np.inf) -> OffPolicy:
    """Estimate the mean reward of a target policy (Horvitz and Thompson 1952; Swaminathan and Joachims 2015).

    `w = min(target / propensity, clip)`; IPS is `mean(w r)`, SNIPS `sum(w r) / sum(w)`.

    Args:
        reward: `(n,)`, such as clicks.
        propensity: `(n,)`, with which the logging policy showed each item, above 0.
        target: `(n,)`, with which the target policy would.
        clip: Largest weight: less variance for more bias.

    Raises:
        ValueError: There are no impressions, or a propensity is not above 0.

    >>> off_policy(np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    OffPolicy(ips=1.0, snips=1.0, effective=1.0, n=2)
    """
    if not len(reward) or not (propensity > 0).all():
        raise ValueError("impressions with propensities above 0 are needed")
    weights = np.minimum(target / propensity, clip)
    total = float(weights.sum())
    gained = float(weights @ reward)
    snips = gained / total if total else float("nan")
    return OffPolicy(gained / len(reward), snips, effective_sample_size(weights), len(reward))


def effective_sample_size(weights: Floats) -> float:
    """Return `(sum w)^2 / sum w^2` (Kish 1965): as many equal weights give means as steady as these.

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0])), effective_sample_size(np.array([3.0]))
    (2.0, 1.0)
    """
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def softmax(scores: Floats, temperature: float = 1.0) -> Floats:
    """Return the policy that shows one of some items with probabilities by their scores, `(b, m)` to `(b, m)`.

    >>> softmax(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """
    raised = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
