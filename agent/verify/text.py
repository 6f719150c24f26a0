"""Words of a text: where they stand, how they are written, and what they are once inflection is taken away."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import simplemma

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*|\d+(?:[.,]\d+)*", re.UNICODE)
_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_POSSESSIVE = re.compile(r"['\u2019]s?$")
STEM = 4
CITATION = re.compile(r"\[(\d+)\]")

FILLER = frozenset(
    "a an the this that these those and or but nor of in on at to for from by with without as than then so such like "
    "into over under about around between within it its they them their there here he she his her who whom whose which "
    "what when where how be is are was were been being am do does did has have had will would can could may might must "
    "not no never also too very more most mostly many much some few several all both each every any other others else "
    "one up down out off again only just even still well yet".split()
)
# Words that any sentence about taste needs; they say nothing that would have to be grounded.
NEUTRAL = frozenset(
    "enjoy like love prefer favour return go look seek want choose pick watch read play listen buy use take follow "
    "appreciate value gravitate lean drawn draw interest taste liking fond fan favourite dislike avoid reject skip "
    "stay away care hate leave keep come back tend seem appear show include especially particularly mainly chiefly "
    "largely often usually regularly lately recently item thing kind sort type title example film movie book album "
    "song game course product work piece series story good great event group mix range person user "
    "above nearly almost part partly half quarter third majority lot rest start begin find turn make "
    "strongest strong steady rising fading new old first second main overall general style theme theme genre".split()
)


_CLIPPED = frozenset({"sci", "fi", "hi", "lo", "rom", "com", "romcom", "romcoms", "doc", "docs"})


class Word(NamedTuple):
    """A word or number of a text: as written, where it starts and ends, and its lemma in lower case."""

    text: str
    start: int
    end: int
    lemma: str

    @property
    def capital(self) -> bool:
        """Whether it is written with a capital."""
        return self.text[:1].isupper()


@lru_cache(maxsize=65_536)
def lemma(word: str) -> str:
    """Return a word's dictionary form in lower case, without a possessive ending."""
    base = _POSSESSIVE.sub("", word.lower())
    if base.endswith("ing"):
        return base  # camping and lighting are no forms of camp and light
    if not simplemma.is_known(base, lang="en") and len(base) > 3 and base.endswith("s"):  # noqa: PLR2004
        base = base[:-1]  # a plural that the dictionary lacks: RPGs, platformers
    return simplemma.lemmatize(base, lang="en").lower() or base


@lru_cache(maxsize=65_536)
def verb(word: str) -> str:
    """Return the verb of a word in -ing."""
    return simplemma.lemmatize(word, lang="en").lower() or word


@lru_cache(maxsize=65_536)
def is_english(word: str) -> bool:
    """Tell whether an English dictionary knows the word, in lower case."""
    if word.lower() in _CLIPPED:
        return True
    base = _POSSESSIVE.sub("", word.lower().replace("\u2019", "'"))
    return simplemma.is_known(base, lang="en") or all(simplemma.is_known(p, lang="en") for p in base.split("'"))


def words(text: str) -> list[Word]:
    """Split a text into words; a hyphen or a slash separates."""
    return [Word(m.group(), m.start(), m.end(), lemma(m.group())) for m in _WORD.finditer(text)]


def lemmas(text: str) -> tuple[str, ...]:
    """Return the lemmas of a text's words, in order."""
    return tuple(word.lemma for word in words(text))


def content(text_words: Iterable[Word]) -> list[Word]:
    """Keep the words that say something: neither filler, nor neutral, nor numbers."""
    return [
        w
        for w in text_words
        if w.lemma not in FILLER and w.lemma not in NEUTRAL and w.text.lower() not in FILLER and not w.text[0].isdigit()
    ]


def cjk_share(text: str) -> float:
    """Return the share of CJK characters among a text's letters."""
    letters = [c for c in text if c.isalpha()]
    return len(_CJK.findall(text)) / len(letters) if letters else 0.0


def blank(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Replace spans by blanks, so that positions stay."""
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def starts_sentence(text: str, position: int) -> bool:
    """Tell whether a word at this position begins a sentence (or follows a colon or a quotation mark)."""
    before = text[:position].rstrip()
    return not before or before[-1] in '.!?:\u2026"\u201c\u2018(;\u2014'
