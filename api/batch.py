"""Runs over many users in the command's own process: the same jobs, items and chunks as the workers have.

A run that ends early, however it does, goes on with `limner batch resume`.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Literal

import psycopg
from sqlalchemy.exc import InterfaceError, OperationalError

from agent import planning
from agent.contract import Writer
from agent.errors import ModelError
from agent.profiling import Report
from api import runtime
from api.chunks import Chunks
from api.desk import Desk
from api.queue import Whose, asked_of, enqueue_again
from api.settings import Settings
from store import jobs, runs
from store.database import Database
from store.errors import ConflictError, ServerError, UnreachableError
from store.selection import Selection
from store.tables import JobRow

Engine = Literal["server", "offline", "ray"]

CHUNK = 256
"""Users whom a run takes up at once."""
_LANES = 2  # while the last users of a chunk are being written, the next chunk has begun

OUT_OF_REACH = (ModelError, ServerError, UnreachableError, psycopg.OperationalError, OperationalError, InterfaceError)
"""Errors after which a run goes on once the model or the database is back."""


class Ended(IntEnum):
    """How a run ended: the exit code of the command."""

    DONE = 0
    SOME_FAILED = 3
    POOR = 4
    OUT_OF_REACH = 5
    INTERRUPTED = 130


class OutOfReachError(Exception):
    """The language model is out of reach; the run can be resumed."""


class Gauge:
    """Says how far a run is: what was over before, what is done since, and what the model has read and written."""

    def __init__(self, over: int, failed: int, changed: Callable[["Gauge"], None]) -> None:
        self._before = over
        self._over, self._failed, self._tokens = over, failed, 0
        self._live: dict[int, Report] = {}
        self._changed = changed
        self._began = time.monotonic()
        changed(self)

    @property
    def over(self) -> int:
        """Users who are over: written, unchanged or failed."""
        return self._over + sum(len(r.written) + len(r.unchanged) + len(r.failed) for r in self._live.values())

    @property
    def failed(self) -> int:
        """Users who failed."""
        return self._failed + sum(len(r.failed) for r in self._live.values())

    @property
    def users_per_s(self) -> float:
        """Users a second, since this process began."""
        return (self.over - self._before) / self._seconds

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second, read and written, of the profiles that are stored."""
        return (self._tokens + sum(r.tokens_in + r.tokens_out for r in self._live.values())) / self._seconds

    @property
    def _seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-3)

    def see(self, chunk: int, report: Report) -> None:
        """See that another user of a chunk is done."""
        self._live[chunk] = report
        self._changed(self)

    def close(self, chunk: int) -> None:
        """Keep of a chunk that is over no more than numbers."""
        if (report := self._live.pop(chunk, None)) is not None:
            over = len(report.written) + len(report.unchanged) + len(report.failed)
            self.add(over, len(report.failed), report.tokens_in + report.tokens_out)

    def add(self, over: int, failed: int, tokens: int) -> None:
        """Count users who are over, those of them who failed, and what the model has read and written for them."""
        self._over += over
        self._failed += failed
        self._tokens += tokens
        self._changed(self)


def create(
    opened: Database, users: Whose, writer: Writer, *, force: bool, asked: Mapping[str, Any] | None = None
) -> JobRow:
    """Store a run that this process, or another command, will work through.

    Args:
        opened: The database.
        users: For whom.
        writer: Who puts it into words.
        force: Whether to write where nothing has changed.
        asked: What the job shows of whose they are; see `api.queue.asked_of`.

    Raises:
        NotFoundError: A user is not in the store, or has not consented.
    """
    request = {**(asked or asked_of(users)), "writer": writer, "force": force, "runner": runs.COMMAND}
    with opened.session() as session:
        return jobs.create(session, "profiles", request, runtime.now(), None, users, CHUNK)


def whose(
    settings: Settings, opened: Database, chosen: Selection, writer: Writer, *, policy: bool
) -> tuple[Whose, dict[str, Any]]:
    """Return for whom a run is, and what its job shows of that.

    Args:
        settings: All settings.
        opened: The database.
        chosen: The selection.
        writer: Who puts it into words.
        policy: Whether those are left as they are of whom too little is new.
    """
    asked = asked_of(chosen) | ({"policy": True} if policy else {})
    if not (policy or chosen.drifted):
        return chosen, asked
    made_by = runtime.recipe(settings, writer, opened)
    return planning.chosen(opened, chosen, settings.batch.policy, made_by, runtime.now()), asked


def adapted(settings: Settings, concurrency: int | None, engine: Engine | None) -> Settings:
    """Return the settings with this bound on calls under way at once, and this engine, where they are given.

    The workers of a Ray cluster use the engine of the settings.
    """
    batch = {} if concurrency is None else {"concurrency": concurrency}
    llm = {} if engine is None or engine == "ray" else {"engine": engine}
    parts = {"batch": settings.batch.model_copy(update=batch), "llm": settings.llm.model_copy(update=llm)}
    return settings.model_copy(update=parts)


def resume(settings: Settings, opened: Database, job_id: str, changed: Callable[[Gauge], None]) -> Ended:
    """Work through what is left of a run, in this process.

    Args:
        settings: All settings.
        opened: The database.
        job_id: Of a job of profiles.
        changed: Called whenever a user is done.

    Returns:
        How it ended; one that was interrupted can be resumed.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: Another process is at work on it.
        OutOfReachError: The model is out of reach; it can be resumed.
        StoreError: The database is out of reach; likewise.
    """
    with runs.claim(opened, job_id):
        with opened.session() as session:
            job = runs.take_over(session, job_id, settings.worker.stalled_s)
        if job.finished_at is None:
            desk = Desk(settings, opened, runtime.now)
            try:
                desk.prepare()
                if not asyncio.run(_Run(settings, opened, desk, job_id, changed).work()):
                    return Ended.INTERRUPTED
            except KeyboardInterrupt:  # before the first user was begun
                return Ended.INTERRUPTED
    return outcome(opened, job_id)


def outcome(opened: Database, job_id: str) -> Ended:
    """Return how a run ended; `INTERRUPTED` if it is not over or was cancelled."""
    with opened.session() as session:
        job = jobs.get(session, job_id)
    if job.finished_at is None or job.state == "cancelled":
        return Ended.INTERRUPTED
    if job.result.get("stopped"):
        return Ended.POOR
    return Ended.SOME_FAILED if job.result["counts"].get("failed") else Ended.DONE


def hand_over(opened: Database, job_id: str) -> None:
    """Leave what is left of a run to the workers; one that they have already stays theirs.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: Another process is at work on it, or it is over.
    """
    with runs.claim(opened, job_id), opened.session() as session:
        job = jobs.get(session, job_id, lock=True)
        if job.finished_at is not None:
            raise ConflictError(f"The job {job_id} is {job.state}: there is nothing left to resume.")
        if (chunks := runs.hand_over(session, job_id)) is not None:
            enqueue_again(session, job_id, chunks)


def cancel(opened: Database, job_id: str) -> bool:
    """Cancel a run: users under way are finished first, unless the process that was at them is gone.

    Returns:
        Whether it is over.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: It is over already.
    """
    with opened.session() as session:
        job = jobs.cancel(session, job_id, runtime.now())
    if job.request.get("runner") == runs.COMMAND and job.finished_at is None:
        try:
            with runs.claim(opened, job_id), opened.session() as session:
                for chunk in jobs.chunks(session, job_id):
                    jobs.take(session, job_id, chunk, runtime.now(), 1)  # of a cancelled job it cancels them
                jobs.end_if_over(session, job_id, runtime.now())
        except ConflictError:  # a living process is at it, and will end it
            return False
    with opened.session() as session:
        return jobs.get(session, job_id).finished_at is not None


class _Run:
    """One process's work on a run."""

    def __init__(
        self, settings: Settings, opened: Database, desk: Desk, job_id: str, changed: Callable[[Gauge], None]
    ) -> None:
        self._opened = opened
        self._desk = desk
        self._job_id = job_id
        with opened.session() as session:
            counts = jobs.progress(session, job_id).counts
            self._left = iter(jobs.chunks(session, job_id) or [0])
        over = sum(counts.get(state, 0) for state in ("written", "unchanged", "failed"))
        self._gauge = Gauge(over, counts.get("failed", 0), changed)
        self._chunks = Chunks(settings, opened, desk, runtime.now, observer=self._gauge.see)
        self._grace_s = settings.worker.grace_s
        self._interrupted = False
        self._error: Exception | None = None

    async def work(self) -> bool:
        """Work until nothing is left; tells whether it was not interrupted.

        Raises:
            OutOfReachError: The model is out of reach.
            Exception: Whatever else has gone wrong with a chunk.
        """
        with self._interruptible():
            try:
                await asyncio.gather(*(self._lane() for _ in range(_LANES)))
            finally:
                await self._desk.close()
        if self._error is not None:
            raise self._error
        return not self._interrupted

    async def _lane(self) -> None:
        for chunk in self._left:
            try:
                if self._chunks.stopping or self._is_over():
                    return
                left = await self._chunks.work(self._job_id, chunk)
            except Exception as error:  # noqa: BLE001 - the other lane is to end in good order
                self._fail(error)
                return
            self._gauge.close(chunk)
            if left.error is not None or (left.users and not self._chunks.stopping):
                self._fail(left.error or OutOfReachError(left.reason or ""))

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._chunks.stop()

    def _is_over(self) -> bool:
        with self._opened.session() as session:
            return jobs.get(session, self._job_id).finished_at is not None

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let users under way have a while when someone interrupts us; no more than that at the second time."""
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

        def interrupt() -> None:
            if self._interrupted:
                self._chunks.halt()
                return
            self._interrupted = True
            self._chunks.stop()
            loop.call_later(self._grace_s, self._chunks.halt)

        for number in numbers:
            loop.add_signal_handler(number, interrupt)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
