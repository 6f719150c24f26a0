"""Tastes: what users really like, what they like later, what they dislike, and when they come."""

from typing import NamedTuple

import numpy as np

from eval.simulation.plan import DAYS, Bools, Drift, Floats, Ints

PEAKS = (8.0, 13.0, 20.0, 23.0)
SEASON = 60

_INTERESTS = (2, 5)
_LEAST, _MOST = 1.0, 3.0
_DRIFTERS, _DISLIKERS, _WEEKENDERS, _SEASONAL = 1 / 3, 0.6, 0.25, 0.2
_GIVEN_UP = 0.85
_DISLIKED, _TAKEN_UP = 4, 5  # places in a user's random order of themes, behind those of the interests


class Tastes(NamedTuple):
    """What `n` users really like, over `k` themes. A bot likes nothing.

    Attributes:
        early: `(n, k)`, shares until the drift.
        late: `(n, k)`, shares from then on; the same for those who do not drift.
        drift_day: `(n,)`, the day of the drift, counted from the first day of the logs; `DAYS` for none.
        disliked: `(n,)`, a theme, or -1.
        peak: `(n,)`, the hour of the day, local, around which sessions begin.
        weekend: `(n,)`, whether the user comes mostly on Saturdays and Sundays.
        season: `(n,)`, the first of 60 days in which the user comes most, or -1.
        bot: `(n,)`, whether a machine makes the log.
    """

    early: Floats
    late: Floats
    drift_day: Ints
    disliked: Ints
    peak: Floats
    weekend: Bools
    season: Ints
    bot: Bools

    @property
    def liked(self) -> Bools:
        """Tell for each user and theme whether it is an interest, early or late, `(n, k)`."""
        return np.asarray(self.early + self.late > 0)


def draw_tastes(rng: np.random.Generator, n: int, k: int, bots: float, drift: Drift) -> Tastes:
    """Draw tastes: two to four interests, the largest at most three times the smallest.

    A third of the users drift, on a day in the middle third of the logs: 85 % of the share of the main interest, or of
    each one, goes to a new interest. Most users dislike a theme, a quarter come at weekends, a fifth in a season.
    """
    order = np.argsort(rng.random((n, k)), axis=1)
    count = rng.integers(*_INTERESTS, n)
    most = _INTERESTS[1] - 1
    shares = np.sort(rng.uniform(_LEAST, _MOST, (n, most)), axis=1)[:, ::-1] * (np.arange(most) < count[:, None])
    bot = rng.random(n) < bots
    shares = np.where(bot[:, None], 0.0, shares / shares.sum(axis=1, keepdims=True))
    early = np.zeros((n, k))
    np.put_along_axis(early, order[:, :most], shares, axis=1)
    drifts = (rng.random(n) < _DRIFTERS) & ~bot
    late = early.copy()
    for place in range(1 if drift == "main" else most):
        moved = np.where(drifts, _GIVEN_UP * shares[:, place], 0.0)
        late[np.arange(n), order[:, place]] -= moved
        late[np.arange(n), order[:, _TAKEN_UP + place]] += moved
    drift_day = np.where(drifts, rng.integers(DAYS // 3, 2 * DAYS // 3, n), DAYS)
    disliked = np.where((rng.random(n) < _DISLIKERS) & ~bot, order[:, _DISLIKED], -1)
    peak = rng.choice(np.array(PEAKS), n)
    weekend = rng.random(n) < _WEEKENDERS
    season = np.where(rng.random(n) < _SEASONAL, rng.integers(DAYS - SEASON, size=n), -1)
    return Tastes(early, late, drift_day, disliked, peak, weekend, season, bot)


def draw_rows(rng: np.random.Generator, shares: Floats) -> Ints:
    """Draw a column for each row of shares `(n, k)`; the last one for a row of zeros."""
    running = np.cumsum(shares, axis=1)
    drawn = (running <= (rng.random(len(shares)) * running[:, -1])[:, None]).sum(axis=1)
    return np.asarray(np.minimum(drawn, shares.shape[1] - 1), dtype=np.int64)
