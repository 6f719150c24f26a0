"""Ingests one file: read, check and load, each batch loaded while the next is read."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import polars as pl
from psycopg import Connection

from store.database import Database
from store.errors import IngestError
from store.ingest.catalogue import ItemParser, UserParser
from store.ingest.columns import Kind, Plan, read_mapping
from store.ingest.erased import Erased
from store.ingest.events import EventParser
from store.ingest.load import EventLoader, Loaded, Loader
from store.ingest.raw import RawBatch
from store.ingest.readers import FileFormat, open_reader
from store.ingest.rejects import Reject, RejectLog
from store.ingest.runs import finish_run, start_run, wait_for_turn
from store.ingest.upsert import ItemLoader, UserLoader
from store.privacy import Hasher

Progress = Callable[[int, int], None]

_LOOK_UP_S = 0.2


@dataclass(frozen=True)
class IngestReport:
    """What became of a file.

    Attributes:
        run_id: the run in `ingest_runs`.
        rows_read: rows of the file, bad ones too; the sum of the next four.
        rows_stored: rows that made or changed something.
        rows_known: rows that said nothing new.
        rows_rejected: bad rows, also those whose event id is known with other content.
        rows_dropped: good rows of users who were erased.
        stubs_made: items made because an event named them.
        users_made: users made.
        reasons: bad rows by reason, the most common first.
        left_out: columns of the file that fill no field.
        seconds: how long it took.
    """

    run_id: int
    rows_read: int
    rows_stored: int
    rows_known: int
    rows_rejected: int
    rows_dropped: int
    stubs_made: int
    users_made: int
    reasons: dict[str, int]
    left_out: tuple[str, ...]
    seconds: float


class _Parser(Protocol):
    def parse(self, raw: RawBatch) -> tuple[pl.DataFrame, list[Reject]]: ...


@dataclass
class _Tally:
    """Counts so far, and the clock."""

    rejects: RejectLog
    now: datetime
    started: float = field(default_factory=time.perf_counter)
    read: int = 0
    stored: int = 0
    known: int = 0
    stubs: int = 0
    users: int = 0
    dropped: int = 0

    def add(self, loaded: Loaded) -> None:
        self.stored += loaded.stored
        self.known += loaded.known
        self.stubs += loaded.stubs_made
        self.users += loaded.users_made
        self.dropped += loaded.dropped
        self.rejects.extend(loaded.conflicts)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.read, self.stored, self.known, self.rejects.total

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def time(self) -> datetime:
        return self.now + timedelta(seconds=self.seconds)


def ingest(
    database: Database,
    kind: Kind,
    path: Path,
    *,
    source: str,
    known_types: Collection[str],
    now: datetime,
    hasher: Hasher,
    rejects_path: Path,
    mapping: Iterable[str] = (),
    reject_limit: float = 0.01,
    file_format: FileFormat | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Stores the records of a file, in one transaction: all its good rows or, when it fails, nothing.

    One ingest runs at a time in a database; another waits for its turn.

    Args:
        database: where to.
        kind: what the rows are: events, items or users.
        path: a CSV, TSV, JSON Lines or Parquet file, plain or gzipped.
        source: a stable name of where the log comes from. It is part of the identity of events without an
            id, so it must not change with the file's name or format.
        known_types: the event types that are declared.
        now: the time, with its zone; events more than a day later are rejected.
        hasher: recognizes users who were erased; their rows are dropped.
        rejects_path: where bad rows go (CSV: line, column, value, reason); overwritten, and left only when
            there are any.
        mapping: `--map` arguments: see `store.ingest.columns`.
        reject_limit: the share of bad rows above which the whole file is refused (one bad row is always
            allowed unless it is 0): see `RejectLog.check_limit`.
        file_format: the format, where the file's name does not tell.
        progress: called after each batch with the bytes of the file read so far and the rows.

    Raises:
        IngestError: the file cannot be read, lacks a column or has too many bad rows; nothing was stored.
        PrivacyKeyError: there are tombstones of erased users, made under another key.
        KeyboardInterrupt: Ctrl-C; nothing was stored, and the run is marked as interrupted.
    """
    arguments = read_mapping(kind, mapping)
    if not source:
        raise IngestError("the source needs a name")
    if rejects_path.resolve() == path.resolve():
        raise IngestError("the rejects file must not be the file itself")
    with RejectLog(rejects_path) as rejects, _run(database, kind, path, source, _Tally(rejects, now)) as run:
        with open_reader(path, file_format) as reader:
            plan = arguments.plan(reader.header)
            parser = _parser(plan, source, known_types, now)
            _pump(
                run,
                reader.batches(plan),
                parser,
                _loader(run, kind),
                Erased(run.connection, hasher),
                reject_limit=reject_limit,
                progress=progress,
            )
            left_out = plan.left_out or reader.extra_columns
        run.tally.rejects.check_limit(run.tally.read, reject_limit, at_end=True)
        finish_run(run.connection, run.run_id, "done", run.tally.time, counts=run.tally.counts)
    return _report(run, left_out)


@dataclass(frozen=True)
class _Run:
    kind: Kind
    run_id: int
    connection: Connection
    tally: _Tally


@contextmanager
def _run(database: Database, kind: Kind, path: Path, source: str, tally: _Tally) -> Iterator[_Run]:
    """The transaction of a file; when it fails, that is noted after it has been rolled back."""
    run_id: int | None = None
    state, reason = "failed", ""
    try:
        with database.raw() as connection:
            wait_for_turn(connection)
            with database.raw() as other:
                run_id = start_run(other, kind, path.name, source, tally.now)
            yield _Run(kind, run_id, connection, tally)
    except BaseException as error:
        if run_id is None:
            raise
        if isinstance(error, KeyboardInterrupt):
            state, reason = "interrupted", "interrupted by the user; nothing was stored"
        else:
            reason = str(error) or type(error).__name__
        counts = (tally.read, 0, 0, tally.rejects.total)
        with database.raw() as other:
            finish_run(other, run_id, state, tally.time, counts=counts, reason=reason)
        raise


def _pump(
    run: _Run,
    batches: Iterator[RawBatch],
    parser: _Parser,
    loader: Loader,
    erased: Erased,
    *,
    reject_limit: float,
    progress: Progress | None,
) -> None:
    """Parses here while a thread loads the batch before; at most two batches are in memory."""
    tally = run.tally
    pending: Future[Loaded] | None = None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ingest") as pool:
        try:
            for raw in batches:
                good, bad = parser.parse(raw)
                tally.read += raw.rows_read
                tally.rejects.extend([*raw.rejects, *bad])
                kept = erased.drop(good)
                tally.dropped += len(good) - len(kept)
                if pending is not None:
                    tally.add(_wait(pending))
                tally.rejects.check_limit(tally.read, reject_limit, at_end=False)
                pending = pool.submit(loader.load, kept)
                if progress is not None:
                    progress(raw.bytes_done, tally.read)
            if pending is not None:
                tally.add(_wait(pending))
            pending = pool.submit(_finish, run, loader, erased)
            tally.add(_wait(pending))
        except BaseException:
            if pending is not None and not pending.done():
                run.connection.cancel_safe()  # or leaving the pool would wait for the statement
            raise


def _wait(pending: Future[Loaded]) -> Loaded:
    """Wait for the loading thread, but look up often: a Ctrl-C that lands on that thread wakes nobody here."""
    while not pending.done():
        wait([pending], timeout=_LOOK_UP_S)
    return pending.result()


def _finish(run: _Run, loader: Loader, erased: Erased) -> Loaded:
    loader.finish()
    late = erased.settle(run.kind, run.run_id)
    return Loaded(-late, 0, dropped=late)


def _parser(plan: Plan, source: str, known_types: Collection[str], now: datetime) -> _Parser:
    if plan.kind == "events":
        return EventParser(plan, source, known_types, now)
    return ItemParser(plan) if plan.kind == "items" else UserParser(plan)


def _loader(run: _Run, kind: Kind) -> Loader:
    if kind == "events":
        return EventLoader(run.connection, run.run_id)
    return ItemLoader(run.connection) if kind == "items" else UserLoader(run.connection)


def _report(run: _Run, left_out: tuple[str, ...]) -> IngestReport:
    read, stored, known, rejected = run.tally.counts
    return IngestReport(
        run_id=run.run_id,
        rows_read=read,
        rows_stored=stored,
        rows_known=known,
        rows_rejected=rejected,
        rows_dropped=run.tally.dropped,
        stubs_made=run.tally.stubs,
        users_made=run.tally.users,
        reasons=dict(run.tally.rejects.reasons.most_common()),
        left_out=left_out,
        seconds=run.tally.seconds,
    )
