"""How long each page takes in a browser until one can use it: `python -m tests.benchmarks.pages`.

The database is that of the settings; it wants profiles and a model. `limner serve` is started on a free port, and
Chromium visits each page several times, each time for another user. A page is ready once its scripts run and all that
it loads after itself has come and stands in its place. The first visit of each is told apart: what is drawn or loaded
once, is so then. The key, and the audit rows under it, are gone at the end. It asserts nothing.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import httpx
from playwright.sync_api import Page
from sqlalchemy import text

from api.pages.evaluation import reports
from api.runtime import database
from api.settings import Settings, read_settings
from store import jobs, overview
from store.database import Database
from tests.benchmarks.run import Result, machine, print_result
from tests.benchmarks.serving import own_key, served
from tests.browser.chromium import browser

REQUIRED_MS = 1_000
"""Required of each page."""
_QUERIES = ("who is into trail running?", "quiet evenings", "cooking for many", "photography", "gifts for children")
# Counts what htmx is at, and notes when the last of it stood in its place.
_WATCH = """
window.waiting = 0; window.settled = 0;
document.addEventListener('htmx:beforeRequest', () => { window.waiting += 1 });
document.addEventListener('htmx:afterRequest', () => { window.waiting -= 1 });
document.addEventListener('htmx:afterSettle', () => { window.settled = performance.now() });
"""
_QUIET = "document.readyState === 'complete' && window.waiting === 0 && !document.querySelector('.loading')"
_TIMES = (
    "(n => [n.domContentLoadedEventEnd, Math.max(n.loadEventEnd, window.settled)])"
    "(performance.getEntriesByType('navigation')[0])"
)


def measure(opened: Database, settings: Settings, visits: int) -> Result:
    """Measure all pages."""
    with opened.session() as session:
        counts = {name: overview.count(session, name).value for name in ("users", "events", "items")}
        some = list(session.scalars(text("select user_id from profiles where active order by md5(user_id) limit 500")))
        items = list(session.scalars(text("select item_id from items order by md5(item_id) limit 500")))
        ended = [job.job_id for job in jobs.page(session, 50) if job.finished_at is not None]
    pages = _pages(some, items, ended, [report.name for report in reports(settings.home)])
    with own_key(opened, "admin") as token, served() as server, browser() as chromium:
        _warm(server.url, token, some[0])
        page = chromium.new_context().new_page()
        page.set_default_timeout(120_000)
        page.add_init_script(_WATCH)
        page.goto(f"{server.url}/sign-in")
        page.get_by_label("Key").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state("networkidle")
        table = [_row(page, server.url, name, paths, visits) for name, paths in pages.items()]
    return {
        "title": ", ".join(f"{number:,} {name}" for name, number in counts.items()),
        "table": table,
        "required": f"each page ready in {REQUIRED_MS:,} ms",
        "met": all(row["median ms"] < REQUIRED_MS for row in table),
    }


def _pages(
    users: Sequence[str], items: Sequence[str], ended: Sequence[str], named: Sequence[str]
) -> dict[str, list[str]]:
    """Return the paths of each page, a different one for each visit where there are such."""
    whose = [f"/users/{quote(user, safe='')}" for user in users]
    which = [quote(item, safe="") for item in items]
    found = {
        "overview": ["/"],
        "people": ["/users"],
        "search by id": [f"/search?q={quote(user[:-2])}" for user in users],
        "search by meaning": [f"/search?q={quote(query)}" for query in _QUERIES],
        "likeness": whose,
        "recommendations": [f"{path}/recommendations" for path in whose[::-1]],
        "why": [f"{path}/recommendations/{item}" for path, item in zip(whose[100:], which, strict=False)],
        "evidence": [f"{path}/claims/i1/evidence" for path in whose[200:]],
        "item": [f"/items/{item}" for item in which],
        "map": ["/map"],
        "jobs": ["/jobs"],
        "job": [f"/jobs/{job}" for job in ended],
        "evaluation": ["/evaluation"],
        "report": [f"/evaluation?name={quote(name, safe='')}" for name in named],
        "sign-in": ["/sign-in"],
    }
    return {name: paths for name, paths in found.items() if paths}


def _warm(url: str, token: str, user: str) -> None:
    """Wait until the server has loaded what it loads when it starts."""
    for path in ("search?q=warm", f"{quote(user, safe='')}/recommendations"):
        headers = {"Authorization": f"Bearer {token}"}
        httpx.get(f"{url}/v1/users/{path}", headers=headers, timeout=300).raise_for_status()


def _row(page: Page, url: str, name: str, paths: Sequence[str], visits: int) -> Result:
    times = [_visit(page, url + paths[n % len(paths)]) for n in range(visits + 1)]
    again = [ready for _, ready in times[1:]]
    return {
        "page": name,
        "first ms": round(times[0][1]),
        "shown ms": round(statistics.median(shown for shown, _ in times[1:])),
        "median ms": round(statistics.median(again)),
        "longest ms": round(max(again)),
    }


def _visit(page: Page, address: str) -> tuple[float, float]:
    """Return when the page itself was there, and when all of it was, in ms since the visit began."""
    answer = page.goto(address, wait_until="load")
    if answer is None or not answer.ok:
        raise RuntimeError(f"{address} answers {answer and answer.status}")
    while not page.evaluate(_QUIET):  # `wait_for_function` would need the policy to allow eval
        page.wait_for_timeout(5)
    shown, ready = page.evaluate(_TIMES)
    return shown, ready


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=7, help="of each page, after the first")
    parser.add_argument("--out", type=Path, help="write the figures as JSON to this file")
    arguments = parser.parse_args()
    before, settings = machine(), read_settings()
    with database(settings) as opened:
        result = measure(opened, settings, arguments.visits)
    print_result(result)
    if arguments.out:
        arguments.out.write_text(json.dumps(result | {"machine": before}, indent=2) + "\n", encoding="utf-8")
    sys.exit(not result["met"])


if __name__ == "__main__":
    main()
