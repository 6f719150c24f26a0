"""Figures of language models, profiles, jobs and the queue for Prometheus, read from the database.

A scrape reads them at most every ten seconds and within a few seconds, or tells those that were read before;
`store.figures` says how they stay cheap. They are of the whole installation: all servers tell the same, so take the
`max` of them, never the `sum`. What counts upwards begins with 0 when a server starts, and comes one look late.

Approximate are: jobs (the latest 10,000), items (up to 10,000 of a job in each state, which then means so many or
more), tasks (up to 100,000 likewise), and the age of profiles (a sample).
"""

import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from store import figures
from store.database import Database
from store.figures import Figures

Totals = dict[tuple[str, ...], float]

_FRESH_S = 10.0


class DatabaseFigures(Collector):
    """Collects what the database knows. It never raises: `limner_figures_up` says whether the last look went well."""

    def __init__(self, database: Callable[[], Database], fresh_s: float = _FRESH_S) -> None:
        self._database = database
        self._fresh_s = fresh_s
        self._looking = threading.Lock()
        self._looked = float("-inf")
        self._found: Figures | None = None
        self._up = False
        self._calls: Totals = {}
        self._tokens: Totals = {}
        self._seconds: Totals = {}
        self._profiles: Totals = {}
        self._texts: Totals = {}
        self._log = structlog.get_logger("limner.metrics")

    def collect(self) -> Iterator[Metric]:
        """Yield all figures."""
        if self._looking.acquire(blocking=False):  # else another scrape is at it
            try:
                self._look()
            finally:
                self._looking.release()
        yield GaugeMetricFamily("limner_figures_up", "Whether these figures could be read at the last look", self._up)
        yield from self._totals()
        if self._found is not None:
            yield from _of_jobs(self._found)

    def _look(self) -> None:
        if time.monotonic() - self._looked < self._fresh_s:
            return
        try:
            found = figures.look(self._database(), None if self._found is None else self._found.place)
        except psycopg.Error as error:
            self._up = False
            self._log.warning("figures_not_read", error=type(error).__name__)
        else:
            self._add(found)
            self._found, self._up = found, True
        self._looked = time.monotonic()

    def _add(self, found: Figures) -> None:
        for call in found.calls:
            key = (call.role, call.outcome)
            _count(self._calls, key, call.number)
            _count(self._tokens, (*key, "in"), call.tokens_in)
            _count(self._tokens, (*key, "out"), call.tokens_out)
            _count(self._seconds, key, call.seconds)
        for row in found.written:
            _count(self._profiles, (row.writer,), row.number)
            for by in ("first_try", "repaired", "fallback"):
                _count(self._texts, (row.writer, by), getattr(row, by))

    def _totals(self) -> Iterator[Metric]:
        of_call = ["role", "outcome"]
        yield _counter("limner_llm_calls", "Calls of language models", of_call, self._calls)
        yield _counter("limner_llm_tokens", "Tokens read and written", [*of_call, "direction"], self._tokens)
        yield _counter("limner_llm_seconds", "Seconds that the calls took", of_call, self._seconds)
        yield _counter("limner_profiles_written", "Versions of profiles", ["writer"], self._profiles)
        yield _counter("limner_profile_texts", "Texts of claims: how they came about", ["writer", "by"], self._texts)


def _count(totals: Totals, key: tuple[str, ...], more: float) -> None:
    totals[key] = totals.get(key, 0) + more


def _counter(name: str, what: str, labels: list[str], totals: Totals) -> Metric:
    family = CounterMetricFamily(name, what, labels=labels)
    for key, total in totals.copy().items():
        family.add_metric(key, total)
    return family


def _of_jobs(found: Figures) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("limner_jobs", "Jobs among the latest 10,000", labels=["kind", "state"])
    for job in found.jobs:
        jobs.add_metric([job.kind, job.state], job.number)
    items = GaugeMetricFamily("limner_job_items", "Users of jobs that are not over", labels=["state"])
    for state, count in found.items.items():
        items.add_metric([state], count)
    queue = GaugeMetricFamily(
        "limner_queue_tasks", "Tasks that wait (todo) or are worked on (doing)", labels=["status"]
    )
    for status, count in found.queue.items():
        queue.add_metric([status], count)
    ages = GaugeMetricFamily("limner_profile_age_seconds", "Age of active profiles", labels=["quantile"])
    for quantile, age in zip(("0.5", "0.95"), found.ages or (), strict=False):
        ages.add_metric([quantile], age)
    yield from (jobs, items, queue, ages)
