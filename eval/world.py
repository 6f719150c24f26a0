"""A store's users, items and events in memory, and what a model may know of them at a cut in time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.catalogue import ItemSet, item_vectors
from agent.contract import Language
from agent.drafting import Drafter
from agent.embedder import Embedder
from agent.evidence import EvidenceSettings, weigh
from agent.loading import Catalogue, load_users
from agent.themes import UserLog
from agent.verify import Vocabulary
from eval.interactions import Interactions
from eval.logged import ACTS, Impressions, impressions
from recommend.data import likes_matrix
from recommend.parameters import Parameters
from recommend.theme_factors import ThemeCard, ThemeParameters, learn
from store import logs, theme_factors
from store.database import Database
from store.records import Event, Item

Matrix = npt.NDArray[np.float32]
_CHUNK = 500


@dataclass(frozen=True)
class Claims:
    """Claims of many users.

    Attributes:
        owner: `(q,)`, codes of users.
        strengths: `(q,)`, signed.
        vectors: `(q, d)`, embeddings of their texts.
    """

    owner: npt.NDArray[np.int64]
    strengths: npt.NDArray[np.float64]
    vectors: Matrix


@dataclass(frozen=True)
class World:
    """Everything that an evaluation reads.

    Attributes:
        interactions: Of all users with all items.
        user_ids: By code.
        items: By code.
        texts: `(m, d)`, embeddings of the items' texts.
        logs: By code of user.
        item_set: What the themes are made of.
        settings: Of the evidence.
        impressions: What was shown to whom; None where it is not known.
        themes_by: How the factors are learned that themes are made with; None where they are made of texts alone.
    """

    interactions: Interactions
    user_ids: list[str]
    items: list[Item]
    texts: Matrix
    logs: list[UserLog]
    item_set: ItemSet
    settings: EvidenceSettings
    impressions: Impressions | None = None
    themes_by: ThemeParameters | None = None

    def item_set_from(self, train: Interactions) -> ItemSet:
        """Return what themes are made of by one who knows these events and no others."""
        if self.themes_by is None:
            return self.item_set
        shape = train.n_users, train.n_items
        factors = learn(likes_matrix(train.user, train.item, train.weight, shape, Parameters()), self.themes_by)
        nowhere = np.zeros(self.texts.shape[1])
        vectors = item_vectors(self.item_set.vectors[:, : self.texts.shape[1]], nowhere, factors)
        return replace(self.item_set, vectors=vectors)

    def template_claims(self, train: Interactions, embedder: Embedder, language: Language = "en") -> Claims:
        """Write everyone's claims by the template from training events alone, and embed their names."""
        drafter = Drafter(self.settings, Vocabulary.of(self.item_set.base_rates), language)
        item_set = self.item_set_from(train)
        starts = train.starts()
        owner, strengths, names = [], [], []
        for code, log in enumerate(self.logs):
            part = slice(starts[code], starts[code + 1])
            allowed = {
                (self.items[item].item_id, time) for item, time in zip(train.item[part], train.time[part], strict=True)
            }
            rows = [n for n, key in enumerate(zip(log.items, log.times.tolist(), strict=True)) if key in allowed]
            if not rows:
                continue
            for claim in drafter.draft(_part(log, rows), item_set).claims:
                if claim.kind != "intent":
                    owner.append(code)
                    strengths.append(claim.theme.strength)
                    names.append(claim.task.fallback.name)
        vectors = embedder.embed(names) if names else np.zeros((0, self.texts.shape[1]), dtype=np.float32)
        return Claims(np.array(owner, dtype=np.int64), np.array(strengths, dtype=np.float64), vectors)


def _part(log: UserLog, rows: list[int]) -> UserLog:
    def take(values: Sequence[Any]) -> list[Any]:
        return [values[n] for n in rows]

    return UserLog(
        user_id=log.user_id,
        event_ids=take(log.event_ids),
        items=take(log.items),
        types=take(log.types),
        values=take(log.values),
        times=log.times[rows],
        offsets=take(log.offsets),
        revision=log.revision,
    )


def read_world(database: Database, catalogue: Catalogue, embedder: Embedder, settings: EvidenceSettings) -> World:
    """Read a whole store into memory."""
    with database.session() as session:
        user_ids = logs.user_ids(session)
        items = list(logs.stream_items(session))
        frozen = theme_factors.active(session)
    code = {item.item_id: n for n, item in enumerate(items)}
    stored = logs.read_vectors(database, "item", embedder.name, list(code))
    texts = np.stack([stored[item.item_id].vector for item in items])
    everything = {item.item_id: item for item in items}
    item_set = ItemSet(everything, item_vectors(texts, catalogue.mean), catalogue.base_rates)
    user_logs: list[UserLog] = []
    acts: list[list[Event]] = []
    for start in range(0, len(user_ids), _CHUNK):
        loaded = load_users(database, user_ids[start : start + _CHUNK], catalogue, embedder)
        user_logs += [log for _, log in loaded.logs]
        acts += [[event for event in log.events if event.type in ACTS] for log, _ in loaded.logs]
    columns: list[list[float]] = [[], [], [], [], []]
    for user, log in enumerate(user_logs):
        weights = weigh(log.types, log.values, log.times, 0.0, settings).undecayed
        for n, key in enumerate(log.items):
            if key in code:
                value = log.values[n]
                row = (user, code[key], log.times[n], weights[n], np.nan if value is None else value)
                for column, cell in zip(columns, row, strict=True):
                    column.append(float(cell))
    user_codes, item_codes = (np.array(c, dtype=np.int64) for c in columns[:2])
    times, weights_, values = (np.array(c, dtype=np.float64) for c in columns[2:])
    interactions = Interactions(user_codes, item_codes, times, weights_, values, len(user_logs), len(items))
    user_ids = [log.user_id for log in user_logs]
    themes_by = ThemeCard.model_validate(frozen.card).parameters if frozen else None
    shown = impressions(acts)
    return World(interactions, user_ids, items, texts, user_logs, item_set, settings, shown, themes_by)
