"""Do claims name what a user is really interested in? Precision, recall and F1 against planted interests.

An interest is a group of items. A claim names the interest that more than half of the weight of its evidence is about,
by the items of the events that it cites; its words are not read. The first claim of an interest of the user's is
right. A second one of the same interest is wrong, and so is one of anything else: of items that the user has no
interest in, or of no single group.

What there is to be found are the user's interests that the log supports: those whose events, all of them, meet the
support rule of `agent.evidence` by which a claim may be made at all.

The category histogram, which every claim must beat: a claim for each category whose events meet the same support
rule and whose lift over the catalogue, as `agent.catalogue` smooths it, is at least 2, the heaviest first. Without the
bound on the lift, categories that cut across the catalogue would be its undoing.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from agent.catalogue import LIFT, Attribute, ItemSet
from agent.evidence import EvidenceSettings, Floats, Weights, support
from agent.themes import Ints, Theme, UserLog

Cited = tuple[Ints, Floats]
"""Of each event that a claim cites, the group of its item, -1 for none, and the weight."""


class Matched(NamedTuple):
    """How many claims were made, how many of them are right, and how many interests there were to be found.

    >>> Matched(claims=4, right=3, interests=3).f1
    0.8571428571428571
    """

    claims: int
    right: int
    interests: int

    @property
    def precision(self) -> float:
        """Share of the claims that are right; nan without any."""
        return self.right / self.claims if self.claims else float("nan")

    @property
    def recall(self) -> float:
        """Share of the interests that a claim names; nan without any."""
        return self.right / self.interests if self.interests else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, `2 right / (claims + interests)`; nan without any interest."""
        return 2 * self.right / (self.claims + self.interests) if self.interests else float("nan")


def named_interest(groups: Ints, weights: Floats) -> int:
    """Return the group that more than half of the weight is on, or -1.

    >>> named_interest(np.array([3, 3, 5]), np.array([0.4, 0.3, 0.5]))
    3
    >>> named_interest(np.array([3, 5]), np.array([0.5, 0.5]))
    -1
    """
    total = np.bincount(groups[groups >= 0], weights=weights[groups >= 0], minlength=1)
    top = int(np.argmax(total))
    return top if total[top] > weights.sum() / 2 else -1


def match(claims: Sequence[Cited], interests: Collection[int]) -> Matched:
    """Match claims with the interests that there are to be found.

    >>> one = np.ones(2)
    >>> match([(np.array([1, 1]), one), (np.array([1, 1]), one), (np.array([7, 7]), one)], {1, 2})
    Matched(claims=3, right=1, interests=2)
    """
    named = {named_interest(groups, weights) for groups, weights in claims}
    return Matched(len(claims), len(named & set(interests)), len(interests))


def groups_of(log: UserLog, group_of: Mapping[str, int]) -> Ints:
    """Return the group of each event's item, -1 for none, `(n,)`."""
    return np.array([-1 if key is None else group_of.get(key, -1) for key in log.items], dtype=np.int64)


def supported(groups: Ints, weights: Weights, wanted: Collection[int], settings: EvidenceSettings) -> set[int]:
    """Return those of the groups whose events in a log meet the support rule."""
    rows = {group: groups == group for group in wanted}
    return {
        group
        for group, mine in rows.items()
        if support(weights.decayed[mine], weights.explicit[mine]).holds(settings.max_negative_share)
    }


def cited(themes: Sequence[Theme], groups: Ints, weights: Weights) -> list[Cited]:
    """Return what the claims of themes cite."""
    return [(groups[theme.events], np.abs(weights.decayed[theme.events])) for theme in themes]


def histogram(log: UserLog, items: ItemSet, groups: Ints, weights: Weights, settings: EvidenceSettings) -> list[Cited]:
    """Return the claims of the category histogram, the heaviest first."""
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(log.items):
        for category in items.items[key].categories if key is not None else ():
            rows.setdefault(category, []).append(row)
    liked = weights.decayed > 0
    found: list[tuple[float, Cited]] = []
    for category, of_category in rows.items():
        mine = np.array(of_category)
        events = mine[liked[mine]]
        lift = items.base_rates.telling(Attribute("category", category), len(events), int(liked.sum())).lift
        supports = support(weights.decayed[mine], weights.explicit[mine])
        if lift >= LIFT and supports.holds(settings.max_negative_share):
            found.append((supports.positive, (groups[events], weights.decayed[events])))
    return [claim for _, claim in sorted(found, key=lambda pair: -pair[0])]
