"""A simulation in memory, in the form that profiles are drafted from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.catalogue import ItemSet, count_attributes, item_text, item_vectors
from agent.embedder import Embedder
from agent.themes import UserLog
from eval.simulation.catalogue import Catalogue
from eval.simulation.logs import Batch
from eval.simulation.plan import Ints, Simulation
from eval.simulation.tastes import Tastes
from store.records import Item


@dataclass(frozen=True)
class Invented:
    """A catalogue with its vectors, and one stand-in item for each phrase that is searched for.

    Attributes:
        items: As the themes of a profile see them; base rates are those of the items alone.
        theme: `(m,)`, the theme of each of the items, stand-ins included, in their order.
        named: `(k,)`, whether the catalogue names the theme.
    """

    wanted: Simulation
    catalogue: Catalogue
    items: ItemSet
    theme: Ints
    named: Sequence[bool]

    @property
    def theme_of(self) -> Mapping[str, int]:
        """The theme of each item by its key."""
        return dict(zip(self.items.items, self.theme.tolist(), strict=True))


@dataclass(frozen=True)
class Users:
    """Simulated users of an invented catalogue.

    Attributes:
        logs: User by user.
        zones: Likewise.
        tastes: What they really like.
    """

    logs: Sequence[UserLog]
    zones: Sequence[str]
    tastes: Tastes


def invent(wanted: Simulation, embedder: Embedder) -> Invented:
    """Make a catalogue, and embed it as `limner` embeds a store's.

    Raises:
        ValueError: A number is too small or too large, or there is no such domain or language.
    """
    wanted.check()
    catalogue = Catalogue(wanted)
    items = [Item.model_validate(row) for row in catalogue.rows]
    searches = [(k, phrase) for k, theme in enumerate(wanted.words.themes) for phrase in theme.searches]
    stand_ins = [Item(item_id=_search_key(n), title=phrase) for n, (_, phrase) in enumerate(searches)]
    texts = embedder.embed([item_text(item) for item in items + stand_ins])
    vectors = item_vectors(texts, texts[: len(items)].mean(axis=0))
    everything = {item.item_id: item for item in items + stand_ins}
    theme = np.concatenate([catalogue.theme, np.array([k for k, _ in searches], dtype=np.int64)])
    item_set = ItemSet(everything, vectors, count_attributes(items))
    return Invented(wanted, catalogue, item_set, theme, catalogue.named.tolist())


def _search_key(phrase: int) -> str:
    return f"text:{phrase}"


def populate(invented: Invented, **changed: float) -> Users:
    """Let users loose on a catalogue.

    Args:
        invented: The catalogue.
        changed: Fields of the simulation that are not those the catalogue was made with, such as `noise`. The same
            seed gives the same users with the same tastes at each level of noise.
    """
    wanted = replace(invented.wanted, **changed)  # type: ignore[arg-type]
    wanted.check()
    batch = Batch(wanted, invented.catalogue, 0, wanted.users)
    log, ids = batch.log, invented.catalogue.ids
    ends = np.cumsum(batch.lengths)
    logs = [
        UserLog(
            user_id=batch.ids[n],
            event_ids=[f"{batch.ids[n]}-e{row:05}" for row in range(end - start)],
            items=[
                ids[item] if phrase < 0 else _search_key(phrase)
                for item, phrase in zip(log.item[start:end].tolist(), log.phrase[start:end].tolist(), strict=True)
            ],
            types=[log.kinds[kind] for kind in log.kind[start:end].tolist()],
            values=[None if np.isnan(value) else value for value in log.value[start:end].tolist()],
            times=log.ts[start:end].astype(np.float64),
            offsets=[None] * int(end - start),
        )
        for n, (start, end) in enumerate(zip(ends - batch.lengths, ends, strict=True))
    ]
    return Users(logs, batch.zones, batch.tastes)
