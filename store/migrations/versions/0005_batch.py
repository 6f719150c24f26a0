"""What runs over many users ask of the store: what has changed since when, and what a profile was made of."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Triggers, since items and users are written in many places, and none must be forgotten. What a profile does not rest
# on (price, time of creation) does not count, or each change of price would have profiles written anew.
_ITEM_CHANGED = """
create function limner_item_changed() returns trigger language plpgsql as $$
begin
    new.revision := nextval('items_revision');
    return new;
end $$;
create trigger limner_item_changed before update on items for each row
when (row(old.title, old.categories, old.attributes, old.description, old.image_caption)
    is distinct from row(new.title, new.categories, new.attributes, new.description, new.image_caption))
execute function limner_item_changed()
"""
_USER_CHANGED = """
create function limner_user_changed() returns trigger language plpgsql as $$
begin
    new.changed_at := clock_timestamp();
    return new;
end $$;
create trigger limner_user_changed before update on users for each row
when (row(old.log_revision, old.corrections_revision, old.attributes, old.consent, old.language, old.tz)
    is distinct from
    row(new.log_revision, new.corrections_revision, new.attributes, new.consent, new.language, new.tz))
execute function limner_user_changed()
"""
_BACKFILL = """
update profiles set key = provenance->>'key', log_revision = (log->>'revision')::bigint,
    corrections_revision = (provenance->>'corrections_revision')::bigint
"""
_NEW_IN_PROFILES: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("key", sa.Text()),
    ("recipe", sa.Text()),
    ("log_revision", sa.BigInteger()),
    ("corrections_revision", sa.BigInteger()),
    ("items_revision", sa.BigInteger()),
    ("catalogue_revision", sa.BigInteger()),
    ("declared", sa.Text()),
    ("weight", sa.Double()),
)


def upgrade() -> None:
    op.execute("create sequence items_revision start with 2")
    op.add_column("items", sa.Column("revision", sa.BigInteger(), server_default=sa.text("1"), nullable=False))
    op.alter_column("items", "revision", server_default=sa.text("nextval('items_revision'::regclass)"))
    op.create_index("ix_items_revision", "items", ["revision"])
    op.execute(_ITEM_CHANGED)
    op.add_column("users", sa.Column("changed_at", sa.DateTime(timezone=True)))
    op.alter_column("users", "changed_at", server_default=sa.text("clock_timestamp()"))
    op.execute(_USER_CHANGED)
    for name, kind in _NEW_IN_PROFILES:
        op.add_column("profiles", sa.Column(name, kind))
    op.execute(_BACKFILL)
    op.create_index("ix_jobs_open", "jobs", ["created_at"], postgresql_where=sa.text("finished_at is null"))
    op.create_index("ix_job_items_user", "job_items", ["user_id"])
    op.create_index("ix_job_items_chunk", "job_items", ["job_id", "chunk"], if_not_exists=True)


def downgrade() -> None:
    op.drop_index("ix_job_items_user", "job_items")
    op.drop_index("ix_jobs_open", "jobs")
    for name, _ in _NEW_IN_PROFILES:
        op.drop_column("profiles", name)
    op.execute("drop trigger limner_user_changed on users")
    op.execute("drop function limner_user_changed()")
    op.drop_column("users", "changed_at")
    op.execute("drop trigger limner_item_changed on items")
    op.execute("drop function limner_item_changed()")
    op.drop_column("items", "revision")
    op.execute("drop sequence items_revision")
