"""Selections: whom they mean, in pages and as a job's items."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from store import jobs, selection
from store.database import Database
from store.errors import NotFoundError
from store.selection import Selection
from store.tables import UserRow
from tests.small_world import EVERYONE, NOW, fill, profiler, wrote

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def world(database: Database) -> Database:
    """Everyone, with different attributes; two who are never meant: one without consent, one without a log."""
    fill(database)
    declared = {"ann": '{"country": "se", "langs": ["sv", "en"]}', "bob": '{"country": "se", "age": 40}'}
    with database.session() as session:
        for user_id, attributes in declared.items():
            session.execute(
                text("update users set attributes = cast(:a as jsonb) where user_id = :u"),
                {"a": attributes, "u": user_id},
            )
        session.add(UserRow(user_id="no", consent=False, log_revision=1))
        session.add(UserRow(user_id="new"))
    return database


def do(database: Database, query: str) -> None:
    with database.session() as session:
        session.execute(text(query))


def selected(database: Database, **given: Any) -> list[str]:
    """The selected users, by pages of two, and by a job that must agree."""
    wanted = Selection(**given)
    pages = list(selection.pages(database, wanted, 2))
    assert all(len(page) <= 2 for page in pages)
    found = [user_id for page in pages for user_id in page]
    if not wanted.drifted:
        assert in_job(database, wanted) == found
    return found


def in_job(database: Database, users: Any, chunk: int = 2) -> list[str]:
    with database.session() as session:
        job = jobs.create(session, "profiles", {}, NOW, None, users, chunk)
        chunks = [jobs.users_of(session, job.job_id, n) for n in range(-(-job.total // chunk))]
        assert [len(part) for part in chunks[:-1]] == [chunk] * (len(chunks) - 1)
        assert sum(map(len, chunks)) == job.total
        return [user_id for part in chunks for user_id in part]


def test_everyone_is_who_consents_and_has_a_log(world: Database) -> None:
    assert selected(world, everyone=True) == sorted(EVERYONE)


def test_listed_users_each_once(world: Database) -> None:
    assert selected(world, users=("sam", "ann", "ann", "no", "new", "nobody")) == ["ann", "sam"]
    assert selected(world, users=()) == []
    with world.session() as session:
        assert selection.missing(session, ["sam", "no", "new", "nobody"], 2) == (3, ["new", "no"])
        assert selection.missing(session, ["sam"]) == (0, [])


@pytest.mark.parametrize(
    ("where", "users"),
    [
        ({"country": "se"}, ["ann", "bob"]),
        ({"langs": "en"}, ["ann"]),
        ({"age": "40"}, ["bob"]),
        ({"country": "se", "age": "40"}, ["bob"]),
        ({"country": "no"}, []),
        ({"nothing": "se"}, []),
        ({"country": "' or true --"}, []),
    ],
)
def test_segments(world: Database, where: dict[str, str], users: list[str]) -> None:
    assert selected(world, where=where) == users


def test_changed_since(world: Database) -> None:
    do(world, "update users set changed_at = '2020-01-01Z'")
    do(world, "update users set log_revision = 2 where user_id = 'cid'")
    assert selected(world, changed_since=LONG_AGO + timedelta(days=1)) == ["cid"]
    do(world, "update users set changed_at = null where user_id = 'cid'")
    assert selected(world, changed_since=LONG_AGO) == sorted({*EVERYONE} - {"cid"})


def test_changed(world: Database) -> None:
    assert selected(world, changed=True) == sorted(EVERYONE)  # none has a profile
    wrote(profiler(world))
    assert selected(world, changed=True) == []
    do(world, "update users set log_revision = 2 where user_id = 'ann'")
    do(world, "update users set corrections_revision = 1 where user_id = 'bob'")
    do(world, "update users set tz = 'Europe/Oslo' where user_id = 'cid'")
    do(world, "update profiles set key = null where user_id = 'dee'")
    assert selected(world, changed=True) == ["ann", "bob", "cid", "dee"]
    do(world, "update items set title = 'Other' where item_id = 'k1'")  # of ann, bob, dee and sam
    assert selected(world, changed=True) == ["ann", "bob", "cid", "dee", "sam"]
    wrote(profiler(world))
    assert selected(world, changed=True) == []


def test_older_than(world: Database) -> None:
    wrote(profiler(world), ["ann"])
    wrote(profiler(world, clock=lambda: NOW - timedelta(days=40)), ["bob"])
    assert selected(world, older_than=NOW - timedelta(days=30)) == ["bob"]
    assert selected(world, older_than=NOW) == ["bob"]
    assert selected(world, older_than=NOW + timedelta(days=1)) == ["ann", "bob"]


def test_all_that_is_given_must_hold(world: Database) -> None:
    wrote(profiler(world), ["ann", "cid"])
    given: dict[str, Any] = {"where": {"country": "se"}, "changed": True}
    assert selected(world, **given) == ["bob"]
    assert selected(world, **given, users=("ann", "cid")) == []


def test_who_may_have_drifted(world: Database) -> None:
    wrote(profiler(world), ["ann", "bob"])
    do(world, "update users set log_revision = 2 where user_id = 'ann'")
    assert selected(world, drifted=True) == ["ann"]
    with world.session() as session, pytest.raises(ValueError, match="the store cannot tell who has drifted"):
        jobs.create(session, "profiles", {}, NOW, None, Selection(drifted=True))


@pytest.mark.parametrize(
    "given",
    [{}, {"users": ("ann",), "everyone": True}, {"older_than": datetime(2024, 1, 1)}, {"who": "ann"}],
)
def test_a_selection_says_whose(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Selection(**given)


def test_a_job_of_pages(world: Database) -> None:
    def pages() -> Iterator[Sequence[str]]:
        yield ["ann", "bob", "cid"]
        yield []
        yield ["dee", "no", "sam"]

    assert in_job(world, pages()) == ["ann", "bob", "cid", "dee", "sam"]
    assert in_job(world, iter([])) == []


def test_the_old_ways_to_name_users_still_hold(world: Database) -> None:
    assert in_job(world, "all") == sorted(EVERYONE)
    assert in_job(world, ["bob", "ann"]) == ["ann", "bob"]
    with world.session() as session, pytest.raises(NotFoundError):
        jobs.create(session, "profiles", {}, NOW, None, ["ann", "nobody"])


def test_an_empty_selection_is_a_job_that_is_done(world: Database) -> None:
    with world.session() as session:
        assert jobs.create(session, "profiles", {}, NOW, None, Selection(where={"x": "y"})).state == "done"


def test_a_selection_survives_json() -> None:
    wanted = Selection(where={"country": "se"}, older_than=NOW)
    assert Selection.model_validate_json(wanted.model_dump_json()) == wanted
