"""How soon is a drift noticed, and how often is there a false alarm? The test of `eval.detecting` on simulated users.

A profile is taken to be written on a day before any drift: what a user liked until then is known, and what comes after
is monitored, event by event. Only liked events count, those that weigh more than 0. The delay of a user who drifts is
the number of their events from the drift to the alarm, that of the alarm included; it is infinite when there is none
until the log ends. Who has an alarm before the drift is counted apart. A false alarm is a time at which the statistic
rises above the threshold in a user who does not drift; the rate is per 1,000 of these users' monitored events.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agent.evidence import EvidenceSettings, weigh
from agent.habits import sessions
from eval.detecting import Monitored, first_alarm, statistic
from eval.interactions import Floats
from eval.simulation.memory import Invented, Users
from eval.simulation.plan import DAY, DAYS, UNTIL

FEWEST_KNOWN = 20
STEP = 0.25
HIGHEST = 40.0


class Watched(NamedTuple):
    """A user's statistic.

    Attributes:
        values: `(n,)`, after each of the user's monitored events.
        drift: The place of the first event after the drift; None for who does not drift.
    """

    values: Floats
    drift: int | None


class Noticed(NamedTuple):
    """What a threshold gives.

    Attributes:
        delays: Of those who drift and have events after it, in events; `inf` where it was not noticed.
        early: How many of them had an alarm before the drift; they have no delay.
        false: Number of false alarms.
        events: Monitored events of those who do not drift.
    """

    delays: Floats
    early: int
    false: int
    events: int

    @property
    def median(self) -> float:
        """Median delay."""
        return float(np.median(self.delays))

    @property
    def per_thousand(self) -> float:
        """False alarms in 1,000 events."""
        return 1_000 * self.false / self.events


def watch(
    invented: Invented, log_densities: Floats, users: Users, profile_day: int, settings: EvidenceSettings
) -> list[Watched]:
    """Compute the statistic of users with at least 20 liked events until the day of the profile.

    Args:
        invented: The catalogue.
        log_densities: `(m, k)`, of its items and stand-ins by group.
        users: Of that catalogue.
        profile_day: Day of the logs on which the profile is written.
        settings: Of the evidence.
    """
    found = []
    for log, drift_day in zip(users.logs, users.tastes.drift_day.tolist(), strict=True):
        weights = weigh(log.types, log.values, log.times, 0.0, settings).undecayed
        liked = [n for n, key in enumerate(log.items) if weights[n] > 0 and key is not None]
        times = log.times[liked]
        known = times < _seconds(profile_day)
        if known.sum() < FEWEST_KNOWN or known.all():
            continue
        rows = [invented.items.row[key] for n in liked if (key := log.items[n]) is not None]
        visits = sessions(times, settings.session_gap_minutes)
        values = statistic(Monitored(log_densities[rows], visits, known))
        drift = int(np.searchsorted(times[~known], _seconds(drift_day))) if drift_day < DAYS else None
        found.append(Watched(values[~known], drift))
    return found


def _seconds(day: int) -> float:
    return UNTIL.timestamp() - (DAYS - day) * DAY


def notice(watched: Sequence[Watched], threshold: float) -> Noticed:
    """Raise alarms at a threshold.

    >>> notice([Watched(np.array([0.0, 9.0, 9.0, 1.0]), None), Watched(np.array([0.0, 1.0, 9.0]), 1)], 8.0)
    Noticed(delays=array([2.]), early=0, false=1, events=4)
    """
    delays, early, false, events = [], 0, 0, 0
    for values, drift in watched:
        if drift is None:
            above = values > threshold
            false += int(np.count_nonzero(above & ~np.concatenate([[False], above[:-1]])))
            events += len(values)
        elif first_alarm(values[:drift], threshold) is not None:
            early += 1
        elif drift < len(values):
            alarm = first_alarm(values[drift:], threshold)
            delays.append(float("inf") if alarm is None else alarm + 1.0)
    return Noticed(np.array(delays), early, false, events)


def calibrate(watched: Sequence[Watched], per_thousand: float) -> float:
    """Return the lowest threshold, in steps of .25, with no more false alarms than that in 1,000 events.

    Raises:
        ValueError: There is nobody who does not drift.
    """
    steady = [user for user in watched if user.drift is None]
    if not steady:
        raise ValueError("nobody is watched who does not drift: there is nothing to calibrate on")
    # From above: further down a statistic may lie above the threshold throughout, which is one alarm.
    found = HIGHEST
    while found > STEP and notice(steady, found - STEP).per_thousand <= per_thousand:
        found -= STEP
    return found
