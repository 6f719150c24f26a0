"""What there is, in a few milliseconds however large the tables are: beyond a limit, figures are estimates."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text
from sqlmodel import Session

EXACT = 100_000
"""Rows that are counted one by one; of more, the database's own estimate is taken."""
CALLS = 200_000
"""The latest calls of language models, of which the tokens are added up."""
_SAMPLED = 5_000
"""Profiles that are looked at, about."""

_COUNT = "select count(*) from (select from {} limit :most) found"
_ESTIMATE = text("select greatest(reltuples, 0)::bigint from pg_class where oid = cast(:name as regclass)")
_PROFILES = """
    select provenance->>'writer', case
        when created_at > :now - interval '1 day' then 0
        when created_at > :now - interval '7 days' then 1
        when created_at > :now - interval '30 days' then 2
        else 3
    end, count(*)
    from profiles {} where active group by 1, 2
"""
_SPEND = text("""
    select count(*), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0)
    from llm_calls where call_id > (select coalesce(max(call_id), 0) - :most from llm_calls)
""")
_STARTING_WITH = text("""
    select user_id from users where user_id >= :text and user_id < :beyond order by user_id limit :limit
""")


class Number(NamedTuple):
    """How many; `about` if it is an estimate."""

    value: int
    about: bool = False


class Profiles(NamedTuple):
    """Active profiles.

    Attributes:
        total: How many.
        by_writer: Of each writer.
        by_age: Of the last day, the last 7 days, the last 30 days, older ones.
        about: Whether these are estimates from a sample.
    """

    total: int
    by_writer: dict[str, int]
    by_age: list[int]
    about: bool


class Spend(NamedTuple):
    """Calls of language models and their tokens; of the latest 200,000 calls, if there are so many."""

    calls: int
    tokens_in: int
    tokens_out: int


def count(session: Session, table: str) -> Number:
    """Count the rows of one of our tables."""
    found = session.scalar(text(_COUNT.format(table)), {"most": EXACT + 1}) or 0
    if found <= EXACT:
        return Number(found)
    return Number(max(found, session.scalar(_ESTIMATE, {"name": table}) or 0), about=True)


def profiles(session: Session, now: object) -> Profiles:
    """Return how many active profiles there are, by writer and age; of many, from a sample of pages."""
    total = session.scalar(_ESTIMATE, {"name": "profiles"}) or 0
    share = min(1.0, _SAMPLED / total) if total else 1.0
    sample = "" if share == 1 else f"tablesample system ({100 * share:.6f})"
    rows = session.execute(text(_PROFILES.format(sample)), {"now": now}).all()
    by_writer: dict[str, int] = {}
    by_age = [0, 0, 0, 0]
    for writer, age, number in rows:
        by_writer[writer] = by_writer.get(writer, 0) + round(number / share)
        by_age[age] += round(number / share)
    if share < 1:  # more digits would be of no use
        by_writer = {writer: int(float(f"{number:.2g}")) for writer, number in by_writer.items()}
        by_age = [int(float(f"{number:.2g}")) for number in by_age]
    return Profiles(sum(by_age), dict(sorted(by_writer.items())), by_age, share < 1)


def spend(session: Session) -> Spend:
    """Return what language models have cost."""
    return Spend(*(int(number) for number in session.execute(_SPEND, {"most": CALLS}).one()))


def users_starting_with(session: Session, start: str, limit: int) -> list[str]:
    """Return ids of users that start with a text, in order."""
    beyond = start + "\U0010ffff"
    return list(session.scalars(_STARTING_WITH, {"text": start, "beyond": beyond, "limit": limit}))


def some_users(session: Session, most: int) -> list[str]:
    """Return ids of users with an active profile that they consent to: all, or so many, always the same."""
    query = text("""
        select user_id from profiles join users using (user_id)
        where active and consent order by md5(user_id), user_id limit :most
    """)
    return list(session.scalars(query, {"most": most}))


def all_consent(session: Session, user_ids: Sequence[str]) -> bool:
    """Tell whether all of these users are still there and consent to a profile."""
    query = text("select count(*) from users where user_id = any(:users) and consent")
    return bool(session.scalar(query, {"users": list(user_ids)}) == len(user_ids))


def some_items(session: Session, model: str, most: int) -> list[str]:
    """Return ids of items that have a vector by this embedder: all, or as many as are wanted, always the same."""
    query = text("""
        select owner_id from embeddings where kind = 'item' and model = :model
        order by md5(owner_id), owner_id limit :most
    """)
    return list(session.scalars(query, {"model": model, "most": most}))
