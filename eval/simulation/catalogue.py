"""A simulated catalogue: items with titles and texts, in order of their themes."""

from functools import cached_property
from typing import Any

import numpy as np

from eval.simulation.plan import DAY, DAYS, UNTIL, Floats, Ints, Simulation

_ZIPF = 0.9
_NOTHING: dict[str, Any] = {"attributes": {}, "description": None, "image_caption": None}


class Catalogue:
    """Items in order of theme.

    Attributes:
        ids: Of the items.
        theme: `(m,)`, the theme of each item.
        named: `(k,)`, whether the theme is a category of its items.
        quality: `(m,)`, what all ratings of an item have in common.
        rows: The items, as they are written.
    """

    def __init__(self, wanted: Simulation) -> None:
        self.words, self._bare = wanted.words, wanted.bare
        rng = wanted.rng(0)
        k, m = len(self.words.themes), wanted.catalogue_size
        self.theme: Ints = np.sort(np.arange(m) % k)
        self._first: Ints = np.searchsorted(self.theme, np.arange(k + 1))
        popularity = np.concatenate(
            [rng.permutation(1.0 / np.arange(1, size + 1) ** _ZIPF) for size in np.diff(self._first)]
        )
        theme_weight = rng.uniform(0.5, 1.5, k)[self.theme]
        self._mass: Floats = np.concatenate([[0.0], np.cumsum(popularity * theme_weight)])
        self.quality: Floats = rng.normal(0.0, 0.4, m)
        self.named = rng.permutation(k) < k // 2
        self.ids = [f"{wanted.prefix}-i{n:06}" for n in range(m)]
        self._rng = rng

    @property
    def theme_popularity(self) -> Floats:
        """The popularity of all items of each theme, `(k,)`."""
        return np.diff(self._mass[self._first])

    def draw(self, rng: np.random.Generator, themes: Ints) -> Ints:
        """Draw an item of each of the themes, by popularity."""
        low, high = self._mass[self._first[themes]], self._mass[self._first[themes + 1]]
        found = np.searchsorted(self._mass, low + rng.random(len(themes)) * (high - low), side="right") - 1
        return np.asarray(np.clip(found, self._first[themes], self._first[themes + 1] - 1), dtype=np.int64)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:  # noqa: D102 - an attribute of the class
        return [self._row(self._rng, n) for n in range(len(self.ids))]

    def _row(self, rng: np.random.Generator, n: int) -> dict[str, Any]:
        words = self.words
        theme = words.themes[self.theme[n]]
        maker, trait, thing, facet, shelf = (
            options[int(rng.integers(len(options)))]
            for options in (words.makers, theme.traits, theme.things, words.facets, words.shelves)
        )
        lower = {"trait": trait.lower(), "thing": thing.lower(), "theme": theme.name.lower(), "facet": facet.lower()}
        described = words.description.format(**lower, maker=maker) if words.description else None
        pictured = rng.random() < words.pictured
        years = theme.years or words.years
        median, spread = words.price
        row = {
            "item_id": self.ids[n],
            "title": words.title.format(maker=maker, trait=trait, thing=thing),
            "categories": list(dict.fromkeys([*self._shelf(n, shelf), facet])),
            "attributes": {words.maker: maker} | ({"year": str(rng.integers(years[0], years[1] + 1))} if years else {}),
            "description": described[0].upper() + described[1:] if described else None,
            "price": round(float(np.exp(rng.normal(np.log(median), spread))), 2),
            "image_caption": words.caption.format(**lower, maker=maker) if pictured else None,
            "created_at": int(UNTIL.timestamp()) - (DAYS + int(rng.integers(1, 400))) * DAY,
        }
        return row | _NOTHING if self._bare else row

    def _shelf(self, n: int, shelf: str) -> tuple[str, ...]:
        """Return what an item stands under: the theme's categories where the catalogue names it, else a shelf."""
        theme = self.words.themes[self.theme[n]]
        return (theme.categories or (theme.name,)) if self.named[self.theme[n]] else (shelf,)
