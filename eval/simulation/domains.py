"""What an invented domain is made of, and all of them by language.

All names are made up. A theme is what users have a taste for: a group of items that belong together. In a catalogue
half of the themes, drawn anew for each seed, are named: their items have the theme's name for a category. The items of
the others stand on shelves, categories that say nothing about the theme; what they are called and described as tells.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from agent.contract import Language
from eval.simulation import chinese, english, further
from eval.simulation.words import Domain

DomainName = Literal[
    "shop", "courses", "music", "video", "news",
    "films", "books", "games", "groceries", "recipes", "podcasts",
]  # fmt: skip
DOMAIN_NAMES: tuple[DomainName, ...] = get_args(DomainName)

DOMAINS: Mapping[Language, Mapping[DomainName, Domain]] = {
    "en": dict(zip(DOMAIN_NAMES, (*english.DOMAINS, *further.DOMAINS), strict=True)),
    "zh": dict(zip(DOMAIN_NAMES, chinese.DOMAINS, strict=False)),  # the first five
}
