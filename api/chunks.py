"""Chunks of jobs of profiles, as workers and `limner batch` work through them.

Whoever works may be killed at any time: what was begun is taken up by another attempt, and only the attempt that counts
may write (`store.jobs.fence`). A run whose quality falls below the bounds ends itself, and what it has put in place is
put back.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import structlog
from sqlmodel import Session

from agent.errors import AgentError
from agent.loading import index_claims
from agent.profiling import Report
from agent.unit import Clock
from api import tracing
from api.desk import Desk
from api.logs import without_content
from api.settings import BatchSettings, Settings
from prompts.loader import PromptError
from recommend.errors import RecommendError
from store import audit, factors, jobs, models, profiles
from store.database import Database, make_durable
from store.errors import StoreError
from store.jobs import Outcome, Tally
from store.privacy import hasher
from store.tables import JobRow

Observer = Callable[[int, Report], None]
"""Called with a chunk and its report, which is the same one from the chunk's begin to its end, for each user."""

_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0  # pause between two looks at what is still ours
_LOOK_SHARE = 0.05  # of the time for them
_PUT_BACK = 500
_STOPPED = "The worker was stopped."
_GONE = "The user is gone, or has withdrawn consent."
_KNOWN = (AgentError, PromptError, RecommendError, StoreError)


class Left(NamedTuple):
    """What is left of a chunk: how many users are in the queue again, why, and the error if that is why."""

    users: int
    reason: str | None = None
    error: Exception | None = None


class Chunks:
    """Works through chunks.

    Args:
        settings: All settings.
        opened: The database.
        desk: What profiles are written with.
        clock: Tells the time.
        tries: An item that could not be written for want of the model fails after so many attempts; None: it waits.
        observer: Sees how it goes.
    """

    def __init__(
        self,
        settings: Settings,
        opened: Database,
        desk: Desk,
        clock: Clock,
        *,
        tries: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._settings = settings
        self._opened = opened
        self._desk = desk
        self._clock = clock
        self._tries = tries
        self.observer = observer
        self._hasher = hasher(settings.home, settings.privacy_key)
        self._stopping = threading.Event()
        self._halted = asyncio.Event()
        self._log = structlog.get_logger("limner.chunks")

    @property
    def stopping(self) -> bool:
        """Whether no user is begun any more."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Begin no user any more; from any thread."""
        self._stopping.set()

    def halt(self) -> None:
        """Give up what is under way as well; from the event loop that writes."""
        self._stopping.set()
        self._halted.set()

    async def work(self, job_id: str, chunk: int) -> Left:
        """Write the profiles of a chunk as far as it goes, and end the job if that was all."""
        started = time.perf_counter()
        with self._opened.session() as session:
            taken = jobs.take(session, job_id, chunk, self._clock(), self._settings.worker.tries)
        report = Report()
        reason, error = await self._written(job_id, chunk, taken, report) if taken else (None, None)
        with self._opened.session() as session:
            bound = None if self.stopping else self._tries
            left = jobs.hand_back(session, job_id, taken, reason or "", self._clock(), bound)
            users = jobs.users_of(session, job_id, chunk)
        # Of a chunk whose worker was killed, the index may be all that is left to do.
        if report.written or len(taken) < len(users) or max(taken.values(), default=0) > 1:
            self._index(job_id, users)
        self._end(job_id)
        seconds = round(time.perf_counter() - started, 3)
        self._log.info("chunk", job_id=job_id, chunk=chunk, users=len(taken), left=left, seconds=seconds)
        return Left(left, reason, error)

    def _end(self, job_id: str) -> None:
        """End the job if nothing of it is left; of one that was stopped for its quality, all is put back before."""
        with self._opened.session() as session:
            job = jobs.get(session, job_id)
        while job.state == "failed" and job.finished_at is None:
            with self._opened.session() as session:
                users = profiles.put_back(session, job_id, _PUT_BACK)
            if not users:
                break
            self._index(job_id, users)
        with self._opened.session() as session:
            jobs.end_if_over(session, job_id, self._clock())

    async def _written(
        self, job_id: str, chunk: int, taken: Mapping[str, int], report: Report
    ) -> tuple[str | None, Exception | None]:
        """Write as far as it goes; returns why it went no further."""
        try:
            return await self._write(job_id, chunk, taken, report), None
        except Exception as error:  # noqa: BLE001 - even an error in the code must not keep a job from its end
            self._log.error("chunk_failed", job_id=job_id, **without_content(error))
            return reason_of(error), error

    async def _write(self, job_id: str, chunk: int, taken: Mapping[str, int], report: Report) -> str | None:
        if self.stopping:
            return _STOPPED
        with self._opened.session() as session:
            job = jobs.get(session, job_id)
        batch = job.total > jobs.CHUNK  # else someone waits for it
        made = await self._desk.profiler(job.request["writer"], force=job.request["force"], batch=batch)
        watch = _Watch(self, job, chunk, taken, report)
        made.fence, made.wanted = partial(self._fence, job, taken), watch.wanted
        made.around = partial(_traced, job, report)
        ended = False
        try:
            ended = await self._unless_halted(made.write(sorted(taken), watch.see, report))
        finally:
            gone = taken.keys() - watch.left_out - set(report.written) - set(report.unchanged) - set(report.failed)
            outcomes = dict.fromkeys(report.unchanged, Outcome("unchanged"))
            outcomes |= dict.fromkeys(gone if ended and not report.stopped_by else (), Outcome("failed", _GONE))
            with self._opened.session() as session:
                jobs.count(session, job_id, watch.tally)
                jobs.finish(session, job_id, taken, outcomes, self._clock())
        if self._stop_if_poor(job_id):
            return None
        if report.stopped_by:
            await self._desk.give_up_model()
            return report.stopped_by
        return _STOPPED if self.stopping else None

    def _fence(self, job: JobRow, taken: Mapping[str, int], session: Session, user_id: str, version: int) -> None:
        now = self._clock()
        if job.request["writer"] == "llm":
            make_durable(session)
        jobs.fence(session, job.job_id, user_id, taken[user_id], version, now)
        audit.note(session, now, job.created_by, "write_profile", self._hasher.subject(user_id), job.job_id)

    async def _unless_halted(self, writing: Coroutine[Any, Any, Report]) -> bool:
        """Write, but give up what is under way when the time to end it is over; tells whether it was not."""
        task, halted = asyncio.ensure_future(writing), asyncio.ensure_future(self._halted.wait())
        await asyncio.wait({task, halted}, return_when=asyncio.FIRST_COMPLETED)
        halted.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            return False
        await task
        return True

    def note_failure(self, job_id: str, user_id: str, attempt: int, reason: str) -> bool:
        """Note at once that a user has failed: should we be killed, the model is not asked again.

        Returns:
            Whether the user was still ours.
        """
        failed = {user_id: Outcome("failed", reason)}
        with self._opened.session() as session:
            make_durable(session)
            return jobs.finish(session, job_id, {user_id: attempt}, failed, self._clock()) > 0

    def still_mine(self, job_id: str, taken: Mapping[str, int]) -> frozenset[str]:
        """Return the users that are not another's by now, and not cancelled."""
        with self._opened.session() as session:
            return frozenset(jobs.still_mine(session, job_id, taken))

    def poor(self, tally: Tally) -> str | None:
        """Say what is wrong with the quality of a run, if it falls below the bounds."""
        return judge(tally, self._settings.batch)

    def _stop_if_poor(self, job_id: str) -> bool:
        with self._opened.session() as session:
            reason = self.poor(jobs.tally(session, job_id))
            return reason is not None and jobs.stop(session, job_id, reason, self._clock())

    def _index(self, job_id: str, users: Sequence[str]) -> None:
        """Give the claims of these users their vectors, and their factors if there is a model."""
        try:
            index_claims(self._opened, self._desk.embedder, users)
            with self._opened.session() as session:
                model = models.active_model(session)
            if model is not None and model.model_id is not None:
                factors.write_claim_factors(self._opened, model.model_id, users)
        except Exception as error:  # noqa: BLE001 - the next worker that starts makes up for it
            self._log.error("index_failed", job_id=job_id, **without_content(error))


class _Watch:
    """Watches over a chunk that is being written.

    Attributes:
        left_out: Users who were not begun.
    """

    def __init__(self, chunks: Chunks, job: JobRow, chunk: int, taken: Mapping[str, int], report: Report) -> None:
        self._chunks = chunks
        self._job_id = job.job_id
        self._before = Tally(**job.result.get("tally", {}))
        self._chunk = chunk
        self._taken = taken
        self._report = report
        self._mine, self._look_at = frozenset(taken), time.monotonic() + _LOOK_S
        self._noted: set[str] = set()
        self._failed = 0
        self._poor = False
        self.left_out: set[str] = set()

    @property
    def tally(self) -> Tally:
        """What the chunk adds to the quality of the run; users whom the model was out of reach for do not count."""
        report = self._report
        return Tally(len(report.written), self._failed, report.first_try, report.repaired, report.fallback)

    def wanted(self, user_id: str) -> bool:
        """Tell whether a user is to be begun: not if we stop, if the run is poor, or if the user is not ours."""
        self._poor = self._poor or self._chunks.poor(self._before.plus(self.tally)) is not None
        if self._chunks.stopping or self._poor or user_id not in self._still_mine():
            self.left_out.add(user_id)
            return False
        return True

    def _still_mine(self) -> frozenset[str]:
        if (began := time.monotonic()) >= self._look_at:
            self._mine = self._chunks.still_mine(self._job_id, self._taken)
            now = time.monotonic()
            self._look_at = now + min(max(_LOOK_S, (now - began) / _LOOK_SHARE), _LONGEST_LOOK_S)
        return self._mine

    def see(self, _more: int) -> None:
        """See that another user is done."""
        if not self._report.stopped_by:
            for user_id in self._report.failed.keys() - self._noted:
                reason, attempt = self._report.failed[user_id], self._taken[user_id]
                self._failed += self._chunks.note_failure(self._job_id, user_id, attempt, reason)
                self._noted.add(user_id)
        if self._chunks.observer is not None:
            self._chunks.observer(self._chunk, self._report)


@contextmanager
def _traced(job: JobRow, report: Report, user_id: str) -> Iterator[None]:
    """Have a span over the writing of one profile; it does not say whose."""
    about = {"limner.job_id": job.job_id, "limner.writer": job.request["writer"]}
    with tracing.span("write profile", "INTERNAL", about) as note:
        yield
        if user_id in report.failed:
            note.fail("failed")


def judge(tally: Tally, bounds: BatchSettings) -> str | None:
    """Say what is wrong with the quality of a run; None if it keeps within the bounds, or it is too early to tell."""
    users, texts = tally.written + tally.failed, tally.first_try + tally.repaired + tally.fallback
    if users < bounds.judge_after:
        return None
    for count, total, bound, name, what in (
        (tally.failed, users, bounds.max_failed, "MAX_FAILED", "users failed"),
        (tally.fallback, texts, bounds.max_fallback, "MAX_FALLBACK", "texts of the model were refused"),
    ):
        if count > bound * total:
            return (
                f"{count:,} of {total:,} {what}, and LIMNER_BATCH__{name} allows {bound:.0%}. The run was stopped, and "
                "the profiles that were active before are active again."
            )
    return None


def reason_of(error: Exception) -> str:
    """Say why something failed, without words that may name a person."""
    if isinstance(error, _KNOWN):
        return str(error)
    return f"An error in Limner: {type(error).__name__}. The worker's log tells more."
