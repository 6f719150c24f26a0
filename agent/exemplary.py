"""Which answers are worth learning by: those that say what they were given, once, and nothing else.

The verifier asks whether a sentence is true to the evidence. A lesson has to be to the point, too, since a small model
learns what it is shown, and a large one passes the verifier with much that nobody asked for.
"""

import re
from collections import Counter
from collections.abc import Sequence

from agent.catalogue import Telling
from agent.themes import informative
from agent.verify.text import cjk_share, content, lemma, lemmas, words
from agent.words import called

GENERIC = frozenset(
    "equipment gear item look looking material one piece product s supply thing tool work".split()  # noqa: SIM905
)
"""Lemmas that say nothing of what kind the items are; "s" is what is left of "children's"."""
_TELLING = frozenset(
    "album book course event fading film first game genre great main movie new old rising second series song steady "  # noqa: SIM905
    "story strong strongest style".split()
)
"""Lemmas that the verifier lets pass anywhere, and that say something all the same: a teacher calls music films."""
_NAME = re.compile(r"(?<![.!?] )(?<!^)\b(?:[^\W\d_][\w'-]*|\d{4}s?)\b")


def names_all_once(name: str, sentence: str, telling: Sequence[Telling]) -> bool:
    """Tell whether a claim names each of its traits, none twice in a sentence, and no name that is not a trait."""
    wanted = [called(trait.attribute) for trait in informative(telling)]
    said, in_name = _counts(sentence, wanted), _counts(name, wanted)
    once = all(max(said[trait], in_name[trait]) == 1 for trait in wanted)
    return once and names_only(f"{name}. {sentence}", wanted)


def keeps_to(text: str, given: Sequence[str], titles: Sequence[str]) -> bool:
    """Tell whether a text says nothing but what is given, what most of the titles share, and that it is about items.

    A teacher likes to take up words of a single title ("and some bamboo needles"), which its pupil then makes up.
    """
    known = set(lemmas(" ".join(given))) | GENERIC
    shared = Counter(form for title in titles for form in set(lemmas(title)))
    known |= {form for form, count in shared.items() if count > 1 and 2 * count >= len(titles)}
    said = words(text)
    telling = [*content(said), *(word for word in said if word.lemma in _TELLING)]
    return all(word.lemma in known or cjk_share(word.text) for word in telling)


def adds_nothing(interpretive: Sequence[str]) -> bool:
    """Tell whether words that no text behind a claim contains say no more than that it is about items."""
    return all(lemma(word) in GENERIC for word in interpretive)


def names_only(text: str, given: Sequence[str]) -> bool:
    """Tell whether the names and decades of a text, but for the words that sentences begin with, are of those given."""
    known = " ".join(given).casefold()
    names = (found.group() for found in _NAME.finditer(text))
    return all(name.casefold() in known for name in names if not name[0].islower())


def _counts(text: str, traits: Sequence[str]) -> dict[str, int]:
    """Count how often traits are named, in any form; one that stands inside a longer one is not."""
    forms, counts = list(lemmas(text)), dict.fromkeys(traits, 0)
    for trait in sorted(traits, key=len, reverse=True):
        own = list(lemmas(trait))
        if cjk_share(trait) or not own:
            counts[trait] = text.count(trait)
            continue
        for start in range(len(forms) - len(own) + 1):
            if forms[start : start + len(own)] == own:
                counts[trait] += 1
                forms[start : start + len(own)] = [""] * len(own)
    return counts
