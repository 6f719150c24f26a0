"""The single checks: each looks at a text and its grounds and yields violations."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal, NamedTuple

from agent.catalogue import Attribute
from agent.verify.grounds import Grounds
from agent.verify.lexicon import (
    ADDRESS,
    COMMANDS,
    DEMONYMS,
    DISLIKES,
    GENDERED,
    LIKES,
    MARKUP,
    NOUNS,
    NUMBER_WORDS,
    PERSONAL,
    SELF_TALK,
    SENSITIVE,
    SENSITIVE_PHRASES,
    YEARS_OLD,
)
from agent.verify.text import (
    CITATION,
    Word,
    blank,
    cjk_share,
    content,
    is_english,
    lemmas,
    starts_sentence,
    words,
)

Kind = Literal[
    "citation", "attribute", "noun", "decade", "count", "name", "repeats", "language", "sensitive", "personal_data",
    "instruction", "polarity", "length", "ungrounded", "trend", "person", "cut_off", "malformed",
]  # fmt: skip


class Violation(NamedTuple):
    """One thing wrong with a text: its kind, and a detail that tells a writer what to change."""

    kind: Kind
    detail: str


class Seen(NamedTuple):
    """A text under check: as written, with the theme's titles and citations blanked out, and its words."""

    text: str
    plain: str
    words: list[Word]

    @classmethod
    def of(cls, text: str, grounds: Grounds) -> "Seen":
        """Blank out what needs no further check: citations and titles of the theme's items."""
        plain = blank(text, [m.span() for m in CITATION.finditer(text)])
        for title in grounds.titles:
            if len(title) < 3 and not title.isdigit():  # noqa: PLR2004
                continue
            flags = re.IGNORECASE if " " in title else 0
            pattern = re.compile(rf"(?<!\w){re.escape(title)}(?!\w)", flags)
            plain = blank(plain, [m.span() for m in pattern.finditer(plain)])
        return cls(text, plain, words(plain))


_ODD_CITATION = re.compile(r"\[\d+\s*[,;\u2013-][^\]]*\]")


def citations(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """Cited numbers exist."""
    if odd := _ODD_CITATION.search(seen.text):
        yield Violation("citation", f"cite items one by one, not as {odd.group()}")
    for match in CITATION.finditer(seen.text):
        if not 1 <= int(match[1]) <= grounds.shown:
            yield Violation("citation", f"there is no item {match.group()}")


_DECADE = re.compile(
    r"(?<![\w\u2013])(?<!\d-)(?:(?P<full>1[5-9]\d0|20\d0)['\u2019]?s|['\u2019]?(?P<short>[1-9]0)['\u2019]?s)(?!\w)",
    re.IGNORECASE,
)
_DECADE_WORD = re.compile(
    r"\b(?P<word>twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties|noughties)\b",
    re.IGNORECASE,
)
_DECADE_WORDS = {"two thousands": 2000, "twenty tens": 2010, "twenty twenties": 2020} | dict(
    zip(
        "twenties thirties forties fifties sixties seventies eighties nineties noughties".split(),
        (1920, 1930, 1940, 1950, 1960, 1970, 1980, 1990, 2000),
        strict=True,
    )
)
_RANGE = re.compile(r"^\s*(?:to|through|until|\u2013|-)\s*(?:the\s+)?$")
_ODD_DECADE = re.compile(r"(?<!\w)(?:1[5-9]|20)\d[1-9]['\u2019]?s(?!\w)")
_YEAR = re.compile(r"(?<![\w.\u20ac$\u00a3])(?:1[5-9]|20)\d\d(?![\w%]|['\u2019]s)")


_DECADE_ZH = re.compile(r"(?P<full>1[5-9]\d0|20\d0)年代|(?P<short>[2-9]0)年代")


def _decades(plain: str) -> list[tuple[int, int, int]]:
    """Return (start, end, first year) of each decade named, in order."""
    found = []
    for m in (*_DECADE.finditer(plain), *_DECADE_ZH.finditer(plain)):
        year = int(m["full"]) if m["full"] else int(m["short"]) + (1900 if int(m["short"]) >= 30 else 2000)  # noqa: PLR2004
        found.append((m.start(), m.end(), year))
    found += [
        (m.start(), m.end(), _DECADE_WORDS[m["word"].lower().replace("-", " ")]) for m in _DECADE_WORD.finditer(plain)
    ]
    return sorted(found)


def decades(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """A decade or year named holds; decades joined by "to" hold together."""
    for match in _ODD_DECADE.finditer(seen.plain):
        yield Violation("decade", f'"{match.group()}" is not a decade')
    found = _decades(seen.plain)
    skip = False
    for k, (_, end, year) in enumerate(found):
        if skip:
            skip = False
            continue
        last = year
        if k + 1 < len(found) and _RANGE.match(seen.plain[end : found[k + 1][0]]):
            last, skip = found[k + 1][2], True
        if last > year:
            events = sum(n for y, n in grounds.years.items() if year <= y < last + 10)
            held = grounds.total > 0 and events >= grounds.total / 2
        else:
            held = grounds.telling(Attribute("decade", f"{year}s")).holds
        if not held and not _quoted(f"{year}s", grounds):
            yield Violation("decade", f"too few of the items are from the {year}s")
    yield from _years(seen, grounds)


def _years(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """Single years hold for half of the events; two joined by "and" or "to", or one with "since", as a span."""
    found = list(_YEAR.finditer(seen.plain))
    starts = [int(m.group()) for m in found]
    if not starts or _quoted(found[0].group(), grounds):
        return
    low, high = starts[0], starts[-1]
    around = seen.plain[max(0, found[0].start() - 12) : found[0].end() + 8]
    if low == high and re.search(r"\b(?:since|after|from)\b.*\d\s*(?:on|onwards?|or later|\b)", around):
        high = low + 9
    elif low == high and re.search(r"\b(?:before|until|up to)\b", around):
        low = high - 9
    events = sum(n for year, n in grounds.years.items() if low <= year <= high)
    if events * 2 < grounds.total:
        yield Violation("decade", f"too few of the items are from {found[0].group()}")


def _quoted(text: str, grounds: Grounds) -> bool:
    return any(text in other for other in grounds.other_texts)


def names_a_decade(seen: Seen) -> bool:
    """Tell whether the text names a decade or a year."""
    return bool(_decades(seen.plain) or _YEAR.search(seen.plain))


_NEGATED = re.compile(
    r"\b(?:rather than|instead of|over|unlike|as opposed to|away from|far from|on the|off the)\s+(?:\w+\s+){0,2}$",
    re.IGNORECASE,
)
_IDIOM = re.compile(r"\bin the $", re.IGNORECASE)
_NOT = re.compile(r"\b(?:not|no|never|without|hardly any|but not)\s+(?:\w+\s+){0,2}$", re.IGNORECASE)


def mentions(seen: Seen, grounds: Grounds) -> Iterator[tuple[int, int, tuple[Attribute, ...]]]:
    """Yield the attributes of the catalogue that a text names: (first word, last word, attributes so called)."""
    vocabulary, at = grounds.vocabulary, 0
    forms = [w.lemma for w in seen.words]
    while at < len(forms):
        for size in range(min(vocabulary.longest, len(forms) - at), 0, -1):
            if attributes := vocabulary.phrases.get(tuple(forms[at : at + size])):
                yield at, at + size - 1, attributes
                at += size
                break
        else:
            at += 1


def attributes(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """An attribute named holds for half of the events, or for a quarter at twice the usual share."""
    counter_ok = re.compile(r"\b(?:although|though|even if|except|one)\b", re.IGNORECASE)
    quoted = _quoted_attributes(grounds)
    fields = {lemmas(a.field) for a in grounds.attribute_counts}
    for first, last, called in mentions(seen, grounds):
        before = seen.plain[: seen.words[first].start]
        if _NEGATED.search(before) or (grounds.polarity == "positive" and _NOT.search(before)):
            continue
        if grounds.counter_events and counter_ok.search(before):
            continue
        phrase = seen.plain[seen.words[first].start : seen.words[last].end]
        if any(grounds.telling(a).holds or a in quoted for a in called):
            continue
        if lemmas(phrase) in fields or _IDIOM.search(before):
            continue
        if _inside_longer_phrase(first, last, seen, grounds):
            continue
        yield Violation("attribute", f'"{phrase}" does not fit most of the items')


def _quoted_attributes(grounds: Grounds) -> set[Attribute]:
    """Return the attributes that the other texts name."""
    return {
        a for text in grounds.other_texts for *_, called in mentions(Seen.of(text, grounds), grounds) for a in called
    }


def _inside_longer_phrase(first: int, last: int, seen: Seen, grounds: Grounds) -> bool:
    """Tell whether the words, with a neighbour, are a quotation from a longer phrase of the texts."""
    forms = tuple(w.lemma for w in seen.words)
    spans = [forms[first - 1 : last + 1] if first else (), forms[first : last + 2]]
    return any(
        len(span) > last - first + 1 and contains(phrase, span) and len(phrase) > len(span)
        for span in spans
        for phrase in grounds.phrase_lemmas
    )


def nouns(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """Items that their catalogue calls films are no books, unless a text of theirs has the word."""
    own = frozenset(lemmas(grounds.noun or ""))
    if not any(own & group for group in NOUNS):
        return
    others = [group for group in NOUNS if not own & group]
    for word in seen.words:
        if any(word.lemma in group for group in others) and word.lemma not in grounds.known:
            yield Violation("noun", f'these are {grounds.noun}: do not write "{word.text}"')


def coordination(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """In a name such as "folk, fado and flamenco", what stands beside a trait must be one, too."""
    parts = [Seen.of(part, grounds) for part in re.split(r",\s*(?:and\s+)?|\s+and\s+|\s*&\s*|\s+or\s+", seen.plain)]
    if len(parts) < 2 or not any(True for part in parts for _ in mentions(part, grounds)):  # noqa: PLR2004
        return
    first = next(n for n, part in enumerate(parts) if any(True for _ in mentions(part, grounds)))
    for part in parts[first + 1 :]:  # before it stand adjectives: "warm, whimsical animation"
        said = content(part.words)
        supported = any(w.lemma in grounds.known for w in said) or any(True for _ in mentions(part, grounds))
        if said and not supported and not names_a_decade(part):
            yield Violation("attribute", f'"{part.plain.strip()}" is no trait of these items')


def contains(phrase: tuple[str, ...], part: tuple[str, ...]) -> bool:
    """Tell whether `part` stands in `phrase` as it is.

    >>> contains(("the", "quiet", "harbour"), ("quiet", "harbour"))
    True
    """
    n = len(part)
    return n > 0 and any(phrase[i : i + n] == part for i in range(len(phrase) - n + 1))


_AT_LEAST = re.compile(r"\b(?:more than|over|at least|upwards of|above|exceed\w*)\s+(?:(?:the|a)\s+)?$", re.IGNORECASE)
_AT_MOST = re.compile(
    r"\b(?:fewer than|less than|under|at most|up to|no more than|nearly|almost)\s+(?:(?:the|a)\s+)?$",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"\b(?:about|around|roughly|some|approximately|close to|or so)\s+(?:(?:the|a)\s+)?$", re.IGNORECASE)


_FOR_A_FEW = re.compile(r"\bfor\s+$", re.IGNORECASE)
MAX_PARTY = 8
_OUT_OF = re.compile(r"\s+(?:out\s+)?of\s+(?:the|these|those|its|their)?\s*[\w-]+", re.IGNORECASE)


def counts(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """A count named is one of the theme's, or of a named attribute's; "more than" and "about" are so."""
    taken = [(s, e) for s, e, _ in _decades(seen.plain)]
    taken += [m.span() for pattern in (_YEAR, _ODD_DECADE) for m in pattern.finditer(seen.plain)]
    allowed = _allowed_counts(seen, grounds)
    for k, word in enumerate(seen.words):
        value = _number(word)
        if value is None or any(s <= word.start < e for s, e in taken) or _in_a_name(k, seen, grounds):
            continue
        before = seen.plain[: word.start]
        if _OUT_OF.match(seen.plain[word.end :]):
            # "seven of the nine are dramas": what the seven have in common may be said in other words.
            allowed_here = allowed | {n for pair in grounds.attribute_counts.values() for n in pair}
        else:
            allowed_here = allowed
        after = seen.plain[word.end : word.end + 1]
        if after == "%" or seen.plain[word.end :].lstrip().lower().startswith("percent"):
            right = any(abs(100 * a / max(grounds.total, 1) - value) <= 3 for a in allowed)  # noqa: PLR2004
        elif _AT_LEAST.search(before):
            floor = value if "least" in before[-12:] else value + 1
            right = any(floor <= a <= 2 * value + 2 for a in allowed)
        elif _AT_MOST.search(before):
            ceiling = value if re.search(r"most|up to|no more", before[-14:]) else value - 1
            right = any(value / 2 <= a <= ceiling for a in allowed)
        elif _FOR_A_FEW.search(before) and value <= MAX_PARTY:
            continue  # games for two, dinners for four
        elif _ABOUT.search(before):
            right = any(abs(a - value) <= max(1, 0.2 * value) for a in allowed)
        else:
            right = value in allowed_here
        if not right:
            yield Violation("count", f'"{word.text}" is not a count of these items or events')


def _number(word: Word) -> float | None:
    if word.text[0].isdigit():
        return float(word.text.replace(",", "")) if re.fullmatch(r"\d+(,\d{3})*(\.\d+)?", word.text) else None
    return NUMBER_WORDS.get(word.text.lower())


def _in_a_name(k: int, seen: Seen, grounds: Grounds) -> bool:
    """Tell whether a number stands in the texts beside one of the words that it stands beside here."""
    forms = tuple(w.lemma for w in seen.words)
    return any(
        contains(phrase, span)
        for span in (forms[k : k + 2], forms[max(k - 1, 0) : k + 1])
        if len(span) > 1
        for phrase in grounds.phrase_lemmas
    )


def _allowed_counts(seen: Seen, grounds: Grounds) -> set[int]:
    allowed = {
        grounds.total, len(grounds.items), grounds.counter_events, grounds.total + grounds.counter_events,
        len(set(CITATION.findall(seen.text))),
    }  # fmt: skip
    for _, _, called in mentions(seen, grounds):
        for attribute in called:
            allowed.update(grounds.attribute_counts.get(attribute, ()))
    for _, _, year in _decades(seen.plain):
        allowed.update(grounds.attribute_counts.get(Attribute("decade", f"{year}s"), ()))
    lowered = seen.text.lower()
    for attribute, pair in grounds.attribute_counts.items():
        if attribute.value.lower() in lowered or attribute.value.split()[-1].lower() in lowered:
            allowed.update(pair)
    for item, events in grounds.items:
        if item.title.lower() in lowered:
            allowed.add(events)
    return allowed - {0}


def names(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """Names of people, places, works and brands stand in the theme's texts, in the same order of words."""
    if grounds.language != "en":
        return
    title_case = _title_case(seen)
    run: list[Word] = []
    for k, word in enumerate([*seen.words, None]):
        joined = bool(run) and word is not None and _continues(run[-1], word, seen)
        named = word is not None and _may_be_name(word, seen, title_case=title_case)
        if run and not (named and joined):
            alone = len(run) == 1 and starts_sentence(seen.plain, run[0].start)  # a plain word that no dictionary has
            if (
                not alone
                and not _stands(run, grounds)
                and tuple(w.lemma for w in run) not in grounds.vocabulary.phrases
            ):
                shown = seen.plain[run[0].start : run[-1].end]
                yield Violation("name", f'"{shown}" is not named in these items')
            run = []
        if named and word is not None:
            run.append(seen.words[k])


def _continues(before: Word, word: Word, seen: Seen) -> bool:
    """Tell whether a word goes on with the name before it: not after a possessive."""
    beside = seen.plain[before.end : word.start] in {" ", "-", "\u2019", "'"}
    return beside and not before.text.endswith(("'s", "\u2019s"))


ACRONYM = 3


def _title_case(seen: Seen) -> bool:
    letters = [w for w in seen.words if w.text[0].isalpha() and len(w.text) > 3]  # noqa: PLR2004
    return len(letters) > 1 and all(w.capital for w in letters)


def _may_be_name(word: Word, seen: Seen, *, title_case: bool) -> bool:
    if not word.capital or (word.text.isupper() and len(word.text) <= ACRONYM) or word.text.lower() in _DECADE_WORDS:
        return False
    common = is_english(word.text)
    return not (common and (title_case or starts_sentence(seen.plain, word.start)))


def _stands(run: list[Word], grounds: Grounds) -> bool:
    """Tell whether a run of names can be put together from pieces that stand in the texts."""
    forms = tuple(w.lemma for w in run)
    if _from_there(" ".join(w.text.lower() for w in run), grounds):
        return True
    if not all(form in grounds.known for form in forms):
        return False
    reach = [True] + [False] * len(forms)
    for end in range(1, len(forms) + 1):
        for start in range(end):
            piece = forms[start:end]
            long_enough = len(piece) > 1 or len(forms) == 1
            quoted = long_enough and any(contains(phrase, piece) for phrase in grounds.phrase_lemmas)
            if reach[start] and (quoted or piece in grounds.phrase_lemmas):
                reach[end] = True
    return reach[-1]


def _from_there(adjective: str, grounds: Grounds) -> bool:
    """Tell whether an adjective of origin belongs to a country that the texts name."""
    countries = {lemmas(place) for group in DEMONYMS if group[0] == adjective for place in group[1:]}
    if any(contains(phrase, country) for country in countries for phrase in grounds.phrase_lemmas):
        return True
    # Peruvian and Peru, Ecuadorian and Ecuador: an ending of origin on a name that stands in the texts.
    stem = re.sub(r"(?:i?an|ese|ish|i)$", "", adjective)
    return len(stem) >= 4 and stem != adjective and any(w.startswith(stem[:4]) for w in grounds.known)  # noqa: PLR2004


def language(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """The text is in the language asked for: no foreign runs in English, mostly CJK letters in Chinese."""
    share = cjk_share(seen.plain)
    if grounds.language == "zh":
        if share < 0.6:  # noqa: PLR2004
            yield Violation("language", "write in Chinese")
        return
    body = [
        w for w in seen.words
        if w.text[0].isalpha() and not (w.capital and not starts_sentence(seen.plain, w.start))
        and not re.search(r"\S*@\S*|\S+\.\S+/\S*", seen.plain[max(0, w.start - 1) : w.end + 1])
    ]  # fmt: skip
    foreign = [w for w in body if not is_english(w.text) and w.lemma not in grounds.known]
    if share > 0 or (len(foreign) >= 2 and len(foreign) >= 0.15 * len(body)):  # noqa: PLR2004
        yield Violation("language", "write all of it in English")


_SPAN_OF_YEARS = re.compile(r"\b(?:1[5-9]|20)\d\d\s*[-\u2013]\s*(?:1[5-9]|20)?\d\d\b")


def personal_data(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """No contact data, account numbers, birth dates or the user's id."""
    plain = _SPAN_OF_YEARS.sub(lambda m: " " * len(m.group()), seen.plain)
    for pattern in (*PERSONAL, ADDRESS):
        if match := pattern.search(plain):
            yield Violation("personal_data", f'leave out "{match.group().strip()}"')
            return
    user = grounds.user_id
    if len(user) > 3 and re.search(rf"(?<!\w){re.escape(user)}(?!\w)", seen.plain):  # noqa: PLR2004
        yield Violation("personal_data", "leave out the user's id")


def sensitive(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """Nothing about the user's health, faith, politics, origin, sexuality, gender, age, family or means.

    A word that the theme's own texts use (a category such as gospel, say) is allowed as long as the sentence does
    not say it of the person.
    """
    for pattern in (*SENSITIVE_PHRASES, *YEARS_OLD):
        if match := pattern.search(seen.plain):
            yield Violation("sensitive", f'leave out "{match.group().strip()}"')
            return
    for word in seen.words:
        if word.text.lower() in GENDERED and not _of_someone_named(word, seen):
            yield Violation("sensitive", f'do not say "{word.text}" of the person')
            return
        listed = word.lemma in SENSITIVE or word.text.lower() in SENSITIVE
        if listed and word.lemma not in grounds.known and not _TOPIC.search(seen.plain[: word.start]):
            yield Violation("sensitive", f'leave out "{word.text}"')
            return


def _of_someone_named(word: Word, seen: Seen) -> bool:
    """Tell whether a pronoun can stand for a person named before it, rather than for the user."""
    pronoun = word.text.lower() in {"he", "she", "his", "her", "him", "hers", "himself", "herself"}
    named = (w for w in seen.words if w.end <= word.start and w.capital)
    return pronoun and any(not starts_sentence(seen.plain, w.start) or not is_english(w.text) for w in named)


_TOPIC = re.compile(r"\b(?:about|of|on|around|exploring|covering|concerning)\s+(?:\w+\s+(?:and\s+)?)?$", re.IGNORECASE)


_STRAY = re.compile(r"(?<!e\.g)(?<!i\.e)[.!?]\s+[\w'-]+(?:\s+[\w'-]+)?[.!?]?\s*$")


def instruction(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """No commands, slogans, talk of oneself or of the reader, secrets, markup; a word of a trait's name is none."""
    if any(unicodedata.category(c) in {"Cf", "Cc", "Co"} for c in seen.text):
        yield Violation("instruction", "write plain characters only")
        return
    if _STRAY.search(seen.text):
        yield Violation("instruction", "write one sentence and nothing after it")
        return
    traits: list[tuple[int, int]] | None = None  # looked for where there is something to excuse, which is seldom
    for pattern in (*MARKUP, *COMMANDS, *SELF_TALK):
        for match in pattern.finditer(seen.plain):
            traits = _traits_named(seen, grounds) if traits is None else traits
            a_word = pattern not in MARKUP and " " not in match.group().strip()
            if not (a_word and any(start <= match.start() and match.end() <= end for start, end in traits)):
                yield Violation("instruction", f'describe the taste only, without "{match.group().strip()}"')
                return


def _traits_named(seen: Seen, grounds: Grounds) -> list[tuple[int, int]]:
    """Return where a text names attributes that hold: categories are called "Sale", "Early access", "New for you"."""
    quoted = _quoted_attributes(grounds)
    return [
        (seen.words[first].start, seen.words[last].end)
        for first, last, called in mentions(seen, grounds)
        if any(grounds.telling(attribute).holds or attribute in quoted for attribute in called)
    ]


def polarity(seen: Seen, grounds: Grounds) -> Iterator[Violation]:
    """A like is not worded as a dislike, nor the other way round."""
    if grounds.language != "en":
        return
    negative = any(p.search(seen.plain.strip()) for p in DISLIKES)
    if grounds.polarity == "positive" and negative:
        yield Violation("polarity", "these items are liked: say so")
    if grounds.polarity == "negative" and any(p.search(seen.plain.strip()) for p in LIKES):
        yield Violation("polarity", "these items are disliked: say so")
