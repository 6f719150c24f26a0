"""An invented world in memory for the evaluation: items of four groups, users who like two of them."""

import numpy as np

from agent.catalogue import ItemSet, count_attributes, item_text, item_vectors
from agent.evidence import EvidenceSettings
from agent.themes import UserLog
from eval.interactions import Interactions
from eval.world import World
from store.records import Item
from tests.small_world import GROUPS, FakeEmbedder

PER_GROUP = 20
USERS = 40
EVENTS = 30


def evaluated_world(seed: int = 0) -> World:
    """80 items, 40 users; each rates 30 items: 5 or 4 in two groups of their own, 1 in the others."""
    rng = np.random.default_rng(seed)
    items = [
        Item(item_id=f"{group}{n}", title=f"{group.upper()} {n}", categories=tuple(categories))
        for group, (categories, _, _) in GROUPS.items()
        for n in range(PER_GROUP)
    ]
    embedder = FakeEmbedder()
    texts = embedder.embed([item_text(item) for item in items])
    texts = (texts + rng.normal(scale=0.05, size=texts.shape)).astype(np.float32)
    item_set = ItemSet({i.item_id: i for i in items}, item_vectors(texts, texts.mean(axis=0)), count_attributes(items))
    logs, rows = [], []
    for user in range(USERS):
        liked = rng.choice(4, 2, replace=False)
        chances = np.where(np.isin(np.arange(len(items)) // PER_GROUP, liked), 5.0, 1.0)
        chosen = rng.choice(len(items), EVENTS, replace=False, p=chances / chances.sum())
        values = np.where(np.isin(chosen // PER_GROUP, liked), rng.choice([4.0, 5.0], EVENTS), 1.0)
        times = 86_400.0 * (1.0 + np.arange(EVENTS) // 3)  # three at a time
        logs.append(
            UserLog(
                f"u{user}", [f"u{user}-{n:02}" for n in range(EVENTS)], [items[i].item_id for i in chosen],
                ["rating"] * EVENTS, values.tolist(), times, [None] * EVENTS,
            )
        )  # fmt: skip
        rows += [(user, i, t, (v - 3.0) / 2.0, v) for i, t, v in zip(chosen, times, values, strict=True)]
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    users, codes = (column.astype(np.int64) for column in columns[:2])
    interactions = Interactions(users, codes, *columns[2:], USERS, len(items))
    return World(interactions, [log.user_id for log in logs], items, texts, logs, item_set, EvidenceSettings())
