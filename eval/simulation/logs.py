"""Logs: what a batch of users with given tastes do.

A log is made of sessions. A session has an interest, drawn from the mixture of its day, and its events are about that
theme's items, drawn by popularity (Zipf); some go on with the item before them. Noise are events about other themes'
items, which nobody goes on with. A bot looks at items of the whole catalogue alike, at one pace, day and night.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from eval.simulation.catalogue import Catalogue
from eval.simulation.plan import BATCH, DAY, DAYS, MAX_EVENTS, UNTIL, Bools, Floats, Ints, Simulation
from eval.simulation.tastes import SEASON, draw_rows, draw_tastes
from eval.simulation.words import Acts

# Zones without daylight saving time, and their minutes east of UTC: hours of habit are exact.
ZONES = {
    "Atlantic/Reykjavik": 0, "Africa/Lagos": 60, "Asia/Kolkata": 330, "Asia/Shanghai": 480, "Asia/Tokyo": 540,
    "America/Bogota": -300, "America/Phoenix": -420,
}  # fmt: skip

_AVERSE = 0.08  # events about what the user dislikes
_ON = 0.4  # events that go on with the item before them
_NEW_SESSION = 0.3
_IN_SEASON = 0.8
_OFF_HOURS = 0.1
_LIKED, _NEUTRAL, _DISLIKED = 4.5, 3.3, 1.5
_BOT_PACE = 20.0  # seconds between the events of a bot
_BOT_ACTS = ("view", "click")


class Log(NamedTuple):
    """The events of a batch, user by user, each in order of time; `e` of them.

    Attributes:
        user: `(e,)`, places of users in the batch.
        item: `(e,)`, items; that of a search is what it is about.
        kind: `(e,)`, places in `kinds`.
        kinds: Names of event types.
        ts: `(e,)`, seconds since 1970.
        value: `(e,)`, stars of a rating, the share that was played, else nan.
        phrase: `(e,)`, of a search, a place among the domain's phrases; else -1.
    """

    user: Ints
    item: Ints
    kind: Ints
    kinds: list[str]
    ts: Ints
    value: Floats
    phrase: Ints


class Batch:
    """Some users, from `start` on.

    Attributes:
        ids: Of the users.
        zone: `(n,)`, places in `ZONES`.
        tastes: What they really like.
        lengths: `(n,)`, numbers of events.
    """

    def __init__(self, wanted: Simulation, catalogue: Catalogue, start: int, n: int) -> None:
        self.rng = wanted.rng(1 + start // BATCH)
        self.wanted, self.catalogue, self.words, self.n = wanted, catalogue, catalogue.words, n
        self.ids = [f"{wanted.prefix}-u{number:06}" for number in range(start, start + n)]
        self.zone: Ints = self.rng.integers(len(ZONES), size=n)
        self.tastes = draw_tastes(self.rng, n, len(self.words.themes), wanted.bots, wanted.drift)
        spread = 0.8
        lengths = self.rng.lognormal(np.log(wanted.events_per_user) - spread**2 / 2, spread, n)
        self.lengths: Ints = np.clip(np.round(lengths), 5, MAX_EVENTS).astype(np.int64)

    @property
    def phrases(self) -> list[str]:
        """What people search for, theme by theme."""
        return [phrase for theme in self.words.themes for phrase in theme.searches]

    @property
    def zones(self) -> list[str]:
        """Each user's zone."""
        names = list(ZONES)
        return [names[z] for z in self.zone]

    @property
    def languages(self) -> list[str]:
        """Each user's language."""
        return ["zh" if self.wanted.language == "zh" or zone == "Asia/Shanghai" else "en" for zone in self.zones]

    @cached_property
    def log(self) -> Log:
        """What the users do."""
        user = np.repeat(np.arange(self.n), self.lengths)
        session, began, theme = self._sessions(user)
        ts = self._times(session, began)
        theme, stray, averse = self._themes(user, theme[session])
        item = self.catalogue.draw(self.rng, theme)
        usual = ~(stray | averse)
        within = np.concatenate([[False], (session[1:] == session[:-1]) & usual[:-1]])
        goes_on = within & usual & (self.rng.random(len(user)) < _ON)
        item = item[np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(user))))]
        kind, kinds = self._types(goes_on, averse)
        bot = self.tastes.bot[user]
        item = np.where(bot, self.rng.integers(len(self.catalogue.ids), size=len(user)), item)
        kind = np.where(bot, np.array([kinds.index(act) for act in _BOT_ACTS])[item % len(_BOT_ACTS)], kind)
        order = np.lexsort((np.arange(len(user)), ts, user))
        return self._log(user[order], item[order], kind[order], ts[order], (averse & ~bot)[order], kinds)

    def _sessions(self, user: Ints) -> tuple[Ints, Floats, Ints]:
        """Cut the logs into sessions: the session of each event, and each session's beginning and theme.

        Beginnings are seconds before `UNTIL`, negative, in UTC.
        """
        rng, tastes = self.rng, self.tastes
        first = np.concatenate([[True], user[1:] != user[:-1]])
        begins = first | ((rng.random(len(user)) < _NEW_SESSION) & ~tastes.bot[user])
        session = np.cumsum(begins) - 1
        owner = user[begins]
        day = np.floor(rng.random(len(owner)) * DAYS).astype(np.int64)
        busy = (tastes.season[owner] >= 0) & (rng.random(len(owner)) < _IN_SEASON)
        day = np.where(busy, tastes.season[owner] + day % SEASON, day)
        weekday = (UNTIL.weekday() - DAYS + day) % 7
        moved = day - weekday + 5 + (rng.random(len(owner)) < 0.5)  # noqa: PLR2004 - Saturday or Sunday of that week
        stays = ~tastes.weekend[owner] | (rng.random(len(owner)) < 0.2) | (moved >= DAYS)  # noqa: PLR2004
        day = np.where(stays, day, moved)
        hour = np.mod(tastes.peak[owner] + rng.normal(0.0, 1.5, len(owner)), 24.0)
        off = (rng.random(len(owner)) < _OFF_HOURS) | tastes.bot[owner]
        hour = np.where(off, rng.random(len(owner)) * 24.0, hour)
        zone = np.array(list(ZONES.values()))[self.zone[owner]] * 60.0
        began = (day - DAYS) * float(DAY) + hour * 3600.0 - zone
        now = np.where((day < tastes.drift_day[owner])[:, None], tastes.early[owner], tastes.late[owner])
        return session, began, draw_rows(rng, now)

    def _times(self, session: Ints, began: Floats) -> Ints:
        """Return seconds since 1970: events of a session follow each other at about a minute and a half."""
        start = np.searchsorted(session, np.arange(len(began)))
        owner = np.repeat(np.arange(self.n), self.lengths)
        gaps = np.where(self.tastes.bot[owner], _BOT_PACE, self.rng.exponential(90.0, len(session)))
        total = np.cumsum(gaps)
        within = total - total[start][session]
        seconds = int(UNTIL.timestamp()) + began[session] + within
        return np.asarray(np.floor(np.minimum(seconds, UNTIL.timestamp() + DAY / 2)), dtype=np.int64)

    def _themes(self, user: Ints, theme: Ints) -> tuple[Ints, Bools, Bools]:
        """Let some events be noise, and some be about what the user dislikes."""
        rng, tastes = self.rng, self.tastes
        disliked = tastes.disliked[user]
        stray = rng.random(len(user)) < self.wanted.noise
        averse = ~stray & (rng.random(len(user)) < _AVERSE) & (disliked >= 0)
        other = np.where(tastes.liked, 0.0, self.catalogue.theme_popularity)
        hates = np.flatnonzero(tastes.disliked >= 0)
        other[hates, tastes.disliked[hates]] = 0.0
        theme = theme.copy()
        theme[stray] = draw_rows(rng, other[user[stray]])
        return np.where(averse, disliked, theme), stray, averse

    def _types(self, goes_on: Bools, averse: Bools) -> tuple[Ints, list[str]]:
        words = self.words
        acts = (words.first, words.again, words.averse)
        names = sorted({name for act in acts for name in act.types} | {*_BOT_ACTS, "rating"})
        first, again, hates = (_draw_acts(self.rng, act, names, len(averse)) for act in acts)
        return np.where(averse, hates, np.where(goes_on, again, first)), names

    def _log(self, user: Ints, item: Ints, kind: Ints, ts: Ints, averse: Bools, kinds: list[str]) -> Log:
        theme = self.catalogue.theme[item]
        own = self.tastes.liked[user, theme]
        level = np.where(averse, _DISLIKED, np.where(own, _LIKED, _NEUTRAL)) + self.catalogue.quality[item]
        stars = np.clip(np.round(level + self.rng.normal(0.0, 0.5, len(item))), 1.0, 5.0)
        played = np.round(np.where(own, self.rng.beta(6, 1.5, len(item)), self.rng.beta(2, 3, len(item))), 2)
        value = np.where(kind == kinds.index("rating"), stars, np.nan)
        if "play" in kinds:
            value = np.where(kind == kinds.index("play"), played, value)
        per_theme = np.cumsum([0, *(len(t.searches) for t in self.words.themes)])
        pick = per_theme[theme] + np.floor(self.rng.random(len(item)) * np.diff(per_theme)[theme]).astype(np.int64)
        return Log(user, item, kind, kinds, ts, value, np.where(kind == kinds.index("search"), pick, -1))


def _draw_acts(rng: np.random.Generator, acts: Acts, names: Sequence[str], n: int) -> Ints:
    places = np.array([names.index(name) for name in acts.types])
    return np.asarray(places[rng.choice(len(places), size=n, p=acts.shares)], dtype=np.int64)
