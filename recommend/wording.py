"""Reasons in words, by template, in English and Chinese; neutral about what kind of thing an item is."""

# ruff: noqa: RUF001 - Chinese punctuation

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from agent.contract import Language
from agent.phrasing import within_sentence
from agent.words import title_of
from recommend.contract import ClaimPart, Counterfactual, CrowdPart, EventPart, Explanation, Part, RestPart
from recommend.explaining import Reasons
from recommend.people import Person
from store.records import Item

MAX_STARS = 5
SHOWN = 8
SHOWN_REASONS = 2
SHOWN_REMOVED = 3
_FURTHER, _WORTH_SAYING, _AGAINST, _MOSTLY = 0.25, 0.05, 0.1, 0.5

_ENGLISH = {
    "view": "you looked at {}",
    "click": "you clicked on {}",
    "search": "you searched for {}",
    "play": "you played {}",
    "save": "you saved {}",
    "add_to_cart": "you put {} into your cart",
    "share": "you shared {}",
    "like": "you liked {}",
    "purchase": "you bought {}",
    "rating": "you rated {}",
    "review": "you reviewed {}",
    "skip": "you skipped {}",
    "hide": "you hid {}",
    "return": "you returned {}",
    "dislike": "you disliked {}",
}
_CHINESE = {
    "view": "你浏览过{}",
    "click": "你点击过{}",
    "search": "你搜索过{}",
    "play": "你播放过{}",
    "save": "你收藏了{}",
    "add_to_cart": "你把{}加入了购物车",
    "share": "你分享了{}",
    "like": "你喜欢{}",
    "purchase": "你购买了{}",
    "rating": "你评价了{}",
    "review": "你评论了{}",
    "skip": "你跳过了{}",
    "hide": "你隐藏了{}",
    "return": "你退回了{}",
    "dislike": "你不喜欢{}",
}


def title(item: Item) -> str:
    """Return an item's title as it is shown."""
    return title_of(item)


def event_text(kind: str | None, title: str, value: float | None, language: Language) -> str:
    """Say what the user did.

    Args:
        kind: Type of the event; None for one that stands for a claim the user has added.
        title: Of the item.
        value: Of a rating or a review, if it has one.
        language: Of the words.

    >>> event_text("rating", "Rye Days", 4.5, "en")
    'you gave Rye Days 4.5 stars'
    """
    chinese = language == "zh"
    shown = f"《{title}》" if chinese else title
    if kind is None:
        return f"{shown}符合你补充的兴趣" if chinese else f"{shown} fits what you have added"
    if kind in {"rating", "review"} and value is not None:
        if not 0 <= value <= MAX_STARS:
            return f"你给{shown}打了{value:g}分" if chinese else f"you rated {shown} {value:g}"
        unit = "star" if value == 1 else "stars"
        return f"你给{shown}打了{value:g}星" if chinese else f"you gave {shown} {value:g} {unit}"
    verbs, other = (_CHINESE, "你接触过{}") if chinese else (_ENGLISH, "you came upon {}")
    return verbs.get(kind, other).format(shown)


def claim_text(name: str, strength: float, events: int, language: Language) -> str:
    """Name a claim and the number of events that stand behind it here.

    A strength of 0 is that of an interest which the user has rejected.

    >>> claim_text("War dramas", 0.4, 31, "en")
    'your interest in war dramas (31 events)'
    >>> claim_text("War dramas", 0.0, 50, "en")
    'you do not want war dramas'
    """
    if not strength:
        return f"你不想要“{name}”" if language == "zh" else f"you do not want {within_sentence(name)}"
    liked = strength >= 0
    if language == "zh":
        count = f"（{events}条记录）" if events else ""
        return f"你对“{name}”的{'兴趣' if liked else '反感'}{count}"
    count = f" ({_counted(events, 'event')})" if events else ""
    return f"your {'interest in' if liked else 'dislike of'} {within_sentence(name)}{count}"


def crowd_text(contribution: float, language: Language) -> str:
    """Say what the crowd thinks of the item."""
    if language == "zh":
        return "很多人喜欢它" if contribution >= 0 else "喜欢它的人不多"
    return "many like it" if contribution >= 0 else "few like it"


def rest_text(events: int, claims: int, language: Language) -> str:
    """Say what is not listed: single events, and claims.

    >>> rest_text(38, 1, "en")
    '38 more of your events and 1 more claim about you'
    """
    if language == "zh":
        pieces = [f"另外{events}条记录" if events else "", f"另外{claims}条画像" if claims else ""]
        return "和".join(piece for piece in pieces if piece)
    said = [f"{events} more of your events"] if events else []
    said += [f"{claims} more {'claim' if claims == 1 else 'claims'} about you"] if claims else []
    return " and ".join(said)


def diversity_note(rank: int, before: int, language: Language) -> str | None:
    """Say what the control of diversity did to an item, if it did something."""
    if rank == before:
        return None
    if language == "zh":
        return f"不考虑多样性时，它会排在第{before}位。"
    return f"It would be {ordinal(before)} if the list did not have to be varied."


def varied_out(k: int, language: Language) -> str:
    """Say that an item is not in the varied list."""
    if language == "zh":
        return f"为了让前{k}个推荐更多样，它没有被列入。"
    return f"It is not among the {k} items of the list as it is varied."


def ordinal(n: int) -> str:
    """Return a rank in English.

    >>> [ordinal(n) for n in (1, 2, 3, 11, 57, 112, 1003)]
    ['1st', '2nd', '3rd', '11th', '57th', '112th', '1003rd']
    """
    ending = "th" if n % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


class _Listing(NamedTuple):
    """What the parts of a score are about."""

    person: Person
    reasons: Reasons
    titles: Mapping[str, str]
    language: Language

    def event(self, place: int) -> EventPart:
        """Say what an event adds."""
        person, contribution = self.person, float(self.reasons.events[place])
        event_id, item_id = person.events.ids[place], person.model.item_ids[person.events.rows[place]]
        event, shown = person.told.get(event_id), self.titles.get(item_id, item_id)
        kind, value, ts = (event.type, event.value, event.ts) if event else (None, None, None)
        text = event_text(kind, shown, value, self.language)
        return EventPart(
            contribution=contribution, text=text, event_id=event_id, item_id=item_id, title=shown,
            type=kind, value=value, ts=ts,
        )  # fmt: skip

    def claim(self, place: int) -> ClaimPart:
        """Say what a claim adds; its evidence is named from the weightiest."""
        claim, reasons = self.person.claims[place], self.reasons
        own = np.flatnonzero(reasons.owner == place)
        own = own[np.argsort(-np.abs(reasons.events[own]), kind="stable")]
        events_part, text_part = float(reasons.events[own].sum()), float(reasons.texts[place])
        return ClaimPart(
            contribution=events_part + text_part,
            text=claim_text(claim.name, claim.strength, len(own), self.language),
            claim_id=claim.claim_id,
            name=claim.name,
            strength=claim.strength,
            evidence=tuple(self.person.events.ids[e] for e in own),
            events_part=events_part,
            text_part=text_part,
        )

    def rest(self, claims: Sequence[ClaimPart], events: Sequence[int]) -> RestPart:
        """Say what the others add."""
        return RestPart(
            contribution=sum(claim.contribution for claim in claims) + float(self.reasons.events[list(events)].sum()),
            text=rest_text(len(events), len(claims), self.language),
            count=len(events) + len(claims),
            events=len(events) + sum(len(claim.evidence) for claim in claims),
        )


def parts(
    person: Person, reasons: Reasons, titles: Mapping[str, str], shown: int = SHOWN, language: Language = "en"
) -> list[Part]:
    """List the largest parts by size, from the highest to the lowest; the others follow as one.

    The crowd's part is listed whenever there is one. What adds nothing is no part.

    Args:
        person: Whose score it is.
        reasons: The score, taken apart.
        titles: By item id, as they are shown; an item without one is shown by its id.
        shown: How many events and claims are listed.
        language: Of the words.
    """
    listing = _Listing(person, reasons, titles, language)
    claims = [claim for place in range(len(reasons.texts)) if (claim := listing.claim(place)).contribution]
    alone = np.flatnonzero((reasons.owner < 0) & (reasons.events != 0))
    sizes = np.abs([*(claim.contribution for claim in claims), *reasons.events[alone]])
    order = np.argsort(-sizes, kind="stable")
    first, others = order[: max(shown, 0)], order[max(shown, 0) :]
    listed: list[Part] = [claims[n] for n in first if n < len(claims)]
    listed += [listing.event(int(alone[n - len(claims)])) for n in first if n >= len(claims)]
    if reasons.crowd:
        listed.append(CrowdPart(contribution=reasons.crowd, text=crowd_text(reasons.crowd, language)))
    listed.sort(key=lambda part: -part.contribution)
    if len(others):
        events = [int(alone[n - len(claims)]) for n in others if n >= len(claims)]
        listed.append(listing.rest([claims[n] for n in others if n < len(claims)], events))
    return listed


def sentences(explanation: Explanation, language: Language) -> str:
    """Put an explanation into a few sentences: what speaks for the item, what against it, what it would take."""
    because = (_because_zh if language == "zh" else _because)(explanation.parts)
    if explanation.counterfactual is None:
        return because
    return because + ("" if language == "zh" else " ") + without(explanation.counterfactual, language)


class Weighed:
    """The parts of an explanation that are worth saying.

    Attributes:
        reasons: The one or two that speak most for the item, the first one first.
        mostly: Whether these are most of what speaks for it.
        crowd: That many like it, where this is worth saying and not among the reasons.
        against: What speaks most against it, where this is worth saying.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        positive = sum(max(p.contribution, 0.0) for p in parts)
        single = sorted((p for p in parts if not isinstance(p, RestPart)), key=lambda p: -p.contribution)
        reasons = [p for p in single if p.contribution > 0][:SHOWN_REASONS]
        self.reasons = [p for p in reasons if p.contribution >= _FURTHER * reasons[0].contribution]
        self.mostly = sum(p.contribution for p in self.reasons) >= _MOSTLY * positive
        crowd = [p for p in single if isinstance(p, CrowdPart) and p not in self.reasons]
        self.crowd = [p for p in crowd if p.contribution > _WORTH_SAYING * positive]
        last = single[-1] if single else None
        against = last is not None and last.contribution < -_AGAINST * positive
        self.against = last if against and not isinstance(last, CrowdPart) else None


def _because(parts: Sequence[Part]) -> str:
    w = Weighed(parts)
    against = f" Against it: {w.against.text}." if w.against else ""
    if not w.reasons:
        return f"Nothing that is known of you speaks for it by itself.{against}"
    reasons = " and because ".join(f"of {p.text}" if isinstance(p, ClaimPart) else p.text for p in w.reasons)
    many = "; many like it as well" if w.crowd else ""
    return f"{'Mostly' if w.mostly else 'Among other things,'} because {reasons}{many}.{against}"


def _because_zh(parts: Sequence[Part]) -> str:
    w = Weighed(parts)
    against = f"不利的是：{w.against.text}。" if w.against else ""
    if not w.reasons:
        return f"已知的信息中没有单独支持它的理由。{against}"
    reasons = "，以及".join(p.text for p in w.reasons)
    many = "；也有很多人喜欢它" if w.crowd else ""
    return f"{'主要是因为' if w.mostly else '部分原因是'}{reasons}{many}。{against}"


def without(counterfactual: Counterfactual, language: Language) -> str:
    """Say what it would take for the item to drop out of the list, and what would take its place."""
    titles = list(dict.fromkeys(event.title for event in counterfactual.removed))
    more = len(titles) - SHOWN_REMOVED
    c, shown = counterfactual, titles[:SHOWN_REMOVED]
    if language == "zh":
        named = "、".join(f"《{title}》" for title in shown) + (f"等{len(titles)}项" if more > 0 else "")
        if c.new_rank is None:
            return (
                f"即使没有最有利的{len(c.removed)}条记录，它仍会留在前{c.k}位。"
                if titles
                else f"它在前{c.k}位的位置很稳。"
            )
        instead = f"，《{c.replaced_by.title}》会取代它" if c.replaced_by else ""
        return f"如果没有{named}，它会排在第{c.new_rank}位{instead}。"
    if c.new_rank is None:
        if not titles:
            return f"Taking away events of yours would not move it out of the top {c.k}."
        best = "event that speaks" if len(c.removed) == 1 else f"{len(c.removed)} events that speak"
        return f"Even without the {best} most for it, it would stay in the top {c.k}."
    named = _and([*shown, f"{more} more"] if more > 0 else shown)
    instead = f", and {c.replaced_by.title} would take its place" if c.replaced_by else ""
    return f"Without {named} it would be {ordinal(c.new_rank)}{instead}."


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
