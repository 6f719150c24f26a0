"""From the store to the arrays that the evidence works on: logs, items with vectors, what is usual in the catalogue."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from agent import archive
from agent.catalogue import BaseRates, ItemSet, Vectors, attributes_of, item_text, item_vectors
from agent.continuing import Before, Known
from agent.embedder import Embedder
from agent.themes import UserLog
from agent.words import search_text
from store import corrections, logs, profiles, revisions, theme_factors
from store.database import Database
from store.errors import NotFoundError
from store.logs import Log, StoredVector
from store.records import Event, Item

_EMBED_BATCH = 256
_TEXT_ITEM = "text:"
_MAX_TITLE = 200

Progress = Callable[[int, int], None]


def text_hash(text: str) -> str:
    """Return the hash that tells whether a stored vector is still that of its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Catalogue(NamedTuple):
    """What a run needs to know of the whole catalogue.

    Attributes:
        base_rates: Counts of attributes.
        mean: `(d,)`, the mean of all item vectors.
        theme_factors: Hash of the factors that themes are made with; None where they are made of texts alone.
    """

    base_rates: BaseRates
    mean: Vectors
    theme_factors: str | None = None


def prepare_catalogue(database: Database, embedder: Embedder, progress: Progress | None = None) -> Catalogue:
    """Embed the items that have no vector of their present text, and count the attributes of all.

    The vectors are stored batch by batch, so that a run that was stopped goes on where it was.
    """
    with database.session() as session:
        known = logs.text_hashes(session, "item", embedder.name)
        counts: dict[object, int] = {}
        missing: list[tuple[str, str]] = []
        total = 0
        for item in logs.stream_items(session):
            total += 1
            for attribute in attributes_of(item):
                counts[attribute] = counts.get(attribute, 0) + 1
            text = item_text(item)
            if known.get(item.item_id) != text_hash(text):
                missing.append((item.item_id, text))
    done = 0
    for batch in _batches(missing):
        vectors = embedder.embed([text for _, text in batch])
        stored = {
            item_id: StoredVector(text_hash(text), vector)
            for (item_id, text), vector in zip(batch, vectors, strict=True)
        }
        done += len(batch)
        with database.session() as session:
            logs.write_vectors(session, "item", embedder.name, stored)
            if done == len(missing):  # once, and not for each batch: recommenders are made anew
                revisions.rise(session, "item vectors")
        if progress:
            progress(done, len(missing))
    mean = logs.mean_vector(database, "item", embedder.name)
    with database.session() as session:
        themes = theme_factors.active(session)
    return Catalogue(
        BaseRates(total, counts),  # type: ignore[arg-type]
        mean if mean is not None else np.zeros(embedder.dimension, dtype=np.float32),
        themes.sha256 if themes else None,
    )


def _batches(rows: Sequence[tuple[str, str]]) -> Iterable[Sequence[tuple[str, str]]]:
    for start in range(0, len(rows), _EMBED_BATCH):
        yield rows[start : start + _EMBED_BATCH]


def index_claims(database: Database, embedder: Embedder, users: Sequence[str] | None = None) -> int:
    """Embed the claims of active profiles that have no vector yet, and forget those of older versions.

    It is a step of its own, so that many users' claims are embedded together, and what a killed run left out is
    made good by the next.

    Args:
        database: To read from and write to.
        embedder: Of the claims.
        users: Whose claims; None for all, which takes the longer the more there are.

    Returns:
        The number of claims embedded.
    """
    with database.session() as session:
        claims = [
            (claim.owner, search_text(claim.name, claim.statement, claim.wording))
            for claim in profiles.unindexed_claims(session, embedder.name, users)
        ]
    for batch in _batches(claims):
        vectors = embedder.embed([text for _, text in batch])
        found = {
            owner: StoredVector(text_hash(text), vector) for (owner, text), vector in zip(batch, vectors, strict=True)
        }
        with database.session() as session:
            logs.write_vectors(session, "claim", embedder.name, found)
    with database.session() as session:
        profiles.forget_old_claim_vectors(session, users)
    return len(claims)


class Loaded(NamedTuple):
    """Some users' logs, and every item that they name."""

    logs: list[tuple[Log, UserLog]]
    items: ItemSet
    text_hashes: dict[str, str]


def load_users(database: Database, ids: Sequence[str], catalogue: Catalogue, embedder: Embedder) -> Loaded:
    """Read users' logs and the items and vectors that they name; an event's text stands in where it has no item.

    Raises:
        ConflictError: The factors that themes are made with were replaced since the catalogue was read.
    """
    with database.session() as session:
        found = logs.read_logs(session, ids)
        wanted = {e.item_id for log in found for e in log.events if e.item_id is not None}
        items = logs.read_items(session, sorted(wanted))
    stand_ins = {key: item for log in found for e in log.events for key, item in _stand_in(e)}
    vectors = logs.read_vectors(database, "item", embedder.name, list(items))
    missing = [item for key, item in items.items() if key not in vectors] + list(stand_ins.values())
    texts = [item_text(item) for item in missing]
    made = dict(zip([item.item_id for item in missing], embedder.embed(texts), strict=True)) if missing else {}
    everything = items | stand_ins
    rows = [vectors[key].vector if key in vectors else made[key] for key in everything]
    matrix = np.stack(rows) if rows else np.zeros((0, embedder.dimension), dtype=np.float32)
    factors = _theme_factors(database, catalogue, list(everything))
    item_set = ItemSet(everything, item_vectors(matrix, catalogue.mean, factors), catalogue.base_rates)
    hashes = {key: text_hash(item_text(item)) for key, item in everything.items()}
    return Loaded([(log, user_log(log, item_set)) for log in found], item_set, hashes)


def _theme_factors(database: Database, catalogue: Catalogue, keys: Sequence[str]) -> Vectors | None:
    """Return the factors of items, `(m, f)`, 0 for those that have none; None where none of them has one."""
    if catalogue.theme_factors is None:
        return None
    known = theme_factors.read(database, catalogue.theme_factors, keys)
    if not known:
        return None
    nothing = np.zeros_like(next(iter(known.values())))
    return np.stack([known.get(key, nothing) for key in keys])


def _stand_in(event: Event) -> list[tuple[str, Item]]:
    """Return the stand-in item of an event that has a text and no item, such as a search."""
    if event.item_id is not None or not (event.text or "").strip():
        return []
    title = " ".join((event.text or "").split())[:_MAX_TITLE]
    key = _TEXT_ITEM + text_hash(title)
    return [(key, Item(item_id=key, title=title))]


def user_log(log: Log, items: ItemSet) -> UserLog:
    """Turn a stored log into arrays."""
    events = log.events
    keys = [e.item_id or next((key for key, _ in _stand_in(e)), None) for e in events]
    return UserLog(
        user_id=log.user.user_id,
        event_ids=[e.event_id for e in events],
        items=[key if key in items.row else None for key in keys],
        types=[e.type for e in events],
        values=[e.value for e in events],
        times=np.array([e.ts.timestamp() for e in events], dtype=float),
        offsets=[e.ts_offset for e in events],
        revision=log.revision,
    )


def load_before(database: Database, user_id: str, *, afresh: bool = False) -> Before | None:
    """Read what a user's next profile goes on from.

    Args:
        database: To read from.
        user_id: Of the user.
        afresh: Whether only the ids are to be kept.

    Returns:
        None if there is no profile, or none that holds together any more, since events that it cites were deleted.
    """
    try:
        with database.session() as session:
            stored = profiles.load(session, user_id)
            rejections = corrections.rejections(session, user_id)
        profile = archive.from_rows(stored)
    except (NotFoundError, ValidationError):
        return None
    rejected = [Known(row.claim_id, row.kind, frozenset(row.evidence)) for row in rejections if row.claim_id]
    return Before(profile, tuple(known for known in rejected if known.events), afresh)
