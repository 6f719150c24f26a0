"""The browser that the tests and the screenshots use: Debian's Chromium, or whichever is named."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    "No Chromium is installed: the tests of the pages are skipped. Install it with `apt-get install chromium` "
    "(or name one in LIMNER_TEST_CHROMIUM)."
)


def installed() -> str | None:
    """The path of a Chromium, if there is one."""
    named = os.environ.get("LIMNER_TEST_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A Chromium without a window; it asks no host for anything of its own accord."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=installed(), args=["--no-sandbox", "--disable-background-networking"]
        )
        yield made
        made.close()
