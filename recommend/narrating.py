"""Reasons in the words of a language model, which are shown only if they say nothing that the explanation does not.

The check is strict, since the template's words are always there: titles and names stand as they are, every number is
one of the explanation's, and every other word is one of its words or one that any reason needs.
"""

# ruff: noqa: RUF001, SIM905 - Chinese punctuation, word lists

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from agent.chat import ChatModel
from agent.contract import Language
from agent.errors import ChatError
from agent.verify.lexicon import GENDERED, MARKUP, NUMBER_WORDS, PERSONAL
from agent.verify.text import FILLER, blank, cjk_share, content, lemma, starts_sentence, words
from prompts.loader import load
from recommend.contract import ClaimPart, CrowdPart, EventPart, Explanation, Part, RestPart
from recommend.wording import Weighed, ordinal

PROMPT, PROMPT_IN_BRIEF = ("why", 2), ("why-brief", 1)
MAX_TOKENS = 200
MAX_WORDS, MAX_SENTENCES = 70, 3
_LANGUAGES: dict[Language, str] = {"en": "English", "zh": "Chinese (简体中文)"}
_UNUSABLE = frozenset({"malformed", "cut_off"})

_NEGATIONS = frozenset("not no never nor few".split())
_CONCESSIONS = frozenset("although though despite but however yet even still".split())
_CROWD = frozenset("people person other others user popular popularity".split())
# Words that any reason needs; they say nothing of the person.
_REASONS = frozenset(
    "because since reason recommend recommendation suggest pick choose appear here you your yours yourself we be "
    "mainly above all also too additionally well partly chiefly largely primarily main combine together along item "
    "title event place list rank top position take drop fall instead replace it its would stand high lead thanks due "
    "strongly shape reflect match fit base first interested speak".split()
)
_CHINESE_NEGATION, _CHINESE_WITHOUT = re.compile("[不没无别非]"), re.compile("如果没有|若没有|没有|若无|去掉|除去")
_CHINESE_NUMBER = re.compile("([〇零二三四五六七八九十百千万两]+)[星分位名个部件条次]")
_QUOTED = re.compile('["“”«‹《「『]([^"“”»›》」』]*)["“”»›》」』]')
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|[。！？]")
_YEAR = re.compile(r"\s*\((?:1[5-9]|20)\d\d\)$")
_ORDINALS = {
    word: n for n, word in enumerate("second third fourth fifth sixth seventh eighth ninth tenth".split(), start=2)
}
_STARS = re.compile(r"(\d+(?:\.\d+)?)[ -]?(?:stars?\b|星|分)|★\s?(\d+(?:\.\d+)?)")


class WhyWords(BaseModel):
    """An explanation in words."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(min_length=8, max_length=600)


async def narrate(
    chat: ChatModel, explanation: Explanation, language: Language, *, examples: bool = True
) -> str | None:
    """Ask a model to put an explanation into one or two sentences.

    Args:
        chat: The model.
        explanation: What to say.
        language: To write in.
        examples: Whether the prompt shows examples; a model that was taught on these tasks needs none.

    Returns:
        Its words; None where they cannot be used or say what the explanation does not.

    Raises:
        ChatError: The server is out of reach or refuses.
    """
    messages = load(*(PROMPT if examples else PROMPT_IN_BRIEF)).render(variables(explanation, language))
    try:
        answer, _ = await chat.ask(messages, WhyWords, MAX_TOKENS)
    except ChatError as error:
        if error.outcome in _UNUSABLE:
            return None
        raise
    text = answer.text.strip()
    return text if holds(text, explanation, language) else None


def holds(text: str, explanation: Explanation, language: Language) -> bool:
    """Tell whether a text says nothing but what the explanation says."""
    said = _Said.of(text, explanation)
    return not any(
        wrong(said, explanation, language) for wrong in (_form, _quotes, _numbers, _stars, _turned_round, _words)
    )


def variables(explanation: Explanation, language: Language) -> dict[str, str]:
    """Return the variables of the prompt: what the template would say. A small model sums a longer list up wrongly."""
    weighed = Weighed(explanation.parts)
    liked = [f"- {_line(p)}" for p in (*weighed.reasons, *weighed.crowd)]
    against = [f"- {_line(weighed.against)}"] if weighed.against else []
    c = explanation.counterfactual
    without = "none"
    if c is not None and c.new_rank is not None:
        removed = " and ".join(dict.fromkeys(_quote(event.title) for event in c.removed))
        instead = f", and {_quote(c.replaced_by.title)} would take its place" if c.replaced_by else ""
        without = f"- {removed}: it would be {ordinal(c.new_rank)}{instead}"
    return {
        "language": _LANGUAGES[language],
        "item": _quote(explanation.title),
        "reasons": "\n".join(liked) or "none",
        "against": "\n".join(against) or "none",
        "without": without,
    }


def _name(part: Part) -> str:
    """Return the title or the claim's name that a part is about; nothing for the others."""
    return part.title if isinstance(part, EventPart) else part.name if isinstance(part, ClaimPart) else ""


def _line(part: Part) -> str:
    """Return a part's text with the name in it in quotes."""
    name = _name(part)
    at = part.text.casefold().rfind(name.casefold()) if name else -1
    if at < 0:
        return " ".join(part.text.split())
    inside = part.text[at : at + len(name)]
    return " ".join(part.text.replace(inside, _quote(inside)).split())


def _quote(name: str) -> str:
    return '"' + " ".join(name.split()).replace('"', "'") + '"'


def _forms(name: str) -> Iterator[str]:
    """Yield a title as it stands and without its year."""
    plain = " ".join(name.split())
    yield from (plain, plain.replace('"', "'"), _YEAR.sub("", plain))


class _Said(NamedTuple):
    """A text under check.

    Attributes:
        text: As written.
        plain: The same with names and titles blanked out.
        named: Where each title or name stands, in order: its place and its full form.
    """

    text: str
    plain: str
    named: tuple[tuple[int, str], ...]

    @classmethod
    def of(cls, text: str, explanation: Explanation) -> "_Said":
        """Blank out the names; a name of several words may be written in other case, a single word may not."""
        forms = {form: name for name in _names(explanation) for form in _forms(name) if form}
        plain, named = text, list[tuple[int, str]]()
        for form in sorted(forms, key=len, reverse=True):
            pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(form)}(?![A-Za-z0-9])", re.IGNORECASE * (" " in form))
            found = [match.span() for match in pattern.finditer(plain)]
            named += [(start, forms[form]) for start, _ in found]
            plain = blank(plain, found)
        return cls(text, plain, tuple(sorted(named)))

    @property
    def sentences(self) -> list[tuple[int, int]]:
        """Where each sentence starts and ends."""
        ends = [m.end() for m in _SENTENCE_END.finditer(self.plain)] + [len(self.plain)]
        pairs = zip([0, *ends], ends, strict=False)
        return [(start, end) for start, end in pairs if self.text[start:end].strip()]


def _names(explanation: Explanation) -> Iterator[str]:
    yield explanation.title
    yield from filter(None, map(_name, explanation.parts))
    if (c := explanation.counterfactual) is not None:
        yield from (event.title for event in c.removed)
        if c.replaced_by is not None:
            yield c.replaced_by.title


def _form(said: _Said, explanation: Explanation, language: Language) -> bool:
    """One or two sentences of plain characters in the right script, with a reason in them and no personal data."""
    del explanation
    letters = cjk_share(said.plain)
    script = letters < 0.6 if language == "zh" else letters > 0  # noqa: PLR2004
    return (
        script
        or len(said.text.split()) > MAX_WORDS
        or len(said.sentences) > MAX_SENTENCES
        or any(unicodedata.category(c)[0] == "C" for c in said.text)
        or any(pattern.search(said.plain) for pattern in (*MARKUP, *PERSONAL))
    )


def _quotes(said: _Said, explanation: Explanation, language: Language) -> bool:
    """What stands in quotes is a title or a name."""
    del explanation, language
    return any(re.search(r"\w", match[1]) for match in _QUOTED.finditer(said.plain))


def _numbers(said: _Said, explanation: Explanation, language: Language) -> bool:
    """Every number is the explanation's; the new rank stands only where something is thought away."""
    if language == "zh" and _CHINESE_NUMBER.search(said.plain):
        return True
    c, allowed = explanation.counterfactual, {1.0, float(explanation.rank)}
    for part in explanation.parts:
        allowed.update(_figures(part))
    if c is not None:
        allowed |= {float(c.k), float(len(c.removed))}
    for start, end in said.sentences:
        sentence = said.plain[start:end]
        also = {float(c.new_rank)} if c is not None and c.new_rank is not None and _thinks_away(sentence) else set()
        if any(value not in allowed | also for value in _values(sentence)):
            return True
    return False


def _figures(part: Part) -> Iterator[float]:
    if isinstance(part, EventPart) and part.value is not None:
        yield part.value
    elif isinstance(part, ClaimPart):
        yield float(len(part.evidence))
        yield from _values(part.name)
    elif isinstance(part, RestPart):
        yield from (float(part.events), float(part.count))


def _values(text: str) -> Iterator[float]:
    for word in words(text):
        lowered = word.text.lower()
        if word.text[0].isdigit():
            whole = re.fullmatch(r"\d+(?:,\d{3})*(?:\.\d+)?", word.text)
            yield float(word.text.replace(",", "")) if whole else float("nan")
        elif lowered in NUMBER_WORDS or lowered in _ORDINALS:
            yield float(NUMBER_WORDS.get(lowered, _ORDINALS.get(lowered, 0)))


def _thinks_away(sentence: str) -> bool:
    return re.search(r"\bwithout\b", sentence, re.IGNORECASE) is not None or bool(_CHINESE_WITHOUT.search(sentence))


def _stars(said: _Said, explanation: Explanation, language: Language) -> bool:
    """Stars are those of a title beside them."""
    del language
    given: dict[str, set[float]] = {}
    for part in explanation.parts:
        if isinstance(part, EventPart) and part.value is not None:
            given.setdefault(part.title, set()).add(part.value)
    for match in _STARS.finditer(said.plain):
        before = [name for at, name in said.named if at < match.start()][-1:]
        after = [name for at, name in said.named if at > match.start()][:1]
        if not any(float(match[1] or match[2]) in given.get(name, ()) for name in before + after):
            return True
    return False


def _turned_round(said: _Said, explanation: Explanation, language: Language) -> bool:
    """What speaks against the item is no reason for it; what would replace it, or is thought away, is only that."""
    del language
    signs: dict[str, float] = {}
    for part in explanation.parts:
        signs[_name(part)] = max(signs.get(_name(part), part.contribution), part.contribution)
    unpopular = any(isinstance(part, CrowdPart) and part.contribution < 0 for part in explanation.parts)
    c = explanation.counterfactual
    thought: set[str] = set()
    if c is not None and c.new_rank is not None:
        thought = {event.title for event in c.removed} | ({c.replaced_by.title} if c.replaced_by else set())
    for start, end in said.sentences:
        sentence = said.plain[start:end]
        conceded = _concedes(sentence)
        names = [name for at, name in said.named if start <= at < end and name != explanation.title]
        if conceded and not (unpopular or any(signs.get(name, 0.0) < 0 for name in names)):
            return True
        for name in names:
            if name in thought and _thinks_away(sentence):
                continue
            if name not in signs or (signs[name] < 0 and not conceded):
                return True
    return False


def _concedes(sentence: str) -> bool:
    spoken = {w.text.lower() for w in words(sentence)}
    return bool(_CONCESSIONS & spoken) or "虽然" in sentence or "尽管" in sentence


def _words(said: _Said, explanation: Explanation, language: Language) -> bool:
    """Every word is the explanation's or one that reasons need, and at least one of its reasons is named."""
    parts = " ".join([part.text for part in explanation.parts] + [explanation.text])
    if language == "zh":
        negated = _CHINESE_NEGATION.search(_CHINESE_WITHOUT.sub("", said.plain))
        return bool(negated and not _CHINESE_NEGATION.search(parts)) or not _names_a_reason(said, explanation)
    claims = " ".join(part.name for part in explanation.parts if isinstance(part, ClaimPart))
    titles = {form for name in _names(explanation) if name not in claims for form in _forms(name)}
    known = _lemmas([_without(parts, titles), claims])
    crowd = any(isinstance(part, CrowdPart) and part.contribution > 0 for part in explanation.parts)
    general = (FILLER | _REASONS | _CONCESSIONS | (_CROWD if crowd else set())) - _NEGATIONS - GENDERED
    capitals = {w.text for w in words(claims) if w.capital}
    for word in words(said.plain):
        after_digit = word.start > 0 and said.plain[word.start - 1].isdigit()
        if word.text[0].isdigit() or (after_digit and word.text in {"st", "nd", "rd", "th"}):
            continue
        if word.capital and not starts_sentence(said.plain, word.start) and word.text not in capitals:
            return True
        lowered = word.text.lower()
        if not {lowered, word.lemma} & (general | known | NUMBER_WORDS.keys() | _ORDINALS.keys()):
            return True
    return not _names_a_reason(said, explanation)


def _without(text: str, titles: Iterable[str]) -> str:
    for title in sorted(filter(None, titles), key=len, reverse=True):
        text = text.replace(title, " ")
    return text


def _lemmas(texts: Iterable[str]) -> frozenset[str]:
    found = {w.lemma for text in texts for w in words(text)} | {w.text.lower() for text in texts for w in words(text)}
    return frozenset(found | {lemma(word) for word in found})


def _names_a_reason(said: _Said, explanation: Explanation) -> bool:
    """Tell whether a title, a claim or a word of its name, or the crowd is given as a reason."""
    named = {name for _, name in said.named} & set(map(_name, explanation.parts))
    spoken = _lemmas([said.plain])
    of_claims = {w.lemma for p in explanation.parts if isinstance(p, ClaimPart) for w in content(words(p.name))}
    crowd = any(isinstance(part, CrowdPart) for part in explanation.parts)
    many = bool((_CROWD | {"many"}) & spoken) or "很多人" in said.plain
    return bool(named) or bool(spoken & of_claims) or (crowd and many)
