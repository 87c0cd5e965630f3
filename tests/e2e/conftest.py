"""The browser of tests that look at pages."""

from collections.abc import Iterator
from typing import Any

import pytest
from browsers import chromium, limited


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(autouse=True)
def limit_on_time(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test with the browser ends, whatever happens in it."""
    if "browser" not in request.fixturenames:
        yield
        return
    with limited(request.getfixturevalue("browser")):
        yield
