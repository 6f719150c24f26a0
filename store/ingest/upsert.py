"""Loads checked items and users: the last row about each of them counts.

A row of an item is all there is to say about it: it replaces what was stored, a stub as well. A row of a
user changes the fields that it gives and leaves the others, so that no file that is silent about consent
can restore one that was withdrawn.
"""

from typing import LiteralString

import polars as pl
from psycopg import Connection

from store import revisions
from store.ingest.load import Loaded, copy_frame

_ITEM_STAGE: LiteralString = """
create temp table ingest_stage (
    line bigint, item_id text collate "C", title text, categories jsonb, attributes jsonb,
    description text, price double precision, image_caption text, created_at timestamptz
) on commit drop
"""
_ITEMS: LiteralString = """
insert into items as i
    (item_id, title, categories, attributes, description, price, image_caption, created_at, stub)
select item_id, title,
    array(select name from jsonb_array_elements_text(coalesce(categories, '[]'))
        with ordinality as c (name, n) order by n),
    coalesce(attributes, '{}'), description, price, image_caption, created_at, false
from ingest_stage order by item_id
on conflict (item_id) do update set
    title = excluded.title, categories = excluded.categories, attributes = excluded.attributes,
    description = excluded.description, price = excluded.price, image_caption = excluded.image_caption,
    created_at = excluded.created_at, stub = false
where (i.title, i.categories, i.attributes, i.description, i.price, i.image_caption, i.created_at, i.stub)
    is distinct from (excluded.title, excluded.categories, excluded.attributes, excluded.description,
        excluded.price, excluded.image_caption, excluded.created_at, false)
"""
_USER_STAGE: LiteralString = """
create temp table ingest_stage (
    line bigint, user_id text collate "C", attributes jsonb, consent boolean, language text, tz text
) on commit drop
"""
_CHANGED_USERS: LiteralString = """
update users u set
    attributes = coalesce(s.attributes, u.attributes), consent = coalesce(s.consent, u.consent),
    language = coalesce(s.language, u.language), tz = coalesce(s.tz, u.tz)
from ingest_stage s
where u.user_id = s.user_id
    and (u.attributes, u.consent, u.language, u.tz) is distinct from (
        coalesce(s.attributes, u.attributes), coalesce(s.consent, u.consent),
        coalesce(s.language, u.language), coalesce(s.tz, u.tz))
"""
_NEW_USERS: LiteralString = """
insert into users (user_id, attributes, consent, language, tz)
select user_id, coalesce(attributes, '{}'), coalesce(consent, true), language, tz
from ingest_stage order by user_id
on conflict (user_id) do nothing
"""


class ItemLoader:
    """Writes items."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stored = 0
        connection.execute(_ITEM_STAGE)

    def load(self, batch: pl.DataFrame) -> Loaded:
        """Writes a batch of items; an earlier row about an item of the same batch counts as known."""
        if batch.is_empty():
            return Loaded(0, 0)
        last = batch.unique("item_id", keep="last", maintain_order=True)
        last = last.with_columns(pl.col("created_at").cast(pl.Datetime("us")))
        self._connection.execute("truncate ingest_stage")
        copy_frame(self._connection, "ingest_stage", last)
        stored = self._connection.execute(_ITEMS).rowcount
        self._stored += stored
        return Loaded(stored, len(batch) - stored)

    def finish(self) -> None:
        """Raises the revision of the catalogue if it has changed."""
        if self._stored:
            revisions.rise(self._connection, "catalogue")


class UserLoader:
    """Writes users."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.execute(_USER_STAGE)

    def load(self, batch: pl.DataFrame) -> Loaded:
        """Writes a batch of users; several rows about one user of the same batch count as one change."""
        if batch.is_empty():
            return Loaded(0, 0)
        given = [name for name in batch.columns if name != "user_id"]
        last = batch.group_by("user_id", maintain_order=True).agg(pl.col(given).drop_nulls().last())
        self._connection.execute("truncate ingest_stage")
        copy_frame(self._connection, "ingest_stage", last.select(batch.columns))
        changed = self._connection.execute(_CHANGED_USERS).rowcount
        made = self._connection.execute(_NEW_USERS).rowcount
        return Loaded(changed + made, len(batch) - changed - made, users_made=made)

    def finish(self) -> None:
        """Nothing is left to do."""
