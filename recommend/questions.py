"""Which tool answers a question, by rule: keywords in English and Chinese, titles of items, and times."""

# ruff: noqa: SIM905, RUF001 - word lists, Chinese punctuation

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import NamedTuple

from agent.verify.text import FILLER, content, lemma, starts_sentence, words
from recommend.contract import Tool
from store.search import FoundItem, Order

_CHANGES = re.compile(
    r"\b(?:chang\w*|differ\w*|new since|evolv\w*|shift\w*|updat\w*)\b|变化|变了|改变|不同|有什么新", re.IGNORECASE
)
_WHY = re.compile(r"\b(?:why|reasons?|how come|explain\w*|because)\b|为什么|为何|为啥|理由|原因|解释", re.IGNORECASE)
_OFFER = re.compile(
    r"\b(?:recommend\w*|suggest\w*|show(?:n|ed|ing)?|offer\w*|propos\w*|what should i|what next|try next)\b|"
    r"推荐|建议|给我看",
    re.IGNORECASE,
)
_PROFILE = re.compile(
    r"\b(?:profile|portrait|know about me|think (?:of me|i)|(?:do|am) i (?:like|into|enjoy|prefer)|"
    r"my (?:tastes?|interests?|habits?|dislikes?|likes?)|who am i|describe me)\b|"
    r"画像|了解我|知道我|我喜欢|我的(?:兴趣|口味|爱好|习惯)",
    re.IGNORECASE,
)
_HISTORY = re.compile(
    r"\b(?:did|have|had|was) i\b|\bi(?:'ve)? (?:ever |already |last |recently )?(?:\w+ed|bought|saw|seen|hid|did)\b|"
    r"\b(?:my (?:history|events?|activit\w+|purchases?|ratings?|searches|log)|last time|when did|how (?:many|often))\b|"
    r"看过|看了|买过|买了|评价|评分|浏览|点击|搜索|搜过|听过|记录|历史|什么时候|上次",
    re.IGNORECASE,
)
_DISLIKES = re.compile(r"\b(?:dislik\w*|hates?|(?:do not|don['’]?t|not) (?:like|enjoy))\b|不喜欢|讨厌", re.IGNORECASE)
_LIKES = re.compile(
    r"\bwhat (?:do i (?:like|enjoy|prefer)|am i into)\b|\bmy (?:likes|interests?)\b|我喜欢什么|我的兴趣", re.IGNORECASE
)
_SIMILAR = re.compile(
    r"\b(?:something|anything|more|others?|there|\w+s) (?:like|similar)\b|\bsimilar to\b|类似", re.IGNORECASE
)
_BEST = re.compile(r"\b(?:highest|best|favou?rites?|most)\b|最高|最好|最喜欢", re.IGNORECASE)
_WORST = re.compile(r"\b(?:lowest|worst|least)\b|最低|最差", re.IGNORECASE)
# What people call an event, and the word that stands in its type.
_TYPES = {
    "purchase": r"\b(?:buy|bought|purchas\w*|order\w*)\b|买",
    "rating": r"\b(?:rat(?:e|ed|ing|ings)|stars?)\b|评分|打分",
    "search": r"\bsearch(?:ed|es|ing)?\b|搜",
    "view": r"\b(?:view(?:ed)?|look(?:ed)? at)\b|浏览",
    "click": r"\bclick(?:ed|s)?\b|点击",
    "play": r"\b(?:play(?:ed)?|listen(?:ed)?)\b|播放|听",
    "save": r"\b(?:save|saved)\b|收藏",
    "review": r"\breview(?:ed|s)?\b|评论",
    "dislike": r"\bdislik\w*\b|不喜欢",
    "skip": r"\bskip\w*\b|跳过",
}
# Words of questions that nobody looks for in a log.
_ASKING = frozenset(
    "what when why how which who did do have show tell recommend suggest know think profile change history event last "
    "first time often many today yesterday week month year day ago since monday tuesday wednesday thursday friday "
    "saturday sunday january february march april may june july august september october november december see saw "
    "watch buy bought rate rating view search click listen recently lately ever already latest give list find me my "
    "purchase order like mine i you your explain reason come did anything something into interest taste love enjoy "
    "prefer dislike hate habit describe portrait high highest low lowest good best bad worst favourite favorite".split()
)
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTHS = "january february march april may june july august september october november december".split()
_DAYS_ZH = "一二三四五六日"
_RECENT_DAYS = 30
_SHORT = 3


class Pick(NamedTuple):
    """A tool and its arguments.

    Attributes:
        item: What the question is about: an item's id, if it names one.
        words: To look for, in the log or in the profile.
        since: The first day that the question is about.
        until: The last one.
        kinds: Of claims, if only these are asked for.
        order: Which events come first: those of the highest value, of the lowest, or the latest (None).
        sure: Whether the question has a word that asks for this tool.
    """

    tool: Tool
    item: str | None = None
    words: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    kinds: tuple[str, ...] = ()
    order: Order | None = None
    sure: bool = True


class Period(NamedTuple):
    """Days, both included; None is without end."""

    since: date | None
    until: date | None


def pick(question: str, today: date, items: Sequence[FoundItem]) -> Pick:
    """Choose the tool that answers a question.

    Args:
        question: As asked.
        today: The day on which it is asked.
        items: Those whose titles stand in it, the longest titles first.
    """
    period = period_of(question, today) or Period(None, None)
    named = next((i for i in items if stands_in(i, question)), None)
    history = _HISTORY.search(question) is not None
    similar = named and _SIMILAR.search(question) and not (history or _WHY.search(question))
    item = None if similar else named
    if item is None and _CHANGES.search(question):
        return Pick("profile_changes", since=period.since)
    if item is not None and (_WHY.search(question) or not (history or period.since)):
        return Pick("explanation", item.item_id)
    if item is not None or history:
        types = (kind for kind, form in _TYPES.items() if re.search(form, question, re.IGNORECASE))
        words = (*(() if item else sought(question)), *types)
        order: Order | None = "best" if _BEST.search(question) else "worst" if _WORST.search(question) else None
        return Pick("search_events", item and item.item_id, words, period.since, period.until, order=order)
    if similar or _OFFER.search(question):
        return Pick("recommendations")
    if period.since and not (_PROFILE.search(question) or _WHY.search(question)):
        return Pick("search_events", since=period.since, until=period.until)
    kinds = ("dislike",) if _DISLIKES.search(question) else ("interest", "intent") if _LIKES.search(question) else ()
    sure = bool(kinds) or _PROFILE.search(question) is not None
    return Pick("profile", words=sought(question), kinds=kinds, sure=sure)


def stands_in(item: FoundItem, text: str) -> bool:
    """Tell whether a title stands in a text as a title, and not as a word that any question has."""
    found = list(re.finditer(rf"(?<![A-Za-z0-9]){re.escape(item.core)}(?![A-Za-z0-9])", text, re.IGNORECASE))
    if not found or " " in item.core or not item.core.isascii():
        return bool(found)
    for match in found:
        quoted = text[max(match.start() - 1, 0) : match.start()] in {'"', "'", "“", "‘", "《", "「"}
        capital = match.group()[:1].isupper() and not starts_sentence(text, match.start())
        word = match.group().lower()
        plain = len(word) > _SHORT and word not in FILLER and not {word, lemma(word)} & _ASKING
        if quoted or capital or plain:
            return True
    return False


def sought(question: str) -> tuple[str, ...]:
    """Return the words of a question to look for in a log, in quotes or in plain English."""
    quoted = re.findall('["“《「]([^"”》」]+)["”》」]', question)
    if quoted:
        return tuple(quoted)
    said = content(words(question))
    found = [w for w in said if w.text.isascii() and not {w.lemma, w.text.lower()} & _ASKING]
    return tuple(_stem(w.text.lower(), w.lemma) for w in found)


def _stem(word: str, base: str) -> str:
    """Return how both forms of a word begin; the word, if they begin differently.

    >>> _stem("tents", "tent"), _stem("comedies", "comedy"), _stem("bought", "buy")
    ('tent', 'comed', 'bought')
    """
    common = base if word.startswith(base) else base.removesuffix("y")
    return common if word.startswith(common) else word


def period_of(question: str, today: date) -> Period | None:
    """Return the days that a question is about, if it names any.

    >>> period_of("what did I watch on Saturday?", date(2025, 9, 1))
    Period(since=datetime.date(2025, 8, 30), until=datetime.date(2025, 8, 30))
    """
    text = question.lower()
    found = _of_days(text, today) or _of_weeks_and_months(text, today) or _of_names(text, today)
    if found is None:
        return None
    return Period(found.since, None) if re.search(r"\bsince\b|\bafter\b|以来|之后|以后|自从|从", text) else found


_ISO = re.compile(r"\b((?:19|20)\d\d)-(\d\d?)-(\d\d?)\b|((?:19|20)\d\d)年(\d\d?)月(\d\d?)[日号]")
_NAMED_DAY = re.compile(
    rf"\b(\d\d?)(?:st|nd|rd|th)? (?:of )?({'|'.join(_MONTHS)})\b|\b({'|'.join(_MONTHS)}) (\d\d?)(?:st|nd|rd|th)?\b|"
    r"(?<!\d)(1[0-2]|[1-9])月(\d\d?)[日号]"
)
_AGO = re.compile(r"\b(\d{1,3}) (day|week|month|year)s? ago|(\d{1,3})个?(天|周|星期|月|年)前")
_UNITS = {"day": 1, "天": 1, "week": 7, "周": 7, "星期": 7, "month": 30, "月": 30, "year": 365, "年": 365}


def _of_days(text: str, today: date) -> Period | None:
    if match := _ISO.search(text):
        year, month, day = (int(part) for part in match.groups() if part)
        return _day(year, month, day)
    if match := _NAMED_DAY.search(text):
        month = int(match[5]) if match[5] else _MONTHS.index(match[2] or match[3]) + 1
        day = int(match[1] or match[4] or match[6])
        this = _day(today.year, month, day)
        return this if this and this.since and this.since <= today else _day(today.year - 1, month, day)
    for form, back in ((r"\btoday\b|今天|今日", 0), (r"\byesterday\b|昨天|昨日", 1), ("前天", 2)):
        if re.search(form, text):
            return _one(today - timedelta(days=back))
    if match := _AGO.search(text):
        unit = _UNITS[match[2] or match[4]]
        since = today - timedelta(days=int(match[1] or match[3]) * unit)
        return Period(since, today if unit > 1 else since)
    recent = re.search(r"\b(?:recent|recently|lately)\b|最近|近来", text)
    return Period(today - timedelta(days=_RECENT_DAYS), today) if recent else None


def _of_weeks_and_months(text: str, today: date) -> Period | None:
    monday, first = today - timedelta(days=today.weekday()), today.replace(day=1)
    january = first.replace(month=1)
    last = timedelta(days=1)
    spans = (
        (r"\blast week\b|上周(?![一二三四五六日天])|上个?星期(?![一二三四五六日天])", monday - 7 * last, monday - last),
        (r"\bthis week\b|本周|这周|这个?星期", monday, today),
        (r"\blast month\b|上个?月", (first - last).replace(day=1), first - last),
        (r"\bthis month\b|本月|这个?月", first, today),
        (r"\blast year\b|去年", january.replace(year=january.year - 1), january - last),
        (r"\bthis year\b|今年", january, today),
        (r"\b(?:last|the) weekend\b|周末", monday - 2 * last, monday - last),
    )
    return next((Period(since, until) for form, since, until in spans if re.search(form, text)), None)


def _of_names(text: str, today: date) -> Period | None:
    """Find the latest day of a name before today (or today), or the latest month of a name that has begun."""
    day = next((n for n, name in enumerate(_WEEKDAYS) if re.search(rf"\b{name}s?\b", text)), None)
    if match := re.search(r"(?:周|星期|礼拜)([一二三四五六日天])", text):
        day = _DAYS_ZH.index(match[1].replace("天", "日"))
    if day is not None:
        return _one(today - timedelta(days=(today.weekday() - day) % 7))
    year = re.search(r"\b((?:19|20)\d\d)\b|((?:19|20)\d\d)年", text)
    month = next(
        (n for n, name in enumerate(_MONTHS, 1) if re.search(rf"\b(?:in|since|of|during|after) {name}\b", text)), None
    )
    if match := re.search(r"(?<!\d)(1[0-2]|[1-9])月", text):
        month = int(match[1])
    if month is not None:
        which = int(year[1] or year[2]) if year else today.year - (month > today.month)
        first = date(which, month, 1)
        return Period(first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1))
    if year and re.search(r"\b(?:in|since|of|during|after) (?:19|20)\d\d\b|年", text):
        which = int(year[1] or year[2])
        return Period(date(which, 1, 1), date(which, 12, 31))
    return None


def _day(year: int, month: int, day: int) -> Period | None:
    try:
        return _one(date(year, month, day))
    except ValueError:
        return None


def _one(day: date) -> Period:
    return Period(day, day)
