"""The commands around exchanges, as somebody types them, against the simulated exchange."""

import argparse
import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from candlemill.cli.candles import run_feed
from candlemill.errors import BadInput
from conftest import Cli, environment, run_cli, said

from loadtests.exchange_simulator.market import Market, synthetic
from loadtests.exchange_simulator.run import Stage

DAY_MS = 86_400_000


def recent(days: int) -> Market:
    """Candles of some days until tomorrow, with an outage of 7 minutes yesterday."""
    first = int(time.time() * 1000) // DAY_MS * DAY_MS - days * DAY_MS
    found = synthetic(4, ["BTCUSDT", "ETHUSDT"], first, (days + 2) * 1440, calm=True)
    for rows in (found.rows["ETHUSDT"], found.first["ETHUSDT"]):
        for k in range(7):
            del rows[first + (days - 1) * DAY_MS + k * 60_000]
    return found


def on_stage(market: Market, body: Callable[[list[str]], Awaitable[None]]) -> None:
    """Run it beside a simulated exchange at the real speed of time; it is given the options that lead there."""

    async def run() -> None:
        async with Stage(market, int(time.time() * 1000), 1.0, 1, shared=True) as stage:
            rest, stream = f"http://127.0.0.1:{stage.ports.rest}", f"ws://127.0.0.1:{stage.ports.stream}/stream"
            await body(["--rest-url", rest, "--stream-url", stream, "--archive-url", rest])

    asyncio.run(run())


@pytest.mark.clock
def test_ingest_feed_and_coverage_as_typed(tmp_path: Path) -> None:
    variables = {"CANDLEMILL_CLICKHOUSE_DSN": f"chdb://{tmp_path / 'db'}", "XDG_DATA_HOME": str(tmp_path)}

    async def call(*arguments: str) -> Any:
        done = await asyncio.to_thread(run_cli, *arguments, **variables)
        assert (done.returncode, done.stderr) == (0, ""), done
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    async def body(there: list[str]) -> None:
        ingest = ["ingest", "--symbol", "btcusdt,ETHUSDT", "--days", "5", *there]
        report = await call(*ingest, "--json")
        assert report["symbols"] == ["BTCUSDT", "ETHUSDT"] and report["files"] in (8, 10)
        assert report["stored"] >= 2 * 5 * 1440 - 7 and report["outage_minutes"] == 7
        for _ in range(2):  # the files of a day may be published meanwhile
            again = await call(*ingest)
            if "0 files fetched" in again:
                break
        assert re.search("0 files fetched, (8|10) unchanged", again)
        checked = await call("coverage", "--check", "--json")
        assert [row["minutes"] for row in checked["symbols"]["ETHUSDT"]["outages"]] == [7]
        assert not checked["symbols"]["BTCUSDT"]["outages"] and not checked["symbols"]["BTCUSDT"]["missing"]
        assert "at the exchange" in await call("coverage", "ETHUSDT", "--check")

        command = [sys.executable, "-m", "candlemill", "feed", "--symbol", "BTCUSDT", "--port", "0", *there]
        feed = subprocess.Popen(command, env=environment(**variables), stderr=subprocess.PIPE, text=True)
        assert feed.stderr is not None
        try:
            lines: list[str] = []
            while "minutes missing" not in (lines or [""])[-1]:
                lines.append(await asyncio.to_thread(feed.stderr.readline))
                assert lines[-1]
            feed.send_signal(signal.SIGINT)
            rest = await asyncio.to_thread(feed.stderr.read)
            assert await asyncio.to_thread(feed.wait, 300) == 0
        finally:
            feed.kill()
        assert lines[0].startswith("feeding, with /healthz and /metrics on http://127.0.0.1:")
        assert json.loads(lines[-1])["message"].startswith("1 of 1 symbols up to date")
        assert json.loads(rest.splitlines()[-1])["message"] == "stopped: all candles are stored"

    on_stage(recent(6), body)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ingest --symbol BTCUSDT", "say how much: one of --days N"),
        ("ingest --symbol BTCUSDT --days 0", "--days 0 is not between 1 and"),
        ("ingest --symbol BTCUSDT --from 2026-13", "range '2026-13': month must be in 1..12"),
        ("ingest --symbol BTCUSDT --from 2098", "--from 2098 is in the future"),
        ("ingest --symbol BTCUSDT --to 2023", "say how much"),
        ("ingest --symbol , --days 3", "--symbol ',' names no symbol"),
        ("ingest --symbol BTCUSDT --days 3 --exchange kraken", "known are binance, binanceus, bybit"),
        ("ingest --symbol BTCUSDT --days 3 --rest-url here", "'here' is no address: write it like https://host"),
        ("feed --symbol BTCUSDT --stream-url http://here", "write it like wss://host"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Cli, arguments: str, message: str) -> None:
    status, out, err = run(*arguments.split())
    assert status == 2 and not out and message in err and err.count("\n") == 1


@pytest.mark.clock
def test_a_symbol_that_is_not_listed(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANDLEMILL_CLICKHOUSE_DSN", f"chdb://{tmp_path / 'db'}")

    async def body(there: list[str]) -> None:
        for command in (["ingest", "--days", "2"], ["feed"]):
            requested = [*command, "--symbol", "BTCUSD", *there]
            done = await asyncio.to_thread(run_cli, *requested, XDG_DATA_HOME=str(tmp_path))
            assert done.returncode == 2 and "did you mean 'BTCUSDT'? binance does not list it" in done.stderr

    on_stage(recent(1), body)
    assert said(run("coverage", "--check", "--json")) == {"symbols": {}}


def test_a_feed_names_the_libraries_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("websockets", "starlette"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BadInput, match=r"a feed needs websockets, starlette: pip install 'candlemill\[feed\]'"):
        run_feed(argparse.Namespace())
