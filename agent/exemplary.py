"""Which answers are worth learning by: those that say what they were given, once, and nothing else.

The verifier asks whether a sentence is true to the evidence. A lesson has to be to the point, too, since a small model
learns what it is shown, and a large one passes the verifier with much that nobody asked for.
"""

import re
from collections.abc import Sequence

from agent.catalogue import Telling
from agent.themes import informative
from agent.words import called

_NAME = re.compile(r"(?<![.!?] )(?<!^)\b(?:[A-Z][\w'-]*|\d{4}s?)\b")


def names_all_once(name: str, sentence: str, telling: Sequence[Telling]) -> bool:
    """Tell whether a claim names each of its traits, none twice in its sentence, and no name that is not a trait."""
    wanted = [called(trait.attribute) for trait in informative(telling)]
    named = all(_count(text, f"{name}. {sentence}") for text in wanted)
    return named and all(_count(text, sentence) <= 1 for text in wanted) and names_only(f"{name}. {sentence}", wanted)


def names_only(text: str, given: Sequence[str]) -> bool:
    """Tell whether the names and decades of a text, but for the words that sentences begin with, are of those given."""
    known = " ".join(given).casefold()
    return all(found.group().casefold() in known for found in _NAME.finditer(text))


def _count(text: str, within: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(text)}(?!\w)", within, re.IGNORECASE))
