"""Everything at first: users, items, events, profiles and what they rest on, and the records of runs."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.String(collation="C")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    _logs()
    _profiles()
    _claims()
    _writing()


def downgrade() -> None:
    # The extension stays: others may use it, and it may have been there before us.
    for table in (
        "llm_calls",
        "attempts",
        "embeddings",
        "evidence",
        "claims",
        "profiles",
        "events",
        "ingest_runs",
        "items",
        "users",
    ):
        op.drop_table(table)


def _logs() -> None:
    op.create_table(
        "users",
        sa.Column("user_id", KEY, nullable=False),
        sa.Column("attributes", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("consent", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("language", sa.String(), nullable=True),
        sa.Column("tz", sa.String(), nullable=True),
        sa.Column("log_revision", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
    )
    op.create_table(
        "items",
        sa.Column("item_id", KEY, nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("categories", ARRAY(sa.Text()), server_default=sa.text("'{}'::text[]"), nullable=False),
        sa.Column("attributes", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("price", sa.Float(), nullable=True),
        sa.Column("image_caption", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=True),
        sa.Column("stub", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("item_id"),
    )
    op.create_table(
        "ingest_runs",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("file", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("rows_read", sa.Integer(), nullable=False),
        sa.Column("rows_stored", sa.Integer(), nullable=False),
        sa.Column("rows_known", sa.Integer(), nullable=False),
        sa.Column("rows_rejected", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_table(
        "events",
        sa.Column("event_id", KEY, nullable=False),
        sa.Column("user_id", KEY, nullable=False),
        sa.Column("item_id", KEY, nullable=True),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("ts", TIME, nullable=False),
        sa.Column("ts_offset", sa.SmallInteger(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("context", JSONB(), nullable=True),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("ix_events_user_ts", "events", ["user_id", "ts"], unique=False)


def _profiles() -> None:
    op.create_table(
        "profiles",
        sa.Column("profile_id", sa.Integer(), nullable=False),
        sa.Column("user_id", KEY, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("summary", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("habits", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("tags", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("log", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("provenance", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("quality", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("profile_id"),
    )
    op.create_index("uq_profiles_one_active", "profiles", ["user_id"], unique=True, postgresql_where=sa.text("active"))
    op.create_index("uq_profiles_user_version", "profiles", ["user_id", "version"], unique=True)


def _claims() -> None:
    op.create_table(
        "claims",
        sa.Column("claim_pk", sa.Integer(), nullable=False),
        sa.Column("profile_id", sa.Integer(), nullable=False),
        sa.Column("claim_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("strength", sa.Float(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("trend", sa.String(), nullable=True),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("wording", sa.String(), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("attributes", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("details", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.ForeignKeyConstraint(["profile_id"], ["profiles.profile_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("claim_pk"),
    )
    op.create_index("uq_claims_profile_claim", "claims", ["profile_id", "claim_id"], unique=True)
    op.create_table(
        "evidence",
        sa.Column("claim_pk", sa.Integer(), nullable=False),
        sa.Column("event_id", KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("counter", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["claim_pk"], ["claims.claim_pk"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["event_id"], ["events.event_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("claim_pk", "event_id"),
    )
    op.create_index("ix_evidence_event", "evidence", ["event_id"], unique=False)


def _writing() -> None:
    op.create_table(
        "embeddings",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("owner_id", KEY, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("text_hash", sa.String(), nullable=False),
        sa.Column("vector", Vector(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "owner_id", "model"),
    )
    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.Integer(), nullable=False),
        sa.Column("user_id", KEY, nullable=False),
        sa.Column("writer", sa.String(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("attempt_id"),
    )
    op.create_index("ix_attempts_user", "attempts", ["user_id", "started_at"], unique=False)
    op.create_table(
        "llm_calls",
        sa.Column("call_id", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.Integer(), nullable=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("call_id"),
    )
    op.create_index("ix_llm_calls_attempt", "llm_calls", ["attempt_id"], unique=False)
