"""The book of runs: one row of `ingest_runs` for each attempt to ingest one file."""

from datetime import datetime
from typing import LiteralString

from psycopg import Connection

_LOCK = 0x696E67657374  # "ingest"
_ABANDON: LiteralString = """
update ingest_runs set state = 'interrupted', finished_at = %s,
    reason = 'the process ended without finishing the run; nothing was stored'
where state = 'running'
"""
_START: LiteralString = """
insert into ingest_runs
    (kind, file, source, state, started_at, rows_read, rows_stored, rows_known, rows_rejected)
values (%s, %s, %s, 'running', %s, 0, 0, 0, 0) returning run_id
"""
_FINISH: LiteralString = """
update ingest_runs set state = %s, finished_at = %s, reason = %s,
    rows_read = %s, rows_stored = %s, rows_known = %s, rows_rejected = %s
where run_id = %s and state = 'running'
"""


def wait_for_turn(connection: Connection) -> None:
    """Waits until no other ingest runs in this database, and holds the turn for this transaction.

    Two at a time could each wait for ids that the other has just written.
    """
    connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])


def start_run(connection: Connection, kind: str, file: str, source: str, now: datetime) -> int:
    """Notes a run as running; one that still is noted so has lost its process, as it is our turn."""
    connection.execute(_ABANDON, [now])
    row = connection.execute(_START, [kind, file, source, now]).fetchone()
    assert row is not None  # noqa: S101 - for the type checker: the statement returns one
    return int(row[0])


def finish_run(
    connection: Connection,
    run_id: int,
    state: str,
    now: datetime,
    *,
    counts: tuple[int, int, int, int],
    reason: str | None = None,
) -> None:
    """Notes how a run ended, with the rows read, stored, known and rejected; once."""
    connection.execute(_FINISH, [state, now, reason, *counts, run_id])
