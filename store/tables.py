"""The tables. Domain and wire models live elsewhere; these are rows.

Identifiers are compared byte by byte (collation "C"): faster to index, and the same on every server.
`events.user_id` and `events.item_id` carry no foreign key: checking them costs about as much as storing
the row, and ingest makes the missing users and item stubs in the same transaction.
"""

from datetime import datetime
from typing import Any

from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    Sequence,
    SmallInteger,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import configure_mappers
from sqlmodel import Field, SQLModel

ITEMS_REVISION = Sequence("items_revision", start=2, metadata=SQLModel.metadata)


def _key(*, primary: bool = False, nullable: bool = False) -> Any:
    return Field(sa_column=Column(String(collation="C"), primary_key=primary, nullable=nullable))


def _time(*, nullable: bool = False) -> Any:
    return Field(sa_column=Column(DateTime(timezone=True), nullable=nullable))


def _json(default: str = "{}") -> Any:
    return Field(sa_column=Column(JSONB, nullable=False, server_default=text(f"'{default}'::jsonb")))


class UserRow(SQLModel, table=True):
    """A user.

    `log_revision` rises with every transaction that changes the user's events, `corrections_revision` with every one
    that changes their corrections. A trigger sets `changed_at` when either rises and when what is declared changes;
    null is not known.
    """

    __tablename__ = "users"
    user_id: str = _key(primary=True)
    attributes: dict[str, Any] = _json()
    consent: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    language: str | None = None
    tz: str | None = None
    log_revision: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    corrections_revision: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    changed_at: datetime | None = Field(
        default=None, sa_column=Column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    )


class ItemRow(SQLModel, table=True):
    """An item; `stub` marks one that is known only because an event named it.

    `revision` comes from one sequence for all items, by a trigger whenever the words or attributes change.
    """

    __tablename__ = "items"
    __table_args__ = (Index("ix_items_revision", "revision"),)
    item_id: str = _key(primary=True)
    title: str = Field(sa_column=Column(Text, nullable=False))
    categories: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")))
    attributes: dict[str, Any] = _json()
    description: str | None = Field(default=None, sa_column=Column(Text))
    price: float | None = None
    image_caption: str | None = Field(default=None, sa_column=Column(Text))
    created_at: datetime | None = _time(nullable=True)
    stub: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})
    revision: int | None = Field(
        default=None, sa_column=Column(BigInteger, nullable=False, server_default=ITEMS_REVISION.next_value())
    )


class IngestRunRow(SQLModel, table=True):
    """One attempt to ingest one file: running, done, failed or interrupted."""

    __tablename__ = "ingest_runs"
    run_id: int | None = Field(default=None, primary_key=True)
    kind: str
    file: str
    source: str
    state: str
    started_at: datetime = _time()
    finished_at: datetime | None = _time(nullable=True)
    rows_read: int = 0
    rows_stored: int = 0
    rows_known: int = 0
    rows_rejected: int = 0
    reason: str | None = Field(default=None, sa_column=Column(Text))


class EventRow(SQLModel, table=True):
    """An event as ingested."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_user_ts", "user_id", "ts"),)
    event_id: str = _key(primary=True)
    user_id: str = _key()
    item_id: str | None = _key(nullable=True)
    type: str
    ts: datetime = _time()
    ts_offset: int | None = Field(default=None, sa_column=Column(SmallInteger))
    value: float | None = Field(default=None, sa_column=Column(Double))
    text: str | None = Field(default=None, sa_column=Column(Text))
    context: dict[str, Any] | None = Field(default=None, sa_column=Column(JSONB))
    run_id: int | None = None


class ProfileRow(SQLModel, table=True):
    """One version of a user's profile; the claims are rows of their own.

    `key` hashes all that it was made of; from `recipe` to `declared` are its parts, each as it was when the profile
    was made (see `store.units`). `weight` is the sum of the events' weights then, without sign, scale or decay. Null
    is not known: such a profile is written anew.
    """

    __tablename__ = "profiles"
    __table_args__ = (
        Index("uq_profiles_user_version", "user_id", "version", unique=True),
        Index("uq_profiles_one_active", "user_id", unique=True, postgresql_where=text("active")),
    )
    profile_id: int | None = Field(default=None, primary_key=True)
    user_id: str = Field(
        sa_column=Column(String(collation="C"), ForeignKey("users.user_id", ondelete="CASCADE"), nullable=False)
    )
    version: int
    active: bool
    language: str
    created_at: datetime = _time()
    summary: list[dict[str, Any]] = _json("[]")
    habits: list[dict[str, Any]] = _json("[]")
    tags: list[dict[str, Any]] = _json("[]")
    log: dict[str, Any] = _json()
    provenance: dict[str, Any] = _json()
    quality: dict[str, Any] = _json()
    key: str | None = Field(default=None, sa_column=Column(Text))
    recipe: str | None = Field(default=None, sa_column=Column(Text))
    log_revision: int | None = Field(default=None, sa_column=Column(BigInteger))
    corrections_revision: int | None = Field(default=None, sa_column=Column(BigInteger))
    items_revision: int | None = Field(default=None, sa_column=Column(BigInteger))
    catalogue_revision: int | None = Field(default=None, sa_column=Column(BigInteger))
    declared: str | None = Field(default=None, sa_column=Column(Text))
    weight: float | None = Field(default=None, sa_column=Column(Double))


class ClaimRow(SQLModel, table=True):
    """One claim of one profile version, in the order in which it is shown."""

    __tablename__ = "claims"
    __table_args__ = (Index("uq_claims_profile_claim", "profile_id", "claim_id", unique=True),)
    claim_pk: int | None = Field(default=None, primary_key=True)
    profile_id: int = Field(sa_column=Column(ForeignKey("profiles.profile_id", ondelete="CASCADE"), nullable=False))
    claim_id: str
    position: int
    kind: str
    name: str = Field(sa_column=Column(Text, nullable=False))
    statement: str = Field(sa_column=Column(Text, nullable=False))
    strength: float
    confidence: float
    trend: str | None = None
    origin: str
    wording: str
    locked: bool = False
    attributes: dict[str, Any] = _json()
    details: dict[str, Any] = _json()


class EvidenceRow(SQLModel, table=True):
    """An event that a claim rests on (weight > 0) or that speaks against it (`counter`)."""

    __tablename__ = "evidence"
    __table_args__ = (Index("ix_evidence_event", "event_id"),)
    claim_pk: int = Field(
        sa_column=Column(ForeignKey("claims.claim_pk", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    event_id: str = Field(
        sa_column=Column(String(collation="C"), ForeignKey("events.event_id", ondelete="CASCADE"), primary_key=True)
    )
    position: int
    weight: float
    counter: bool = False


class EmbeddingRow(SQLModel, table=True):
    """A vector of something, by one model: of a text with this hash (`kind` item or claim), or a factor (theme)."""

    __tablename__ = "embeddings"
    kind: str = Field(primary_key=True)
    owner_id: str = _key(primary=True)
    model: str = Field(primary_key=True)
    text_hash: str
    vector: Any = Field(sa_column=Column(Vector(), nullable=False))


class AttemptRow(SQLModel, table=True):
    """One attempt to write one user's profile, and how it ended."""

    __tablename__ = "attempts"
    __table_args__ = (Index("ix_attempts_user", "user_id", "started_at"),)
    attempt_id: int | None = Field(default=None, primary_key=True)
    user_id: str = _key()
    writer: str
    started_at: datetime = _time()
    finished_at: datetime | None = _time(nullable=True)
    outcome: str
    reason: str | None = Field(default=None, sa_column=Column(Text))
    version: int | None = None


class LlmCallRow(SQLModel, table=True):
    """One call of a language model: what it cost and how it ended."""

    __tablename__ = "llm_calls"
    __table_args__ = (Index("ix_llm_calls_attempt", "attempt_id"),)
    call_id: int | None = Field(default=None, primary_key=True)
    attempt_id: int | None = Field(
        default=None, sa_column=Column(ForeignKey("attempts.attempt_id", ondelete="CASCADE"))
    )
    role: str
    prompt: str
    model: str
    tokens_in: int
    tokens_out: int
    seconds: float
    outcome: str
    detail: str | None = Field(default=None, sa_column=Column(Text))
    created_at: datetime = _time()


class ModelRow(SQLModel, table=True):
    """A trained model: where its file is, the SHA-256 that it must have, and its card. At most one is active."""

    __tablename__ = "models"
    __table_args__ = (Index("uq_models_one_active", "active", unique=True, postgresql_where=text("active")),)
    model_id: int | None = Field(default=None, primary_key=True)
    created_at: datetime = _time()
    path: str = Field(sa_column=Column(Text, nullable=False))
    sha256: str
    active: bool
    card: dict[str, Any] = _json()


class CorrectionRow(SQLModel, table=True):
    """What a user says about a claim of their profile, or adds to it; one that was taken back has `undone_at`.

    `name`, `statement`, `kind` and `evidence` are those of the claim at that time: the profile may be written anew.
    `new_name` and `new_statement` are the words that the user has put in their place (`action` rewrite).
    `rho` is what the confidence of its evidence is multiplied by, `weight` the total confidence of the pseudo-events
    of an added claim; null is the default.
    """

    __tablename__ = "corrections"
    __table_args__ = (Index("ix_corrections_user", "user_id"),)
    correction_id: int | None = Field(default=None, primary_key=True)
    user_id: str = Field(
        sa_column=Column(String(collation="C"), ForeignKey("users.user_id", ondelete="CASCADE"), nullable=False)
    )
    created_at: datetime = _time()
    action: str
    name: str = Field(sa_column=Column(Text, nullable=False))
    statement: str | None = Field(default=None, sa_column=Column(Text))
    kind: str
    claim_id: str | None = None
    evidence: list[str] = _json("[]")
    rho: float | None = Field(default=None, sa_column=Column(Double))
    weight: float | None = Field(default=None, sa_column=Column(Double))
    new_name: str | None = Field(default=None, sa_column=Column(Text))
    new_statement: str | None = Field(default=None, sa_column=Column(Text))
    undone_at: datetime | None = _time(nullable=True)


class FactorRow(SQLModel, table=True):
    """A factor of a model: of an item, or of a claim (`kind`); a claim has the mean of the items that it cites.

    `store.factors` adds an HNSW index for each large model, and says what `slack` is for.
    """

    __tablename__ = "factors"
    model_id: int = Field(
        sa_column=Column(ForeignKey("models.model_id", ondelete="CASCADE"), primary_key=True, nullable=False)
    )
    kind: str = Field(primary_key=True)
    owner_id: str = _key(primary=True)
    vector: Any = Field(sa_column=Column(Vector(), nullable=False))
    slack: float = Field(default=0.0, sa_column=Column(Double, nullable=False, server_default=text("0")))


class ThemeModelRow(SQLModel, table=True):
    """The factors that themes are made with; its vectors are embeddings of the kind `theme`, and it has their hash."""

    __tablename__ = "theme_models"
    sha256: str = Field(primary_key=True)
    created_at: datetime = _time()
    card: dict[str, Any] = _json()


class ApiKeyRow(SQLModel, table=True):
    """A key of the HTTP interface. Of the secret only its SHA-256 is kept; it has 256 random bits."""

    __tablename__ = "api_keys"
    key_id: str = _key(primary=True)
    name: str
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    secret_hash: str
    requests_per_minute: int | None = None
    created_at: datetime = _time()
    revoked_at: datetime | None = _time(nullable=True)


class EndedSessionRow(SQLModel, table=True):
    """A session of a browser that was signed out before its time, as a hash; see `store.keys`."""

    __tablename__ = "ended_sessions"
    __table_args__ = (Index("ix_ended_sessions_at", "ended_at"),)
    session_hash: str = _key(primary=True)
    ended_at: datetime = _time()


class AuditRow(SQLModel, table=True):
    """Who read or changed a person's data, and when; the person is a keyed hash, and no content is kept.

    A read of very many at once is one row, without a person; `subjects` says how many they were.
    """

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_subject", "subject_hash", "audit_id"),)
    audit_id: int | None = Field(default=None, sa_column=Column(BigInteger, primary_key=True))
    at: datetime = _time()
    key_id: str | None = None
    action: str
    subject_hash: str | None = None
    request_id: str | None = None
    subjects: int | None = None


class ErasureRow(SQLModel, table=True):
    """A person whose data was erased, as a keyed hash; what is ingested of them later is dropped."""

    __tablename__ = "erasures"
    subject_hash: str = Field(primary_key=True)
    erased_at: datetime = _time()


class RevisionRow(SQLModel, table=True):
    """A counter that rises with every change of something large (`catalogue`: the items)."""

    __tablename__ = "revisions"
    name: str = Field(primary_key=True)
    value: int = Field(sa_column=Column(BigInteger, nullable=False))


class JobRow(SQLModel, table=True):
    """A job: profiles to write (`kind` profiles), or a model to train (`train`).

    `state` is queued, running, done, failed or cancelled; `request` is what was asked for, `result` what came of it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_created", "created_at", "job_id"),
        Index("ix_jobs_open", "created_at", postgresql_where=text("finished_at is null")),
    )
    job_id: str = _key(primary=True)
    kind: str
    state: str
    request: dict[str, Any] = _json()
    total: int = 0
    created_at: datetime = _time()
    created_by: str | None = None
    started_at: datetime | None = _time(nullable=True)
    finished_at: datetime | None = _time(nullable=True)
    reason: str | None = Field(default=None, sa_column=Column(Text))
    result: dict[str, Any] = _json()


class JobItemRow(SQLModel, table=True):
    """One user of a job of profiles.

    `state` is queued, running, written, unchanged, failed or cancelled. `attempt` rises whenever a worker takes the
    item up; only the attempt that it stands at may write.
    """

    __tablename__ = "job_items"
    __table_args__ = (
        Index("ix_job_items_state", "job_id", "state", "user_id"),
        Index("ix_job_items_chunk", "job_id", "chunk"),
        Index("ix_job_items_user", "user_id"),
    )
    job_id: str = Field(
        sa_column=Column(String(collation="C"), ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True)
    )
    user_id: str = _key(primary=True)
    chunk: int = 0
    state: str
    attempt: int = 0
    started_at: datetime | None = _time(nullable=True)
    finished_at: datetime | None = _time(nullable=True)
    reason: str | None = Field(default=None, sa_column=Column(Text))
    version: int | None = None
    tokens: int = 0


class IdempotencyRow(SQLModel, table=True):
    """A response that is given again where the same request comes again; `status` is null while it is being made."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("ix_idempotency_created", "created_at"),)
    key_id: str = _key(primary=True)
    idempotency_key: str = _key(primary=True)
    request_hash: str
    subject_hash: str | None = None
    created_at: datetime = _time()
    status: int | None = None
    headers: dict[str, str] = _json()
    body: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False, server_default=text("''::bytea")))


configure_mappers()  # at once: rows that are read by plain SQL are made without a session, which would do it
