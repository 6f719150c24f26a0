"""How fast themes are found in the demo's logs on one core, beside the clustering that they rest on.

The logs are in memory as arrays. The clustering alone gets the very vectors that `find_themes` clusters.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from agent import themes
from agent.catalogue import Vectors
from agent.evidence import Floats
from agent.loading import Loaded, load_users, prepare_catalogue
from agent.themes import Ints, cluster, find_themes
from api.runtime import database, embedder
from api.settings import Settings
from store import logs

REQUIRED_USERS_PER_S = 300
ROUNDS = 3

Inputs = list[tuple[Vectors, Floats]]


class Spent(NamedTuple):
    """Seconds by the wall's clock and of the processor; on a busy machine the first are more."""

    wall: float
    processor: float


def measure(settings: Settings, limit: int | None = None) -> dict[str, Any]:
    """Measure both ways by turns and keep the best of each.

    Args:
        settings: Of the data directory that holds the demo's data.
        limit: Users at most; all of them unless given.
    """
    loaded = read(settings, limit)
    users = len(loaded.logs)
    with threadpool_limits(1):
        inputs = clustered(lambda: find_all(loaded, settings))
        finding, clustering = [], []
        for _ in range(ROUNDS):
            clustering.append(timed(lambda: cluster_all(inputs)))
            finding.append(timed(lambda: find_all(loaded, settings)))
    whole, part = best(finding), best(clustering)
    return {
        "title": f"Themes of {users:,} users ({sum(len(u.times) for _, u in loaded.logs):,} events), one core",
        "table": [
            {"way": "clustering alone (baseline)", **row(part, users), "ratio": 1.0},
            {"way": "evidence and themes", **row(whole, users), "ratio": whole.wall / part.wall},
        ],
        "users": users,
        "users_per_s": users / whole.wall,
        "users_per_processor_s": users / whole.processor,
        "ratio_to_clustering": whole.wall / part.wall,
        "required": f"at least {REQUIRED_USERS_PER_S} users/s",
        "met": users / whole.wall >= REQUIRED_USERS_PER_S,
    }


def read(settings: Settings, limit: int | None) -> Loaded:
    """Read the users' logs and vectors.

    Raises:
        RuntimeError: The database is empty.
    """
    with database(settings) as opened:
        with opened.session() as session:
            ids = logs.user_ids(session, limit=limit)
        if not ids:
            raise RuntimeError(f"The database under {settings.home} holds no users. Run `make demo` first.")
        embeds = embedder(settings)
        return load_users(opened, ids, prepare_catalogue(opened, embeds), embeds)


def find_all(loaded: Loaded, settings: Settings) -> None:
    """Find every user's themes."""
    evidence = settings.evidence_settings
    for _, log in loaded.logs:
        find_themes(log, loaded.items, evidence)


def cluster_all(inputs: Inputs) -> None:
    """Cluster only."""
    for vectors, likes in inputs:
        cluster(vectors, likes)


def clustered(find: Callable[[], None]) -> Inputs:
    """Return what `find` gives to `cluster`; it is the warm-up as well."""
    with kept() as inputs:
        find()
    return inputs


@contextmanager
def kept() -> Iterator[Inputs]:
    """Keep the arguments of every call of `cluster`, in the place where `find_themes` looks it up."""
    inputs: Inputs = []

    def spy(vectors: Vectors, likes: Floats) -> Ints:
        inputs.append((vectors, likes))
        themes.cluster = cluster  # a call within this one is part of it
        try:
            return cluster(vectors, likes)
        finally:
            themes.cluster = spy

    themes.cluster = spy
    try:
        yield inputs
    finally:
        themes.cluster = cluster


def timed(work: Callable[[], None]) -> Spent:
    """Time one round."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


def best(rounds: list[Spent]) -> Spent:
    """Return the least of each, as other work on the machine can only add to it."""
    return Spent(min(spent.wall for spent in rounds), min(spent.processor for spent in rounds))


def row(spent: Spent, users: int) -> dict[str, float]:
    """Describe a way for the table."""
    return {"seconds": spent.wall, "processor s": spent.processor, "users/s": users / spent.wall}
