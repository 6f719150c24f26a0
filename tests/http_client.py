"""The HTTP interface in the tests' own process: an app on the small world, asked by a client without sockets.

Import the fixtures where they are used; `small` is the app on a filled database, `http` its client without a key,
which may do everything, as long as no key was made; `shared` is such a client for the tests of a module.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

import api.runtime
from api.http.app import create_app
from api.settings import Settings
from store import keys
from store.database import Database
from tests.conftest import _fresh
from tests.small_world import NOW, FakeEmbedder, fill

LOCAL = "http://127.0.0.1:8000"
fresh = contextmanager(_fresh)
PROBLEM = "application/problem+json"
DECLARATION = {"consent": True, "attributes": {"occupation": "librarian"}, "language": "en", "tz": "Europe/Paris"}
FILLED = {"user_id": "nobody", "item_id": "nothing", "claim_id": "nothing", "job_id": "nothing", "model_id": "1"}


def client(app: FastAPI, token: str | None = None) -> TestClient:
    """A client at this machine; with a key, if one is given. What fails inside is a 500, as it is over a socket."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return TestClient(app, LOCAL, raise_server_exceptions=False, headers=headers, client=("127.0.0.1", 50_000))


def settings(home: Path, **given: Any) -> Settings:
    """Settings that take nothing from the environment but what is given."""
    return Settings(home=home, **given)


def new_key(database: Database, *scopes: str, requests_per_minute: int | None = None) -> str:
    """Make a key and return its token."""
    with database.session() as session:
        return keys.create(session, "test", scopes, NOW, requests_per_minute)


@pytest.fixture
def small(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """The app on the small world, with the fake embedder; there is no model and no profile yet."""
    monkeypatch.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
    fill(database)
    return create_app(settings(tmp_path), database)


@pytest.fixture
def http(small: FastAPI) -> Iterator[TestClient]:
    """A client without a key: it may do everything."""
    with client(small) as made:
        yield made


@pytest.fixture(scope="module")
def shared(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client without a key, for tests that leave everything as it is."""
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, migrated_template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        fill(database)
        with client(create_app(settings(tmp_path_factory.mktemp("home")), database)) as made:
            yield made
        database.close()


@pytest.fixture
def with_key(small: FastAPI, database: Database) -> Callable[..., TestClient]:
    """A client with a new key of these scopes."""
    return lambda *scopes, **given: client(small, new_key(database, *scopes, **given))


def problem(answer: httpx.Response, status: int, slug: str | None = None) -> dict[str, Any]:
    """Check that an answer is a problem document, and return it."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == PROBLEM
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert found["type"].startswith("urn:limner:problem:")
    assert found["title"]
    assert found["detail"]
    assert found["instance"] == f"urn:limner:request:{answer.headers['x-request-id']}"
    if slug is not None:
        assert found["type"] == f"urn:limner:problem:{slug}"
    return found


def operations(app: FastAPI) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation under /v1: its method, a path with ids of nothing, and its description."""
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            if path.startswith("/v1/"):
                yield method.upper(), re.sub(r"\{(\w+)\}", lambda m: FILLED.get(m[1], "1"), path), operation


def audited(database: Database) -> list[tuple[str | None, str, str | None]]:
    """The audit: key, action, hash of the user."""
    with database.session() as session:
        rows = session.execute(text("select key_id, action, subject_hash from audit order by audit_id"))
        return [tuple(row) for row in rows]
