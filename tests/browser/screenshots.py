"""Screenshots of each page for the docs: `python -m tests.browser.screenshots URL USER ITEM FOLDER`.

Simulated data only: run it against a server whose data directory holds a shop of `limner simulate`.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.chromium import browser

LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "is_mobile": True},
}


def pages(user: str, item: str) -> dict[str, str]:
    """The pages by name."""
    here = f"/users/{quote(user, safe='')}"
    return {
        "overview": "/",
        "likeness": here,
        "recommendations": f"{here}/recommendations",
        "why": f"{here}/recommendations/{quote(item, safe='')}",
        "map": "/map",
        "people": "/users",
        "search": "/search?q=trail+running",
        "jobs": "/jobs",
        "evaluation": "/evaluation",
        "sign-in": "/sign-in",
    }


def main(url: str, user: str, item: str, folder: str, *only: str) -> None:
    """Take them."""
    with browser() as chromium:
        for look, given in LOOKS.items():
            context = chromium.new_context(**given)
            page = context.new_page()
            for name, path in pages(user, item).items():
                if not only or name in only:
                    page.goto(url + path, wait_until="networkidle", timeout=60_000)
                    if name == "evaluation":  # the latest report; `limner eval run` makes one
                        page.locator(".ids a").first.click()
                        page.wait_for_load_state("networkidle")
                    shoot(page, Path(folder) / f"{name}-{look}.png", full_page=name != "likeness")
            if look != "phone":
                for name, act in ACTS.items():
                    if not only or name in only:
                        act(page, url, user, item)
                        shoot(page, Path(folder) / f"{name}-{look}.png")
            context.close()


def shoot(page: Page, path: Path, *, full_page: bool = False) -> None:
    """Take one; 256 colours are enough for it, and half of the size."""
    page.screenshot(path=path, full_page=full_page)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )


def reject(page: Page, url: str, user: str, _item: str) -> None:
    """Reject the second claim."""
    take_back(page, url, user)
    page.locator("[data-claim=i2]").get_by_role("button", name=re.compile("^Reject")).click()
    expect(page.locator("[data-claim=i2].gone")).to_be_visible()
    page.evaluate("window.scrollTo(0, document.querySelector('[data-claim=i2]').offsetTop - 300)")


def take_back(page: Page, url: str, user: str) -> None:
    """Take the rejection of the second claim back, if there is one."""
    page.goto(f"{url}/users/{quote(user, safe='')}", wait_until="networkidle", timeout=60_000)
    if page.locator("[data-claim=i2].gone").count():
        page.locator("[data-claim=i2]").get_by_role("button").click()
        expect(page.locator("[data-claim=i2].gone")).to_have_count(0)


def what_if(page: Page, url: str, user: str, item: str) -> None:
    """Switch the part off that adds most."""
    page.goto(f"{url}/users/{quote(user, safe='')}/recommendations/{quote(item, safe='')}", wait_until="networkidle")
    page.locator("input[type=checkbox]").first.check()
    expect(page.locator("#supposed h2")).to_have_text("What if")


def run_job(page: Page, url: str, user: str, _item: str) -> None:
    """Write all profiles anew."""
    take_back(page, url, user)
    page.goto(f"{url}/jobs", wait_until="networkidle")
    if not page.get_by_label("Profiles of all", exact=True).is_visible():
        page.get_by_text("Start a job").click()
    page.get_by_label("Profiles of all", exact=True).check()
    page.get_by_label("Also where nothing has changed").check()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#job[data-state=done]")).to_be_visible(timeout=600_000)


ACTS: dict[str, Callable[[Page, str, str, str], None]] = {"rejected": reject, "what-if": what_if, "job": run_job}


if __name__ == "__main__":
    main(*sys.argv[1:])
