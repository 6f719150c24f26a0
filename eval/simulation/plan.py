"""What to simulate."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from agent.contract import Language
from eval.simulation.domains import DOMAIN_NAMES, DOMAINS, DomainName
from eval.simulation.words import Domain

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Drift = Literal["main", "all"]

BATCH = 2_000
MAX_EVENTS = 2_000
UNTIL = datetime(2025, 7, 1, tzinfo=UTC)
DAYS = 180
DAY = 86_400


@dataclass(frozen=True)
class Simulation:
    """What to simulate.

    Attributes:
        users: Number of users.
        seed: Of everything that is drawn.
        items: Number of items; a fiftieth of the users, from 200 to 20,000, unless given.
        domain: What the items are.
        events_per_user: Mean length of a log; the lengths are log-normal, at least 5, at most 2,000.
        language: Of titles, categories, descriptions and searches.
        noise: Share of a person's events that are about none of their interests.
        bots: Share of the users that are machines.
        drift: What those who drift give up for something new: their main interest, or all of them.
        bare: Whether an item has no more than a title, categories and a price.
    """

    users: int
    seed: int = 0
    items: int | None = None
    domain: DomainName = "shop"
    events_per_user: float = 50.0
    language: Language = "en"
    noise: float = 0.12
    bots: float = 0.02
    drift: Drift = "main"
    bare: bool = False

    @property
    def catalogue_size(self) -> int:
        """Number of items."""
        return self.items if self.items is not None else int(np.clip(self.users // 50, 200, 20_000))

    @property
    def prefix(self) -> str:
        """What the ids begin with, so that two simulations can be in one store."""
        kind = f"{'' if self.language == 'en' else f'-{self.language}-'}{'-bare-' if self.bare else ''}"
        return f"{self.domain}{kind}{self.seed}"

    @property
    def words(self) -> Domain:
        """What items, categories and searches are made of."""
        return DOMAINS[self.language][self.domain]

    def rng(self, part: int) -> np.random.Generator:
        """Return the generator of the catalogue (0) or of a batch of users (from 1)."""
        return np.random.default_rng([self.seed, DOMAIN_NAMES.index(self.domain), part])

    def check(self) -> None:
        """Refuse what cannot be simulated.

        Raises:
            ValueError: A number is too small or too large, or there is no such domain or language.
        """
        if self.language not in DOMAINS:
            raise ValueError(f"there is no language {self.language}: choose {', '.join(DOMAINS)}")
        if self.domain not in DOMAINS[self.language]:
            known = ", ".join(DOMAINS[self.language])
            raise ValueError(f"there is no domain {self.domain} in {self.language}: choose {known}")
        for name, value, least in (
            ("users", self.users, 1),
            ("items", self.catalogue_size, len(self.words.themes)),
            ("seed", self.seed, 0),
            ("events per user", self.events_per_user, 5),
        ):
            if value < least:
                raise ValueError(f"{name}: {value} is too few, there must be at least {least}")
        for name, share in (("noise", self.noise), ("bots", self.bots)):
            if not 0 <= share <= 0.9:  # noqa: PLR2004
                raise ValueError(f"{name}: {share} is no share from 0 to 0.9")
