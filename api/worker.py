"""The worker: it takes jobs up, writes profiles, trains models.

The event loop that talks to the queue does nothing else, so that signs of life go out while work is done: profiles are
written in a thread with an event loop of its own, models trained in another.

A worker may be killed at any time. What it was at is taken up by others (`api.queue`), and should it come back after
all, its writes are refused (`store.jobs.fence`).
"""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from typing import Any, TypeVar

import psycopg
import structlog
from procrastinate.exceptions import ProcrastinateException
from sqlmodel import Session

from agent.chat import OpenAIChat
from agent.contract import Writer
from agent.errors import AgentError
from agent.loading import index_claims, prepare_catalogue
from agent.profiling import Profiler, Report
from agent.unit import Clock, ModelInfo
from agent.verify import Repetition
from agent.writer import LlmWriter
from api import runtime, training
from api.console import Advance
from api.logs import without_content
from api.queue import Again, make_app
from api.settings import Settings
from prompts.loader import PromptError
from recommend.errors import RecommendError
from recommend.parameters import Parameters
from store import audit, factors, jobs, models, revisions
from store.database import Database
from store.errors import StoreError
from store.jobs import Outcome
from store.privacy import hasher
from store.tables import JobRow

Result = TypeVar("Result")

_LONGEST_PAUSE_S = 600.0
_REFRESH_SHARE = 0.1  # of the time goes into reading the catalogue anew, at most
_LOST = "The worker lost the database. Check that the server runs, and start it again."
_GONE = "The user is gone, or has withdrawn consent."
_KNOWN = (AgentError, PromptError, RecommendError, StoreError)


class _Stopped(Exception):  # noqa: N818 - not an error
    """The worker was asked to stop."""


class Worker:
    """Takes jobs up.

    Args:
        settings: All settings.
        opened: The database.
        clock: Tells the time.
    """

    def __init__(self, settings: Settings, opened: Database, clock: Clock = runtime.now) -> None:
        self._settings = settings
        self._opened = opened
        self._clock = clock
        self._hasher = hasher(settings.home, settings.privacy_key)
        self._desk = _Desk(settings, opened, clock)
        self._log = structlog.get_logger("limner.worker")
        self._stopping = threading.Event()
        self._halted = asyncio.Event()
        self._main: asyncio.AbstractEventLoop | None = None
        self._running: asyncio.Task[None] | None = None

    async def run(self, concurrency: int = 1) -> None:
        """Take jobs up until `stop` is called.

        Args:
            concurrency: How many chunks are worked on at once.

        Raises:
            ModelError: The embedder cannot be loaded.
            StoreError: The database cannot be reached any more.
        """
        settings = self._settings.worker
        self._main = asyncio.get_running_loop()
        with _loop_in_thread() as self._writing:
            try:
                await self._in_writing(self._desk.prepare())
                app = make_app(self._opened, self, settings)
                async with app.open_async():
                    self._running = asyncio.create_task(
                        app.run_worker_async(
                            concurrency=concurrency,
                            delete_jobs="successful",
                            update_heartbeat_interval=settings.heartbeat_s,
                            stalled_worker_timeout=settings.stalled_s,
                            install_signal_handlers=False,
                        )
                    )
                    await self._until_stopped(self._running)
            except (ProcrastinateException, psycopg.Error) as error:
                raise StoreError(_LOST) from error
            finally:
                self._main = None
                await self._in_writing(self._desk.close())

    def stop(self) -> None:
        """Ask the worker to stop, from any thread: no user is begun any more, those under way get a while to end."""
        self._stopping.set()
        if self._main is not None:
            self._main.call_soon_threadsafe(self._wind_up)

    def _wind_up(self) -> None:
        if self._running is not None and not self._running.cancelling():
            self._running.cancel()  # procrastinate waits for its tasks
            grace = self._settings.worker.grace_s
            self._writing.call_soon_threadsafe(self._writing.call_later, grace, self._halted.set)

    async def _until_stopped(self, running: asyncio.Task[None]) -> None:
        if self._stopping.is_set():
            self._wind_up()
        try:
            await running
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
            return
        raise StoreError(_LOST)  # procrastinate stops when it cannot send signs of life

    async def _in_writing(self, what: Coroutine[Any, Any, Result]) -> Result:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(what, self._writing))

    async def profiles(self, job_id: str, chunk: int, tries: int) -> None:
        """Write the profiles of a chunk.

        Raises:
            Again: Some are left: the model is out of reach, or the worker stops.
        """
        with self._discreet(job_id):
            await self._in_writing(self._chunk(job_id, chunk, tries))

    async def train(self, job_id: str, tries: int) -> None:
        """Train a model.

        Raises:
            Again: The worker stops.
        """
        del tries
        with self._discreet(job_id):
            await asyncio.to_thread(self._train, job_id)

    @contextmanager
    def _discreet(self, job_id: str) -> Iterator[None]:
        """Log errors without their words, which may name a person; the queue would log all of them."""
        try:
            yield
        except Again:
            raise
        except Exception as error:  # noqa: BLE001 - the queue is told so, and goes on
            self._log.error("task_failed", job_id=job_id, **without_content(error))
            raise RuntimeError("The task failed; the line before this one says where.") from None

    async def _chunk(self, job_id: str, chunk: int, tries: int) -> None:
        started, bound = time.perf_counter(), self._settings.worker.tries
        with self._opened.session() as session:
            taken = jobs.take(session, job_id, chunk, self._clock(), bound)
        reason = await self._written(job_id, taken) if taken else None
        stopped = self._stopping.is_set()
        with self._opened.session() as session:
            left = jobs.hand_back(session, job_id, taken, reason or "", self._clock(), None if stopped else bound)
            users = jobs.users_of(session, job_id, chunk)
        # Whatever came of it: of a chunk whose worker was killed, this may be all that is left to do.
        self._index(job_id, users)
        with self._opened.session() as session:
            jobs.end_if_over(session, job_id, self._clock())
        seconds = round(time.perf_counter() - started, 3)
        self._log.info("chunk", job_id=job_id, chunk=chunk, users=len(taken), left=left, seconds=seconds)
        if left:
            pause = min(self._settings.worker.pause_s * 2.0 ** min(tries, 10), _LONGEST_PAUSE_S)
            raise Again(0.0 if stopped else pause)

    async def _written(self, job_id: str, taken: Mapping[str, int]) -> str | None:
        """Write as far as it goes; returns why it went no further."""
        try:
            return await self._write(job_id, taken)
        except _Stopped:
            return "The worker was stopped."
        except Exception as error:  # noqa: BLE001 - even an error in the code must not keep a job from its end
            self._log.error("chunk_failed", job_id=job_id, **without_content(error))
            return _reason(error)

    async def _write(self, job_id: str, taken: Mapping[str, int]) -> str | None:
        with self._opened.session() as session:
            job = jobs.get(session, job_id)
        made = await self._desk.profiler(job.request["writer"], force=job.request["force"])
        made.fence = partial(self._fence, job, taken)
        left = sorted(taken)
        while left:
            if self._stopping.is_set():
                raise _Stopped
            with self._opened.session() as session:
                left = jobs.still_mine(session, job_id, {user: taken[user] for user in left})
            users, left = left[: made.users_at_once], left[made.users_at_once :]
            if users:
                report = await self._unless_halted(made.write(users))
                self._finish(job_id, {user: taken[user] for user in users}, report)
                if report.stopped_by:
                    await self._desk.give_up_model()
                    return report.stopped_by
        return None

    def _fence(self, job: JobRow, taken: Mapping[str, int], session: Session, user_id: str, version: int) -> None:
        now = self._clock()
        jobs.fence(session, job.job_id, user_id, taken[user_id], version, now)
        audit.note(session, now, job.created_by, "write_profile", self._hasher.subject(user_id), job.job_id)

    async def _unless_halted(self, writing: Coroutine[Any, Any, Report]) -> Report:
        """Write, but give up what is under way when the time to end it is over."""
        task, halted = asyncio.ensure_future(writing), asyncio.ensure_future(self._halted.wait())
        await asyncio.wait({task, halted}, return_when=asyncio.FIRST_COMPLETED)
        halted.cancel()
        if task.done():
            return await task
        task.cancel()
        await asyncio.wait({task})
        raise _Stopped

    def _finish(self, job_id: str, users: Mapping[str, int], report: Report) -> None:
        """Note what came of these users; those whom the model could not be reached for are left as they are."""
        outcomes: dict[str, Outcome] = {user: Outcome("unchanged") for user in report.unchanged}
        if not report.stopped_by:
            outcomes |= {user: Outcome("failed", reason) for user, reason in report.failed.items()}
            missing = users.keys() - outcomes.keys() - set(report.written)
            outcomes |= {user: Outcome("failed", _GONE) for user in missing}
        with self._opened.session() as session:
            jobs.finish(session, job_id, users, outcomes, self._clock())

    def _index(self, job_id: str, users: list[str]) -> None:
        """Give the claims of these users their vectors, and their factors if there is a model."""
        try:
            index_claims(self._opened, self._desk.embedder, users)
            with self._opened.session() as session:
                model = models.active_model(session)
            if model is not None and model.model_id is not None:
                factors.write_claim_factors(self._opened, model.model_id, users)
        except Exception as error:  # noqa: BLE001 - the next worker that starts makes up for it
            self._log.error("index_failed", job_id=job_id, **without_content(error))

    def _train(self, job_id: str) -> None:
        with self._opened.session() as session:
            attempt = jobs.take_training(session, job_id, self._clock(), self._settings.worker.tries)
            defaults = bool(jobs.get(session, job_id).request["defaults"]) if attempt else False
        if attempt is None:
            return
        result: dict[str, Any] | None = None
        reason: str | None = None
        try:
            parameters = Parameters() if defaults else training.known_parameters(self._opened)
            fence = partial(jobs.fence_training, job_id=job_id, attempt=attempt)
            made = training.train_model(self._opened, self._settings, parameters, self._step, fence)
            result = {"model_id": made.model_id, "seconds": made.seconds}
        except _Stopped:
            raise Again(0.0) from None
        except Exception as error:  # noqa: BLE001 - even an error in the code must not keep a job from its end
            self._log.error("training_failed", job_id=job_id, **without_content(error))
            reason = _reason(error)
        with self._opened.session() as session:
            jobs.end_training(session, job_id, attempt, self._clock(), result, reason)
        self._log.info("training", job_id=job_id, result=result)

    @contextmanager
    def _step(self, title: str) -> Iterator[Advance]:
        del title

        def advance(done: int, total: int = 0, title: str | None = None) -> None:
            del done, total, title
            if self._stopping.is_set():
                raise _Stopped

        yield advance


class _Desk:
    """What profiles are written with. All of it belongs to the thread that writes.

    Args:
        settings: All settings.
        opened: The database.
        clock: Tells the time.
    """

    def __init__(self, settings: Settings, opened: Database, clock: Clock) -> None:
        self._settings = settings
        self._opened = opened
        self._clock = clock
        self._model: tuple[OpenAIChat, ModelInfo] | None = None
        self._serving = ExitStack()
        self._starting = asyncio.Lock()

    async def prepare(self) -> None:
        """Load the embedder, read the catalogue, and give claims the vectors that they lack.

        Raises:
            ModelError: The embedder cannot be loaded.
        """
        self.embedder = runtime.embedder(self._settings)
        self._read_catalogue(self._revision())
        index_claims(self._opened, self.embedder)  # what killed workers have left out

    def _revision(self) -> int:
        with self._opened.session() as session:
            return revisions.value(session, "catalogue")

    def _read_catalogue(self, revision: int) -> None:
        started = time.monotonic()
        self._base = Profiler(
            database=self._opened,
            embedder=self.embedder,
            catalogue=prepare_catalogue(self._opened, self.embedder),
            evidence=self._settings.evidence_settings,
            language=self._settings.language,
            clock=self._clock,
            users_at_once=self._settings.llm.users_at_once,
        )
        now = time.monotonic()
        self._read, self._fresh_until = revision, now + (now - started) / _REFRESH_SHARE

    async def profiler(self, writer: Writer, *, force: bool) -> Profiler:
        """Return a profiler over the catalogue as it is now, or was a while ago if it is large and changes often.

        Raises:
            ModelError: The language model cannot be started.
        """
        revision = self._revision()
        if revision != self._read and time.monotonic() >= self._fresh_until:
            self._read_catalogue(revision)
        made = copy(self._base)
        made.force = force
        if writer == "llm":
            chat, info = await self._language_model()
            asked = self._settings.llm.writer
            made.llm = (LlmWriter(chat, Repetition(self.embedder.embed), made.language, asked), info)
        return made

    async def _language_model(self) -> tuple[OpenAIChat, ModelInfo]:
        async with self._starting:
            if self._model is None:
                started = runtime.language_model(self._settings)
                self._model = await asyncio.to_thread(self._serving.enter_context, started)
            return self._model

    async def give_up_model(self) -> None:
        """Give a model back that we have started ourselves and that does not answer: the next try starts it anew."""
        if not self._settings.llm.base_url:
            await self.close()

    async def close(self) -> None:
        """Close the connections to the model, and give its server back."""
        async with self._starting:
            if self._model is not None:
                await self._model[0].aclose()
                self._model = None
            await asyncio.to_thread(self._serving.close)


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="writing", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _reason(error: Exception) -> str:
    if isinstance(error, _KNOWN):
        return str(error)
    return f"An error in Limner: {type(error).__name__}. The worker's log tells more."
