"""A feed against the simulated exchange, over real sockets: the store ends equal to the exchange, row for row."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from candlemill.errors import BadInput, StoreDown, UnknownName
from candlemill.io.feed import LiveFeed
from candlemill.io.feedstore import FeedStore
from candlemill.minutes import Span

from loadtests.exchange.faults import Menu
from loadtests.exchange.market import MINUTE_MS, Market, VirtualClock, synthetic
from loadtests.exchange.run import FAST, Stage, audited, differences, digests_true, stored, with_feed

ROOT = Path(__file__).parents[2]
START = 1_709_164_800_000  # 2024-02-29
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedStore]:
    with FeedStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


def market_of(seed: int, calm: bool = False, days: int = 10) -> Market:
    found = synthetic(seed, SYMBOLS, START, days * 1440, calm)
    found.corrections = []  # what comes long after the audit is for the archive's files: see test_download
    return found


def same(store: FeedStore, stage: Stage, feed: LiveFeed, start: int, end: int) -> None:
    names = {symbol: feed.exchange.store_name(symbol) for symbol in feed.feed.minutes}
    assert differences(store, stage.market, names, start, end) == {}
    assert digests_true(store, list(names.values()))


async def live(stage: Stage, feed: LiveFeed, hours: float, during: Callable[[], Awaitable[None]] | None = None) -> int:
    """Run for so many virtual hours, then until everything is there; returns until when."""

    async def body() -> int:
        if during:
            await during()
        await stage.clock.sleep(hours * 3600)
        return await audited(stage, feed)

    return await with_feed(feed, body)


@pytest.mark.parametrize("name", ["binance", "bybit"])
def test_a_calm_exchange_is_followed(store: FeedStore, name: str) -> None:
    async def run() -> None:
        async with Stage(market_of(1, calm=True), START + 3 * DAY_MS, 900, 1) as stage:
            feed = stage.feed(store, name)
            begin = stage.clock.now_ms()
            end = await live(stage, feed, 0.5)
            same(store, stage, feed, begin - DAY_MS + HOUR_MS, end)
            assert feed.feed.counts.bad == 0 and feed.batches.counts.unstorable == 0
            assert store.rules_of(feed.exchange.store_name("BTCUSDT"))[2] == "TRADING"
            assert not stage.simulator.counts["asked_while_forbidden"]

    asyncio.run(run())


@pytest.mark.parametrize("seed", [1, 2])
def test_with_everything_on_the_menu_nothing_is_lost_wrong_or_unfinished(store: FeedStore, seed: int) -> None:
    async def run() -> None:
        skew = [90_000, -3_600_000][seed - 1]
        async with Stage(market_of(seed), START + 3 * DAY_MS, 5400, seed, Menu(), skew) as stage:
            feed = stage.feed(store, "bybit" if seed == 2 else "binance")
            begin = stage.clock.now_ms()
            end = await live(stage, feed, 8)
            same(store, stage, feed, begin - 22 * HOUR_MS, end)
            for symbol in SYMBOLS:  # outages are known as such, and only they
                name = feed.exchange.store_name(symbol)
                gone = {t for a, b in store.outages(name) for t in range(a, b, MINUTE_MS)}
                assert not gone & set(stage.market.rows[symbol])
            assert stage.simulator.counts["asked_while_forbidden"] == stage.simulator.counts["over_the_limit"] == 0
            assert stage.simulator.counts["too_many_messages"] == 0

    asyncio.run(run())


class DownStore(FeedStore):
    """A store that refuses candles between two virtual times."""

    clock: VirtualClock
    down: Span = (0, 0)

    def insert_rows(self, parts) -> None:  # type: ignore[no-untyped-def]
        if self.down[0] <= self.clock.now_ms() < self.down[1]:
            raise StoreDown("the database does not answer: it is simulated to be down")
        super().insert_rows(parts)


@pytest.mark.parametrize("buffer_rows", [30, 400_000])
def test_an_hour_without_a_database_loses_nothing_and_memory_stays_bounded(tmp_path: Path, buffer_rows: int) -> None:
    async def run(store: DownStore) -> None:
        async with Stage(market_of(5, calm=True), START + 3 * DAY_MS, 2400, 5) as stage:
            store.clock = stage.clock
            feed = stage.feed(store, settings=msgspec.structs.replace(FAST, buffer_rows=buffer_rows, batch_rows=20))
            begin = stage.clock.now_ms()
            store.down = (begin + HOUR_MS, begin + 2 * HOUR_MS)
            most = 0

            async def watch() -> None:
                nonlocal most
                while stage.clock.now_ms() < store.down[1]:
                    if feed.batches.failing_since_ms:
                        most = max(most, feed.batches.waiting)
                    await asyncio.sleep(0.01)

            end = await live(stage, feed, 0.5, watch)
            same(store, stage, feed, begin - 20 * HOUR_MS, end)
            counts = feed.batches.counts
            assert counts.failures >= 2 and most <= buffer_rows + 8 * 1000  # and what is being answered
            assert (counts.given_up > 0) == (buffer_rows == 30)

    with DownStore(f"chdb://{tmp_path / 'db'}") as store:
        asyncio.run(run(store))


def forget(store: FeedStore, symbol: str, start: int, end: int) -> None:
    """Remove candles behind everyone's back, and leave the days as a write that broke off does."""
    sql = f"""
        ALTER TABLE market_data_1m DELETE WHERE symbol = '{symbol}'
        AND timestamp >= fromUnixTimestamp64Milli({start}) AND timestamp < fromUnixTimestamp64Milli({end})
    """
    store._client.command(sql, settings={"mutations_sync": "2"})
    store.put_days({symbol: [msgspec.structs.replace(day, digest="") for day in store.days(symbol)]})


def test_a_feed_that_starts_again_heals_what_it_missed(store: FeedStore) -> None:
    """Holes in the middle, the time in between, and days whose last write broke off."""

    async def run() -> None:
        async with Stage(market_of(7), START + 3 * DAY_MS, 3600, 7) as stage:
            begin = stage.clock.now_ms()
            end = await live(stage, stage.feed(store), 1)
            forget(store, "BTCUSDT", begin - HOUR_MS, begin)
            assert len(stored(store, "BTCUSDT", begin - HOUR_MS, begin)) == 0
            await stage.clock.sleep(2 * 3600)
            feed = stage.feed(store)
            end = await live(stage, feed, 0.5)
            same(store, stage, feed, begin - 20 * HOUR_MS, end)

    asyncio.run(run())


def test_the_schedule_finds_what_vanished_meanwhile(store: FeedStore) -> None:
    async def run() -> None:
        async with Stage(market_of(8, calm=True), START + 3 * DAY_MS, 2400, 8) as stage:
            feed = stage.feed(store)
            begin = stage.clock.now_ms()

            async def vanish() -> None:
                await stage.clock.sleep(3600)
                while feed.feed.hole_minutes():
                    await asyncio.sleep(0.02)
                await feed._in_store(forget, store, "ETHUSDT", 0, begin)
                await feed.heal()

            end = await live(stage, feed, 0.5, vanish)
            same(store, stage, feed, begin - 20 * HOUR_MS, end)

    asyncio.run(run())


def test_symbols_change_without_a_restart(store: FeedStore) -> None:
    async def run() -> None:
        market = market_of(9, calm=True)
        async with Stage(market, START + 3 * DAY_MS, 1800, 9) as stage:
            feed = stage.feed(store, silence_ms=1 << 40)
            begin = stage.clock.now_ms()

            async def change() -> None:
                await stage.clock.sleep(1200)
                await feed.follow(["BTCUSDT"])
                await stage.clock.sleep(1200)
                await feed.follow(["BTCUSDT", "XRPUSDT"])
                with pytest.raises(UnknownName, match="did you mean 'BTCUSDT'"):
                    await feed.follow(["BTCUSD"])

            end = await live(stage, feed, 0.5, change)
            assert list(feed.feed.minutes) == ["BTCUSDT", "XRPUSDT"]
            same(store, stage, feed, begin - 20 * HOUR_MS, end)
            assert stage.simulator.counts["connections"] <= 3  # one was cut to end the test

    asyncio.run(run())


def test_a_volume_that_does_not_fit_is_refused_and_named(store: FeedStore, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        market = market_of(3, calm=True)
        for t, row in list(market.rows["XRPUSDT"].items())[::1]:
            market.rows["XRPUSDT"][t] = market.first["XRPUSDT"][t] = (
                *row[:4],
                2**64 if t % (5 * MINUTE_MS) == 0 else row[4],
            )
        async with Stage(market, START + 3 * DAY_MS, 1200, 9) as stage:
            feed = stage.feed(store)
            await live(stage, feed, 0.2)
            assert feed.batches.counts.unstorable > 0
            assert all(t % (5 * MINUTE_MS) for t in stored(store, "XRPUSDT", 0, 1 << 42))

    asyncio.run(run())
    (found,) = {(r.symbol, r.levelname) for r in caplog.records if "do not fit the volume scale" in r.getMessage()}  # type: ignore[attr-defined]
    assert found == ("XRPUSDT", "ERROR")


def test_no_or_too_many_symbols(store: FeedStore) -> None:
    for symbols in ([], [f"S{k}" for k in range(5001)]):
        with pytest.raises(BadInput, match="a feed follows 1 to 5000"):
            LiveFeed(None, symbols, store, FAST, VirtualClock(0, 0, 1), None)  # type: ignore[arg-type]


# -- the process -------------------------------------------------------------------------------------------------------


def test_the_service_says_how_it_is_and_ends_in_order(tmp_path: Path) -> None:
    """functions/feed/main.py as it runs in a container: health, metrics, SIGTERM; at the real speed of time."""
    market_ms = int(time.time() * 1000) // DAY_MS * DAY_MS - 2 * DAY_MS
    market = synthetic(4, ["BTCUSDT"], market_ms, 4 * 1440, calm=True)

    async def run() -> tuple[str, str, str, int, float]:
        async with Stage(market, int(time.time() * 1000), 1.0, 1) as stage:
            port = free_port()
            env = {
                **os.environ,
                "PYTHONPATH": f"{ROOT / 'core'}",
                "CANDLEMILL_CLICKHOUSE_DSN": f"chdb://{tmp_path / 'db'}",
                "CANDLEMILL_FEED_SYMBOLS": "btcusdt",
                "CANDLEMILL_FEED_REST": f"http://127.0.0.1:{stage.port}",
                "CANDLEMILL_FEED_STREAM": f"ws://127.0.0.1:{stage.port}/stream",
                "PORT": str(port),
            }
            command = [sys.executable, str(ROOT / "functions" / "feed" / "main.py")]
            process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
            try:
                early = await asyncio.to_thread(fetch, port, "/healthz")
                for _ in range(200):
                    text = await asyncio.to_thread(fetch, port, "/metrics")
                    if 'lag_seconds{symbol="BTCUSDT"} 0.0' in text and "feed_gap_minutes 0.0" in text:
                        break
                    await asyncio.sleep(0.1)
                health = await asyncio.to_thread(fetch, port, "/healthz")
                began = time.monotonic()
                process.send_signal(signal.SIGTERM)
                status = await asyncio.to_thread(process.wait, 20)
                return early, health, text, status, time.monotonic() - began
            finally:
                process.kill()
                process.communicate()

    early, health, text, status, seconds = asyncio.run(run())
    # Asked before the back-fill is done, it may well say that its symbol lags.
    assert early in ("still starting\n", "ok\n", "1 of 1 symbols lag more than 180 s\n") and health == "ok\n"
    assert (status, seconds < 10) == (0, True)
    for name in ("messages_total", "reconnects_total", "gap_minutes", "batch_rows", "lag_seconds", "requests_total"):
        assert f"candlemill_feed_{name}" in text
    with FeedStore(f"chdb://{tmp_path / 'db'}") as store:
        have = stored(store, "BTCUSDT", 0, 1 << 42)
        assert len(have) >= 1438 and all(market.rows["BTCUSDT"][t] == row for t, row in have.items())


def free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def fetch(port: int, path: str) -> str:
    for _ in range(200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(path)
