"""What a sentence about a theme may rest on: the theme's texts, counts and attributes; the catalogue's vocabulary."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from agent.catalogue import (
    NOUN_FIELD,
    Attribute,
    BaseRates,
    Telling,
    attributes_of,
    noun_of,
    readable_title,
    year_of,
)
from agent.contract import Language
from agent.verify.text import FILLER, STEM, lemmas, verb
from store.records import Item

# Words that people use for one another. Each group is matched by lemma, in any of its forms.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("sci fi", "science fiction", "scifi", "sf"),
    ("children", "child", "children's", "kids", "kid"),
    ("romance", "romantic", "love story"),
    ("animation", "animated", "cartoon"),
    ("comedy", "comedic"),
    ("documentary", "docs"),
    ("film noir", "noir"),
    ("thriller", "suspense"),
    ("horror", "scary", "frightening"),
    ("mystery", "whodunit"),
    ("history", "historical"),
    ("biography", "biographical", "biopic"),
    ("musical", "musicals"),
    ("role playing", "rpg", "role playing game"),
    ("cooking", "cookery", "cook"),
    ("hip hop", "rap"),
    ("electronic", "electronica"),
    ("sport", "sports", "sporting"),
)


def _looks_like_a_name(attribute: Attribute) -> bool:
    return attribute.field not in {"category", "decade"} and any(c.isupper() for c in attribute.value)


@dataclass(frozen=True)
class Vocabulary:
    """The words by which a catalogue's categories and plain attribute values are called.

    Proper names (directors, brands) are left out: the check of names looks after them.

    Attributes:
        phrases: Attributes by the lemmas of what they are called.
    """

    phrases: Mapping[tuple[str, ...], tuple[Attribute, ...]]

    @classmethod
    def of(cls, base_rates: BaseRates) -> "Vocabulary":
        """Collect the vocabulary of a catalogue."""
        groups = {lemmas(form): group for group in SYNONYMS for form in group}
        found: dict[tuple[str, ...], list[Attribute]] = {}
        for attribute in base_rates.counts:
            if attribute.field == "decade" or _looks_like_a_name(attribute):
                continue
            key = lemmas(attribute.value)
            forms = {key, *(lemmas(form) for form in groups.get(key, ()))}
            for form in forms - {()}:
                found.setdefault(form, []).append(attribute)
        return cls({form: tuple(attributes) for form, attributes in found.items()})

    @cached_property
    def longest(self) -> int:
        """Number of words of the longest phrase."""
        return max((len(phrase) for phrase in self.phrases), default=0)


@dataclass(frozen=True)
class Grounds:
    """What one text may say.

    Attributes:
        polarity: Whether the claims behind the text are likes or dislikes.
        items: The items behind it, each with the number of events.
        counter_events: Number of events that speak against it.
        shown: How many numbered examples the writer saw; [1] to [shown] may be cited.
        base_rates: Of the catalogue.
        vocabulary: Of the catalogue.
        language: The language asked for.
        other_texts: What else may be quoted, such as the words of the claims that a summary rests on.
        user_id: Must not appear in the text.
    """

    polarity: Literal["positive", "negative"]
    items: Sequence[tuple[Item, int]]
    counter_events: int
    shown: int
    base_rates: BaseRates
    vocabulary: Vocabulary
    language: Language = "en"
    other_texts: tuple[str, ...] = ()
    user_id: str = ""
    total: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", sum(count for _, count in self.items))

    @cached_property
    def attribute_counts(self) -> dict[Attribute, tuple[int, int]]:
        """For each attribute, how many events and how many items bear it."""
        found: dict[Attribute, tuple[int, int]] = {}
        for item, count in self.items:
            for attribute in attributes_of(item):
                events, items = found.get(attribute, (0, 0))
                found[attribute] = (events + count, items + 1)
        return found

    @cached_property
    def years(self) -> dict[int, int]:
        """Events by the year of their item."""
        found: dict[int, int] = {}
        for item, count in self.items:
            if (year := year_of(item)) is not None:
                found[year] = found.get(year, 0) + count
        return found

    @cached_property
    def noun(self) -> str | None:
        """What the items are called, where their catalogue says so: no text may call them otherwise."""
        return noun_of(item for item, _ in self.items)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """The titles as stored and as read, longest first."""
        forms = {t for item, _ in self.items for t in (item.title.strip(), readable_title(item.title))}
        plain = {re.sub(r"\s*\([^)]*\)\s*$", "", t) for t in forms}
        return tuple(sorted((forms | plain) - {""}, key=len, reverse=True))

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """Every text behind the claim: titles, categories, attribute values, descriptions."""
        return tuple(dict.fromkeys((*self._item_texts(), *self.other_texts)))

    def _item_texts(self) -> Iterable[str]:
        for item, _ in self.items:
            yield readable_title(item.title)
            yield from item.categories
            yield from (t for name, value in item.attributes.items() if name != NOUN_FIELD for t in _strings(value))
            yield from (text for text in (item.description, item.image_caption) if text)

    @cached_property
    def phrase_lemmas(self) -> tuple[tuple[str, ...], ...]:
        """The lemmas of each of `phrases`."""
        return tuple(lemmas(phrase) for phrase in self.phrases)

    @cached_property
    def known(self) -> frozenset[str]:
        """All lemmas of all texts; a word in -ing also by its verb."""
        found = {word for phrase in self.phrase_lemmas for word in phrase}
        return frozenset(found | {verb(word) for word in found if word.endswith("ing")})

    @cached_property
    def stems(self) -> frozenset[str]:
        """The first letters of the words that the texts contain: enough to recognize cookbooks in cooking."""
        return frozenset(word[:STEM] for word in self.known if len(word) >= STEM and word not in FILLER)

    def telling(self, attribute: Attribute) -> Telling:
        """Say how an attribute stands among the events."""
        return self.base_rates.telling(attribute, self.attribute_counts.get(attribute, (0, 0))[0], self.total)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, int | float):
        return [str(value)]
    return [str(v) for v in value] if isinstance(value, Sequence) else []
