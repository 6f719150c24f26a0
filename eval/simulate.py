"""Simulated data: an invented catalogue, users with tastes that we know, and their logs, as Parquet for ingest.

A user has a taste: a mixture over the themes of a domain which drifts from `early` to `late`, themes disliked, and
hours of the day. A log is made of sessions; a session has a theme drawn from the mixture of its day, and its events
are about that theme's items, drawn by popularity (Zipf). Users are made in batches, each from a generator of its own:
memory is bounded, and the same seed gives the same bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from eval.domains import DOMAINS, Acts, Domain, DomainName

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]

BATCH = 2_000
MAX_EVENTS = 2_000
UNTIL = datetime(2025, 7, 1, tzinfo=UTC)
DAYS = 180
# Zones without daylight saving time, and their minutes east of UTC: hours of habit are exact.
ZONES = {
    "Atlantic/Reykjavik": 0, "Africa/Lagos": 60, "Asia/Kolkata": 330, "Asia/Shanghai": 480, "Asia/Tokyo": 540,
    "America/Bogota": -300, "America/Phoenix": -420,
}  # fmt: skip
PEAKS = (8.0, 13.0, 20.0, 23.0)

_DAY = 86_400
_ZIPF = 0.9
_STRAYS = 0.12  # events about something that is popular, whatever the user's taste
_AVERSE = 0.08  # events about what the user dislikes
_ON = 0.4  # events that go on with the item before them
_NEW_SESSION = 0.3
_DRIFT = 0.85  # of the main theme's share, which goes to the second
_OFF_HOURS = 0.1
_LIKED, _NEUTRAL, _DISLIKED = 4.5, 3.3, 1.5
_TEXTS = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Simulation:
    """What to simulate.

    Attributes:
        users: Number of users.
        seed: Of everything that is drawn.
        items: Number of items; a fiftieth of the users, from 200 to 20,000, unless given.
        domain: `shop`, `courses` or `music`.
        events_per_user: Mean length of a log; the lengths are log-normal, at least 5, at most 2,000.
    """

    users: int
    seed: int = 0
    items: int | None = None
    domain: DomainName = "shop"
    events_per_user: float = 50.0

    @property
    def catalogue_size(self) -> int:
        """Number of items."""
        return self.items if self.items is not None else int(np.clip(self.users // 50, 200, 20_000))

    @property
    def prefix(self) -> str:
        """What the ids begin with, so that two simulations can be in one store."""
        return f"{self.domain}{self.seed}"

    def rng(self, part: int) -> np.random.Generator:
        """Return the generator of the catalogue (0) or of a batch of users (from 1)."""
        return np.random.default_rng([self.seed, list(DOMAINS).index(self.domain), part])


class Written(NamedTuple):
    """The files of a simulation, and how many events they hold.

    Attributes:
        truth: Each user's real tastes; not for `limner ingest`.
    """

    items: Path
    users: Path
    events: Path
    truth: Path
    total: int


class Tastes(NamedTuple):
    """What a batch of `n` users really likes, over `k` themes.

    Attributes:
        early: `(n, k)`, shares at the beginning of the log.
        late: `(n, k)`, shares at its end.
        disliked: `(n,)`, a theme, or -1.
        peak: `(n,)`, the hour of the day, local, around which sessions begin.
        weekend: `(n,)`, whether the user comes mostly on Saturdays and Sundays.
    """

    early: Floats
    late: Floats
    disliked: Ints
    peak: Floats
    weekend: Bools


def simulate(wanted: Simulation, folder: Path, progress: Progress | None = None) -> Written:
    """Write items, users, events and the truth as Parquet files into a folder, which is made.

    Args:
        wanted: What to simulate.
        folder: Files of an earlier simulation there are overwritten.
        progress: Called with the users done and their number.

    Raises:
        ValueError: A number is too small, or there is no such domain.
    """
    _check(wanted)
    folder.mkdir(parents=True, exist_ok=True)
    items, users, events, truth = (folder / f"{name}.parquet" for name in ("items", "users", "events", "truth"))
    catalogue = _Catalogue(wanted)
    pq.write_table(catalogue.table(), items)
    total = 0
    with (
        pq.ParquetWriter(users, _USERS) as to_users,
        pq.ParquetWriter(events, _EVENTS) as to_events,
        pq.ParquetWriter(truth, _TRUTH) as to_truth,
    ):
        for start in range(0, wanted.users, BATCH):
            n = min(BATCH, wanted.users - start)
            batch = _Batch(wanted, catalogue, start, n)
            to_users.write_table(batch.users())
            to_truth.write_table(batch.truth())
            log = batch.events()
            to_events.write_table(log)
            total += log.num_rows
            if progress:
                progress(start + n, wanted.users)
    return Written(items, users, events, truth, total)


def _check(wanted: Simulation) -> None:
    if wanted.domain not in DOMAINS:
        raise ValueError(f"there is no domain {wanted.domain}: choose {', '.join(DOMAINS)}")
    themes = len(DOMAINS[wanted.domain].themes)
    for name, value, least in (
        ("users", wanted.users, 1),
        ("items", wanted.catalogue_size, themes),
        ("seed", wanted.seed, 0),
        ("events per user", wanted.events_per_user, 5),
    ):
        if value < least:
            raise ValueError(f"{name}: {value} is too few, there must be at least {least}")


_ITEMS = pa.schema(
    {
        "item_id": pa.string(),
        "title": pa.string(),
        "categories": pa.list_(pa.string()),
        "attributes": pa.map_(pa.string(), pa.string()),
        "description": pa.string(),
        "price": pa.float64(),
        "image_caption": pa.string(),
        "created_at": pa.timestamp("s", tz="UTC"),
    }
)
_USERS = pa.schema({"user_id": pa.string(), "language": pa.string(), "tz": pa.string()})
_EVENTS = pa.schema(
    {
        "user_id": _TEXTS,
        "item_id": _TEXTS,
        "type": _TEXTS,
        "ts": pa.timestamp("s", tz="UTC"),
        "value": pa.float64(),
        "text": _TEXTS,
    }
)
_TRUTH = pa.schema(
    {
        "user_id": pa.string(),
        "main": pa.string(),
        "early": pa.map_(pa.string(), pa.float64()),
        "late": pa.map_(pa.string(), pa.float64()),
        "disliked": pa.string(),
        "peak_hour": pa.float64(),
        "weekend": pa.bool_(),
    }
)


class _Catalogue:
    """Items in order of theme: item `i` is of theme `theme[i]`; `mass` is the running sum of popularity."""

    def __init__(self, wanted: Simulation) -> None:
        self.domain: Domain = DOMAINS[wanted.domain]
        rng = wanted.rng(0)
        k, m = len(self.domain.themes), wanted.catalogue_size
        self.theme: Ints = np.sort(np.arange(m) % k)
        self.first: Ints = np.searchsorted(self.theme, np.arange(k + 1))
        popularity = np.concatenate(
            [rng.permutation(1.0 / np.arange(1, size + 1) ** _ZIPF) for size in np.diff(self.first)]
        )
        theme_weight = rng.uniform(0.5, 1.5, k)[self.theme]
        self.mass: Floats = np.concatenate([[0.0], np.cumsum(popularity * theme_weight)])
        self.quality: Floats = rng.normal(0.0, 0.4, m)
        self._rng = rng
        self.ids = [f"{wanted.prefix}-i{n:06}" for n in range(m)]

    def draw(self, rng: np.random.Generator, themes: Ints) -> Ints:
        """Draw an item of each theme given by popularity; of any theme for -1."""
        low = np.where(themes < 0, 0.0, self.mass[self.first[themes]])
        high = np.where(themes < 0, self.mass[-1], self.mass[self.first[themes + 1]])
        found = np.searchsorted(self.mass, low + rng.random(len(themes)) * (high - low), side="right") - 1
        return np.asarray(np.clip(found, 0, len(self.ids) - 1), dtype=np.int64)

    def table(self) -> pa.Table:
        """Write the items' titles and texts."""
        rng, domain = self._rng, self.domain
        rows = [self._row(rng, domain, n) for n in range(len(self.ids))]
        return pa.Table.from_pylist(rows, schema=_ITEMS)

    def _row(self, rng: np.random.Generator, domain: Domain, n: int) -> dict[str, Any]:
        theme = domain.themes[self.theme[n]]
        maker, trait, thing, facet = (
            options[int(rng.integers(len(options)))]
            for options in (domain.makers, theme.traits, theme.things, domain.facets)
        )
        lower = {"trait": trait.lower(), "thing": thing.lower(), "theme": theme.name.lower(), "facet": facet.lower()}
        described = domain.description.format(**lower, maker=maker)
        pictured = rng.random() < domain.pictured
        median, spread = domain.price
        return {
            "item_id": self.ids[n],
            "title": domain.title.format(maker=maker, trait=trait, thing=thing),
            "categories": [theme.name, facet],
            "attributes": [
                (domain.maker, maker),
                ("year", str(rng.integers(domain.years[0], domain.years[1] + 1))),
            ],
            "description": described[0].upper() + described[1:],
            "price": round(float(np.exp(rng.normal(np.log(median), spread))), 2),
            "image_caption": domain.caption.format(**lower, maker=maker) if pictured else None,
            "created_at": int(UNTIL.timestamp()) - (DAYS + int(rng.integers(1, 400))) * _DAY,
        }


class _Batch:
    """Some users, from `start` on, and their logs."""

    def __init__(self, wanted: Simulation, catalogue: _Catalogue, start: int, n: int) -> None:
        self.rng = wanted.rng(1 + start // BATCH)
        self.catalogue, self.domain, self.n = catalogue, catalogue.domain, n
        self.ids = [f"{wanted.prefix}-u{number:06}" for number in range(start, start + n)]
        self.zone: Ints = self.rng.integers(len(ZONES), size=n)
        self.tastes = _tastes(self.rng, n, len(self.domain.themes))
        spread = 0.8
        lengths = self.rng.lognormal(np.log(wanted.events_per_user) - spread**2 / 2, spread, n)
        self.lengths: Ints = np.clip(np.round(lengths), 5, MAX_EVENTS).astype(np.int64)

    def users(self) -> pa.Table:
        """Return the users as declared."""
        zones = list(ZONES)
        languages = ["zh" if zones[z] == "Asia/Shanghai" else "en" for z in self.zone]
        return pa.table([self.ids, languages, [zones[z] for z in self.zone]], schema=_USERS)

    def truth(self) -> pa.Table:
        """Return what the users really like."""
        tastes, names = self.tastes, [theme.name for theme in self.domain.themes]

        def shares(matrix: Floats) -> list[list[tuple[str, float]]]:
            return [[(names[k], round(float(row[k]), 4)) for k in np.flatnonzero(row)] for row in matrix]

        main = np.argmax(tastes.early + tastes.late, axis=1)  # of the whole log
        return pa.table(
            [
                self.ids, [names[k] for k in main], shares(tastes.early), shares(tastes.late),
                [names[k] if k >= 0 else None for k in tastes.disliked], tastes.peak, tastes.weekend,
            ],
            schema=_TRUTH,
        )  # fmt: skip

    def events(self) -> pa.Table:
        """Return the logs, user by user, each in order of time."""
        user = np.repeat(np.arange(self.n), self.lengths)
        session, began, theme = self._sessions(user)
        ts = self._times(session, began)
        theme, averse = self._themes(user, theme[session])
        drawn = self.catalogue.draw(self.rng, theme)
        new = np.concatenate([[True], session[1:] != session[:-1]])
        goes_on = ~new & (self.rng.random(len(user)) < _ON) & ~averse
        goes_on &= ~np.concatenate([[False], averse[:-1]])
        place = np.maximum.accumulate(np.where(goes_on, 0, np.arange(len(user))))
        item = drawn[place]
        kind, names = self._types(goes_on, averse)
        order = np.lexsort((np.arange(len(user)), ts, user))
        searches = names.index("search")
        return self._table(user[order], item[order], kind[order], ts[order], averse[order], names, searches)

    def _sessions(self, user: Ints) -> tuple[Ints, Floats, Ints]:
        """Cut the logs into sessions: the session of each event, and each session's beginning and theme.

        Beginnings are seconds before `UNTIL`, negative, in UTC.
        """
        rng, tastes = self.rng, self.tastes
        first = np.concatenate([[True], user[1:] != user[:-1]])
        begins = first | (rng.random(len(user)) < _NEW_SESSION)
        session = np.cumsum(begins) - 1
        owner = user[begins]
        day = np.floor(rng.random(len(owner)) * DAYS).astype(np.int64)
        weekday = (UNTIL.weekday() - DAYS + day) % 7
        moved = day - weekday + 5 + (rng.random(len(owner)) < 0.5)  # noqa: PLR2004 - Saturday or Sunday of that week
        stays = ~tastes.weekend[owner] | (rng.random(len(owner)) < 0.2) | (moved >= DAYS)  # noqa: PLR2004
        day = np.where(stays, day, moved)
        hour = np.mod(tastes.peak[owner] + rng.normal(0.0, 1.5, len(owner)), 24.0)
        hour = np.where(rng.random(len(owner)) < _OFF_HOURS, rng.random(len(owner)) * 24.0, hour)
        zone = np.array(list(ZONES.values()))[self.zone[owner]] * 60.0
        began = (day - DAYS) * float(_DAY) + hour * 3600.0 - zone
        share = (day / DAYS)[:, None]
        mixture = (1.0 - share) * tastes.early[owner] + share * tastes.late[owner]
        theme = _draw_rows(rng, mixture)
        return session, began, theme

    def _times(self, session: Ints, began: Floats) -> Ints:
        """Return seconds since 1970: events of a session follow each other at about a minute and a half."""
        gaps = self.rng.exponential(90.0, len(session))
        total = np.cumsum(gaps)
        start = np.searchsorted(session, np.arange(len(began)))
        within = total - total[start][session]
        seconds = int(UNTIL.timestamp()) + began[session] + within
        return np.asarray(np.floor(np.minimum(seconds, UNTIL.timestamp() + _DAY / 2)), dtype=np.int64)

    def _themes(self, user: Ints, theme: Ints) -> tuple[Ints, Bools]:
        """Let some events stray from their session's theme, and some be about what the user dislikes."""
        chance, disliked = self.rng.random(len(user)), self.tastes.disliked[user]
        averse = (chance < _AVERSE) & (disliked >= 0)
        stray = ~averse & (chance < _AVERSE + _STRAYS) & (chance >= _AVERSE)
        return np.where(averse, disliked, np.where(stray, -1, theme)), averse

    def _types(self, goes_on: Bools, averse: Bools) -> tuple[Ints, list[str]]:
        domain = self.domain
        names = sorted({name for acts in (domain.first, domain.again, domain.averse) for name in acts.types})
        first, again, hates = (
            _draw_acts(self.rng, acts, names, len(averse)) for acts in (domain.first, domain.again, domain.averse)
        )
        return np.where(averse, hates, np.where(goes_on, again, first)), names

    def _table(
        self, user: Ints, item: Ints, kind: Ints, ts: Ints, averse: Bools, names: list[str], searches: int
    ) -> pa.Table:
        theme = self.catalogue.theme[item]
        searched, rated = kind == searches, kind == names.index("rating")
        own = (self.tastes.early + self.tastes.late)[user, theme] > 0
        level = np.where(averse, _DISLIKED, np.where(own, _LIKED, _NEUTRAL)) + self.catalogue.quality[item]
        stars = np.clip(np.round(level + self.rng.normal(0.0, 0.5, len(item))), 1.0, 5.0)
        played = kind == names.index("play") if "play" in names else np.zeros(len(kind), dtype=np.bool_)
        part = np.round(np.where(own, self.rng.beta(6, 1.5, len(item)), self.rng.beta(2, 3, len(item))), 2)
        phrases = [phrase for t in self.domain.themes for phrase in t.searches]
        per_theme = np.cumsum([0, *(len(t.searches) for t in self.domain.themes)])
        pick = per_theme[theme] + np.floor(self.rng.random(len(item)) * np.diff(per_theme)[theme]).astype(np.int64)
        columns = [
            _coded(user, self.ids),
            _coded(item, self.catalogue.ids, searched),
            _coded(kind, names),
            pa.array(ts, type=pa.timestamp("s", tz="UTC")),
            pa.array(np.where(rated, stars, part), mask=~(rated | played)),
            _coded(pick, phrases, ~searched),
        ]
        return pa.table(columns, schema=_EVENTS)


def _tastes(rng: np.random.Generator, n: int, k: int) -> Tastes:
    """Draw tastes: a main theme of more than half of the mixture, and one to three others.

    A third of the users drift: most of the main theme's share goes to the second theme.
    """
    order = np.argsort(rng.random((n, k)), axis=1)
    count = rng.integers(1, 4, n)
    main = rng.uniform(0.55, 0.8, n)
    rest = rng.dirichlet(np.ones(3), n) * (np.arange(3) < count[:, None])
    rest *= ((1.0 - main) / rest.sum(axis=1))[:, None]
    early = np.zeros((n, k))
    np.put_along_axis(early, order[:, :4], np.column_stack([main, rest]), axis=1)
    late = early.copy()
    drifts = np.flatnonzero(rng.random(n) < 1 / 3)
    first, second = order[drifts, 0], order[drifts, 1]
    moved = _DRIFT * early[drifts, first]
    late[drifts, first] -= moved
    late[drifts, second] += moved
    disliked = np.where(rng.random(n) < 0.6, order[:, 4], -1)  # noqa: PLR2004 - share of those who dislike something
    peak = rng.choice(np.array(PEAKS), n)
    return Tastes(early, late, disliked, peak, rng.random(n) < 0.25)  # noqa: PLR2004


def _draw_rows(rng: np.random.Generator, shares: Floats) -> Ints:
    """Draw a column for each row of shares `(n, k)`."""
    running = np.cumsum(shares, axis=1)
    return np.asarray((running < (rng.random(len(shares)) * running[:, -1])[:, None]).sum(axis=1), dtype=np.int64)


def _draw_acts(rng: np.random.Generator, acts: Acts, names: Sequence[str], n: int) -> Ints:
    places = np.array([names.index(name) for name in acts.types])
    return np.asarray(places[rng.choice(len(places), size=n, p=acts.shares)], dtype=np.int64)


def _coded(codes: Ints, texts: Sequence[str], missing: Bools | None = None) -> Any:
    """Return texts by their numbers; none where `missing`."""
    numbers = pa.array(codes.astype(np.int32), mask=missing)
    return pa.DictionaryArray.from_arrays(numbers, pa.array(list(texts), type=pa.string()))
