"""What the writers produce, and how it reads: schemas of the answers, traits, examples, rendering."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from agent.catalogue import Attribute, Telling, attributes_of, readable_title, year_of
from agent.contract import Language, Wording
from agent.themes import Theme, informative
from agent.verify.text import CITATION, FILLER, NEUTRAL, lemmas
from store.records import Item

MAX_TITLE = 80
MAIN_SHARE = 0.6
HALF = 0.5


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ThemeWords(_Answer):
    """A theme in words; examples are cited by number."""

    name: str = Field(min_length=2, max_length=80)
    statement: str = Field(min_length=8, max_length=220)
    examples: Annotated[list[int], Field(min_length=1, max_length=3)]


class ThemesWords(_Answer):
    """Themes in words, in the order of their groups in the prompt."""

    groups: list[ThemeWords]


@cache
def themes_words(count: int) -> type[ThemesWords]:
    """Return the schema of an answer for `count` groups: it has as many entries, neither more nor less."""
    groups: Any = Annotated[list[ThemeWords], Field(min_length=count, max_length=count)]
    return create_model("ThemesWords", __base__=ThemesWords, groups=(groups, ...))


class IntentWords(_Answer):
    """A need in words; examples are cited by number."""

    name: str = Field(min_length=2, max_length=80)
    goal: str = Field(min_length=8, max_length=220)
    examples: Annotated[list[int], Field(min_length=1, max_length=3)]


class SummaryWords(_Answer):
    """The summary: what is liked and what is disliked, each with the numbers of the claims that it rests on."""

    likes: str = Field(max_length=260)
    likes_claims: Annotated[list[int], Field(max_length=6)]
    dislikes: str = Field(max_length=200)
    dislikes_claims: Annotated[list[int], Field(max_length=6)]


class BriefSummary(_Answer):
    """The summary of a model that was taught: code finds the claims that a sentence rests on."""

    likes: str = Field(max_length=260)
    dislikes: str = Field(max_length=200)


@dataclass(frozen=True)
class Worded:
    """A claim's words.

    Attributes:
        statement: With citations such as [2].
        wording: Who wrote it.
        interpretive: Words that the texts do not support.
        tries: Calls of the model that it took; 0 for a template.
        alike: Whether the template's words stand because the model's, though they held, say what another claim says.
        correction_id: The correction by which the user has fixed the words; then citations are not looked for.
        rendered: Whether the statement is as it is shown, with titles instead of citations.
    """

    name: str
    statement: str
    wording: Wording
    interpretive: tuple[str, ...] = ()
    words: int = 0
    tries: int = 0
    alike: bool = False
    correction_id: int | None = None
    rendered: bool = False


def clean(text: str, limit: int = MAX_TITLE) -> str:
    r"""Make outside text safe for one line: no control or format characters, no runs of blanks, at most `limit` long.

    >>> clean("A\n\u200bB   C")
    'A B C'
    """
    kept = "".join(" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    short = " ".join(kept.split())
    return short if len(short) <= limit else short[: limit - 1].rstrip() + "\u2026"


def title_of(item: Item) -> str:
    """Return an item's title as it is shown."""
    return clean(readable_title(item.title)) or item.item_id


def named_after(name: str, titles: Sequence[str], language: Language) -> str:
    """Tell a claim's name from an equal one before it by its first example."""
    return f"{name}，如《{clean(titles[0], 40)}》" if language == "zh" else f"{name}, like {clean(titles[0], 40)}"


_LISTING = re.compile(r"[,:;]?\s+(?:including|such as|like|for example|for instance|e\.g\.)\s", re.IGNORECASE)


def without_listing(statement: str, titles: Sequence[str]) -> str:
    """Take a closing list of titles off a statement: they are added from the numbers.

    >>> without_listing("Enjoys dramas, including 'Quiet Harbour' and 'Marta'.", ["Quiet Harbour"])
    'Enjoys dramas.'
    >>> without_listing("Does not like a few films, such as Marta.", ["Marta"])
    'Does not like a few films.'
    """
    marks = list(_LISTING.finditer(statement))
    ends = [*(mark.start() for mark in marks[1:]), len(statement)]
    for mark, end in zip(marks, ends, strict=False):  # without a mark there is an end all the same
        if any(mark.end() <= statement.find(title, mark.end()) < end for title in titles):
            return statement[: mark.start()].rstrip() + "."
    return statement


def short_name(name: str, noun: str | None, telling: Sequence[Telling]) -> str:
    """Take what all items are called out of a claim's name, where it follows a trait: its statement says it.

    >>> from agent.catalogue import Attribute, Telling
    >>> thriller = Telling(Attribute("category", "Thriller"), 9, 0.9, 3.0)
    >>> short_name("Thriller films with some mystery", "films", [thriller])
    'Thriller with some mystery'
    """
    ends = "|".join(re.escape(called(t.attribute)) for t in informative(telling))
    return re.sub(rf"\b({ends}) {re.escape(noun)}\b", r"\1", name, flags=re.IGNORECASE) if noun and ends else name


def cite(statement: str, examples: Sequence[int], language: Language) -> str:
    """Append citations to a statement.

    >>> cite("Enjoys war dramas.", [2, 1], "en")
    'Enjoys war dramas, such as [2] and [1].'
    """
    marks = [f"[{n}]" for n in dict.fromkeys(examples)]
    body = statement.strip().rstrip(".\u3002!").rstrip()
    if language == "zh":
        return f"{body}，例如{'、'.join(marks)}。"
    joined = marks[0] if len(marks) == 1 else f"{', '.join(marks[:-1])} and {marks[-1]}"
    return f"{body}, such as {joined}."


_MOSTLY = re.compile(
    r"\b(mostly|mainly|largely|primarily)((?: (?:by|from|of|with|in))? (?:the )?)(?=(\S.*))", re.IGNORECASE
)


def quantified(sentence: str, telling: Sequence[Telling]) -> str:
    """Say "partly" of a trait that fewer than half of the events have: how many is arithmetic's to say.

    So it says of a name after "by" that is no trait at all.

    >>> from agent.catalogue import Attribute, Telling
    >>> quantified("Enjoys comedy, mostly from the 1980s.", [Telling(Attribute("decade", "1980s"), 4, 0.4, 3.0)])
    'Enjoys comedy, partly from the 1980s.'
    >>> quantified("Looks for tools, mostly by Oxmoor.", [Telling(Attribute("brand", "Oxmoor"), 6, 0.6, 9.0)])
    'Looks for tools, mostly by Oxmoor.'
    """
    known = [(t.attribute.value.casefold().removeprefix("the "), t.share >= HALF) for t in telling]

    def said(match: re.Match[str]) -> str:
        how, between, rest = match.groups()
        first = lemmas(rest)[:1]
        shares = [whole for value, whole in known if _begins(rest.casefold(), value)]
        unheard = between.split()[0:1] == ["by"] and not any(first == lemmas(value)[:1] for value, _ in known)
        few = not any(shares) if shares else unheard and rest[0].isupper()
        return f"{'Partly' if how[0].isupper() else 'partly'}{between}" if few else match[0]

    return _MOSTLY.sub(said, sentence)


_FROM_DECADE = re.compile(r" from the (\d{4}s)\b")
_IN_PART = re.compile(r"\b(?:some|partly|part|half|many|few)\b", re.IGNORECASE)


def in_part(text: str, telling: Sequence[Telling]) -> str:
    """Say "partly" of a decade that fewer than half of the events are from, where a text says it of the whole.

    >>> from agent.catalogue import Attribute, Telling
    >>> in_part("Looks for comedy from the 1980s.", [Telling(Attribute("decade", "1980s"), 4, 0.4, 3.0)])
    'Looks for comedy, partly from the 1980s.'
    """
    few = {t.attribute.value for t in telling if t.attribute.field == "decade" and t.share < HALF}

    def said(match: re.Match[str]) -> str:
        clause = text[: match.start()].rpartition(",")[2]
        whole = match[1] in few and not _IN_PART.search(clause)
        return f", partly{match[0]}" if whole else match[0]

    return _FROM_DECADE.sub(said, text)


def _begins(text: str, value: str) -> bool:
    return text.startswith(value) and not text[len(value) : len(value) + 1].isalnum()


_CITED = re.compile(r"(?:, such as|，例如)\s*\[.*$")


def uncited(statement: str) -> str:
    """Take the closing citations off a statement again.

    >>> uncited("Enjoys war dramas, such as [2] and [1].")
    'Enjoys war dramas.'
    """
    body, changed = _CITED.subn("", statement)
    return body + ("。" if "，例如" in statement else ".") if changed else statement


_EXAMPLES = re.compile(r"^(.*)(?:, such as |，例如).*$", re.DOTALL)


def search_text(name: str, statement: str, wording: str) -> str:
    """Return what a claim is found by: its name, and its statement where that says more.

    The titles of examples, with which a template's and a model's statement ends, are left out: they would draw a claim
    towards titles that sound alike.

    >>> search_text("War films", "Looks for war films, mostly grim, such as Alien and Heat.", "llm")
    'War films. Looks for war films, mostly grim.'
    >>> search_text("War films", "Looks for war films, such as Heat.", "llm")
    'War films'
    """
    if wording == "template":  # says no more than the name
        return name
    said = _EXAMPLES.sub(r"\1.", statement) if wording == "llm" else statement
    more = set(lemmas(said)) - set(lemmas(name)) - FILLER - NEUTRAL
    return f"{name}. {said}" if more else name


def render(statement: str, titles: Sequence[str], language: Language) -> str:
    """Put titles in the place of citations; numbers without a title stay."""

    def title(number: int) -> str:
        shown = titles[number - 1] if 1 <= number <= len(titles) else f"[{number}]"
        return f"《{shown}》" if language == "zh" else shown

    return CITATION.sub(lambda match: title(int(match[1])), statement)


def called(attribute: Attribute) -> str:
    """Say an attribute as it reads inside a sentence: categories in lower case, names and decades as they are."""
    return attribute.value.lower() if attribute.field == "category" else attribute.value


def is_main(telling: Telling, place: int) -> bool:
    """Tell whether a trait describes the whole of a theme, given its place among the most telling."""
    return telling.share >= (MAIN_SHARE if place else HALF)


def traits(telling: Sequence[Telling], noun: str | None = None) -> str:
    """Describe traits for a prompt; what the items are called follows the last category of the main ones.

    Returns:
        "mainly crime, drama; partly 1990s": main are those of at least 60 % of the events, and the most telling one
        if half of the events have it.
    """
    shown = informative(telling)
    common = [t.attribute for i, t in enumerate(shown) if is_main(t, i)]
    main = [called(attribute) for attribute in common]
    part = [called(t.attribute) for t in shown if t.attribute not in common]
    if noun and common and common[-1].field == "category" and not set(lemmas(noun)) & set(lemmas(main[-1])):
        main[-1] = f"{main[-1]} {noun}"
    pieces = [f"mainly {', '.join(main)}" if main else "", f"partly {', '.join(part)}" if part else ""]
    return "; ".join(piece for piece in pieces if piece) or "mixed"


def example_line(number: int, item: Item, telling: Sequence[Telling]) -> str:
    """Describe an example for a prompt: its title, year, and which of the traits it has (all, if there are none)."""
    wanted = {t.attribute for t in informative(telling)}
    has = [a for a in attributes_of(item) if a.field != "decade" and (a in wanted or not wanted)]
    year = year_of(item)
    quoted = title_of(item).replace('"', "'")
    return f'[{number}] "{quoted}"{f" ({year})" if year else ""} {", ".join(called(a) for a in has[:6])}'.rstrip()


def theme_lines(theme: Theme, items: Sequence[Item], telling: Sequence[Telling], noun: str | None = None) -> str:
    """Describe a theme for a prompt: sign, what its items are called, numbered examples, traits."""
    examples = "\n".join(example_line(n, item, telling) for n, item in enumerate(items, 1))
    verb = "likes" if theme.polarity == "positive" else "dislikes"
    return f"The person {verb}{f' these {noun}' if noun else ''}:\n{examples}\nTraits: {traits(telling, noun)}"
