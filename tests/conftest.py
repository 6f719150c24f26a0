"""Fixtures that need a database: one PostgreSQL for the session, a fresh migrated database for each test."""

import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import psycopg
import pytest
from hypothesis import settings as hypothesis_settings
from sqlalchemy import make_url

from store import postgres
from store.database import Database
from store.postgres import embedded
from tests.scripted_llm import ScriptedLLM

TEMPLATE = f"limner_test_template_{os.getpid()}"
_numbers = itertools.count(1)

os.environ |= {"COLUMNS": "300", "NO_COLOR": "1"}  # what commands print is compared as lines
os.environ["IRSPACK_NUM_THREADS_DEFAULT"] = "1"  # several threads add up in any order: factors would differ in a digit
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background; commands that we start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
hypothesis_settings.register_profile("limner", deadline=None)  # a busy machine is no fault
hypothesis_settings.load_profile("limner")


def admin(url: str) -> psycopg.Connection:
    """A connection that can create and drop databases."""
    plain = make_url(url).set(drivername="postgresql", database="postgres")
    return psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True)


def with_name(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server: that of LIMNER_TEST_DATABASE_URL, else an embedded one which ends with the session."""
    url = os.environ.get("LIMNER_TEST_DATABASE_URL")
    if url:
        yield url
        return
    home: Path = tmp_path_factory.mktemp("postgres")
    # A database is made for each test: to wait for the disk would take most of the time. `test_postgres` has it on.
    with ExitStack() as stack:
        with patch.dict(postgres._SETTINGS, fsync="off", full_page_writes="off"):
            server = stack.enter_context(embedded(home))
        yield server.url


@pytest.fixture(scope="session")
def migrated_template(postgres_url: str) -> Iterator[str]:
    """The name of a database at the newest revision; copying it is faster than migrating each time."""
    with admin(postgres_url) as connection:
        connection.execute(f'create database "{TEMPLATE}"')
        database = Database(with_name(postgres_url, TEMPLATE))
        database.upgrade()
        database.close()  # a template must have no connections
        yield TEMPLATE
        connection.execute(f'drop database "{TEMPLATE}" with (force)')


@pytest.fixture
def empty_url(postgres_url: str) -> Iterator[str]:
    """The URL of a fresh database without tables."""
    yield from _fresh(postgres_url, "template1")


@pytest.fixture
def database_url(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """The URL of a fresh database at the newest revision, for tests that start other processes."""
    yield from _fresh(postgres_url, migrated_template)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh database at the newest revision."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def scripted() -> Iterator[ScriptedLLM]:
    """A scripted model server on a port of its own, answering truthfully unless told otherwise."""
    with ScriptedLLM() as server:
        yield server


@pytest.fixture(scope="session")
def model_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory for tests that start an engine; weights pulled into `.limner` before are used again."""
    home = tmp_path_factory.mktemp("home")
    kept = Path(__file__).parents[1] / ".limner" / "models"
    if kept.is_dir():
        (home / "models").symlink_to(kept)
    return home


def _fresh(url: str, template: str) -> Iterator[str]:
    name = f"limner_test_{os.getpid()}_{next(_numbers)}"
    with admin(url) as connection:
        connection.execute(f'create database "{name}" template "{template}" strategy file_copy')
        yield with_name(url, name)
        connection.execute(f'drop database "{name}" with (force)')
