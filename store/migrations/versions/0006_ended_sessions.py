"""Sessions of browsers that were signed out, and how many persons a row of the audit is about."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ended_sessions",
        sa.Column("session_hash", sa.String(collation="C"), primary_key=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_ended_sessions_at", "ended_sessions", ["ended_at"])
    op.add_column("audit", sa.Column("subjects", sa.Integer()))


def downgrade() -> None:
    op.drop_column("audit", "subjects")
    op.drop_table("ended_sessions")
