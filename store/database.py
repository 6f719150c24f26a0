"""The database: an engine, units of work, raw connections for COPY, and its migrations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pgvector.psycopg import register_vector
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session

from store.errors import MigrationError, StoreError, UnreachableError
from store.postgres import embedded

_SCHEMES = {"postgres", "postgresql", "postgresql+psycopg"}
_QUICK = 8
"""Connections for single statements: more than that do not run at once on a few cores."""
_UPGRADE_LOCK = 0x6C696D6E6572  # any number that only our upgrades use: "limner"


class Status(NamedTuple):
    """What a database is: its revision (None: empty), the one that this code needs, and its versions."""

    current: str | None
    head: str
    pgvector_version: str | None
    server_version: str


class _LostError(Exception):
    """The connection has died."""


class Database:
    """One database. Cheap to make: it connects at first use. Close it when done."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(_url(url), pool_pre_ping=True, connect_args={"connect_timeout": 10})
        event.listen(self._engine, "connect", _know_vectors)
        # `execute` finds out by itself that a connection has died: no ping, and nothing to roll back.
        self._quick = create_engine(
            self._engine.url, isolation_level="AUTOCOMMIT", pool_size=_QUICK, max_overflow=0,
            pool_reset_on_return=None, connect_args={"connect_timeout": 10},
        )  # fmt: skip
        event.listen(self._quick, "connect", _do_not_wait)

    @property
    def url(self) -> str:
        """The SQLAlchemy URL, with the password: not for logs or messages."""
        return self._engine.url.render_as_string(hide_password=False)

    @property
    def engine(self) -> Engine:
        """The engine, for what `session` and `raw` do not offer."""
        return self._engine

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One unit of work: committed at the end, rolled back when an exception leaves the block."""
        with self._reachable(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def raw(self) -> Iterator[psycopg.Connection]:
        """A psycopg connection of its own, for COPY: one unit of work as well.

        It takes numpy arrays as vectors, and gives `pgvector.Vector`, whose `to_numpy` costs nothing; a
        cursor with `binary=True` is by far the fastest way to read many.
        """
        with self._reachable(), self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)  # noqa: S101 - for the type checker
            with driver.transaction():
                yield driver

    def execute(self, query: LiteralString, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement, a unit of work of its own, and return its rows: the quick way, for each request.

        Without transaction and object mapper it takes a tenth of the time. It does not wait until a change is on the
        disk (`synchronous_commit` is off), and where the connection has died it runs the statement a second time.

        Raises:
            StoreError: The database cannot be reached.
        """
        try:
            return self._execute(query, parameters)
        except _LostError:  # so are the others, if the server was started anew
            self._quick.dispose()
        try:
            return self._execute(query, parameters)
        except _LostError as error:
            raise self._out_of_reach(error.__cause__) from error

    def _execute(self, query: LiteralString, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            kept = self._quick.raw_connection()
        except psycopg.OperationalError as error:
            raise self._out_of_reach(error) from error
        try:
            connection = kept.driver_connection
            assert isinstance(connection, psycopg.Connection)  # noqa: S101 - for the type checker
            try:
                cursor = connection.execute(query, parameters)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError as error:
                if not connection.closed:
                    raise
                kept.invalidate(error)
                raise _LostError from error
        finally:
            kept.close()

    def upgrade(self) -> None:
        """Brings the database to the newest revision, one process at a time.

        Raises:
            MigrationError: pgvector is not installed on the server, or the revision is not ours.
        """
        self._migrate("head")

    def downgrade(self, revision: str) -> None:
        """Takes the database back to a revision; "base" removes all our tables and what is in them."""
        self._migrate(revision, down=True)

    def status(self) -> Status:
        """The revision and the versions of this database."""
        vector = text("select extversion from pg_extension where extname = 'vector'")
        with self._reachable(), self._engine.connect() as connection:
            return Status(
                current=MigrationContext.configure(connection).get_current_revision(),
                head=_head(),
                pgvector_version=connection.scalar(vector),
                server_version=str(connection.scalar(text("show server_version"))).split()[0],
            )

    def require_head(self) -> None:
        """Refuses a database that is not at the newest revision.

        Raises:
            MigrationError: It is empty or behind (`limner db upgrade` helps), or newer than this code.
        """
        status = self.status()
        if status.current is None:
            raise MigrationError("The database is empty. Run `limner db upgrade`.")
        require_known(status.current)
        if status.current != status.head:
            raise MigrationError(
                f"The database is at revision {status.current}, and this version of Limner needs "
                f"{status.head}. Run `limner db upgrade`."
            )

    def clear(self) -> None:
        """Removes all our tables and what is in them, so that a backup can be restored."""
        self.downgrade("base")
        with self.session() as session:
            session.execute(text("drop table alembic_version"))

    def close(self) -> None:
        """Closes the pooled connections."""
        self._quick.dispose()
        self._engine.dispose()

    def _migrate(self, revision: str, *, down: bool = False) -> None:
        with self._reachable(), self._engine.begin() as connection:
            # Held until the end of the transaction, in which all the steps are made or none.
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            if not down:
                _require_pgvector(connection)
            config = _config()
            config.attributes["connection"] = connection
            current = MigrationContext.configure(connection).get_current_revision()
            if current is not None:
                require_known(current)
            try:
                (command.downgrade if down else command.upgrade)(config, revision)
            except ProgrammingError as error:
                if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
                    raise
                raise MigrationError(
                    f"The database user may not do what the migration does: {str(error.orig).strip()}. "
                    "Have an administrator run `CREATE EXTENSION vector` in this database and give the "
                    "user the right to create tables; then run `limner db upgrade` again."
                ) from error
        self._engine.dispose()  # pooled connections that were opened before do not know the type vector

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            if not error.connection_invalidated and not _is_connection_failure(error):
                raise
            raise self._out_of_reach(error.orig) from error

    def _out_of_reach(self, reason: BaseException | None) -> UnreachableError:
        return UnreachableError(
            f"The database {self._engine.url.render_as_string()} cannot be reached: "
            f"{str(reason).strip()}. Check that the server runs, and LIMNER_DATABASE_URL."
        )


def driver(session: Session) -> psycopg.Connection:
    """The psycopg connection of a unit of work, for SQL and COPY inside of it."""
    found = session.connection().connection.driver_connection
    assert isinstance(found, psycopg.Connection)  # noqa: S101 - for the type checker
    return found


def make_durable(session: Session) -> None:
    """Let a unit of work end only when it is on the disk, on a server that does not wait for that by itself.

    What a language model has said is too dear to be lost with a server that is killed.
    """
    session.execute(
        text("select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'")
    )


@contextmanager
def open_database(url: str | None, home: Path) -> Iterator[Database]:
    """The database of this URL, or the embedded one of this home when there is none.

    Raises:
        ServerError: The embedded server cannot be started.
        StoreError: The URL is not one of PostgreSQL.
    """
    if url is None:
        with embedded(home) as server, open_database(server.url, home) as database:
            yield database
        return
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def _url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError("LIMNER_DATABASE_URL is not a URL: postgresql://user:password@host/db") from error
    if parsed.drivername not in _SCHEMES:
        raise StoreError(
            f"LIMNER_DATABASE_URL begins with {parsed.drivername}://, and only PostgreSQL will do: "
            "postgresql://user:password@host/db"
        )
    return parsed.set(drivername="postgresql+psycopg")


def _know_vectors(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Teaches a new connection what a vector is, once the extension is there."""
    assert isinstance(connection, psycopg.Connection)  # noqa: S101 - for the type checker
    if psycopg.types.TypeInfo.fetch(connection, "vector") is not None:
        register_vector(connection)
    connection.rollback()  # the look-up opened a transaction


def _do_not_wait(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Lets a new connection commit without waiting for the disk."""
    assert isinstance(connection, psycopg.Connection)  # noqa: S101 - for the type checker
    connection.autocommit = True
    connection.execute("set synchronous_commit = off")


def _is_connection_failure(error: OperationalError) -> bool:
    return isinstance(error.orig, psycopg.OperationalError) and error.orig.sqlstate is None


def require_known(revision: str) -> None:
    """Refuses a revision that is not ours.

    Raises:
        MigrationError: It is not: a newer version of Limner has made it.
    """
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision not in known:
        raise MigrationError(
            f"The database is at revision {revision}, which this version of Limner does not know: "
            "a newer one has upgraded it. Use that one."
        )


def _require_pgvector(connection: Connection) -> None:
    there = text("select from pg_available_extensions where name = 'vector'")
    if connection.execute(there).first() is None:
        raise MigrationError(
            "The extension pgvector is not installed on the database server. Install it there (on Debian "
            "and Ubuntu: the package postgresql-<version>-pgvector), then run `limner db upgrade` again."
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise MigrationError("The migrations of Limner are missing: install it again.")
    return head
