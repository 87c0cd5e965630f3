"""The Chromium for tests that look at pages. No call of a page can last for ever."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
# Of a test. Playwright has limits for what waits for a page, but none for `evaluate` and `close`; pytest's own limit of
# 600 seconds raises inside of Playwright's loop, after which every further call of it spins.
LIMIT_SECONDS = 480.0


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright import sync_api

    with sync_api.sync_playwright() as play:
        try:
            # In a container there is no other sandbox to be had; the pages are our own.
            found = play.chromium.launch(executable_path=CHROMIUM or None, args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("no chromium: apt-get install chromium, or playwright install chromium")
        yield found
        with limited(found):
            found.close()


@contextmanager
def limited(browser: Any, seconds: float = LIMIT_SECONDS) -> Iterator[None]:
    """Kill the browser when the time is over: whatever waits for it fails with Playwright's error."""
    if not browser.is_connected():
        yield
        return
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    timer = threading.Timer(seconds, _kill, [[one["id"] for one in processes if one["type"] == "browser"]])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill(processes: list[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
