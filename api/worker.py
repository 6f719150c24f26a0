"""The worker: it takes jobs up, writes profiles, trains models.

The event loop that talks to the queue does nothing else, so that signs of life go out while work is done: profiles are
written in a thread with an event loop of its own, models trained in another.

A worker may be killed at any time. What it was at is taken up by others (`api.queue`), and should it come back after
all, its writes are refused (`store.jobs.fence`).
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import psycopg
import structlog
from procrastinate.exceptions import ProcrastinateException

from agent.unit import Clock
from api import runtime, tracing, training
from api.chunks import Chunks, reason_of
from api.console import Advance
from api.desk import Desk
from api.logs import without_content
from api.queue import Again, make_app
from api.settings import Settings
from recommend.parameters import Parameters
from store import jobs, trainings
from store.database import Database
from store.errors import StoreError

Result = TypeVar("Result")

_LONGEST_PAUSE_S = 600.0
_LOST = "The worker lost the database. Check that the server runs, and start it again."


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
        self._desk = Desk(settings, opened, clock)
        self._chunks = Chunks(settings, opened, self._desk, clock, tries=settings.worker.tries)
        self._log = structlog.get_logger("limner.worker")
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
                await self._in_writing(self._prepare())
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

    async def _prepare(self) -> None:
        self._desk.prepare()

    def stop(self) -> None:
        """Ask the worker to stop, from any thread: no user is begun any more, those under way get a while to end."""
        self._chunks.stop()
        if self._main is not None:
            self._main.call_soon_threadsafe(self._wind_up)

    def _wind_up(self) -> None:
        if self._running is not None and not self._running.cancelling():
            self._running.cancel()  # procrastinate waits for its tasks
            grace = self._settings.worker.grace_s
            self._writing.call_soon_threadsafe(self._writing.call_later, grace, self._chunks.halt)

    async def _until_stopped(self, running: asyncio.Task[None]) -> None:
        if self._chunks.stopping:
            self._wind_up()
        try:
            await running
        except asyncio.CancelledError:
            if not self._chunks.stopping:
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
        with self._discreet(job_id), tracing.span("train", "CONSUMER", {"limner.job_id": job_id}) as note:
            await asyncio.to_thread(self._train, job_id, note)

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
        about: tracing.Attributes = {"limner.job_id": job_id, "limner.chunk": chunk}
        with tracing.span("profiles", "CONSUMER", about) as note:
            left = await self._chunks.work(job_id, chunk)
            note.add({"limner.left": left.users})
        if left.users:
            pause = min(self._settings.worker.pause_s * 2.0 ** min(tries, 10), _LONGEST_PAUSE_S)
            raise Again(0.0 if self._chunks.stopping else pause)

    def _train(self, job_id: str, note: tracing.Note) -> None:
        with self._opened.session() as session:
            attempt = trainings.take(session, job_id, self._clock(), self._settings.worker.tries)
            defaults = bool(jobs.get(session, job_id).request["defaults"]) if attempt else False
        if attempt is None:
            return
        result: dict[str, Any] | None = None
        reason: str | None = None
        try:
            parameters = Parameters() if defaults else training.known_parameters(self._opened)
            fence = partial(trainings.fence, job_id=job_id, attempt=attempt)
            made = training.train_model(self._opened, self._settings, parameters, self._step, fence)
            result = {"model_id": made.model_id, "seconds": made.seconds}
        except _Stopped:
            raise Again(0.0) from None
        except Exception as error:  # noqa: BLE001 - even an error in the code must not keep a job from its end
            self._log.error("training_failed", job_id=job_id, **without_content(error))
            reason = reason_of(error)
            note.fail(type(error).__name__)
        with self._opened.session() as session:
            trainings.end(session, job_id, attempt, self._clock(), result, reason)
        self._log.info("training", job_id=job_id, result=result)

    @contextmanager
    def _step(self, title: str) -> Iterator[Advance]:
        del title

        def advance(done: int, total: int = 0, title: str | None = None) -> None:
            del done, total, title
            if self._chunks.stopping:
                raise _Stopped

        yield advance


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
