"""What can be asked about one user: facts, line by line, each with its source.

These are the tools of `recommend.asking`. All of them are about the one user that they were made for; a session is
open no longer than one of them reads.
"""

# ruff: noqa: RUF001 - Chinese punctuation

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent import archive
from agent.contract import Claim, Intent, Language, Profile
from agent.diff import Change, diff
from agent.words import clean, title_of
from recommend import wording
from recommend.contract import ClaimPart, EventPart, FactKind, Part
from recommend.corrections import correct
from recommend.errors import NoModelError, UnknownItemError
from recommend.service import Recommender, Request
from store import corrections, profiles, search
from store.database import Database
from store.errors import NotFoundError
from store.records import Event, Item
from store.search import FoundItem, Order
from store.tables import UserRow

SHOWN = 8
SHOWN_PARTS = 5
MOST_ITEMS = 10
_LINE = 240
_FIRST_DAY, _LAST_DAY = date(1970, 1, 2), date(2200, 1, 1)

_TRENDS_ZH = {"rising": "上升", "steady": "稳定", "fading": "减弱", "new": "新出现"}
_KINDS_EN = {"interest": "Interest", "intent": "Just now", "dislike": "Dislike"}
_KINDS_ZH = {"interest": "兴趣", "intent": "眼下的需求", "dislike": "反感"}
_LIKES_EN = {"interest": "You like", "intent": "Just now you look for", "dislike": "You dislike"}
_LIKES_ZH = {"interest": "你喜欢", "intent": "你眼下在找", "dislike": "你不喜欢"}
_WHAT_ZH = (
    ("strength", "强度"), ("confidence", "把握"), ("trend", "趋势"), ("wording", "措辞"),
    (" events more, ", "条记录增加，"), (" fewer", "条减少"), (" to ", "变为"),
    *_TRENDS_ZH.items(), ("None", "无"), (" ", ""),
)  # fmt: skip


class Fact(NamedTuple):
    """One thing that is so, and what says so.

    Attributes:
        kind: Of the source.
        id: Of the source: a claim's id in its profile, an event's, an item's, or a version of the profile.
        text: A sentence.
        names: Titles of items and names of claims in the text.
    """

    kind: FactKind
    id: str
    text: str
    names: tuple[str, ...] = ()


class Found(NamedTuple):
    """What a tool says.

    Attributes:
        heading: Needs no source.
        facts: In order.
        fits: Whether the facts are what was asked for; else they are what comes near it, as the heading says.
    """

    heading: str
    facts: tuple[Fact, ...] = ()
    fits: bool = True


class _Search(NamedTuple):
    """A search of events; `near` ends the heading where it is not quite what was asked for."""

    near: str
    words: Sequence[str]
    since: datetime | None
    until: datetime | None
    limit: int = SHOWN
    item: str | None = None


@dataclass(frozen=True)
class Facts:
    """The facts about one user.

    Attributes:
        database: Where they are.
        user_id: Whose facts.
        recommender: Gives the recommender; raises `NoModelError` where there is none.
        language: Of the sentences.
        now: The present time, UTC.
        tz: The user's zone, as far as known; times are told in it.
    """

    database: Database
    user_id: str
    recommender: Callable[[], Recommender]
    language: Language
    now: datetime
    tz: str | None = None

    @classmethod
    def of(
        cls,
        database: Database,
        user_id: str,
        recommender: Callable[[], Recommender],
        language: Language,
        now: datetime,
    ) -> "Facts":
        """Look a user up.

        Raises:
            NotFoundError: There is no such user, or they have not consented.
        """
        with database.session() as session:
            row = session.get(UserRow, user_id)
            if row is None:
                raise NotFoundError(f"There is no user {user_id}. `limner doctor` says what is in the store.")
            if not row.consent:
                raise NotFoundError(f"User {user_id} does not consent to a profile: there is nothing to ask about.")
            return cls(database, user_id, recommender, language, now, row.tz)

    @property
    def zone(self) -> ZoneInfo:
        """The user's time zone; UTC where it is not known."""
        try:
            return ZoneInfo(self.tz or "UTC")
        except (ZoneInfoNotFoundError, ValueError):
            return ZoneInfo("UTC")

    @property
    def today(self) -> date:
        """The present day where the user is."""
        return self.now.astimezone(self.zone).date()

    def _say(self, english: str, chinese: str) -> str:
        return chinese if self.language == "zh" else english

    # The tools.

    def profile(self, version: int | None = None, words: Sequence[str] = (), kinds: Sequence[str] = ()) -> Found:
        """Say what the profile claims: the active one, or that of a version.

        Args:
            version: Of the profile; the active one unless given.
            words: Only claims with one of these words; where there are none, all claims, and the heading says so.
            kinds: Only claims of these kinds, likewise.
        """
        try:
            found = self._profile(version)
        except NotFoundError:
            return Found(self._no_profile(version))
        claims = found.claims
        if version is None:
            with self.database.session() as session:
                live = corrections.live(session, self.user_id)
            claims = correct(live, claims, ()).claims
        wanted = [c for c in claims if (not kinds or c.kind in kinds) and (not words or _says(c, words))]
        heading = self._say("What your profile says:", "你的画像：")
        if not wanted:
            heading = self._say("Your profile says nothing of it. It says:", "你的画像没有提到。画像说的是：")
        facts = [self._version(found), *(self._claim(claim) for claim in (wanted or claims)[:SHOWN])]
        if found.habits and not (words or kinds):
            said = " ".join(habit.statement for habit in found.habits)
            facts.append(Fact("profile", str(found.version), clean(said, _LINE)))
        return Found(heading, tuple(facts), fits=bool(wanted))

    def profile_changes(
        self, since: date | None = None, from_version: int | None = None, to_version: int | None = None
    ) -> Found:
        """Say what changed between two versions; by default between the last two.

        Args:
            since: The earlier one is that which was active on this day; the first one if none was.
            from_version: The earlier one.
            to_version: The later one; the active one unless given.
        """
        try:
            after = self._profile(to_version)
            before = self._profile(self._earlier(after.version, since, from_version))
        except NotFoundError:
            return Found(self._no_profile(from_version or to_version))
        if before.version == after.version:
            text = self._say(
                f"Version {after.version} is the only one to speak of: it was written on "
                f"{self._day(after.provenance.created_at)}, and nothing was written after it.",
                f"只有第{after.version}版可说：写于{self._day(after.provenance.created_at)}，之后没有新的版本。",
            )
            return Found(self._nothing_changed(), (Fact("profile", str(after.version), text),))
        changes = [self._change(change) for change in diff(before, after)]
        ends = (self._version(before), self._version(after))
        heading = self._say("What changed:", "变化：") if changes else self._nothing_changed()
        return Found(heading, (*ends, *changes[:SHOWN]))

    def search_events(self, text: str = "", since: date | None = None, until: date | None = None) -> Found:
        """Find events by words and days.

        Where the words find none, the days count alone; where these find none, the latest event is told.

        Args:
            text: Words of titles, categories, searches or event types.
            since: The first day.
            until: The last day.
        """
        return self.events(text.split(), since, until)

    def events(
        self,
        words: Sequence[str],
        since: date | None = None,
        until: date | None = None,
        item: str | None = None,
        order: Order | None = None,
    ) -> Found:
        """Do the same with words one by one, of one item if its id is given, and in another order."""
        first = self._midnight(since) if since else None
        last = self._midnight(min(until, _LAST_DAY) + timedelta(days=1)) if until else None
        tries = [_Search("", words, first, last, item=item)]
        if (words or item) and (first or last):
            tries.append(_Search(self._say("; at other times:", "；其他时间："), words, None, None, item=item))
            tries.append(_Search(self._say("; at that time:", "；那段时间："), (), first, last))
        elif words and item:
            tries.append(_Search(self._say("; about it there is:", "；关于它有："), (), None, None, item=item))
        tries.append(_Search(self._say("; the latest of all is:", "；所有记录中最近的一条："), (), None, None, 1))
        with self.database.session() as session:
            for wanted in tries:
                found = search.events(
                    session, self.user_id, wanted.words, wanted.since, wanted.until, wanted.limit, wanted.item, order
                )
                if found.total:
                    break
        told = tuple(self._event(event, title) for event, title in found.events)
        return Found(self._matches(wanted, found.total, len(told), order), told, fits=not wanted.near)

    def _matches(self, wanted: "_Search", total: int, shown: int, order: Order | None) -> str:
        if not shown:
            return self._say("There are no events of yours.", "没有你的记录。")
        if wanted.near:
            return self._say("None of your events fits", "没有符合的记录") + wanted.near
        which = {"best": ("highest", "最高"), "worst": ("lowest", "最低")}.get(order or "", ("latest", "最近"))
        more = total > shown
        return self._say(
            f"{total} of your events fit{f'; the {which[0]} {shown}' if more else ''}:",
            f"有{total}条记录符合{f'，{which[1]}{shown}条' if more else ''}：",
        )

    def explanation(self, item: str) -> Found:
        """Say why an item has its place among the recommendations.

        Args:
            item: Its id, or its title or a part of it.
        """
        named = self.items_named(item)
        if not named:
            return Found(self._say("There is no such item.", "没有这个条目。"))
        item_id = named[0].item_id
        try:
            made = self.recommender().why(self.user_id, item_id, Request(), SHOWN_PARTS)
        except (NoModelError, UnknownItemError) as error:
            return Found(str(error))
        own = (made.title,)
        place = self._say(
            f"{made.title} is number {made.rank} for you, with a score of {made.score:.3f}.",
            f"《{made.title}》对你排在第{made.rank}位，得分{made.score:.3f}。",
        )
        facts = [Fact("item", item_id, place, own), *(self._part(part, item_id) for part in made.parts)]
        if made.counterfactual is not None:
            c = made.counterfactual
            names = (*(e.title for e in c.removed), *((c.replaced_by.title,) if c.replaced_by else ()))
            facts.append(Fact("item", item_id, wording.without(c, self.language), (*own, *names)))
        facts += [Fact("item", item_id, note) for note in made.notes]
        return Found(self._say("Why:", "原因："), tuple(facts))

    def recommendations(self, count: int = 5) -> Found:
        """Say what is recommended at present."""
        try:
            made = self.recommender().top(self.user_id, min(max(count, 1), MOST_ITEMS))
        except NoModelError as error:
            return Found(str(error))
        facts = tuple(
            Fact(
                "item",
                item.item_id,
                self._say(
                    f"Number {item.rank} is {item.title}, with a score of {item.score:.3f}.",
                    f"第{item.rank}位是《{item.title}》，得分{item.score:.3f}。",
                ),
                (item.title,),
            )
            for item in made.items
        )
        return Found(self._say("What is recommended to you:", "给你的推荐："), facts)

    def items_in(self, text: str) -> list[FoundItem]:
        """Return the items whose titles stand in a text, the longest titles first."""
        with self.database.session() as session:
            return search.titles_in(session, text, self.user_id)

    def items_named(self, text: str) -> list[FoundItem]:
        """Return the items of this id or title, or whose titles contain it, or stand in it; the best first."""
        with self.database.session() as session:
            return search.titles_with(session, text, self.user_id) or search.titles_in(session, text, self.user_id)

    # Their sentences.

    def _profile(self, version: int | None) -> Profile:
        with self.database.session() as session:
            return archive.from_rows(profiles.load(session, self.user_id, version))

    def _earlier(self, after: int, since: date | None, given: int | None) -> int:
        if given is not None:
            return given
        with self.database.session() as session:
            rows = [row for row in profiles.versions(session, self.user_id) if row.version <= after]
        if since is None:
            return rows[-2].version if len(rows) > 1 else after
        then = self._midnight(since)
        return max((row.version for row in rows if row.created_at <= then), default=rows[0].version)

    def _version(self, profile: Profile) -> Fact:
        day, events = self._day(profile.provenance.created_at), profile.log.events_read
        text = self._say(
            f"Version {profile.version} of your profile was written on {day} from {events} events.",
            f"画像第{profile.version}版写于{day}，依据{events}条记录。",
        )
        return Fact("profile", str(profile.version), text)

    def _claim(self, claim: Claim) -> Fact:
        said = claim.goal if isinstance(claim, Intent) else claim.statement
        count, strength = len(claim.evidence), f"{abs(claim.strength):.2f}"
        if self.language == "zh":
            trend = f"，{_TRENDS_ZH[claim.trend]}" if claim.trend else ""
            text = f"{_LIKES_ZH[claim.kind]}“{claim.name}”。{said}强度{strength}，{count}条记录{trend}。"
        else:
            trend = f", {claim.trend}" if claim.trend else ""
            events = "1 event" if count == 1 else f"{count} events"
            text = f'{_LIKES_EN[claim.kind]} "{claim.name}". {said} Strength {strength}, {events}{trend}.'
        return Fact("claim", claim.claim_id, clean(text, _LINE), (claim.name,))

    def _change(self, change: Change) -> Fact:
        claim = change.after or change.before
        assert claim is not None  # noqa: S101 - a change has one of them
        kind = self._say(_KINDS_EN[claim.kind], _KINDS_ZH[claim.kind])
        if change.before is None:
            text = self._say(f'{kind}: "{claim.name}" is new.', f"{kind}：“{claim.name}”是新的。")
        elif change.after is None:
            text = self._say(f'{kind}: "{claim.name}" is gone.', f"{kind}：“{claim.name}”不再有了。")
        else:
            what = ", ".join(change.what)
            text = self._say(
                f'{kind}: "{claim.name}" has changed: {what}.', f"{kind}：“{claim.name}”有变：{_zh(what)}。"
            )
        return Fact("claim", claim.claim_id, clean(text, _LINE), (claim.name,))

    def _event(self, event: Event, title: str | None) -> Fact:
        item = Item(item_id=event.item_id or "", title=title or event.item_id or "")
        shown = title_of(item) if event.item_id else f'"{clean(event.text or "", 80)}"'
        said = wording.event_text(event.type, shown, event.value, self.language)
        when = self._moment(event)
        text = f"{when}，{said}。" if self.language == "zh" else f"On {when} {said}."
        return Fact("event", event.event_id, text, (shown.strip('"'),))

    def _part(self, part: Part, item_id: str) -> Fact:
        worth = self._say(f"({part.contribution:+.3f})", f"（{part.contribution:+.3f}）")
        text = f"{part.text[:1].upper()}{part.text[1:]} {worth}."
        match part:
            case EventPart():
                # An event that stands for a claim which the user has added is no event of the log.
                stands_for = part.type is None and part.event_id.startswith("+")
                if stands_for:
                    return Fact("claim", part.event_id.partition(":")[0], text, (part.title,))
                return Fact("event", part.event_id, text, (part.title,))
            case ClaimPart():
                return Fact("claim", part.claim_id, text, (part.name,))
        return Fact("item", item_id, text)

    def _no_profile(self, version: int | None) -> str:
        if version is None:
            return self._say("You have no profile yet.", "你还没有画像。")
        return self._say(f"There is no version {version} of your profile.", f"画像没有第{version}版。")

    def _nothing_changed(self) -> str:
        return self._say("Nothing has changed:", "没有变化：")

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(min(max(day, _FIRST_DAY), _LAST_DAY), time(), self.zone).astimezone(UTC)

    def _day(self, moment: datetime) -> str:
        return self._told(moment.astimezone(self.zone))

    def _told(self, local: date) -> str:
        return self._say(local.strftime("%-d %B %Y"), f"{local.year}年{local.month}月{local.day}日")

    def _moment(self, event: Event) -> str:
        """Tell when an event was, on the user's own clock as far as it is known."""
        if event.ts_offset is not None:
            local = event.ts.astimezone(UTC) + timedelta(minutes=event.ts_offset)
        else:
            local = event.ts.astimezone(self.zone)
        weekday = self._say(local.strftime("%A "), "")
        after = self._say("", "星期" + "一二三四五六日"[local.weekday()])
        return f"{weekday}{self._told(local)}{after}{self._say(' at ', '')}{local:%H:%M}"


def _says(claim: Claim, words: Sequence[str]) -> bool:
    """Tell whether one of these words stands in a claim."""
    said = " ".join((claim.name, claim.goal if isinstance(claim, Intent) else claim.statement)).lower()
    return any(word.lower() in said for word in words)


def _zh(what: str) -> str:
    for english, chinese in _WHAT_ZH:
        what = what.replace(english, chinese)
    return what.replace(",", "，")
