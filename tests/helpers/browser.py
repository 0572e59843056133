"""A headless Chromium that opens pages from files, and that nothing reaches the network from."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1400, "height": 900}


def find_chromium() -> str:
    """The program that CHROME names, or Chromium or Chrome where the system has it."""
    found = os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "no Chromium: install Debian's package chromium, or set CHROME to the program"
    return found


@pytest.fixture(scope="module")
def chromium():
    """One browser for the tests of a module. Not for the session: while it runs, `asyncio.run` would not."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(chromium, path, *, size=DESK, **options):
    """The page of a file; fails if it asks for anything else, logs an error, or opens a dialog."""
    context = chromium.new_context(viewport=size, **options)
    asked, errors = [], []
    context.route("**/*", lambda route: (asked.append(route.request.url), route.abort()))
    page = context.new_page()
    page.set_default_timeout(60_000)  # for a machine that others use too
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    html, url = path.read_text(encoding="utf-8"), "https://page.test/"
    # The page itself is all that a request is answered with.
    context.route(url, lambda route: route.fulfill(body=html, content_type="text/html; charset=utf-8"))
    page.goto(url)
    try:
        yield page
        assert not asked and not errors, f"asked for {asked}, errors {errors}"
    finally:
        context.close()
