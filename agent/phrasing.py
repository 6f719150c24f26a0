"""What no sentence of a model may do, whatever its words rest on: copy titles, speak of times, call a person "it"."""

import re
from collections.abc import Sequence
from dataclasses import replace

from agent.verify import Grounds, Violation, checks, run_checks
from agent.verify.text import is_english, lemmas

_MIN_TITLE, _LONG_TITLE = 5, 4
_TIME = re.compile(
    r"\b(?:lately|recent(?:ly)?|increasingly|no longer|used to|nowadays|these days|newly|(?:more|less) interested)\b"
    r"|近来|最近|越来越|不再|曾经",
    re.IGNORECASE,
)
_NO_NAME = frozenset({"a", "an", "early", "late", "mainly", "mixed", "mostly", "partly", "some"})
_IT = re.compile(r"(?:^|[.!?]\s+)(?:It|They)\b")


def echoes(name: str, sentence: str, titles: Sequence[str], grounds: Grounds) -> list[Violation]:
    """Find what a model has copied from titles: the verifier takes titles as quoted, here nothing has quoted them.

    A name says what items have in common, so it may be (part of) the titles of two of them. Titles are compared word
    by word: a model changes case and quotation marks. What was searched for is a title here, and often a trait's name,
    which is no copy.
    """
    traits = {attribute.value.casefold() for attribute in grounds.attribute_counts}
    titles = [title for title in titles if title.casefold() not in traits]
    found = []
    for text in (name, sentence):
        if _orders(text, replace(grounds, items=())):
            found += _orders(text, _untitled(grounds))  # a trait may be called "For you"
    spaced = [_spaced(title) for title in titles]
    long = [words for words in spaced if words.count(" ") > _LONG_TITLE]
    if any(len(t) > _MIN_TITLE and t in sentence for t in titles) or any(t in _spaced(sentence) for t in long):
        found.append(Violation("name", "write no titles: they are added from the numbers"))
    alone = [words for words in spaced if words.count(" ") > 2 and sum(words in other for other in spaced) == 1]  # noqa: PLR2004
    if any(t in _spaced(name) and lemmas(t) not in grounds.vocabulary.phrases for t in alone):
        found.append(Violation("name", "name what the items have in common, not one of them"))
    return found


def _orders(text: str, grounds: Grounds) -> list[Violation]:
    return run_checks(text, grounds, checks.instruction, checks.personal_data)


def _untitled(grounds: Grounds) -> Grounds:
    """Return the grounds without the titles and descriptions of the items."""
    nothing = {"title": "", "description": None, "image_caption": None}
    return replace(grounds, items=[(item.model_copy(update=nothing), n) for item, n in grounds.items])


def misspoken(text: str) -> list[Violation]:
    """Find what a model says of times, which it is not told, and of the person as a thing."""
    found = []
    if match := _TIME.search(text):
        found.append(Violation("trend", f'say nothing about time, as in "{match.group()}"'))
    if _IT.search(text):
        found.append(Violation("person", 'begin with a verb, not with "It"'))
    return found


def within_sentence(name: str) -> str:
    """Write a claim's name as it stands inside a sentence; one that begins with a proper name or an acronym stays.

    >>> within_sentence("A few items, like Heat"), within_sentence("Outlet, partly Oxmoor")
    ('a few items, like Heat', 'outlet, partly Oxmoor')
    >>> within_sentence("IMAX films"), within_sentence("Glass Orchard and singles"), within_sentence("Some Oxmoor")
    ('IMAX films', 'Glass Orchard and singles', 'some Oxmoor')
    """
    first, _, rest = name.partition(" ")
    word = first.rstrip(",").lower()
    common = name[1:2].islower() and not rest[:1].isupper() and is_english(word.partition("-")[0])
    return name[0].lower() + name[1:] if common or word in _NO_NAME else name


def _spaced(text: str) -> str:
    """Return the words alone, each between blanks, so that one text is found in another by whole words."""
    return " ".join(["", *re.findall(r"\w+", text.casefold()), ""])
