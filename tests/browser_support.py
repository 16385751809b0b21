"""Pages in a real browser: what they ask for, what they complain of, and whether they fit a screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

DESKTOP, PHONE = 1280, 390
"""Widths of a window, in pixels."""

# A browser left to itself asks its maker for updates, and a sandbox needs rights that containers lack.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Watch(NamedTuple):
    """What a page did while it was open."""

    requests: list[str]
    """Addresses of all that it asked for, those of web sockets among them."""
    complaints: list[str]
    """Errors and warnings on its console, exceptions that nothing caught, and requests that failed."""

    @property
    def foreign(self) -> list[str]:
        """Addresses that lie on other machines."""
        return [address for address in self.requests if not _is_local(address)]


def _is_local(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname == "127.0.0.1"


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser without a window; until the block ends, no event loop can be run in this thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, address: str, *, width: int = DESKTOP, height: int = 900) -> Iterator[tuple[Page, Watch]]:
    """A page in a window of its own, loaded, and what it does."""
    watch = Watch([], [])
    context = browser.new_context(viewport={"width": width, "height": height})
    try:
        page = context.new_page()

        def keep(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                watch.complaints.append(message.text)

        page.on("console", keep)
        page.on("pageerror", lambda error: watch.complaints.append(str(error)))
        page.on("request", lambda request: watch.requests.append(request.url))
        page.on("requestfailed", lambda request: watch.complaints.append(f"{request.url}: {request.failure}"))
        page.on("websocket", lambda socket: watch.requests.append(socket.url))
        page.goto(address)
        yield page, watch
    finally:
        context.close()


def overflow(page: Page) -> int:
    """Pixels by which a page is wider than its window: what a reader has to scroll sideways for."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
