"""The migrations make exactly the tables of `store.tables`, and unmake them."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlmodel import SQLModel

import store.tables  # noqa: F401 - fills the metadata
from store import database as database_module
from store.database import Database
from store.errors import MigrationError

# What compare_metadata does not compare: collations and the conditions of partial indexes.
COLLATIONS = text(
    """
    select c.relname, a.attname, coalesce(l.collname, '-')
    from pg_attribute a
    join pg_class c on c.oid = a.attrelid
    left join pg_collation l on l.oid = a.attcollation
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
      and c.relname <> 'alembic_version'
    """
)
INDEXES = text("select indexname, indexdef from pg_indexes where schemaname = 'public'")
CONSTRAINTS = text(
    "select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint "
    "where connamespace = 'public'::regnamespace"
)


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    database = Database(empty_url)
    yield database
    database.close()


def drift(database: Database) -> list:
    with database.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, SQLModel.metadata)


def catalogue(database: Database) -> dict[str, set[tuple]]:
    questions = {"collations": COLLATIONS, "indexes": INDEXES, "constraints": CONSTRAINTS}
    with database.engine.connect() as connection:
        found = {name: set(map(tuple, connection.execute(query))) for name, query in questions.items()}
    return {name: {row for row in rows if "alembic" not in str(row)} for name, rows in found.items()}


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names())


def test_up_down_and_up_again(empty):
    empty.upgrade()
    assert tables(empty) == {*SQLModel.metadata.tables, "alembic_version"}
    assert drift(empty) == []
    empty.downgrade("base")
    assert tables(empty) <= {"alembic_version"}
    assert empty.status().current is None
    empty.upgrade()
    assert drift(empty) == []
    empty.require_head()


OLD_ROWS = """
insert into items (item_id, title) values ('i1', 'One'), ('i2', 'Two');
insert into users (user_id, log_revision) values ('ann', 4), ('bob', 0);
insert into profiles (user_id, version, active, language, created_at, log, provenance) values
    ('ann', 1, false, 'en', now(), '{"revision": 2}', '{"key": "a1", "corrections_revision": 1}'),
    ('ann', 2, true, 'en', now(), '{"revision": 4}', '{"key": "a2", "corrections_revision": 3}');
insert into profiles (user_id, version, active, language, created_at) values ('bob', 1, true, 'en', now())
"""


def test_0005_fills_in_what_is_known_of_old_rows(empty):
    def rows(query: str) -> list[tuple]:
        with empty.session() as session:
            return [tuple(row) for row in session.execute(text(query))]

    empty.upgrade()
    empty.downgrade("0004")
    with empty.session() as session:
        session.execute(text(OLD_ROWS))
    empty.upgrade()
    assert rows("select key, log_revision, corrections_revision, recipe, declared from profiles order by 1") == [
        ("a1", 2, 1, None, None),
        ("a2", 4, 3, None, None),
        (None, None, None, None, None),
    ]
    assert rows("select distinct revision from items") == [(1,)]
    assert rows("select distinct changed_at from users") == [(None,)]
    with empty.session() as session:
        session.execute(text("update items set title = 'Uno' where item_id = 'i1'"))
        session.execute(text("insert into items (item_id, title) values ('i3', 'Three')"))
        session.execute(text("update users set log_revision = 5 where user_id = 'ann'"))
        session.execute(text("insert into users (user_id) values ('cid')"))
    assert rows("select item_id, revision from items order by 1") == [("i1", 2), ("i2", 1), ("i3", 3)]
    assert rows("select user_id from users where changed_at is null") == [("bob",)]
    empty.downgrade("0004")
    assert rows("select count(*) from profiles") == [(3,)]
    assert rows("select count(*) from pg_trigger where tgname like 'limner%'") == [(0,)]
    assert rows("select count(*) from pg_proc where proname like 'limner%'") == [(0,)]
    with empty.session() as session:
        session.execute(text("update items set title = 'Again'"))
    empty.upgrade()
    empty.require_head()


def test_drift_would_be_seen(empty):
    empty.upgrade()
    with empty.session() as session:
        session.execute(text("alter table items alter column title drop not null"))
        session.execute(text("drop index ix_events_user_ts"))
        session.execute(text("alter table users alter column consent set default false"))
    assert len(drift(empty)) == 3


def test_migrations_and_metadata_make_the_same_catalogue(empty, database):
    with empty.engine.begin() as connection:
        connection.execute(text("create extension vector"))
        SQLModel.metadata.create_all(connection)
    made, migrated = catalogue(empty), catalogue(database)
    assert migrated["collations"] == made["collations"]
    assert migrated["indexes"] == made["indexes"]
    assert migrated["constraints"] == made["constraints"]
    assert ("events", "user_id", "C") in migrated["collations"]
    assert any("WHERE active" in definition for _, definition in migrated["indexes"])


def test_processes_that_upgrade_at_once_do_not_race(empty):
    def upgrade(_number: int) -> None:
        other = Database(empty.url)  # a connection of its own, as another process has
        try:
            other.upgrade()
        finally:
            other.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, range(4)))
    empty.require_head()


def test_failed_migration_leaves_nothing(empty, monkeypatch):
    with empty.session() as session:
        session.execute(text("create table claims (mine int)"))  # in the way of ours
    with pytest.raises(Exception, match="already exists"):
        empty.upgrade()
    assert tables(empty) == {"claims"}
    assert empty.status().current is None


def test_upgrade_leaves_logging_as_it_was(empty):
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("store").disabled)
    empty.upgrade()
    assert (root.level, list(root.handlers), logging.getLogger("store").disabled) == before


def test_empty_database_is_told_to_upgrade(empty):
    assert empty.status().current is None
    assert empty.status().pgvector_version is None
    with pytest.raises(MigrationError, match="limner db upgrade"):
        empty.require_head()


def test_old_database_is_told_to_upgrade(database, monkeypatch):
    monkeypatch.setattr(database_module, "_head", lambda: "0999")
    with pytest.raises(MigrationError, match=r"at revision 0007.*needs 0999.*limner db upgrade"):
        database.require_head()


def test_newer_database_is_left_alone(database):
    with database.session() as session:
        session.execute(text("update alembic_version set version_num = '9999'"))
    with pytest.raises(MigrationError, match="a newer one has upgraded it"):
        database.require_head()
    with pytest.raises(MigrationError, match="a newer one has upgraded it"):
        database.upgrade()


def test_user_without_the_right_is_told(empty):
    with empty.session() as session:
        session.execute(text("drop role if exists limner_test_guest"))
        session.execute(text("create role limner_test_guest login password 'guest'"))
    guest = Database(empty.engine.url.set(username="limner_test_guest", password="guest").render_as_string(False))
    try:
        with pytest.raises(MigrationError, match="CREATE EXTENSION vector"):
            guest.upgrade()
    finally:
        guest.close()
        with empty.session() as session:
            session.execute(text("drop role limner_test_guest"))


def test_server_without_pgvector_is_told(empty, monkeypatch):
    class Nothing:
        def first(self) -> None:
            return None

    class Connection:
        def execute(self, _query: object) -> Nothing:
            return Nothing()

    with pytest.raises(MigrationError, match="pgvector is not installed"):
        database_module._require_pgvector(Connection())
