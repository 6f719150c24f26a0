"""Take in a user from an `Export`: all of it in one transaction, or nothing."""

import math
import zoneinfo
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

from psycopg.types.json import Jsonb
from pydantic import ValidationError
from sqlmodel import Session

from store import profiles, revisions, tombstones
from store.database import Database, driver
from store.errors import ConflictError, IngestError
from store.export import Export, ExportedClaim, ExportedItem, ExportedProfile, renumbered
from store.ingest.events import FUTURE
from store.ingest.runs import wait_for_turn
from store.ingest.times import EPOCH
from store.privacy import Hasher
from store.profiles import Cited, StoredClaim, StoredProfile
from store.records import NO_ID, NO_IDS
from store.tables import AttemptRow, ClaimRow, CorrectionRow, LlmCallRow, ProfileRow

_USER: LiteralString = """
insert into users (user_id, attributes, consent, language, tz, log_revision, corrections_revision)
values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing
"""
_ITEM: LiteralString = """
insert into items (item_id, title, categories, attributes, description, price, image_caption, created_at, stub)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict (item_id) do update set
    title = excluded.title, categories = excluded.categories, attributes = excluded.attributes,
    description = excluded.description, price = excluded.price, image_caption = excluded.image_caption,
    created_at = excluded.created_at, stub = false
where items.stub and not excluded.stub
"""
_EVENT: LiteralString = """
insert into events (event_id, user_id, item_id, type, ts, ts_offset, value, text, context)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


class DocumentError(IngestError):
    """A document is not an export that can be taken in.

    Attributes:
        where: The path to the fault, such as `events.3.ts`.
    """

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"The document is no export that can be taken in: {where or 'all of it'}: {message}.")
        self.where = where


class Imported(NamedTuple):
    """Who was taken in, and how much."""

    user_id: str
    items: int
    events: int
    profiles: int
    corrections: int


def read_export(data: bytes) -> Export:
    """Read a document.

    Raises:
        DocumentError: It is not an `Export`.
    """
    try:
        return Export.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise DocumentError(".".join(map(str, first["loc"])), first["msg"]) from None


def import_user(
    database: Database,
    hasher: Hasher,
    document: Export,
    now: datetime,
    *,
    known_types: Collection[str],
    check: Callable[[StoredProfile], object],
) -> Imported:
    """Store a user who is not there yet, with all that the document holds but the audit.

    Items that are there already stay as they are, unless they are stubs.

    Args:
        database: To store in.
        hasher: Tells whether the user was erased.
        document: The export.
        now: The time; events more than a day later are refused.
        known_types: The event types that are declared.
        check: Called with each profile before anything is stored; a `pydantic.ValidationError` refuses it.

    Raises:
        DocumentError: The document does not hold together.
        ConflictError: The user is there already, or another has one of the events.
        ErasedError: The user was erased here.
    """
    _check(document)
    _check_events(document, set(known_types), now + FUTURE)
    stored = _checked_profiles(document, check)
    user_id = document.user.user_id
    with database.session() as session:
        wait_for_turn(driver(session))
        _add_user(session, document)
        tombstones.wait_for_turn(driver(session))
        tombstones.require_not_erased(driver(session), hasher, user_id)
        items = _add_items(session, document.items)
        _add_events(session, document)
        numbers = _add_corrections(session, document)
        for profile in stored:
            _add_profile(session, profile, numbers)
        _add_attempts(session, document)
        if items:
            revisions.rise(session, "catalogue")
    return Imported(user_id, items, len(document.events), len(document.profiles), len(document.corrections))


def _check(document: Export) -> None:
    """Refuse what the database could not hold, and names of what is not in the document.

    Raises:
        DocumentError: There is such a thing.
    """
    for where, value in _leaves(document.model_dump(), ""):
        if isinstance(value, str) and "\0" in value:
            raise DocumentError(where, "holds a NUL character")
        if isinstance(value, float) and not math.isfinite(value):
            raise DocumentError(where, "is not a finite number")
    items = _distinct("items", [item.item_id for item in document.items])
    named = {"user.user_id": document.user.user_id}
    named |= {f"items.{n}.item_id": item.item_id for n, item in enumerate(document.items)}
    for where, name in named.items():
        if name in NO_IDS:
            raise DocumentError(where, NO_ID)
    events = _distinct("events", [event.event_id for event in document.events])
    numbers = _distinct("corrections", [said.number for said in document.corrections])
    _distinct("profiles", [profile.version for profile in document.profiles])
    for n, event in enumerate(document.events):
        _known(f"events.{n}.item_id", event.item_id, items, "is not among the items")
    _known("user.tz", document.user.tz, zoneinfo.available_timezones(), "is no time zone such as Europe/Paris")
    for n, said in enumerate(document.corrections):
        _known_claim(f"corrections.{n}.claim_id", said.claim_id, numbers)
    for n, profile in enumerate(document.profiles):
        _check_profile(f"profiles.{n}", profile, events, numbers)
    if sum(profile.active for profile in document.profiles) > 1:
        raise DocumentError("profiles", "more than one is active")


def _check_events(document: Export, known_types: Collection[str], latest: datetime) -> None:
    """Refuse what ingest refuses.

    Raises:
        DocumentError: There is such an event.
    """
    for n, event in enumerate(document.events):
        said = f"is an unknown event type, {event.type!r}: declare it in LIMNER_EVENT_TYPES or the settings file"
        _known(f"events.{n}.type", event.type, known_types, said)
        if not EPOCH <= event.ts <= latest:
            raise DocumentError(f"events.{n}.ts", "is before 1970 or in the future")


def _check_profile(where: str, profile: ExportedProfile, events: Collection[str], numbers: Collection[int]) -> None:
    _distinct(f"{where}.claims", [claim.claim_id for claim in profile.claims])
    for n, claim in enumerate(profile.claims):
        here = f"{where}.claims.{n}"
        _distinct(f"{here}.evidence", [piece.event_id for piece in claim.evidence])
        for place, piece in enumerate(claim.evidence):
            _known(f"{here}.evidence.{place}.event_id", piece.event_id, events, "is not among the events")
        _known_claim(f"{here}.claim_id", claim.claim_id, numbers)
        correction = claim.details.get("correction_id")
        _known(f"{here}.details.correction_id", correction, numbers, "is not among the corrections")


def _known(where: str, name: Any, names: Collection[Any], message: str) -> None:
    if name is not None and (isinstance(name, dict | list) or name not in names):
        raise DocumentError(where, message)


def _known_claim(where: str, claim_id: str | None, numbers: Collection[int]) -> None:
    try:
        renumbered(claim_id or "", {n: n for n in numbers})
    except KeyError:
        raise DocumentError(where, "names a correction that is not among the corrections") from None


def _distinct(where: str, names: Sequence[Any]) -> set[Any]:
    seen: set[Any] = set()
    for n, name in enumerate(names):
        if name in seen:
            raise DocumentError(f"{where}.{n}", "is there twice")
        seen.add(name)
    return seen


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield where, key
            yield from _leaves(inner, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _leaves(inner, f"{where}.{n}")
    else:
        yield where, value


def _checked_profiles(document: Export, check: Callable[[StoredProfile], object]) -> list[StoredProfile]:
    stored = []
    for n, profile in enumerate(document.profiles):
        stored.append(_rows(document.user.user_id, profile))
        try:
            check(stored[-1])
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise DocumentError(".".join(map(str, ("profiles", n, *first["loc"]))), first["msg"]) from None
    return stored


def _rows(user_id: str, profile: ExportedProfile) -> StoredProfile:
    row = ProfileRow(user_id=user_id, **profile.model_dump(exclude={"claims"}))
    return StoredProfile(row, tuple(_claim_rows(claim, n) for n, claim in enumerate(profile.claims)))


def _claim_rows(claim: ExportedClaim, position: int) -> StoredClaim:
    row = ClaimRow(profile_id=0, position=position, **claim.model_dump(exclude={"evidence"}))
    return StoredClaim(row, tuple(Cited(piece.event_id, piece.weight, piece.counter) for piece in claim.evidence))


def _add_user(session: Session, document: Export) -> None:
    user = document.user
    values = [
        user.user_id, Jsonb(user.attributes), user.consent, user.language, user.tz, user.log_revision,
        user.corrections_revision,
    ]  # fmt: skip
    if not driver(session).execute(_USER, values).rowcount:
        raise ConflictError(f"There is a user {user.user_id} already: erase them first, or leave them as they are.")


def _add_items(session: Session, items: Sequence[ExportedItem]) -> int:
    with driver(session).cursor() as cursor:
        cursor.executemany(
            _ITEM,
            [
                (
                    item.item_id, item.title, item.categories, Jsonb(item.attributes), item.description, item.price,
                    item.image_caption, item.created_at, item.stub,
                )
                for item in items
            ],
        )  # fmt: skip
        return max(cursor.rowcount, 0)


def _add_events(session: Session, document: Export) -> None:
    user_id, events = document.user.user_id, document.events
    with driver(session).cursor() as cursor:
        ids = [event.event_id for event in events]
        if known := cursor.execute("select event_id from events where event_id = any(%s) limit 1", [ids]).fetchone():
            raise ConflictError(f"There is an event {known[0]} already, of another user: nothing was stored.")
        cursor.executemany(
            _EVENT,
            [
                (
                    event.event_id, user_id, event.item_id, event.type, event.ts, event.ts_offset, event.value,
                    event.text, None if event.context is None else Jsonb(event.context),
                )
                for event in events
            ],
        )  # fmt: skip


def _add_corrections(session: Session, document: Export) -> dict[int, int]:
    """Store the corrections; returns their ids by their numbers in the document."""
    rows = {
        said.number: CorrectionRow(user_id=document.user.user_id, **said.model_dump(exclude={"number"}))
        for said in document.corrections
    }
    session.add_all(rows.values())
    session.flush()
    numbers = {number: row.correction_id for number, row in rows.items() if row.correction_id is not None}
    for row in rows.values():
        row.claim_id = None if row.claim_id is None else renumbered(row.claim_id, numbers)
    return numbers


def _add_profile(session: Session, profile: StoredProfile, numbers: Mapping[int, int]) -> None:
    row = profile.row
    row.summary = [{**line, "claim_ids": [renumbered(i, numbers) for i in line["claim_ids"]]} for line in row.summary]
    for claim in profile.claims:
        claim.row.claim_id = renumbered(claim.row.claim_id, numbers)
        if (correction := claim.row.details.get("correction_id")) is not None:
            claim.row.details = {**claim.row.details, "correction_id": numbers[correction]}
    session.add(row)
    session.flush()
    profiles.add_claims(session, row, profile.claims)


def _add_attempts(session: Session, document: Export) -> None:
    user_id = document.user.user_id
    rows = [AttemptRow(user_id=user_id, **told.model_dump(exclude={"calls"})) for told in document.attempts]
    session.add_all(rows)
    session.flush()
    session.add_all(
        LlmCallRow(attempt_id=row.attempt_id, **call.model_dump())
        for row, told in zip(rows, document.attempts, strict=True)
        for call in told.calls
    )
    session.flush()
