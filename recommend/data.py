"""What a model is trained on: everyone's weighted events, claims and item texts, read from the store."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import scipy.sparse as sps

from agent.evidence import EvidenceSettings, weigh
from recommend.errors import NoModelError
from recommend.history import Events, summarize
from recommend.model import Matrix
from recommend.parameters import Parameters
from store import logs
from store.database import Database
from store.vectors import ClaimVectors, claim_vectors, item_vectors

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 500


@dataclass(frozen=True)
class TrainingData:
    """Users' events on items, sorted by user and time, and what is known of users and items besides.

    Attributes:
        user_ids: `u` ids.
        item_ids: `m` ids.
        user: `(n,)`, the row of each event's user.
        item: `(n,)`, the row of each event's item.
        weight: `(n,)`, signed, undecayed; 0 is neutral.
        time: `(n,)`, seconds since 1970.
        claims: Of the users who have a profile.
        item_vectors: `(m, d)`, embeddings of the items' texts.
    """

    user_ids: list[str]
    item_ids: list[str]
    user: Ints
    item: Ints
    weight: Floats
    time: Floats
    claims: ClaimVectors
    item_vectors: Matrix

    @property
    def watermark(self) -> datetime:
        """The time of the latest event."""
        return datetime.fromtimestamp(float(self.time.max()), UTC)


def read_training(
    database: Database, embedder: str, settings: EvidenceSettings, progress: Callable[[int, int], None] | None = None
) -> TrainingData:
    """Read the data of all users with consent.

    Raises:
        NoModelError: There is nothing to train on.
    """
    item_ids, vectors = item_vectors(database, embedder)
    row_of = {item_id: row for row, item_id in enumerate(item_ids)}
    with database.session() as session:
        user_ids = logs.user_ids(session)
    place_of = {user_id: place for place, user_id in enumerate(user_ids)}
    parts: list[tuple[Ints, Ints, Floats, Floats]] = []
    for start in range(0, len(user_ids), _CHUNK):
        with database.session() as session:
            found = logs.read_logs(session, user_ids[start : start + _CHUNK])
        for log in found:
            events = log.events
            times = np.array([e.ts.timestamp() for e in events], dtype=np.float64)
            weights = weigh([e.type for e in events], [e.value for e in events], times, 0.0, settings).undecayed
            rows = np.array([row_of.get(e.item_id or "", -1) for e in events], dtype=np.int64)
            kept = np.flatnonzero(rows >= 0)
            parts.append((np.full(len(kept), place_of[log.user.user_id]), rows[kept], weights[kept], times[kept]))
        if progress:
            progress(min(start + _CHUNK, len(user_ids)), len(user_ids))
    if not sum(len(part[0]) for part in parts):
        raise NoModelError("There are no events on known items: nothing to train on. See `limner ingest`.")
    user, item, weight, time = (np.concatenate(column) for column in zip(*parts, strict=True))
    claims = claim_vectors(database, embedder, user_ids)  # nobody who has come since
    return TrainingData(user_ids, item_ids, user, item, weight, time, claims, vectors)


def likes_matrix(
    user: Ints, item: Ints, weight: Floats, shape: tuple[int, int], parameters: Parameters
) -> sps.csr_matrix:
    """Return the confidences of what each user likes, `(users, items)`, from events sorted by user and time.

    They are those of the fold-in (`summarize`), without dislikes and recency, which belong to serving.
    """
    plain = parameters.model_copy(update={"recency": 0.0})
    ends = np.searchsorted(user, np.arange(shape[0] + 1))
    columns, values, counts = [], [], [0]
    for u in range(shape[0]):
        part = slice(ends[u], ends[u + 1])
        size = ends[u + 1] - ends[u]
        history = summarize(Events.told([""] * size, item[part], weight[part]), plain)
        liked = history.target > 0
        columns.append(history.rows[liked])
        values.append(history.confidence[liked])
        counts.append(int(liked.sum()))
    indices, data = np.concatenate(columns), np.concatenate(values)
    found = sps.csr_matrix((data, indices, np.cumsum(counts)), shape=shape)
    found.sort_indices()
    return found
