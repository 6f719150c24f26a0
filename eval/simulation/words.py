"""The form in which a domain's words are given."""

from dataclasses import dataclass
from typing import NamedTuple


class Theme(NamedTuple):
    """A theme: its name, what its items are called, what sets them apart, and what people type to find them.

    Attributes:
        categories: Of its items where the catalogue names it; its name, if there are none.
        years: First and last year of its items; the domain's, if None.
    """

    name: str
    things: tuple[str, ...]
    traits: tuple[str, ...]
    searches: tuple[str, ...]
    categories: tuple[str, ...] = ()
    years: tuple[int, int] | None = None


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
        description: Of `trait`, `thing`, `theme` and `facet`, in lower case; None where items have none.
        caption: Of an image, likewise.
        pictured: Share of items with an image caption.
        years: First and last year of an item; None where items have none.
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
    description: str | None
    caption: str
    pictured: float
    years: tuple[int, int] | None
    price: tuple[float, float]
    first: Acts
    again: Acts
    averse: Acts


def theme(
    name: str,
    things: str,
    traits: str,
    searches: str,
    categories: tuple[str, ...] = (),
    years: tuple[int, int] | None = None,
) -> Theme:
    """Read a theme's lists, parted by commas."""
    first, second, third = (tuple(part.strip() for part in text.split(",")) for text in (things, traits, searches))
    return Theme(name, first, second, third, categories, years)


def words(text: str) -> tuple[str, ...]:
    """Read a list parted by blanks."""
    return tuple(text.split())
