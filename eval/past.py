"""The world as it was at a cut in time of each user, and what each did afterwards.

What is made of `before(world, cuts)` alone cannot know what came after: logs, weights (which are scaled by the
strongest event of a log) and interactions are those of the events before the cut. Items are no events: texts,
categories and how usual these are in the catalogue are the same in both.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agent.evidence import EvidenceSettings, weigh
from agent.themes import UserLog
from eval.interactions import Floats, Interactions
from eval.splits import FEWEST_EVENTS
from eval.world import World


def cuts(events: Interactions, share: float = 0.2) -> Floats:
    """Return the time from which each user's events are held out, `(n_users,)`, so that about the last share is.

    Events at one time are never parted: all at the time of the first that is held out are held out too. It is inf,
    which holds out nothing, for users with fewer than 5 events, and for those of whom nothing would be left.

    Args:
        events: Of all users.
        share: Of a user's events, rounded down, that are held out at least.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share held out must lie between 0 and 1, not {share}")
    starts = events.starts()
    counts = np.diff(starts)
    held_out = np.floor(share * counts + 1e-9).astype(np.int64)  # 0.29 * 100 is a little less than 29
    found = np.full(events.n_users, np.inf)
    some = np.flatnonzero((counts >= FEWEST_EVENTS) & (held_out > 0))
    found[some] = events.time[starts[some + 1] - held_out[some]]
    nothing_left = some[found[some] <= events.time[starts[some]]]
    found[nothing_left] = np.inf
    return found


def before(world: World, cut: Floats) -> World:
    """Return the world with the events before each user's cut, `(n_users,)`, in seconds since 1970."""
    logs = [until(log, at, world) for log, at in zip(world.logs, cut.tolist(), strict=True)]
    past = interactions(logs, world)
    return replace(world, logs=logs, interactions=past, item_set=world.item_set_from(past))


def after(world: World, cut: Floats) -> Interactions:
    """Return the interactions from each user's cut on; only the signs of their weights should be relied on."""
    events = world.interactions
    return events.take(events.time >= cut[events.user])


def until(log: UserLog, cut: float, world: World) -> UserLog:
    """Return the part of a log before a cut; its revision, which counts later events too, is 0."""
    rows = np.flatnonzero(log.times < cut).tolist()
    return rows_of(log, rows, world)


def rows_of(log: UserLog, rows: Sequence[int], world: World) -> UserLog:
    """Return the events of a log in these rows; what is no item of the catalogue, such as a search, has none."""

    def take(values: Sequence[Any]) -> list[Any]:
        return [values[row] for row in rows]

    known = world.item_set.row
    return UserLog(
        user_id=log.user_id,
        event_ids=take(log.event_ids),
        items=[key if key in known else None for key in take(log.items)],
        types=take(log.types),
        values=take(log.values),
        times=log.times[list(rows)],
        offsets=take(log.offsets),
    )


def interactions(logs: Sequence[UserLog], world: World) -> Interactions:
    """Weigh logs, by code of user, and return their events that have an item."""
    code = {item.item_id: n for n, item in enumerate(world.items)}
    users: list[int] = []
    items: list[int] = []
    times: list[float] = []
    weights: list[float] = []
    values: list[float] = []
    for user, log in enumerate(logs):
        rows = [row for row, key in enumerate(log.items) if key in code]
        weighed = _weights(log, world.settings)
        users += [user] * len(rows)
        items += [code[key] for row in rows if (key := log.items[row]) is not None]
        times += log.times[rows].tolist()
        weights += weighed[rows].tolist()
        values += [np.nan if (value := log.values[row]) is None else value for row in rows]
    user_codes, item_codes = (np.array(column, dtype=np.int64) for column in (users, items))
    at, sizes, said = (np.array(column, dtype=np.float64) for column in (times, weights, values))
    return Interactions(user_codes, item_codes, at, sizes, said, len(logs), len(world.items))


def _weights(log: UserLog, settings: EvidenceSettings) -> Floats:
    return weigh(log.types, log.values, log.times, 0.0, settings).undecayed
