"""Everything that is held on a person, as one JSON document: its contract, and how it is written.

Vectors are left out: they follow from the words. Corrections are numbered from 1, in the order in which they were made,
and claims name them by these numbers: ids of rows mean nothing in another installation.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter
from pydantic.config import JsonDict
from sqlalchemy import select
from sqlmodel import Session, SQLModel, col

from store.database import Database
from store.errors import NotFoundError
from store.privacy import Hasher
from store.records import CorrectedKind, CorrectionAction, Identifier, Text
from store.tables import (
    ApiKeyRow,
    AttemptRow,
    AuditRow,
    ClaimRow,
    CorrectionRow,
    EventRow,
    EvidenceRow,
    ItemRow,
    LlmCallRow,
    ProfileRow,
    UserRow,
)

_IN_MEMORY = 4 << 20
_BATCH = 1_000
_TIME = TypeAdapter(datetime)
_ADDED = re.compile(r"\+([1-9][0-9]{0,17})")

# A day from the ends of what a datetime can be, so that no time zone leads beyond them.
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
Time = Annotated[AwareDatetime, Field(ge=_FIRST, le=_LAST), AfterValidator(lambda time: time.astimezone(UTC))]
Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
Words = Annotated[str, Field(max_length=10_000)]
Json = dict[str, JsonValue]


class Part(BaseModel):
    """Base of all parts of the document."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ExportedUser(Part):
    """The user as declared, and how often their log and their corrections have changed."""

    user_id: Identifier
    attributes: Json
    consent: bool
    language: Words | None
    tz: Words | None
    log_revision: Count
    corrections_revision: Count


class ExportedItem(Part):
    """An item that an event names; `stub` marks one that is known from events alone."""

    item_id: Identifier
    title: Text
    categories: list[Text]
    attributes: Json
    description: Text | None
    price: Number | None
    image_caption: Text | None
    created_at: Time | None
    stub: bool


class ExportedEvent(Part):
    """Something that the user did; `ts_offset` is in minutes east of UTC."""

    event_id: Identifier
    item_id: Identifier | None
    type: Identifier
    ts: Time
    ts_offset: Annotated[int, Field(ge=-1_440, le=1_440)] | None
    value: Number | None
    text: Text | None
    context: Json | None


class ExportedEvidence(Part):
    """An event behind a claim, or against it (`counter`), and its weight."""

    event_id: Identifier
    weight: Number
    counter: bool


class ExportedClaim(Part):
    """A claim of a profile, as it is stored."""

    claim_id: Words
    kind: CorrectedKind
    name: Text
    statement: Text
    strength: Number
    confidence: Number
    trend: Words | None
    origin: Words
    wording: Words
    locked: bool
    attributes: Json
    details: Json
    evidence: list[ExportedEvidence]


class ExportedProfile(Part):
    """A version of the profile, as it is stored."""

    version: Annotated[int, Field(ge=1, lt=1 << 31)]
    active: bool
    language: Words
    created_at: Time
    summary: list[Json]
    habits: list[Json]
    tags: list[Json]
    log: Json
    provenance: Json
    quality: Json
    claims: list[ExportedClaim]


class ExportedCorrection(Part):
    """What the user has said about a claim; one that was taken back has `undone_at`."""

    number: Annotated[int, Field(ge=1, lt=1 << 31)]
    created_at: Time
    action: CorrectionAction
    kind: CorrectedKind
    name: Text
    statement: Text | None
    claim_id: Words | None
    evidence: list[Identifier]
    rho: Annotated[Number, Field(ge=0, le=1)] | None
    weight: Annotated[Number, Field(gt=0)] | None
    new_name: Text | None
    new_statement: Text | None
    undone_at: Time | None


class ExportedCall(Part):
    """A call of a language model."""

    role: Words
    prompt: Words
    model: Words
    tokens_in: Count
    tokens_out: Count
    seconds: Number
    outcome: Words
    detail: Text | None
    created_at: Time


class ExportedAttempt(Part):
    """An attempt to write the profile, how it ended and why, and what it has asked a language model."""

    writer: Words
    started_at: Time
    finished_at: Time | None
    outcome: Words
    reason: Text | None
    version: Count | None
    calls: list[ExportedCall]


class ExportedAudit(Part):
    """Who read or changed the user's data: the name of the key; null is someone at the machine itself."""

    at: Time
    action: Text
    key: Text | None


_EXAMPLE: JsonDict = {
    "format": "limner-user",
    "version": 1,
    "exported_at": "2025-09-01T12:00:00Z",
    "user": {
        "user_id": "405",
        "attributes": {"occupation": "librarian"},
        "consent": True,
        "language": "en",
        "tz": "Europe/Paris",
        "log_revision": 1,
        "corrections_revision": 1,
    },
    "items": [
        {
            "item_id": "50",
            "title": "Star Wars (1977)",
            "categories": ["Action", "Sci-Fi"],
            "attributes": {"year": 1977},
            "description": None,
            "price": None,
            "image_caption": None,
            "created_at": None,
            "stub": False,
        }
    ],
    "events": [
        {
            "event_id": "c0ffee",
            "item_id": "50",
            "type": "rating",
            "ts": "1998-01-12T18:20:00Z",
            "ts_offset": 60,
            "value": 4.0,
            "text": None,
            "context": None,
        }
    ],
    "corrections": [
        {
            "number": 1,
            "created_at": "2025-08-30T09:00:00Z",
            "action": "add",
            "kind": "interest",
            "name": "Space operas",
            "statement": None,
            "claim_id": None,
            "evidence": [],
            "rho": None,
            "weight": 3.0,
            "new_name": None,
            "new_statement": None,
            "undone_at": None,
        }
    ],
    "profiles": [],
    "attempts": [],
    "audit": [{"at": "2025-08-30T09:00:00Z", "action": "add_claim", "key": "shop"}],
}


class Export(Part):
    """Everything that is held on a user. An import takes all of it but the audit, which is this installation's."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"example": _EXAMPLE})
    format: Literal["limner-user"]
    version: Literal[1]
    exported_at: Time
    user: ExportedUser
    items: list[ExportedItem]
    events: list[ExportedEvent]
    corrections: list[ExportedCorrection]
    profiles: list[ExportedProfile]
    attempts: list[ExportedAttempt]
    audit: list[ExportedAudit]


def export(database: Database, hasher: Hasher, user_id: str, now: datetime) -> SpooledTemporaryFile[bytes]:
    """Write an `Export`, with consent or without; large ones go to the disk.

    All of it is of one moment, and neither a long log nor a slow reader holds memory or the database.

    Returns:
        The document in UTF-8, from the beginning; closing it removes it.

    Raises:
        NotFoundError: There is no such user.
    """
    file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - it is returned
    try:
        with database.session() as session:
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            file.writelines(_document(session, user_id, hasher.subject(user_id), now))
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def renumbered(claim_id: str, numbers: Mapping[int, int]) -> str:
    """Return the id of a claim that a correction has added (`+7`) with that correction's other number.

    Raises:
        KeyError: There is no such correction.
    """
    found = _ADDED.fullmatch(claim_id)
    return f"+{numbers[int(found[1])]}" if found else claim_id


def _document(session: Session, user_id: str, subject: str, now: datetime) -> Iterator[bytes]:
    row = session.get(UserRow, user_id)
    if row is None:
        raise NotFoundError(f"There is no user {user_id}.")
    said = session.scalars(
        select(CorrectionRow).where(col(CorrectionRow.user_id) == user_id).order_by(col(CorrectionRow.correction_id))
    ).all()
    numbers = {row.correction_id: n for n, row in enumerate(said, 1) if row.correction_id is not None}
    yield b'{"format":"limner-user","version":1,"exported_at":' + _TIME.dump_json(now.astimezone(UTC))
    yield b',"user":' + ExportedUser(**_fields(row, ExportedUser)).model_dump_json().encode()
    sections: dict[str, Iterable[Part]] = {
        "items": _items(session, user_id),
        "events": _events(session, user_id),
        "corrections": (_correction(row, numbers) for row in said),
        "profiles": _profiles(session, user_id, numbers),
        "attempts": _attempts(session, user_id),
        "audit": _audit(session, subject),
    }
    for name, parts in sections.items():
        yield f',"{name}":['.encode()
        for n, part in enumerate(parts):
            yield (b"," if n else b"") + part.model_dump_json().encode()
        yield b"]"
    yield b"}\n"


def _fields(row: SQLModel, part: type[Part]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in part.model_fields if hasattr(row, name)}


def _items(session: Session, user_id: str) -> Iterator[ExportedItem]:
    named = select(col(EventRow.item_id)).where(col(EventRow.user_id) == user_id)
    query = select(ItemRow).where(col(ItemRow.item_id).in_(named)).order_by(col(ItemRow.item_id))
    for row in session.scalars(query.execution_options(yield_per=_BATCH)):
        yield ExportedItem(**_fields(row, ExportedItem))


def _events(session: Session, user_id: str) -> Iterator[ExportedEvent]:
    columns = [getattr(EventRow, name) for name in ExportedEvent.model_fields]
    query = select(*columns).where(col(EventRow.user_id) == user_id).order_by(col(EventRow.ts), col(EventRow.event_id))
    for row in session.execute(query.execution_options(yield_per=_BATCH)):
        yield ExportedEvent(**row._asdict())


def _correction(row: CorrectionRow, numbers: Mapping[int, int]) -> ExportedCorrection:
    claim_id = None if row.claim_id is None else renumbered(row.claim_id, numbers)
    changed = {"number": numbers[row.correction_id or 0], "claim_id": claim_id}
    return ExportedCorrection(**_fields(row, ExportedCorrection) | changed)


def _profiles(session: Session, user_id: str, numbers: Mapping[int, int]) -> Iterator[ExportedProfile]:
    query = select(ProfileRow).where(col(ProfileRow.user_id) == user_id).order_by(col(ProfileRow.version))
    for row in session.scalars(query).all():
        claims = [_claim(session, claim, numbers) for claim in _claims_of(session, row)]
        summary = [
            {**line, "claim_ids": [renumbered(i, numbers) for i in line.get("claim_ids", [])]} for line in row.summary
        ]
        yield ExportedProfile(**_fields(row, ExportedProfile) | {"claims": claims, "summary": summary})


def _claims_of(session: Session, profile: ProfileRow) -> Iterable[ClaimRow]:
    query = select(ClaimRow).where(col(ClaimRow.profile_id) == profile.profile_id).order_by(col(ClaimRow.position))
    return session.scalars(query).all()


def _claim(session: Session, row: ClaimRow, numbers: Mapping[int, int]) -> ExportedClaim:
    query = select(EvidenceRow).where(col(EvidenceRow.claim_pk) == row.claim_pk).order_by(col(EvidenceRow.position))
    evidence = [ExportedEvidence(**_fields(piece, ExportedEvidence)) for piece in session.scalars(query)]
    details = dict(row.details)
    if (correction := details.get("correction_id")) is not None:
        details["correction_id"] = numbers[correction]
    changed = {"claim_id": renumbered(row.claim_id, numbers), "details": details, "evidence": evidence}
    return ExportedClaim(**_fields(row, ExportedClaim) | changed)


def _attempts(session: Session, user_id: str) -> Iterator[ExportedAttempt]:
    query = select(AttemptRow).where(col(AttemptRow.user_id) == user_id)
    for row in session.scalars(query.order_by(col(AttemptRow.attempt_id))).all():
        asked = select(LlmCallRow).where(col(LlmCallRow.attempt_id) == row.attempt_id)
        calls = session.scalars(asked.order_by(col(LlmCallRow.call_id)))
        told = [ExportedCall(**_fields(call, ExportedCall)) for call in calls]
        yield ExportedAttempt(**_fields(row, ExportedAttempt) | {"calls": told})


def _audit(session: Session, subject: str) -> Iterator[ExportedAudit]:
    query = (
        select(col(AuditRow.at), col(AuditRow.action), col(ApiKeyRow.name), col(AuditRow.key_id))
        .outerjoin(ApiKeyRow, col(ApiKeyRow.key_id) == col(AuditRow.key_id))
        .where(col(AuditRow.subject_hash) == subject)
        .order_by(col(AuditRow.audit_id))
    )
    for at, action, name, key_id in session.execute(query.execution_options(yield_per=_BATCH)):
        yield ExportedAudit(at=at, action=action, key=name or key_id)
