"""The system's own Chromium, driven by Playwright, which fetches no browser of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, sync_playwright

# A loaded machine draws late; what never comes fails all the same.
PATIENCE_MS: Final = 60_000


def path_of_chromium() -> str | None:
    """Return where it is, None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path_of_chromium(),
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
            timeout=2 * PATIENCE_MS,
        )
        yield browser
        browser.close()
