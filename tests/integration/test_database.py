"""Units of work, vectors, COPY, and what is said when there is no database."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest
from sqlalchemy import text
from sqlmodel import Session

from store.database import Database, open_database
from store.errors import StoreError
from store.supervisor import is_running
from store.tables import EmbeddingRow, UserRow


def user_ids(database: Database) -> list[str]:
    with database.session() as session:
        return list(session.scalars(text("select user_id from users order by 1")))


def test_session_commits_at_the_end(database):
    with database.session() as session:
        row = UserRow(user_id="ann", attributes={"age": 30})
        session.add(row)
    assert row.attributes == {"age": 30}  # readable after the commit, without another query
    with database.session() as session:
        assert session.get(UserRow, "ann").log_revision == 0


def store_and_stop(session: Session) -> None:
    session.add(UserRow(user_id="ann"))
    session.flush()
    raise KeyboardInterrupt


def test_session_rolls_back_on_any_exception(database):
    with pytest.raises(KeyboardInterrupt), database.session() as session:
        store_and_stop(session)
    assert user_ids(database) == []


def test_raw_copies_and_commits(database):
    copying = "copy users (user_id) from stdin"
    with database.raw() as connection, connection.cursor() as cursor, cursor.copy(copying) as copy:
        for name in ("ann", "bob"):
            copy.write_row((name,))
    assert user_ids(database) == ["ann", "bob"]


def insert_and_stop(connection: psycopg.Connection) -> None:
    connection.execute("insert into users (user_id) values ('ann')")
    raise KeyboardInterrupt


def test_raw_rolls_back_on_any_exception(database):
    with pytest.raises(KeyboardInterrupt), database.raw() as connection:
        insert_and_stop(connection)
    assert user_ids(database) == []


def test_raw_gives_the_connection_back(database):
    for _ in range(20):  # more than the pool holds
        with database.raw() as connection:
            connection.execute("select 1")
    assert database.engine.pool.checkedout() == 0


def test_a_single_statement_is_a_unit_of_work(database):
    assert database.execute("insert into users (user_id) values (%s)", ["ann"]) == []
    assert database.execute("select user_id, log_revision from users") == [("ann", 0)]
    with pytest.raises(psycopg.errors.UniqueViolation):
        database.execute("insert into users (user_id) values (%s)", ["ann"])
    assert database.execute("select user_id from users where user_id = %s", ["bob"]) == []
    assert database.execute("show synchronous_commit") == [("off",)]
    assert user_ids(database) == ["ann"]


def test_a_single_statement_outlives_its_connection(database):
    with ThreadPoolExecutor(8) as pool:  # so that several connections are open
        list(pool.map(lambda _: database.execute("select pg_sleep(0.05)"), range(8)))
    with database.raw() as connection:
        ended = connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchall()
    assert len(ended) > 1
    for name in ("ann", "bob"):
        database.execute("insert into users (user_id) values (%s)", [name])
    assert database.execute("select user_id from users order by 1") == [("ann",), ("bob",)]


def test_a_single_statement_says_that_there_is_no_server():
    database = Database("postgresql://limner:secret@127.0.0.1:1/limner")
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        database.execute("select 1")
    assert "secret" not in str(caught.value)


def test_vectors_go_in_and_come_out(database):
    vector = np.arange(4, dtype=np.float32) / 3
    with database.session() as session:
        session.add(EmbeddingRow(kind="item", owner_id="1", model="m", text_hash="h", vector=vector))
    with database.session() as session:
        found = session.get(EmbeddingRow, ("item", "1", "m")).vector
        assert np.array_equal(np.asarray(found, dtype=np.float32), vector)
    insert = "insert into embeddings values ('item', '2', 'm', 'h', %s)"
    with database.raw() as connection:
        connection.execute(insert, [vector])
        for binary in (False, True):
            rows = connection.cursor(binary=binary).execute("select vector from embeddings").fetchall()
            assert len(rows) == 2
            assert all(np.array_equal(found.to_numpy(), vector) for [found] in rows)


def test_vectors_are_known_right_after_the_first_upgrade(empty_url):
    database = Database(empty_url)
    try:
        database.status()  # opens a pooled connection, which finds no type "vector"
        database.upgrade()
        with database.raw() as connection:
            [found] = connection.execute("select '[1,2]'::vector").fetchone()
        assert found.to_list() == [1, 2]
    finally:
        database.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_usual_schemes_are_taken(database_url, scheme):
    _, _, rest = database_url.partition("://")
    with open_database(f"{scheme}://{rest}", Path("/nowhere")) as database:
        database.require_head()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "sqlite:///x", "nonsense", ""])
def test_other_urls_are_refused_without_telling_the_password(url):
    with pytest.raises(StoreError, match="postgresql://user:password@host/db") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_server_that_is_not_there_is_told_without_the_password():
    database = Database("postgresql://ann:secret@127.0.0.1:1/d")
    with pytest.raises(StoreError, match="cannot be reached") as caught, database.session() as session:
        session.execute(text("select 1"))
    assert "LIMNER_DATABASE_URL" in str(caught.value)
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreError, match="cannot be reached"):
        database.upgrade()


def test_wrong_password_is_told(database):
    wrong = Database(database.engine.url.set(password="secret").render_as_string(hide_password=False))
    with pytest.raises(StoreError, match="password authentication failed"):
        wrong.require_head()


def test_without_a_url_the_embedded_server_is_used(tmp_path):
    with open_database(None, tmp_path) as database:
        database.upgrade()
        database.require_head()
        assert is_running(tmp_path / "postgres") is not None
    assert is_running(tmp_path / "postgres") is None
