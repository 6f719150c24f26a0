"""A site for a browser: the small world with a model, served by a real server in this process, and pages of it.

Titles, a claim and a user's id hold what would break a page that trusts them. After each test the page must have had
no error in its console and must have asked no other host for anything.
"""

import asyncio
import threading
import time
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
from api.queue import enqueue_profiles
from api.run_report import FOLDER
from api.settings import WorkerSettings
from api.training import train_model
from api.worker import Worker
from eval import report
from eval.html import to_page
from recommend.parameters import Parameters
from store import jobs
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
SILENT = f"silent {SCRIPT}"
"""A user without events."""
REFUSING = f"refusing {MARKUP}"
"""A user who does not consent."""
REPORT = "gate/report.html"
GATE = Path(__file__).parents[1] / "gate" / "baseline.json"
PARAMETERS = Parameters(
    factors=8, epochs=6, projection=8, user_features=1.0, item_features=1.0, alpha0=1.0, reg=0.005, half_trust=5.0,
    sparse_alpha=0.0, popular=1.0,
)  # fmt: skip
_QUICK = WorkerSettings(heartbeat_s=1, stalled_s=3, tries=3, pause_s=0.05, grace_s=0.2)
fresh = contextmanager(_fresh)


class Trained(NamedTuple):
    """A database with a model and a job that has ended, to be copied, and the folder that the model's file is in."""

    template: str
    home: Path
    job_id: str


class Site(NamedTuple):
    """A site, the database behind it, its settings' home, and a job there that has ended."""

    url: str
    database: Database
    home: Path
    job_id: str

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
            session.add_all([UserRow(user_id=HOSTILE_ID, log_revision=1), UserRow(user_id=SILENT)])
            session.add(UserRow(user_id=REFUSING, consent=False))
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
        job_id = _job(database, home)
        _report(home / FOLDER / REPORT)
        database.close()  # a template must have no connections
        yield Trained(make_url(url).database or "", home, job_id)


def _job(database: Database, home: Path) -> str:
    """Run a job to its end; it fails for the user who has no events."""
    with database.session() as session:
        job_id = enqueue_profiles(session, ["ann", SILENT], "template", created_by=None)
    with at_work(Site("", database, home, job_id)):
        while True:
            with database.session() as session:
                if jobs.get(session, job_id).finished_at is not None:
                    return job_id
            time.sleep(0.05)


def _report(path: Path) -> None:
    """Write the page of a report that an evaluation has made."""
    path.parent.mkdir(parents=True)
    path.write_text(to_page(report.read(GATE)), encoding="utf-8")


@pytest.fixture
def site(postgres_url: str, trained: Trained) -> Iterator[Site]:
    """A site of its own for each test."""
    with pytest.MonkeyPatch.context() as patched, fresh(postgres_url, trained.template) as url:
        patched.setattr(api.runtime, "embedder", lambda settings: FakeEmbedder())
        database = Database(url)
        with _served(create_app(settings(trained.home, worker=_QUICK), database)) as address:
            yield Site(address, database, trained.home, trained.job_id)
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
