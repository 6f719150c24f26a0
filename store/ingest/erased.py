"""Keeps users who were erased out of what is ingested."""

from typing import LiteralString

import polars as pl
from psycopg import Connection

from store import tombstones
from store.ingest.columns import Kind
from store.privacy import Hasher

CACHE_SIZE = 500_000

_GIVEN: dict[Kind, LiteralString] = {
    "events": "select distinct user_id from ingest_touched",
    "users": "select user_id from users",
}


class Erased:
    """Drops the rows of users who were erased. It costs nothing while there are none.

    Raises:
        PrivacyKeyError: The tombstones were made under another key.
    """

    def __init__(self, connection: Connection, hasher: Hasher) -> None:
        self._connection = connection
        self._hasher = hasher
        self._subjects = self._read()
        self._known: dict[str, bool] = {}

    def drop(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of a batch whose user was not erased."""
        if not self._subjects or "user_id" not in batch.columns:
            return batch
        users = batch["user_id"].unique().to_list()
        if len(self._known) > CACHE_SIZE:
            self._known.clear()
        for user_id in users:
            if user_id not in self._known:
                self._known[user_id] = self._hasher.subject(user_id) in self._subjects
        gone = [user_id for user_id in users if self._known[user_id]]
        return batch.filter(~pl.col("user_id").is_in(gone)) if gone else batch

    def settle(self, kind: Kind, run_id: int) -> int:
        """Take out again what was stored about users who were erased since; none can be until the transaction ends.

        Returns:
            The number of rows.
        """
        if kind not in _GIVEN:
            return 0
        tombstones.wait_for_turn(self._connection)
        new = self._read() - self._subjects
        if not new:
            return 0
        given = self._connection.execute(_GIVEN[kind]).fetchall()
        gone = [user_id for (user_id,) in given if self._hasher.subject(user_id) in new]
        query = "delete from events where run_id = %s and user_id = any(%s)"
        events = self._connection.execute(query, [run_id, gone]).rowcount
        users = self._connection.execute("delete from users where user_id = any(%s)", [gone]).rowcount
        return events if kind == "events" else users

    def _read(self) -> frozenset[str]:
        return frozenset(row.subject for row in tombstones.read(self._connection, self._hasher))
