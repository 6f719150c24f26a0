"""Figures for monitoring, read in a few milliseconds however large the tables are: none of them is counted as a whole.

What only ever grows is counted from where the last look ended. What is counted anew is counted up to a limit, along an
index. The age of profiles is estimated from a sample of pages.
"""

from typing import NamedTuple

import psycopg
from sqlalchemy import make_url

from store.database import Database

MOST = 100_000
"""Counted up to this: the figure then means so many or more."""
MOST_ITEMS = 10_000
"""The same for the items of a job in one state."""
RECENT = 10_000
"""Latest jobs that are looked at."""
_SAMPLE = 500  # pages
_CONNECT_S = 2
_SETTINGS = (
    "statement_timeout=1000", "default_transaction_read_only=on", "jit=off",
    "enable_seqscan=off", "enable_bitmapscan=off",  # the planner does not know that so few rows are wanted
)  # fmt: skip

# Rows of a transaction that is still open are not seen, though later ids are: so a look counts up to the last id that
# the look before saw. By then, all up to it are there.
_LAST = "select coalesce((select max(call_id) from llm_calls), 0), coalesce((select max(profile_id) from profiles), 0)"
_CALLS = """
    select role, outcome, count(*), sum(tokens_in), sum(tokens_out), sum(seconds)
    from llm_calls where call_id > %s and call_id <= %s
    group by role, outcome
"""
_WRITTEN = """
    select provenance->>'writer', count(*), coalesce(sum((quality->>'first_try')::int), 0),
        coalesce(sum((quality->>'repaired')::int), 0), coalesce(sum((quality->>'fallback')::int), 0)
    from profiles where profile_id > %s and profile_id <= %s
    group by 1
"""
_QUEUE = """
    select status, count(*)
    from (
        (select 'todo' as status from queue.procrastinate_jobs where status = 'todo' limit %(most)s)
        union all
        (select 'doing' from queue.procrastinate_jobs where status = 'doing' and worker_id is not null limit %(most)s)
    ) q
    group by 1
"""
_JOBS = """
    select kind, state, count(*) from (select * from jobs order by created_at desc limit %(recent)s) j group by 1, 2
"""
# A range, since for an equation the planner takes an index that does not know the state, and reads the whole job.
_ITEMS = """
    select s.state, sum(counted.items)::bigint
    from (select * from jobs order by created_at desc limit %(recent)s) j,
        unnest(array['queued', 'running', 'written', 'unchanged', 'failed', 'cancelled']) s(state),
        lateral (
            select count(*) as items
            from (
                select from job_items i
                where i.job_id = j.job_id and i.state between s.state and s.state limit %(most_items)s
            ) i
        ) counted
    where j.finished_at is null
    group by 1
"""
_PAGES = "select greatest(pg_relation_size('profiles') / current_setting('block_size')::int, 1)"
_AGES = """
    select percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from now() - created_at)::float8)
    from profiles tablesample system (%s) where active
"""


class Calls(NamedTuple):
    """Calls of language models of one role that ended in one way, and what they cost."""

    role: str
    outcome: str
    number: int
    tokens_in: int
    tokens_out: int
    seconds: float


class Written(NamedTuple):
    """Profiles written by one writer, and how their texts came about: at first try, repaired, or by the template."""

    writer: str
    number: int
    first_try: int
    repaired: int
    fallback: int


class Jobs(NamedTuple):
    """Jobs of one kind in one state, among the latest `RECENT`."""

    kind: str
    state: str
    number: int


class Ids(NamedTuple):
    """An id of `llm_calls`, and one of `profiles`."""

    call: int
    profile: int


class Place(NamedTuple):
    """How far a look has come in what only grows: up to where all is counted, and the last ids that there were."""

    counted: Ids
    last: Ids


class Figures(NamedTuple):
    """What a look has found.

    Attributes:
        calls: Since the look before.
        written: Since the look before.
        jobs: Now.
        items: Of the unfinished ones among these jobs, by state; each job counts up to `MOST_ITEMS` for a state.
        queue: Tasks by status, `todo` and `doing`, up to `MOST` each.
        ages: Seconds since active profiles were written, median and 95th percentile, estimated; none of none.
        place: Where the next look begins.
    """

    calls: list[Calls]
    written: list[Written]
    jobs: list[Jobs]
    items: dict[str, int]
    queue: dict[str, int]
    ages: tuple[float, float] | None
    place: Place


def look(database: Database, place: Place | None = None) -> Figures:
    """Read the figures, on a connection of its own, so that it takes none from requests.

    Args:
        database: To read from.
        place: Where the look before ended; None begins with what is written from now on.

    Raises:
        psycopg.Error: The database cannot be reached, or a figure takes more than a second.
    """
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    options = " ".join(f"-c {setting}" for setting in _SETTINGS)
    with psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_S, options=options) as connection:
        return _look(connection, place)


def _look(connection: psycopg.Connection, place: Place | None) -> Figures:
    last = Ids(*connection.execute(_LAST).fetchall()[0])
    began, until = (last, last) if place is None else place
    upto = Ids(min(until.call, began.call + MOST), min(until.profile, began.profile + MOST))
    limits = {"most": MOST, "most_items": MOST_ITEMS, "recent": RECENT}
    return Figures(
        calls=[Calls(*row) for row in connection.execute(_CALLS, (began.call, upto.call))],
        written=[Written(*row) for row in connection.execute(_WRITTEN, (began.profile, upto.profile))],
        jobs=[Jobs(*row) for row in connection.execute(_JOBS, limits)],
        items=dict(connection.execute(_ITEMS, limits).fetchall()),
        queue={"todo": 0, "doing": 0} | dict(connection.execute(_QUEUE, limits).fetchall()),
        ages=_ages(connection),
        place=Place(upto, last),
    )


def _ages(connection: psycopg.Connection) -> tuple[float, float] | None:
    ((pages,),) = connection.execute(_PAGES)
    ((found,),) = connection.execute(_AGES, (min(100.0, 100.0 * _SAMPLE / pages),))
    return None if found is None else (found[0], found[1])
