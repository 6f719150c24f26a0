"""Factors of items and claims, to search in large catalogues and between items and claims."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import Vector

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "factors",
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(collation="C"), nullable=False),
        sa.Column("vector", Vector(), nullable=False),
        sa.Column("slack", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model_id", "kind", "owner_id"),
    )


def downgrade() -> None:
    op.drop_table("factors")
