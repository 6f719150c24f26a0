"""A site for a browser: the small world with a model, served by a real server in this process, and pages of it.

Titles, a claim and a user's id hold what would break a page that trusts them. After each test the page must have had
no error in its console and must have asked no other host for anything.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, Request
from sqlalchemy import make_url, text

import api.runtime
from api.http.app import create_app
from api.settings import WorkerSettings
from api.training import train_model
from api.worker import Worker
from recommend.parameters import Parameters
from store.database import Database
from store.tables import UserRow
from tests.browser.chromium import browser
from tests.conftest import _fresh
from tests.http_client import new_key, settings
from tests.small_world import EVERYONE, START, FakeEmbedder, event, fill, profiler, wrote

SCRIPT = "<script>window.broken = 1</script>"
MARKUP = """"'><img src=x onerror="window.broken = 1">"""
HEBREW = "שלום עולם"
HOSTILE_ID = f"../{SCRIPT}'\" & {HEBREW}"
PARAMETERS = Parameters(
    factors=8, epochs=6, projection=8, user_features=1.0, item_features=1.0, alpha0=1.0, reg=0.005, half_trust=5.0,
    sparse_alpha=0.0, popular=1.0,
)  # fmt: skip
_QUICK = WorkerSettings(heartbeat_s=1, stalled_s=3, tries=3, pause_s=0.05, grace_s=0.2)
fresh = contextmanager(_fresh)


class Trained(NamedTuple):
    """A database with a model, to be copied, and the folder that the model's file is in."""

    template: str
    home: Path


class Site(NamedTuple):
    """A site, the database behind it, and its settings' home."""

    url: str
    database: Database
    home: Path

    def api(self, path: str) -> dict[str, object]:
        """What the interface for programs says."""
        found: dict[str, object] = httpx.get(self.url + path).raise_for_status().json()
        return found

    def key(self, *scopes: str) -> str:
        """A new key."""
        return new_key(self.database, *scopes)


@dataclass
class Watched:
    """A page, and what must not happen on it.

    Attributes:
        expected: Parts of console messages that are meant to be there: a browser logs each 4xx.
    """

    page: Page
    host: str
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note errors and requests from now on."""
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(part in message.text for part in self.expected):
            self.errors.append(message.text)

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob"} and parts.netloc != self.host:
            self.elsewhere.append(request.url)


@pytest.fixture(scope="session")
def trained(postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """The small world with profiles, a model and hostile texts."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, migrated_template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        fill(database)
        with database.session() as session:
            session.add(UserRow(user_id=HOSTILE_ID, log_revision=1))
            session.flush()
            liked = [(i, kind) for i in ("m1", "m2", "m3", "m4", "k1", "k2") for kind in ("view", "like")]
            session.add_all(
                event(HOSTILE_ID, n, kind, item, START.replace(day=1 + n)) for n, (item, kind) in enumerate(liked)
            )
            for item_id, title in (("m1", SCRIPT), ("m2", MARKUP), ("k1", HEBREW), ("m5", f"{HEBREW} {SCRIPT}")):
                session.execute(
                    text("update items set title = :title where item_id = :item_id"),
                    {"title": title, "item_id": item_id},
                )
        wrote(profiler(database), (*EVERYONE, HOSTILE_ID))
        with database.session() as session:
            session.execute(
                text("""
                    update claims set name = :name, statement = :statement
                    where profile_id = (select profile_id from profiles where user_id = :user_id) and position = 0
                """),
                {"name": f"{SCRIPT} {HEBREW}", "statement": MARKUP, "user_id": HOSTILE_ID},
            )
        train_model(database, settings(home), PARAMETERS)
        database.close()  # a template must have no connections
        yield Trained(make_url(url).database or "", home)


@pytest.fixture
def site(postgres_url: str, trained: Trained) -> Iterator[Site]:
    """A site of its own for each test."""
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, trained.template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        with _served(create_app(settings(trained.home, worker=_QUICK), database)) as address:
            yield Site(address, database, trained.home)
        database.close()


@contextmanager
def _served(app: FastAPI) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none"))
    thread = threading.Thread(target=server.run, name="site")
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        [listener] = server.servers[0].sockets
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def at_work(site: Site) -> Iterator[None]:
    """A worker that does the site's jobs meanwhile."""
    worker = Worker(settings(site.home, worker=_QUICK), site.database)
    thread = threading.Thread(target=asyncio.run, args=[worker.run()], name="worker")
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of a module: while it is open, no other test can run an event loop."""
    with browser() as made:
        yield made


@pytest.fixture
def open_page(chromium: Browser, site: Site) -> Iterator[Callable[[], Watched]]:
    """Opens pages that know nothing of each other; all of them must have behaved in the end."""
    opened: list[Watched] = []

    def make() -> Watched:
        page = chromium.new_context().new_page()
        page.set_default_timeout(20_000)
        opened.append(Watched(page, urlsplit(site.url).netloc))
        opened[-1].watch()
        return opened[-1]

    yield make
    for watched in opened:
        watched.page.context.close()
        assert watched.errors == []
        assert watched.elsewhere == []


@pytest.fixture
def watched(open_page: Callable[[], Watched]) -> Watched:
    """A page, watched."""
    return open_page()
