"""A real browser, headless and cut off from everything but this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")

# No sandbox inside containers; the rest keeps Chromium itself from asking the network for anything.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Starts Chromium: one on the PATH, else the one that Playwright downloaded.

    Skips the test where there is none, and fails it where our CI must have one.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        if not found and not Path(playwright.chromium.executable_path).is_file():
            reason = f"needs a browser: {', '.join(NAMES)} or playwright install chromium"
            if os.environ.get("MEDQA_SHARED") == "required":
                pytest.fail(f"{reason}; here it must be there")
            pytest.skip(reason)
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()
