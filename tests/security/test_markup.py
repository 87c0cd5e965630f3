"""Names and reasons that are markup: the dashboard shows them as the text that they are."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")

from browsers import chromium, limited
from conftest import environment
from gateway.conftest import Gateway, serving

EVIL = "<img src=x onerror=window.harmed=1>"
REASON = f"</td></script><script>window.harmed=2</script>{EVIL}<svg onload=window.harmed=3>javascript:window.harmed=4"
STORED = """
import sys
import numpy as np
from candlemill.pipeline.lifecycle import fail
from candlemill.store.candle_writer import count_days
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.pipeline.interfaces import JobRow
from candlemill.backtests.spec import Spec

folder, evil, reason = sys.argv[1:]
start = 1_704_067_200_000
candles = {name: np.full(1440, 10**8, dtype=np.int64) for name in ("open", "high", "low", "close")}
candles |= {"t": start + 60_000 * np.arange(1440), "volume": np.ones(1440, dtype=np.uint64)}
spec = Spec(symbol=evil, strategy=evil[:64], params={evil: 1}, start=start, end=start + 86_400_000)
with ClickHouseStore(f"chdb://{folder}") as store:
    store.add_symbol(evil, 10**8)
    store.insert_candles(evil, [candles])
    store.put_days({evil: count_days(candles)})
    job = JobRow("a" * 32, "planned", spec.to_json().decode(), "", "", 1, attempt=1, request="{}")
    store.put_job(job)
    fail(job, reason, store)
"""


@pytest.fixture(scope="module")
def harmful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """A gateway on a database with a symbol, and a failed job, of hostile names."""
    folder = tmp_path_factory.mktemp("harmful") / "db"
    # In a process of its own: an embedded database may be open in this one.
    done = subprocess.run(
        [sys.executable, "-c", STORED, str(folder), EVIL, REASON], env=environment(), timeout=300, check=False
    )
    assert done.returncode == 0
    with serving(folder) as found:
        yield found, "a" * 32


def test_text_stays_text(harmful: tuple[Gateway, str]) -> None:
    gateway, job = harmful
    with chromium() as browser, limited(browser):
        page = browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        seen: dict[str, Any] = {}
        for place in ("jobs", f"job/{job}", "data", f"data/{quote(EVIL, safe='')}"):
            page.goto(f"{gateway.url}/?{len(seen)}#/{place}")
            page.wait_for_load_state("networkidle")
            seen[place] = page.inner_text("body")
            assert page.evaluate("window.harmed") is None, place
            assert page.query_selector("main img, main svg[onload], main script") is None, place
    assert EVIL in seen["jobs"] and EVIL in seen["data"]
    assert "window.harmed=2" in seen[f"job/{job}"], "the reason is shown, as text"
    assert [one for one in said if "Content Security Policy" in one] == []


def test_answers_are_not_pages(harmful: tuple[Gateway, str]) -> None:
    """A browser that is led to an answer takes it for data."""
    gateway, job = harmful
    for path in (
        f"/api/v1/backtest/{job}",
        f"/api/v1/symbols/{quote(EVIL)}",
        f"/{quote(EVIL)}",
        f"/api/v1/backtest/{quote(EVIL)}",
    ):
        _, headers, _ = gateway.ask("GET", path)
        assert "json" in headers["content-type"] and headers["x-content-type-options"] == "nosniff", path
