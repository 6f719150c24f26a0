"""Items as the agent sees them: their attributes, their text for the embedder, and what is usual in the catalogue."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from store.records import Item

Vectors = npt.NDArray[np.float32]

YEAR_FIELDS = ("year", "release_year", "publication_year", "published")
NOUN_FIELD = "noun"
"""An attribute that is no trait: what several such items are called, as "films" or "board games"."""
SMOOTHING = 5.0
HALF, QUARTER, LIFT = 0.5, 0.25, 2.0

_ARTICLE_LAST = re.compile(r"^(?P<rest>.+), (?P<article>The|A|An|Les|Le|La|L'|Das|Der|Die|El|Il)(?P<tail>\s*\(.*\))?$")
_MAX_VALUE = 80
_NOUN = re.compile(r"[^\W\d_]{2,20}(?:[ -][^\W\d_]{2,20}){0,3}")  # it stands in prompts without quotes
_MAX_DESCRIPTION = 400


class Attribute(NamedTuple):
    """A field and one of its values, such as ("category", "Drama") or ("decade", "1990s")."""

    field: str
    value: str


class Telling(NamedTuple):
    """An attribute among a theme's events: their number, their share, and the share over the catalogue's."""

    attribute: Attribute
    events: int
    share: float
    lift: float

    @property
    def holds(self) -> bool:
        """Whether a sentence may name it: half of the events, or a quarter at twice the usual share."""
        return self.share >= HALF or (self.share >= QUARTER and self.lift >= LIFT)


def readable_title(title: str) -> str:
    """Turn a title's article round, as people say it.

    >>> readable_title("Lantern Keeper, The (1994)")
    'The Lantern Keeper (1994)'
    """
    if match := _ARTICLE_LAST.match(title.strip()):
        joiner = "" if match["article"].endswith("'") else " "
        return f"{match['article']}{joiner}{match['rest']}{match['tail'] or ''}"
    return title.strip()


def year_of(item: Item) -> int | None:
    """Return the year an item declares, if it looks like one."""
    for name in YEAR_FIELDS:
        digits = re.match(r"(1[5-9]|20)\d\d\b", str(item.attributes.get(name, "")))
        if digits:
            return int(digits.group())
    return None


def attributes_of(item: Item) -> tuple[Attribute, ...]:
    """Return the attributes that a claim about this item may name, without repeats."""
    found = [Attribute("category", c) for c in item.categories]
    if (year := year_of(item)) is not None:
        found.append(Attribute("decade", f"{year // 10 * 10}s"))
    for name, value in item.attributes.items():
        if name not in YEAR_FIELDS and name != NOUN_FIELD:
            found.extend(Attribute(name, v) for v in _values(value))
    return tuple(dict.fromkeys(found))


def noun_of(items: Iterable[Item]) -> str | None:
    """Return what items are called, if all of them declare the same noun, of at most four words.

    >>> film, other = Item(item_id="1", title="A", attributes={"noun": "films"}), Item(item_id="2", title="B")
    >>> noun_of([film, film]), noun_of([film, other])
    ('films', None)
    """
    nouns = {str(item.attributes.get(NOUN_FIELD, "")) for item in items}
    noun = nouns.pop() if len(nouns) == 1 else ""
    return noun if _NOUN.fullmatch(noun) else None


def _values(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value] if 0 < len(value) <= _MAX_VALUE else []
    if isinstance(value, Sequence):
        return [v for v in value if isinstance(v, str) and 0 < len(v) <= _MAX_VALUE]
    return []


def item_text(item: Item) -> str:
    """Return what the embedder reads of an item: title, categories, attributes, the start of the description."""
    parts = [readable_title(item.title), ", ".join(item.categories)]
    parts += [", ".join(_values(value)) for name, value in item.attributes.items() if name != NOUN_FIELD]
    if (year := year_of(item)) is not None:
        parts.append(f"{year // 10 * 10}s")
    parts += [(item.description or "")[:_MAX_DESCRIPTION], (item.image_caption or "")[:_MAX_DESCRIPTION]]
    return ". ".join(part for part in parts if part)


@dataclass(frozen=True)
class BaseRates:
    """How usual attributes are: the number of the catalogue's items, and of those that bear each attribute."""

    items: int
    counts: Mapping[Attribute, int]

    def rate(self, attribute: Attribute) -> float:
        """Return the smoothed share of the catalogue's items that bear the attribute, in (0, 1)."""
        return (self.counts.get(attribute, 0) + 0.5) / (self.items + 1.0)

    def telling(self, attribute: Attribute, count: int, total: int) -> Telling:
        """Describe an attribute borne by `count` of `total` events.

        The lift is smoothed towards 1 with the weight of five events: `(count + 5 p) / (total + 5) / p`.
        """
        p = self.rate(attribute)
        lift = (count + SMOOTHING * p) / (total + SMOOTHING) / p
        return Telling(attribute, count, count / total if total else 0.0, lift)


@dataclass(frozen=True)
class ItemSet:
    """Items with their vectors, row by row.

    Attributes:
        items: `m` items by id, in the order of the rows.
        vectors: `(m, d)`, unit length after centring on the catalogue's mean.
        base_rates: Of the whole catalogue, not only of these items.
    """

    items: Mapping[str, Item]
    vectors: Vectors
    base_rates: BaseRates
    row: Mapping[str, int] = field(init=False)
    attributes: Mapping[str, tuple[Attribute, ...]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "row", {item_id: i for i, item_id in enumerate(self.items)})
        object.__setattr__(self, "attributes", {i: attributes_of(item) for i, item in self.items.items()})


def count_attributes(items: Sequence[Item]) -> BaseRates:
    """Count the attributes of a whole catalogue held in memory."""
    counts: dict[Attribute, int] = {}
    for item in items:
        for attribute in attributes_of(item):
            counts[attribute] = counts.get(attribute, 0) + 1
    return BaseRates(len(items), counts)


def unit(vectors: npt.NDArray[Any]) -> Vectors:
    """Scale rows to unit length; a row of zeros stays."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


CF_WEIGHT = 0.8


def item_vectors(
    embeddings: npt.NDArray[Any], mean: npt.NDArray[Any], factors: npt.NDArray[Any] | None = None
) -> Vectors:
    """Combine text embeddings `(m, d)`, centred on `mean` `(d,)`, with CF factors `(m, f)` where there are any.

    The factors, scaled to unit length, count 0.8 times as much as the text; the result `(m, d + f)` has unit rows.
    """
    text = unit(np.asarray(embeddings, dtype=np.float32) - np.asarray(mean, dtype=np.float32))
    if factors is None:
        return text
    return unit(np.hstack([text, CF_WEIGHT * unit(factors)]))
