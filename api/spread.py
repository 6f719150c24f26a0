"""Runs past one machine: Ray Data hands the chunks of a job to workers, here or on a cluster.

A worker does with a chunk what `limner batch run` and `limner worker` do with it (`api.chunks`): it takes the chunk up,
writes what is left of it, and only the attempt that counts may write. So a chunk that was handed out twice, since a
node was lost in the middle, does no harm; Ray starts the worker anew elsewhere.

All nodes need Limner, the database and the language model within reach: LIMNER_DATABASE_URL and LIMNER_LLM__BASE_URL.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.profiling import Report
from api import runtime
from api.batch import Ended, Gauge, OutOfReachError, outcome
from api.chunks import Chunks
from api.desk import Desk
from api.settings import Settings, SettingsError
from store import jobs, runs
from store.database import Database

Numbers = dict[str, npt.NDArray[Any]]

_MISSING = "Ray is not installed. Install Limner with its extra: pip install 'limner[ray]'."


def resume(
    settings: Settings,
    opened: Database,
    job_id: str,
    changed: Callable[[Gauge], None],
    *,
    address: str | None = None,
    workers: int | None = None,
) -> Ended:
    """Work through what is left of a run on a Ray cluster.

    Args:
        settings: All settings; the workers have the same.
        opened: The database.
        job_id: Of a job of profiles.
        changed: Called whenever a chunk is done.
        address: Of the cluster, as `ray.init` takes it; None: Ray is started on this machine, for this run.
        workers: How many; one for each node unless said.

    Returns:
        How it ended; one that was interrupted can be resumed.

    Raises:
        NotFoundError: There is no such job.
        ConflictError: Another process is at work on it.
        OutOfReachError: The model is out of reach for a worker; it can be resumed.
        SettingsError: Ray is not installed, or the nodes cannot reach the database.
    """
    with runs.claim(opened, job_id):
        with opened.session() as session:
            job = runs.take_over(session, job_id, settings.worker.stalled_s)
            counts = jobs.progress(session, job_id).counts
            chunks = jobs.chunks(session, job_id) or [0]
        if job.finished_at is None:
            over = sum(counts.get(state, 0) for state in ("written", "unchanged", "failed"))
            gauge = Gauge(over, counts.get("failed", 0), changed)
            try:
                _work(settings, opened, job_id, chunks, gauge, address, workers)
            except KeyboardInterrupt:
                return Ended.INTERRUPTED
    return outcome(opened, job_id)


def _work(
    settings: Settings,
    opened: Database,
    job_id: str,
    chunks: list[int],
    gauge: Gauge,
    address: str | None,
    workers: int | None,
) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes out
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(_MISSING) from error
    if address is not None and settings.database_url is None:
        raise SettingsError("The nodes of a cluster cannot reach the embedded database. Set LIMNER_DATABASE_URL.")
    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address, log_to_driver=False, include_dashboard=None if address else False)
    try:
        alive = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in alive)
        ray.data.DataContext.get_current().enable_progress_bars = False
        done = ray.data.from_items([{"chunk": chunk} for chunk in chunks], override_num_blocks=len(chunks)).map_batches(
            Worker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers or max(nodes, 1), len(chunks))),
            fn_constructor_kwargs={"settings": settings, "url": opened.url, "job_id": job_id},
            num_cpus=1,
        )
        reasons: list[str] = []
        for row in done.iter_rows():
            gauge.add(int(row["over"]), int(row["failed"]), int(row["tokens"]))
            if row["left"]:
                reasons.append(str(row["reason"]))
    finally:
        if ours:
            ray.shutdown()
    if reasons:
        raise OutOfReachError(reasons[0])


class Worker:
    """Works through chunks, one after another, in a process of its own.

    Args:
        settings: All settings.
        url: Of the database.
        job_id: Of the job.
    """

    def __init__(self, settings: Settings, url: str, job_id: str) -> None:
        self._job_id = job_id
        self._reports: dict[int, Report] = {}
        self._loop = asyncio.new_event_loop()
        self._opened = Database(url)
        desk = Desk(settings, self._opened, runtime.now)
        desk.prepare()
        self._chunks = Chunks(settings, self._opened, desk, runtime.now, observer=self._reports.__setitem__)

    def __call__(self, batch: Numbers) -> Numbers:
        """Write the profiles of chunks.

        Args:
            batch: `chunk`, `(n,)`.

        Returns:
            For each chunk, `(n,)`: users who are `over`, of these `failed`, those who are `left` for the reason
            `reason`, and `tokens` read and written.
        """
        rows = [self._row(int(chunk)) for chunk in batch["chunk"]]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _row(self, chunk: int) -> dict[str, Any]:
        left = self._loop.run_until_complete(self._chunks.work(self._job_id, chunk))
        if left.error is not None:
            raise left.error
        report = self._reports.pop(chunk, Report())
        return {
            "chunk": chunk,
            "over": len(report.written) + len(report.unchanged) + len(report.failed),
            "failed": len(report.failed),
            "left": left.users,
            "reason": left.reason or "",
            "tokens": report.tokens_in + report.tokens_out,
        }
