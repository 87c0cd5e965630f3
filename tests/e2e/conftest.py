"""The browser of tests that look at pages."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright import sync_api

    with sync_api.sync_playwright() as play:
        try:
            # In a container there is no other sandbox to be had; the pages are our own.
            found = play.chromium.launch(executable_path=CHROMIUM or None, args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("no chromium: apt-get install chromium, or playwright install chromium")
        yield found
        found.close()
