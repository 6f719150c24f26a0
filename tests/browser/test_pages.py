"""The pages in a real Chromium: what people do on them, and that nothing on them is what it should not be."""

import re
from collections.abc import Callable
from urllib.parse import quote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.routing import APIRoute
from playwright.sync_api import Page, expect

from api.http.app import create_app
from api.http.sessions import is_page
from api.run_report import FOLDER
from tests.browser.chromium import MISSING, installed
from tests.browser.site import (
    HEBREW,
    HOSTILE_ID,
    MARKUP,
    REFUSING,
    REPORT,
    SCRIPT,
    SILENT,
    Site,
    Watched,
    at_work,
    chromium,
    open_page,
    site,
    trained,
    watched,
)
from tests.http_client import settings

__all__ = ["chromium", "open_page", "site", "trained", "watched"]  # fixtures
if installed() is None:
    pytest.skip(MISSING, allow_module_level=True)

HOSTILE = f"/users/{quote(HOSTILE_ID, safe='')}"
REFUSES = f"/users/{quote(REFUSING, safe='')}"
WHY = f"{HOSTILE}/recommendations/m5"
# By what the page is; {job} is a job that has ended.
EVERY_PAGE = {
    "overview": "/",
    "people": "/users",
    "search": f"/search?q={quote('mystery')}",
    "found by meaning": f"/search/meaning?q={quote('mystery')}",
    "found by id": f"/search?q={quote(HOSTILE_ID[:4])}",
    "likeness": "/users/ann",
    "hostile": HOSTILE,
    "without consent": REFUSES,
    "without a profile": f"/users/{quote(SILENT, safe='')}",
    "recommendations": f"{HOSTILE}/recommendations",
    "why": WHY,
    "what if": f"{WHY}?without_claim=i1",
    "evidence": f"{HOSTILE}/claims/i1/evidence",
    "item": "/items/m1",
    "map": "/map",
    "drawn map": "/map/drawn",
    "jobs": "/jobs",
    "job": "/jobs/{job}",
    "job report": "/jobs/{job}/report",
    "evaluation": "/evaluation",
    "evaluation report": f"/evaluation?name={quote(REPORT, safe='')}",
    "nothing here": "/items/none",
    "sign-in": "/sign-in",
}
# The list beside the likeness, what leads to the likeness, and what is looked at by itself below.
PARTS = {"/users/{user_id}/top", "/users/{user_id}/changes", "/evaluation/report"}


def go(page: Page, site: Site, path: str) -> None:
    page.goto(site.url + path.replace("{job}", site.job_id), wait_until="networkidle")


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds that is serious or worse, and where."""
    found = Axe().run(page).response["violations"]
    return [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in {"serious", "critical"}]


def listed(page: Page) -> list[str]:
    return page.locator("#top .ranked a").all_inner_texts()


def test_a_rejected_claim_moves_the_list_and_stays_rejected(site: Site, watched: Watched) -> None:
    page = watched.page
    go(page, site, "/users/ann")
    before = listed(page)
    card = page.locator("[data-claim=i1]")
    name = card.locator("h3").inner_text()
    card.get_by_role("button", name="Reject").click()
    expect(page.locator("#top .moved")).to_contain_text(re.compile("new|moved"))
    served = [item["title"] for item in site.api("/v1/users/ann/recommendations?k=10")["items"]]  # type: ignore[attr-defined]
    assert listed(page) == served != before
    assert page.locator("#top .move").count() > 0
    expect(page.locator("[data-claim=i1] .badge")).to_have_text(["rejected"])
    page.reload(wait_until="networkidle")
    expect(page.locator("[data-claim=i1] .badge")).to_have_text(["rejected"])
    assert listed(page) == served
    [correction] = site.api("/v1/users/ann/corrections")["items"]  # type: ignore[misc]
    assert (correction["action"], correction["name"]) == ("reject", name)
    page.get_by_role("button", name="Take the rejection back").click()
    expect(page.locator("[data-claim=i1]").get_by_role("button", name="Reject")).to_be_visible()
    expect(page.locator("#top .ranked a")).to_have_text(before)


def test_a_claim_is_added_corrected_pinned_and_asked_less_of(site: Site, watched: Watched) -> None:
    page = watched.page
    go(page, site, "/users/bob")
    page.get_by_label("What is it?").fill(f"Mystery {SCRIPT}")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("heading", name=f"Mystery {SCRIPT}")).to_be_visible()
    card = page.locator("[data-claim=i1]")
    card.get_by_role("button", name=re.compile("^Pin")).click()
    expect(card.locator(".badge")).to_have_text(["pinned"])
    card.get_by_role("button", name=re.compile("^Less")).click()
    expect(card.locator(".badge")).to_have_text(["less of this", "pinned"])
    card.locator("summary").click()
    card.get_by_label("Sentence").fill("Nights under a tarp.")
    card.get_by_role("button", name="Keep these words").click()
    expect(card.locator(".statement")).to_have_text("Nights under a tarp.")
    actions = [row["action"] for row in site.api("/v1/users/bob/corrections")["items"]]  # type: ignore[attr-defined]
    assert actions == ["add", "pin", "less", "rewrite"]


def test_an_event_that_is_switched_off_moves_the_rank_to_what_the_api_says(site: Site, watched: Watched) -> None:
    page = watched.page
    [first, *_] = site.api("/v1/users/sam/recommendations?k=10")["items"]  # type: ignore[misc]
    go(page, site, f"/users/sam/recommendations/{first['item_id']}")
    rank = page.locator("#supposed .now")
    expect(rank).to_have_text("1")
    box = page.locator("input[type=checkbox]").first
    name, value = box.get_attribute("name"), box.get_attribute("value")
    box.check()
    expect(page.locator("#supposed h2")).to_have_text("What if")
    said = site.api(f"/v1/users/sam/explanations/{first['item_id']}/what-if?{name}={quote(value or '', safe='')}")
    assert said["rank"] != 1
    expect(rank).to_have_text(str(said["rank"]))
    would_be = [item["title"] for item in said["items"]]  # type: ignore[attr-defined]
    assert page.locator("#supposed .ranked a").all_inner_texts() == would_be
    page.reload(wait_until="networkidle")  # the address says what is switched off
    expect(rank).to_have_text(str(said["rank"]))
    box.uncheck()
    expect(rank).to_have_text("1")


def test_a_job_is_started_and_ends_before_ones_eyes(site: Site, watched: Watched) -> None:
    page = watched.page
    go(page, site, "/jobs")
    page.get_by_text("Start a job").click()
    page.get_by_label("Profiles of those named below").check()
    page.get_by_label("User ids").fill("ann\nbob")
    page.get_by_label("Also where nothing has changed").check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#job")).to_have_attribute("data-state", "queued")
    with at_work(site):
        expect(page.locator("#job")).to_have_attribute("data-state", "done", timeout=60_000)
    expect(page.locator("#job .progress-label")).to_have_text("2 of 2 users")
    expect(page.get_by_role("heading", name="Report")).to_be_visible()
    go(page, site, "/users/ann")
    expect(page.locator(".timeline .active b")).to_have_text("2")


def test_signing_in_and_out_and_a_wrong_key(site: Site, watched: Watched) -> None:
    page = watched.page
    watched.expected = ["401"]
    key = site.key("read")
    go(page, site, "/jobs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Key").fill("lim_0123456789ab_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert").filter(has_text="unknown or revoked")).to_be_visible()
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert page.get_by_text("Start a job").count() == 0  # a key that reads starts none
    [cookie] = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert key not in cookie["value"]
    page.get_by_role("button", name="Sign out").click()
    go(page, site, "/jobs")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_key_for_oneself_shows_oneself_and_nobody_else(site: Site, watched: Watched) -> None:
    page = watched.page
    watched.expected = ["403"]
    go(page, site, "/sign-in")
    page.get_by_label("Key").fill(site.key("self:ann"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="ann", exact=True)).to_be_visible()
    page.locator("[data-claim=i1]").get_by_role("button", name=re.compile("^Pin")).click()
    expect(page.locator("[data-claim=i1] .badge")).to_have_text(["pinned"])
    for path in (
        "/",
        "/users",
        "/users/bob",
        "/users/bob/recommendations",
        "/jobs",
        "/map",
        "/evaluation",
        "/items/m1",
    ):
        go(page, site, path)
        expect(page.get_by_role("heading", name="Not with this key")).to_be_visible()


@pytest.mark.parametrize("name", EVERY_PAGE)
def test_no_serious_violation_and_hostile_text_is_text(name: str, site: Site, watched: Watched) -> None:
    page = watched.page
    watched.expected = ["404"] if name in {"nothing here", "without a profile"} else []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        go(page, site, EVERY_PAGE[name])
        page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
        assert violations(page) == []
        assert page.evaluate("window.broken") is None
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_every_page_is_looked_at(site: Site) -> None:
    app = create_app(settings(site.home), site.database)
    looked = [urlsplit(path.replace("{job}", site.job_id)).path for path in EVERY_PAGE.values()]
    for route in app.routes:
        if isinstance(route, APIRoute) and "GET" in route.methods and is_page(route.path) and route.path not in PARTS:
            assert any(route.path_regex.fullmatch(path) for path in looked), route.path


def test_a_report_of_an_evaluation_has_no_serious_violation(site: Site, watched: Watched) -> None:
    page = watched.page
    go(page, site, EVERY_PAGE["evaluation report"])
    shown = page.frame_locator("iframe.report")
    expect(shown.get_by_role("heading", level=1)).to_be_visible()
    page.goto("about:blank")  # in its frame, no script may run, that of the check neither
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_content((site.home / FOLDER / REPORT).read_text(encoding="utf-8"))
        assert violations(page) == []


def test_hostile_text_is_shown_as_it_is(site: Site, watched: Watched) -> None:
    page = watched.page
    go(page, site, HOSTILE)
    assert page.get_by_role("heading", level=1).inner_text() == HOSTILE_ID
    card = page.locator("[data-claim=i1]")
    assert card.locator("h3").inner_text() == f"{SCRIPT} {HEBREW}"
    assert card.locator(".statement").inner_text() == MARKUP
    card.get_by_role("link", name="All").click()
    pieces = card.locator(".pieces .what")
    expect(pieces.filter(has_text=SCRIPT).first).to_be_visible()
    go(page, site, "/users")
    page.get_by_role("link", name=HOSTILE_ID).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE_ID)


def test_the_keyboard_reaches_the_actions(site: Site, watched: Watched) -> None:
    page = watched.page
    go(page, site, "/users/ann")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("[data-claim=i1]").get_by_role("button", name="Reject").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-claim=i1] .badge")).to_have_text(["rejected"])
    assert page.evaluate("document.activeElement.textContent") == "Take the rejection back"


def test_pages_work_without_scripts(site: Site, open_page: Callable[[], Watched]) -> None:
    context = open_page().page.context.browser
    assert context is not None
    page = context.new_context(java_script_enabled=False).new_page()
    page.goto(site.url + "/users/ann")
    page.locator("[data-claim=i1]").get_by_role("button", name="Reject").click()
    expect(page.locator("[data-claim=i1] .badge")).to_have_text(["rejected"])
    page.context.close()
