"""Keys, audit, erasures, jobs and repeated requests of the service; the job queue in a schema of its own."""

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

QUEUE_SCHEMA = "queue"


def upgrade() -> None:
    key = sa.String(collation="C")
    time = sa.DateTime(timezone=True)
    json = postgresql.JSONB()
    nothing = sa.text("'{}'::jsonb")
    op.add_column("corrections", sa.Column("new_name", sa.Text()))
    op.add_column("corrections", sa.Column("new_statement", sa.Text()))
    op.create_table(
        "api_keys",
        sa.Column("key_id", key, primary_key=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer()),
        sa.Column("created_at", time, nullable=False),
        sa.Column("revoked_at", time),
    )
    op.create_table(
        "audit",
        sa.Column("audit_id", sa.BigInteger(), primary_key=True),
        sa.Column("at", time, nullable=False),
        sa.Column("key_id", sa.String()),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject_hash", sa.String()),
        sa.Column("request_id", sa.String()),
    )
    op.create_index("ix_audit_subject", "audit", ["subject_hash", "audit_id"])
    op.create_table(
        "erasures",
        sa.Column("subject_hash", sa.String(), primary_key=True),
        sa.Column("erased_at", time, nullable=False),
    )
    op.create_table(
        "revisions",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("job_id", key, primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("request", json, server_default=nothing, nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("created_by", sa.String()),
        sa.Column("started_at", time),
        sa.Column("finished_at", time),
        sa.Column("reason", sa.Text()),
        sa.Column("result", json, server_default=nothing, nullable=False),
    )
    op.create_index("ix_jobs_created", "jobs", ["created_at", "job_id"])
    op.create_table(
        "job_items",
        sa.Column("job_id", key, sa.ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("user_id", key, primary_key=True),
        sa.Column("chunk", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_at", time),
        sa.Column("finished_at", time),
        sa.Column("reason", sa.Text()),
        sa.Column("version", sa.Integer()),
        sa.Column("tokens", sa.Integer(), nullable=False),
    )
    op.create_index("ix_job_items_state", "job_items", ["job_id", "state", "user_id"])
    op.create_index("ix_job_items_chunk", "job_items", ["job_id", "chunk"])
    op.create_table(
        "idempotency",
        sa.Column("key_id", key, primary_key=True),
        sa.Column("idempotency_key", key, primary_key=True),
        sa.Column("request_hash", sa.String(), nullable=False),
        sa.Column("subject_hash", sa.String()),
        sa.Column("created_at", time, nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", json, server_default=nothing, nullable=False),
        sa.Column("body", sa.LargeBinary(), server_default=sa.text("''::bytea"), nullable=False),
    )
    op.create_index("ix_idempotency_created", "idempotency", ["created_at"])
    op.execute(f"create schema {QUEUE_SCHEMA}")
    _in_queue_schema(SchemaManager.get_schema())


def downgrade() -> None:
    op.execute(f"drop schema {QUEUE_SCHEMA} cascade")
    for table in ("idempotency", "job_items", "jobs", "revisions", "erasures", "audit", "api_keys"):
        op.drop_table(table)
    op.drop_column("corrections", "new_statement")
    op.drop_column("corrections", "new_name")


def _in_queue_schema(script: str) -> None:
    """Run a script of the queue's authors as it is: its names go into the schema that is searched first."""
    connection = op.get_bind()
    before = connection.scalar(sa.text("show search_path"))
    connection.execute(sa.text("select set_config('search_path', :path, true)"), {"path": f"{QUEUE_SCHEMA}, {before}"})
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101 - a migration has a connection
    driver.execute(script)
    connection.execute(sa.text("select set_config('search_path', :path, true)"), {"path": before})
