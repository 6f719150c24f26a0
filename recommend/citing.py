"""The check of an answer that a language model has worded: it says what its sources say, and names them.

Each sentence is checked against the facts that it cites: numbers and names stand there, what was done was done so,
nothing is negated that is not, no sensitive word is added, and most of its other words are theirs. What fails is not
repaired: the template's words are always there.
"""

# ruff: noqa: RUF001, SIM905 - Chinese punctuation, word lists

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent.catalogue import BaseRates
from agent.contract import Language
from agent.verify import Grounds, Vocabulary, checks
from agent.verify.checks import Seen
from agent.verify.lexicon import MARKUP, NUMBER_WORDS, PERSONAL, SENSITIVE
from agent.verify.text import CITATION, blank, cjk_share, content, lemma, words
from recommend.facts import Fact
from store.records import Item

MAX_CHARACTERS, MAX_SENTENCES = 900, 8
_FREE_SHARE = 1 / 3
_CHINESE_SHARE = 0.5
_SEVERAL = re.compile(r"\[(\d+(?:\s*[,;、，]\s*\d+)+)\]")
_STOP_FIRST = re.compile(r"([.!?。！？])\s*((?:\[\d+\]\s*)+)")
_END = re.compile(r"[.!?](?=\s|$)|[。！？]|\n")
_NOT = re.compile(r"\b(?:not|no|never|none|nothing|neither|without|only|gone)\b|n['’]t\b|[不没无未别非]", re.IGNORECASE)
_TITLE_ZH = re.compile('[《“"]([^》”"]+)[》”"]')
_CHINESE_NUMBER = re.compile("[〇零二三四五六七八九十百千万两]+(?=[星分位名个部件条次版])")
# Words of which a sentence may have only those that its facts have: what a person did, and how they took it.
_DEEDS = frozenset(
    lemma(word)
    for word in "bought purchased rated reviewed liked disliked loved hated hid skipped returned shared saved searched "
    "clicked played viewed ordered recommended rejected new gone changed rising fading steady".split()
)
# Words that any answer needs.
_ANSWERS = frozenset(
    "because since therefore thus reason mainly mostly above all also give star event profile version claim interest "
    "strength score number show recommend position place rank write say know base account most recent last latest day "
    "date time on at you your answer list follow several watch see add addition well".split()
)


class _Sentence(NamedTuple):
    """A sentence without its citations, and the facts that it cites."""

    text: str
    cited: tuple[Fact, ...]


def tidy(text: str) -> str:
    """Write citations one by one and before the full stop.

    >>> tidy("You liked Heat. [1, 2] You saw it.")
    'You liked Heat [1][2]. You saw it.'
    """
    text = _SEVERAL.sub(lambda m: "".join(f"[{n}]" for n in re.findall(r"\d+", m[1])), text.strip())
    return _STOP_FIRST.sub(lambda m: f" {m[2].strip()}{m[1]} ", text).strip()


def holds(text: str, facts: Mapping[int, Fact], headings: Sequence[str], language: Language, user_id: str) -> bool:
    """Tell whether a text says nothing but what the facts say that it cites.

    Args:
        text: Tidy.
        facts: By number.
        headings: What may be said beside them, where a fact is cited as well.
        language: The text must have.
        user_id: Must not stand in the text.
    """
    if not text or len(text) > MAX_CHARACTERS or any(unicodedata.category(c)[0] == "C" and c != "\n" for c in text):
        return False
    cited = [int(n) for n in CITATION.findall(text)]
    if not cited or any(n not in facts for n in cited):
        return False
    sentences = _sentences(text, facts)
    plain = " ".join(sentence.text for sentence in sentences)
    if len(sentences) > MAX_SENTENCES or any(pattern.search(plain) for pattern in MARKUP):
        return False
    said = _blanked(plain, [name for n in set(cited) for name in facts[n].names])
    share = cjk_share(said)
    if (share < _CHINESE_SHARE) if language == "zh" else share > 0:
        return False
    return all(_sentence_holds(sentence, headings, language, user_id) for sentence in sentences)


def _sentences(text: str, facts: Mapping[int, Fact]) -> list[_Sentence]:
    """Split a text; full stops inside of names do not count."""
    hidden = _blanked(text, [name for fact in facts.values() for name in fact.names])
    ends = [match.end() for match in _END.finditer(hidden)] + [len(text)]
    found = []
    for start, end in zip([0, *ends], ends, strict=False):
        part = text[start:end]
        cited = tuple(dict.fromkeys(facts[int(n)] for n in CITATION.findall(part)))
        plain = " ".join(CITATION.sub(" ", part).split())
        if re.search(r"\w", plain) or cited:
            found.append(_Sentence(plain, cited))
    return found


def _sentence_holds(sentence: _Sentence, headings: Sequence[str], language: Language, user_id: str) -> bool:
    if not sentence.cited or not sentence.text:
        return False
    texts = (*(fact.text for fact in sentence.cited), *headings)
    names = tuple(dict.fromkeys(name for fact in sentence.cited for name in fact.names))
    joined, plain = " ".join(texts), _blanked(sentence.text, names)
    if _NOT.search(plain) and not _NOT.search(" ".join(fact.text for fact in sentence.cited)):
        return False
    if any(match.group() not in joined for pattern in PERSONAL for match in pattern.finditer(plain)):
        return False
    if not _numbers(plain) <= _numbers(joined):
        return False
    grounds = Grounds(
        polarity="positive",
        items=[(Item(item_id=str(n), title=name), 1) for n, name in enumerate(names)],
        counter_events=0,
        shown=0,
        base_rates=BaseRates(0, {}),
        vocabulary=Vocabulary({}),
        language=language,
        other_texts=texts,
        user_id=user_id,
    )
    seen = Seen.of(sentence.text, grounds)
    if any(True for check in (checks.names, checks.sensitive) for _ in check(seen, grounds)):
        return False
    return _chinese(sentence.text, joined) if language == "zh" else _words(seen, grounds, plain)


def _chinese(text: str, joined: str) -> bool:
    """What stands in quotes stands in the facts, and numbers are written in digits."""
    return all(m[1] in joined for m in _TITLE_ZH.finditer(text)) and not _CHINESE_NUMBER.search(text)


def _words(seen: Seen, grounds: Grounds, plain: str) -> bool:
    """Deeds are those of the facts, and so are at least two thirds of the other words that say something, and one."""
    theirs_only = _DEEDS | SENSITIVE
    if any({w.lemma, w.text.lower()} & theirs_only and w.lemma not in grounds.known for w in words(plain)):
        return False
    said = content(words(plain))
    free = [w for w in said if w.lemma not in grounds.known and w.lemma not in _ANSWERS]
    names_something = len(said) > len(free) or seen.plain != seen.text or _numbers(plain)
    return bool(names_something) and len(free) <= _FREE_SHARE * len(said)


def _numbers(text: str) -> set[str]:
    """Return the numbers of a text, also those in words; a sign and an ordinal's ending do not count."""
    digits = {match.replace(",", "") for match in re.findall(r"\d+(?:,\d{3})*(?:[.:]\d+)*", text)}
    spelt = {f"{NUMBER_WORDS[w]:g}" for w in re.findall(r"[a-z]+", text.lower()) if w in NUMBER_WORDS}
    return {number.lstrip("0") or "0" for number in digits | spelt}


def _blanked(text: str, names: Sequence[str]) -> str:
    """Blank names out, the longest first."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)" if name.isascii() else re.escape(name))
        text = blank(text, [match.span() for match in pattern.finditer(text)])
    return text
