"""A small invented world: 30 items in four groups, five users who rate them, and one who shops for a tent.

The fake embedder knows nothing but the categories: items of one group lie together, whatever their titles say.
"""

import asyncio
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from agent.embedder import Vectors
from agent.evidence import EvidenceSettings
from agent.loading import prepare_catalogue
from agent.openai_chat import OpenAIChat
from agent.profiling import Profiler, Report
from agent.unit import ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter, WriterSettings
from store.database import Database
from store.tables import EventRow, ItemRow, UserRow
from tests.scripted_llm import MODEL

START = datetime(2025, 3, 1, 18, 0, tzinfo=UTC)
NOW = datetime(2025, 9, 1, 12, 0, tzinfo=UTC)

GROUPS: dict[str, tuple[list[str], int, list[str]]] = {
    "m": (["Mystery", "Detective"], 1994, [
        "The Ash Garden", "Nine Bells", "A Key for Orla", "Low Tide at Marrow", "The Silent Ferry", "Grey Ledger",
        "The Clockmaker's Alibi", "Room Without a Stair",
    ]),
    "k": (["Cooking", "Baking"], 2013, [
        "Bread on Sunday", "The Slow Oven", "Flour and Salt", "Seven Soups", "Rye Days", "The Copper Pan",
        "Plain Cakes",
    ]),
    "t": (["Camping", "Tents"], 2021, [
        "Larkhide Two", "Stormfold Dome", "Brackenlight", "Highfell Solo", "Ridgeway Three", "Mosswing Tunnel",
        "Tarnshelter", "Windrest",
    ]),
    "h": (["Horror", "Monsters"], 1984, [
        "The Cellar Breathes", "Teeth of Winter", "Night Larder", "What the Well Kept", "Pale Lodgers",
        "The Hollow Choir", "Bone Carousel",
    ]),
}  # fmt: skip
CATEGORIES = tuple(c.lower() for categories, _, _ in GROUPS.values() for c in categories)

# User: groups liked, and the group disliked.
RATERS = {
    "ann": ("mk", "h"),
    "bob": ("ht", "k"),
    "cid": ("tm", "h"),
    "dee": ("kt", "m"),
    "eli": ("mh", "t"),
}
SHOPPER = "sam"
EVERYONE = (*RATERS, SHOPPER)


class FakeEmbedder:
    """Unit vectors of 16 numbers: the sum of those of the categories that a text names, else one of its own."""

    name = "fake"
    dimension = 16

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, `(len(texts), 16)`."""
        rows = [self._vector(text) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dimension), dtype=np.float32)

    def _vector(self, text: str) -> Vectors:
        words = set(re.findall(r"\w+", text.lower()))
        total = sum((_direction(c) for c in CATEGORIES if c in words), np.zeros(self.dimension))
        vector = total if total.any() else _direction(text)
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def _direction(text: str) -> Vectors:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.asarray(np.random.default_rng(seed).normal(size=FakeEmbedder.dimension))


def items() -> list[ItemRow]:
    """The catalogue: `m1` to `m8`, `k1` to `k7`, `t1` to `t8`, `h1` to `h7`."""
    return [
        ItemRow(item_id=f"{group}{n}", title=title, categories=list(categories), attributes={"year": year + n % 5})
        for group, (categories, year, titles) in GROUPS.items()
        for n, title in enumerate(titles, 1)
    ]


def event(user_id: str, n: int, kind: str, item: str | None, at: datetime, **fields: Any) -> EventRow:
    """The user's `n`th event."""
    return EventRow(event_id=f"{user_id}-{n:04}", user_id=user_id, item_id=item, type=kind, ts=at, **fields)


def ratings(user_id: str) -> list[EventRow]:
    """View and rate everything of one group well, then of another, then a third one badly: an item a day."""
    liked, disliked = RATERS[user_id]
    catalogue = [row.item_id for row in items()]
    order = [(i, 5.0 - n % 2) for group in liked for n, i in enumerate(i for i in catalogue if i[0] == group)]
    order += [(i, 1.0 + n % 2) for n, i in enumerate(i for i in catalogue if i[0] == disliked)]
    found = []
    for n, (item, value) in enumerate(order):
        at = START + timedelta(days=n)
        found.append(event(user_id, 2 * n, "rating", item, at, value=value))
        if value > 3:
            found.append(event(user_id, 2 * n + 1, "view", item, at - timedelta(minutes=5)))
    return found


def shopping(*, bought: bool = False) -> list[EventRow]:
    """Buy cookbooks in March; look for a tent in May: search, compare, put one into the cart, perhaps buy it."""
    past = [(kind, f"k{n}") for n in (1, 2, 3, 4) for kind in ("view", "purchase")]
    now = [("search", None), *(("view", f"t{n}") for n in (1, 2, 3, 1, 2)), ("add_to_cart", "t1")]
    now += [("purchase", "t1")] if bought else []
    later = START + timedelta(days=60)
    return [
        event(SHOPPER, n, kind, item, START + timedelta(days=n)) for n, (kind, item) in enumerate(past)
    ] + [
        event(
            SHOPPER, 100 + n, kind, item, later + timedelta(minutes=2 * n),
            text="light tents for camping" if kind == "search" else None,
        )
        for n, (kind, item) in enumerate(now)
    ]  # fmt: skip


def fill(database: Database, users: Sequence[str] = EVERYONE) -> None:
    """Store the catalogue, and these users with their logs."""
    with database.session() as session:
        session.add_all(items())
        session.add_all(UserRow(user_id=user_id, log_revision=1) for user_id in users)
        session.flush()
        for user_id in users:
            session.add_all(shopping() if user_id == SHOPPER else ratings(user_id))


def profiler(
    database: Database, url: str | None = None, asked: WriterSettings | None = None, **settings: Any
) -> Profiler:
    """A profiler over the store as it is now: with the template, or with the model that is served at `url`."""
    embedder = FakeEmbedder()
    given: dict[str, Any] = {"evidence": EvidenceSettings(), "language": "en", "clock": lambda: NOW} | settings
    made = Profiler(database=database, embedder=embedder, catalogue=prepare_catalogue(database, embedder), **given)
    if url is not None:
        chat = OpenAIChat(url, MODEL, timeout_s=0.4, pause_s=0.01)
        made.llm = (
            LlmWriter(chat, Repetition(embedder.embed), made.language, asked or WriterSettings()),
            ModelInfo(MODEL),
        )
    return made


def wrote(made: Profiler, users: Sequence[str] = EVERYONE) -> Report:
    """Write these users' profiles, and close the model's connections."""

    async def write() -> Report:
        try:
            return await made.write(users)
        finally:
            if made.llm is not None:
                await made.llm[0].aclose()

    return asyncio.run(write())
