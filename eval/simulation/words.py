"""The form in which a domain's words are given."""

from dataclasses import dataclass
from typing import NamedTuple


class Theme(NamedTuple):
    """A theme: its name, what its items are called, what sets them apart, and what people type to find them."""

    name: str
    things: tuple[str, ...]
    traits: tuple[str, ...]
    searches: tuple[str, ...]


class Acts(NamedTuple):
    """Event types with their probabilities, in one situation."""

    types: tuple[str, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Domain:
    """What a domain is made of.

    Attributes:
        themes: What users have a taste for.
        shelves: Categories of the items whose theme the catalogue does not name.
        facets: Categories that cut across the themes; every item has one.
        maker: The attribute that says who made an item, and the made-up makers.
        title: Of `maker`, `trait` and `thing`.
        description: Of `trait`, `thing`, `theme` and `facet`, in lower case.
        caption: Of an image, likewise.
        pictured: Share of items with an image caption.
        years: First and last year of an item.
        price: Median and spread (of the logarithm).
        first: What a user does on first meeting an item.
        again: What a user does next with an item that they like.
        averse: What a user does with an item of a theme that they dislike.
    """

    themes: tuple[Theme, ...]
    shelves: tuple[str, ...]
    facets: tuple[str, ...]
    maker: str
    makers: tuple[str, ...]
    title: str
    description: str
    caption: str
    pictured: float
    years: tuple[int, int]
    price: tuple[float, float]
    first: Acts
    again: Acts
    averse: Acts


def theme(name: str, things: str, traits: str, searches: str) -> Theme:
    """Read a theme's lists, parted by commas."""
    return Theme(name, *(tuple(part.strip() for part in text.split(",")) for text in (things, traits, searches)))


def words(text: str) -> tuple[str, ...]:
    """Read a list parted by blanks."""
    return tuple(text.split())
