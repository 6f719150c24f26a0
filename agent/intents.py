"""Intents: what the most recent sessions are about, as long as it is still open."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from agent.catalogue import ItemSet
from agent.contract import Stage
from agent.evidence import Bools, EvidenceSettings, Weights
from agent.habits import sessions
from agent.themes import Grouping, Ints, Theme, UserLog

RECENT_SESSIONS = 2
MAX_INTENTS = 3
DECIDING_WEIGHT = 0.6
COMPARED_ITEMS = 3
BOUGHT = "purchase"


class Need(NamedTuple):
    """A theme of the latest sessions and how far the user has come with it."""

    theme: Theme
    stage: Stage


def find_intents(log: UserLog, items: ItemSet, weights: Weights, settings: EvidenceSettings) -> tuple[Need, ...]:
    """Group the recent events of types that show an open need (views, searches, carts), strongest first.

    Events of items that were bought or rated afterwards are left out, and so are all earlier events of a theme that
    something was bought of: that need is met. The support rule of claims holds here too.
    """
    recent = _recent_events(log, weights, settings)
    if not recent.any():
        return ()
    grouping = Grouping(log, items, weights, settings)
    still_open = recent & ~_settled_items(log, weights, settings)
    for theme in grouping.form(+1, recent)[1]:
        still_open[theme.events[theme.events < _last_purchase(theme, log)]] = False
    _, themes = grouping.form(+1, still_open)
    number = sessions(log.times, settings.session_gap_minutes)
    return tuple(
        Need(replace(theme, trend=None), _stage(theme, log, number, settings)) for theme in themes[:MAX_INTENTS]
    )


def _shows_need(log: UserLog, settings: EvidenceSettings) -> Bools:
    return np.array([t in settings.types and settings.types[t].intent for t in log.types], dtype=bool)


def _recent_events(log: UserLog, weights: Weights, settings: EvidenceSettings) -> Bools:
    number = sessions(log.times, settings.session_gap_minutes)
    latest = number >= (number[-1] if len(number) else 0) - RECENT_SESSIONS + 1
    found: Bools = latest & _shows_need(log, settings) & (weights.decayed > 0)
    return found


def _settled_items(log: UserLog, weights: Weights, settings: EvidenceSettings) -> Bools:
    """Tell of each event whether its item was bought, rated or the like afterwards."""
    shows_need = _shows_need(log, settings)
    settled: set[str] = set()
    found = np.zeros(len(log.types), dtype=bool)
    for row in range(len(log.types) - 1, -1, -1):
        key = log.items[row]
        found[row] = key in settled
        if key is not None and weights.explicit[row] and not shows_need[row]:
            settled.add(key)
    return found


def _last_purchase(theme: Theme, log: UserLog) -> int:
    """Return the row of the last purchase of one of a theme's items, or -1."""
    members = set(theme.members)
    return next(
        (n for n in range(len(log.types) - 1, -1, -1) if log.types[n] == BOUGHT and log.items[n] in members), -1
    )


def _stage(theme: Theme, log: UserLog, number: Ints, settings: EvidenceSettings) -> Stage:
    """Tell the stage by rule.

    `deciding` if something was saved or put into the cart; else `returning` if one of the items was already looked
    at before the latest sessions; else `comparing` from three distinct items on; else `exploring`.
    """
    types = [settings.types[log.types[row]] for row in theme.events]
    if any(t.weight >= DECIDING_WEIGHT for t in types):
        return "deciding"
    first = number[-1] - RECENT_SESSIONS + 1
    before = {key for key, n in zip(log.items, number, strict=True) if n < first}
    if before & set(theme.members):
        return "returning"
    return "comparing" if len(theme.members) >= COMPARED_ITEMS else "exploring"
