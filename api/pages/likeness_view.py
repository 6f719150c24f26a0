"""A user's likeness as a page shows it: claims as the user's corrections leave them, with events and small charts."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlmodel import Session

from agent.contract import Claim, Evidence, Profile
from agent.corrections import is_about
from agent.words import clean, title_of
from api.http.routes.profiles import read_stored
from store import corrections, profiles, timeline
from store.errors import NotFoundError
from store.tables import CorrectionRow
from store.timeline import Told

SHOWN = 3
"""Events of a claim that are listed at once."""
PAGE = 25
"""Events of a claim on a page."""
TWELFTHS = 12
_STARRED = frozenset({"rating", "review"})


class Piece(NamedTuple):
    """An event behind a claim, and what it weighs there."""

    told: Told
    weight: float

    @property
    def title(self) -> str:
        """Of its item; else its text, or what it is."""
        event, item = self.told
        return title_of(item) if item else clean(event.text or "") or event.type

    @property
    def what(self) -> str:
        """What was done: `rating ★4`, `add to cart`."""
        event = self.told.event
        stars = f" ★{event.value:g}" if event.type in _STARRED and event.value is not None else ""
        return event.type.replace("_", " ") + stars


class Part(NamedTuple):
    """A twelfth of the log: shares of its events that speak for a claim, and against it."""

    for_: float
    against: float


@dataclass(frozen=True)
class Card:
    """A claim as it is shown.

    Attributes:
        claim: As the profile has it; of one that the user has added since, as the next profile will.
        about: Corrections that are about it, in force, oldest first.
        evidence: The heaviest events that it rests on.
        against: The heaviest that speak against it.
        course: Its share over the log, a twelfth of the events at a time.
        waiting: Whether the user has added it since the profile was written.
    """

    claim: Claim
    about: tuple[CorrectionRow, ...] = ()
    evidence: tuple[Piece, ...] = ()
    against: tuple[Piece, ...] = ()
    course: tuple[Part, ...] = ()
    waiting: bool = False

    @property
    def done(self) -> dict[str, CorrectionRow]:
        """The latest correction of each kind."""
        return {row.action: row for row in self.about}

    @property
    def name(self) -> str:
        """In the user's words, if they have put it into such."""
        row = self.done.get("rewrite")
        return (row and row.new_name) or self.claim.name

    @property
    def statement(self) -> str:
        """In the user's words, if they have put it into such."""
        row = self.done.get("rewrite")
        return (row and row.new_statement) or self.claim.statement


@dataclass(frozen=True)
class Likeness:
    """All that a page shows of a user's claims.

    Attributes:
        user_id: Whose.
        profile: The active one; None: there is none yet.
        cards: By kind: interests, intents, dislikes.
        corrections: In force, oldest first.
    """

    user_id: str
    profile: Profile | None
    cards: dict[str, list[Card]]
    corrections: list[CorrectionRow]

    @property
    def others(self) -> list[CorrectionRow]:
        """Corrections of claims that the profile does not have any more."""
        shown = {row.correction_id for cards in self.cards.values() for card in cards for row in card.about}
        return [row for row in self.corrections if row.correction_id not in shown]


def read(session: Session, user_id: str) -> Likeness:
    """Read a user's likeness; the user must consent."""
    live = corrections.live(session, user_id)
    try:
        profile: Profile | None = read_stored(profiles.load(session, user_id))
    except NotFoundError:
        profile = None
    claims = profile.claims if profile else ()
    shown = [e.event_id for c in claims for e in (*c.evidence[:SHOWN], *c.counter_evidence[:SHOWN])]
    told = timeline.told(session, user_id, shown)
    order = timeline.order(session, user_id) if claims else []
    cards = [_card(claim, live, told, order) for claim in claims]
    known = {card.claim.correction_id for card in cards}
    cards += [_waiting(row) for row in live if row.action == "add" and row.correction_id not in known]
    by_kind = {kind: [card for card in cards if card.claim.kind == kind] for kind in ("interest", "intent", "dislike")}
    return Likeness(user_id, profile, by_kind, live)


def _card(claim: Claim, live: Sequence[CorrectionRow], told: Mapping[str, Told], order: Sequence[str]) -> Card:
    cited = frozenset(e.event_id for e in claim.evidence)
    about = [row for row in live if row.action != "add" and is_about(row, claim.kind, claim.name, cited)]
    own = [row for row in live if row.action == "add" and row.correction_id == claim.correction_id]
    return Card(
        claim,
        tuple(about or own),
        pieces(claim.evidence[:SHOWN], told),
        pieces(claim.counter_evidence[:SHOWN], told),
        course(order, cited, frozenset(e.event_id for e in claim.counter_evidence)),
    )


def _waiting(row: CorrectionRow) -> Card:
    claim = Claim(
        claim_id=f"+{row.correction_id}",
        kind="dislike" if row.kind == "dislike" else "interest",
        name=row.name,
        statement=row.statement or row.name,
        strength=0.0,
        confidence=1.0,
        origin="user",
        wording="user",
        locked=True,
        correction_id=row.correction_id,
    )
    return Card(claim, (row,), waiting=True)


def pieces(evidence: Sequence[Evidence], told: Mapping[str, Told]) -> tuple[Piece, ...]:
    """Put evidence and its events together; what is gone is left out."""
    return tuple(Piece(told[e.event_id], e.weight) for e in evidence if e.event_id in told)


def course(
    order: Sequence[str], cited: frozenset[str], against: frozenset[str], parts: int = TWELFTHS
) -> tuple[Part, ...]:
    """Return a claim's share of each twelfth of the log; nothing for a log of fewer events.

    >>> course("abcd", frozenset("cd"), frozenset("a"), parts=2)
    (Part(for_=0.0, against=0.5), Part(for_=1.0, against=0.0))
    """
    if len(order) < parts:
        return ()
    bounds = [len(order) * n // parts for n in range(parts + 1)]
    slices = [order[begin:end] for begin, end in itertools.pairwise(bounds)]
    return tuple(
        Part(sum(e in cited for e in part) / len(part), sum(e in against for e in part) / len(part)) for part in slices
    )


class EvidencePage(NamedTuple):
    """A page of the events behind a claim, and where the next begins; None on the last."""

    pieces: tuple[Piece, ...]
    next: int | None
    total: int


def evidence(session: Session, user_id: str, claim_id: str, begin: int, *, against: bool) -> EvidencePage:
    """Read a page of the events behind a claim of the active profile.

    Raises:
        NotFoundError: There is no such profile or claim.
    """
    profile = read_stored(profiles.load(session, user_id))
    claim = next((c for c in profile.claims if c.claim_id == claim_id), None)
    if claim is None:
        raise NotFoundError(f"The profile of user {user_id} has no claim {claim_id} any more. Load the page anew.")
    every = claim.counter_evidence if against else claim.evidence
    some = every[begin : begin + PAGE]
    told = timeline.told(session, user_id, [e.event_id for e in some])
    following = begin + PAGE
    return EvidencePage(pieces(some, told), following if following < len(every) else None, len(every))
