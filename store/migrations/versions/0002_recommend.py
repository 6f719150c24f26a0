"""Recommendations: trained models, and what users correct in their profiles."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.String(collation="C")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("users", sa.Column("corrections_revision", sa.Integer(), server_default=sa.text("0"), nullable=False))
    op.create_table(
        "models",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("card", JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.PrimaryKeyConstraint("model_id"),
    )
    op.create_index("uq_models_one_active", "models", ["active"], unique=True, postgresql_where=sa.text("active"))
    op.create_table(
        "corrections",
        sa.Column("correction_id", sa.Integer(), nullable=False),
        sa.Column("user_id", KEY, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("claim_id", sa.String(), nullable=True),
        sa.Column("evidence", JSONB(), server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("rho", sa.Double(), nullable=True),
        sa.Column("weight", sa.Double(), nullable=True),
        sa.Column("undone_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.user_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("correction_id"),
    )
    op.create_index("ix_corrections_user", "corrections", ["user_id"], unique=False)


def downgrade() -> None:
    op.drop_table("corrections")
    op.drop_table("models")
    op.drop_column("users", "corrections_revision")
