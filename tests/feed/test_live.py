"""The feed against the simulated exchange, over real sockets: the store finally equals the exchange, row by row."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from candlemill.errors import BadInput, UnknownName
from candlemill.exchanges.registry import exchange
from candlemill.feed.live import LiveFeed
from candlemill.feed.service import Health
from candlemill.store.clickhouse import ClickHouseStore
from conftest import python_path

from loadtests.common.ports import free_port
from loadtests.exchange_simulator.faults import Menu
from loadtests.exchange_simulator.market import MINUTE_MS, Market, VirtualClock, synthetic
from loadtests.exchange_simulator.run import FAST, Stage, audited, differences, digests_true, stored, until, with_feed
from loadtests.exchange_simulator.victim import RiggedStore

ROOT = Path(__file__).parents[2]
START = 1_709_164_800_000  # 2024-02-29
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]
SPEED = 600.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


def market_of(seed: int, calm: bool = False, days: int = 15) -> Market:
    found = synthetic(seed, SYMBOLS, START, days * 1440, calm)
    found.corrections = []  # later corrections come with the archive's files: test_download.py
    return found


def assert_same(store: ClickHouseStore, stage: Stage, feed: LiveFeed, start: int, end: int) -> None:
    names = {symbol: feed.exchange.store_name(symbol) for symbol in feed.feed.trackers}
    assert differences(store, stage.market, names, start, end) == {}
    assert digests_true(store, list(names.values()))


async def live_candles(feed: LiveFeed, finals: int = 20) -> None:
    """Wait for this many more live candles: tests wait for events, not for times, since machines differ in speed."""
    least = feed.feed.counts.candles + finals
    assert await until(lambda: feed.feed.counts.candles >= least, 240), f"{feed.feed.counts} {feed.feed.last_problem}"


async def live(stage: Stage, feed: LiveFeed, during: Callable[[], Awaitable[None]] | None = None) -> int:
    """Run the feed through `during`, then until all candles are audited; return the end (ms)."""

    async def body() -> int:
        await (during() if during else live_candles(feed))
        return await audited(stage, feed)

    return await with_feed(feed, body)


@pytest.mark.parametrize("name", ["binance", "bybit"])
def test_candles_of_an_exchange_without_faults(store: ClickHouseStore, name: str) -> None:
    async def run() -> None:
        async with Stage(market_of(1, calm=True), START + 3 * DAY_MS, SPEED, 1) as stage:
            feed = stage.feed(store, name)
            begin = stage.clock.now_ms()
            end = await live(stage, feed)
            assert_same(store, stage, feed, begin - DAY_MS + HOUR_MS, end)
            assert feed.feed.counts.bad == 0 and feed.batches.counts.unstorable == 0
            assert store.rules_of(feed.exchange.store_name("BTCUSDT"))[2] == "TRADING"
            assert not stage.simulator.counts["requested_while_forbidden"]

    asyncio.run(run())


@pytest.mark.parametrize("seed", [1, 2])
def test_all_faults_together_leave_the_store_correct(store: ClickHouseStore, seed: int) -> None:
    async def run() -> None:
        skew = [90_000, -3_600_000][seed - 1]
        async with Stage(market_of(seed), START + 3 * DAY_MS, 5400, seed, Menu(), skew) as stage:
            feed = stage.feed(store, "bybit" if seed == 2 else "binance")
            begin = stage.clock.now_ms()
            end = await live(stage, feed, lambda: stage.clock.sleep(8 * 3600))
            assert_same(store, stage, feed, begin - 22 * HOUR_MS, end)
            for symbol in SYMBOLS:  # only real outages are recorded as outages
                name = feed.exchange.store_name(symbol)
                gone = {t for a, b in store.outages(name) for t in range(a, b, MINUTE_MS)}
                assert not gone & set(stage.market.rows[symbol])
            assert stage.simulator.counts["requested_while_forbidden"] == stage.simulator.counts["over_the_limit"] == 0
            assert stage.simulator.counts["too_many_messages"] == 0

    asyncio.run(run())


@pytest.mark.parametrize("buffer_rows", [30, 400_000])
def test_an_hour_without_a_database_loses_no_candles_and_memory_is_bounded(tmp_path: Path, buffer_rows: int) -> None:
    async def run(store: RiggedStore) -> None:
        async with Stage(market_of(5, calm=True), START + 3 * DAY_MS, 3600, 5) as stage:
            store.clock = stage.clock
            feed = stage.feed(store, settings=msgspec.structs.replace(FAST, buffer_rows=buffer_rows, batch_rows=20))
            begin = stage.clock.now_ms()
            counts, most = feed.batches.counts, 0

            async def watch() -> None:
                nonlocal most
                await live_candles(feed)
                store.down = [(stage.clock.now_ms(), 1 << 60)]
                back = stage.clock.now_ms() + HOUR_MS
                while stage.clock.now_ms() < back or counts.failures < 2 or (buffer_rows == 30 and not counts.dropped):
                    if feed.batches.failing_since_ms:
                        most = max(most, feed.batches.waiting)
                    await asyncio.sleep(0.01)
                store.down = []

            end = await live(stage, feed, watch)
            assert_same(store, stage, feed, begin - 20 * HOUR_MS, end)
            assert most <= buffer_rows + 8 * 1000  # plus open REST responses
            assert (counts.dropped > 0) == (buffer_rows == 30)

    with RiggedStore(f"chdb://{tmp_path / 'db'}") as store:
        asyncio.run(run(store))


def delete_candles(store: ClickHouseStore, symbol: str, start: int, end: int) -> None:
    """Delete candles directly in the database, and reset the days' digests as an interrupted write does."""
    sql = f"""
        ALTER TABLE market_data_1m DELETE WHERE symbol = '{symbol}'
        AND timestamp >= fromUnixTimestamp64Milli({start}) AND timestamp < fromUnixTimestamp64Milli({end})
    """
    store._client.command(sql, settings={"mutations_sync": "2"})
    store.put_days({symbol: [msgspec.structs.replace(day, digest="") for day in store.days(symbol)]})


def test_a_restarted_feed_fills_gaps(store: ClickHouseStore) -> None:
    """Gaps in stored days, the time between the runs, days with an interrupted write, and an outage."""
    market = market_of(7, calm=True)
    outage = range(START + 3 * DAY_MS + 2 * HOUR_MS, START + 3 * DAY_MS + 2 * HOUR_MS + 40 * MINUTE_MS, MINUTE_MS)
    for rows in (market.rows["ETHUSDT"], market.first["ETHUSDT"]):
        for t in outage:
            del rows[t]

    async def run() -> None:
        async with Stage(market, START + 3 * DAY_MS, SPEED, 7) as stage:
            begin = stage.clock.now_ms()
            await live(stage, stage.feed(store))
            delete_candles(store, "BTCUSDT", begin - HOUR_MS, begin)
            assert len(stored(store, "BTCUSDT", begin - HOUR_MS, begin)) == 0
            stage.change(SPEED, 3 * HOUR_MS)
            feed = stage.feed(store)
            end = await live(stage, feed)
            assert end > outage[-1]
            assert_same(store, stage, feed, begin - 20 * HOUR_MS, end)
            assert [t for a, b in store.outages("ETHUSDT") for t in range(a, b, MINUTE_MS)] == list(outage)

    asyncio.run(run())


def test_the_next_feed_does_the_audits_that_an_earlier_one_missed(store: ClickHouseStore) -> None:
    """A streamed candle differs from the history, and the feed stops before its audit; so does the next feed, four
    days later. The third feed corrects the candle."""
    market = market_of(11, calm=True)

    async def run() -> None:
        async with Stage(market, START + 3 * DAY_MS, SPEED, 7) as stage:
            wrong = 0
            for _ in range(2):
                feed = stage.feed(store, settings=msgspec.structs.replace(FAST, audit=False))

                async def a_while(feed: LiveFeed = feed) -> int:
                    await live_candles(feed, 9)
                    return 0

                await with_feed(feed, a_while)
                wrong = wrong or store.days("BTCUSDT")[-1].last
                market.rows["BTCUSDT"][wrong] = (*market.first["BTCUSDT"][wrong][:4], 123)
                stage.change(SPEED, 4 * DAY_MS)
            feed = stage.feed(store, settings=msgspec.structs.replace(FAST, new_days=1))
            end = await live(stage, feed)
            assert_same(store, stage, feed, START + 2 * DAY_MS, end)
            assert store.audits()["BTCUSDT"] > wrong and wrong in stored(store, "BTCUSDT", 0, end)

    asyncio.run(run())


def test_the_scheduled_check_finds_deleted_candles(store: ClickHouseStore) -> None:
    async def run() -> None:
        async with Stage(market_of(8, calm=True), START + 3 * DAY_MS, SPEED, 8) as stage:
            feed = stage.feed(store)
            begin = stage.clock.now_ms()

            async def vanish() -> None:
                await live_candles(feed, 3)
                while feed.feed.gap_minutes() or feed.batches.waiting:
                    await asyncio.sleep(0.02)
                await feed._in_store(delete_candles, store, "ETHUSDT", 0, begin)
                await feed.heal()

            end = await live(stage, feed, vanish)
            assert_same(store, stage, feed, begin - 20 * HOUR_MS, end)

    asyncio.run(run())


def test_symbols_change_without_a_restart(store: ClickHouseStore) -> None:
    async def run() -> None:
        market = market_of(9, calm=True)
        async with Stage(market, START + 3 * DAY_MS, SPEED, 9) as stage:
            feed = stage.feed(store, silence_ms=1 << 40)
            begin = stage.clock.now_ms()

            async def change() -> None:
                await live_candles(feed, 6)
                await feed.follow(["BTCUSDT"])
                await live_candles(feed, 3)
                await feed.follow(["BTCUSDT", "XRPUSDT"])
                with pytest.raises(UnknownName, match="did you mean 'BTCUSDT'"):
                    await feed.follow(["BTCUSD"])

            end = await live(stage, feed, change)
            assert list(feed.feed.trackers) == ["BTCUSDT", "XRPUSDT"]
            assert_same(store, stage, feed, begin - 20 * HOUR_MS, end)
            assert stage.simulator.counts["connections"] <= 3  # one was closed by the test

    asyncio.run(run())


def test_a_volume_that_does_not_fit_is_logged_and_not_stored(
    store: ClickHouseStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        market = market_of(3, calm=True)
        for t, row in list(market.rows["XRPUSDT"].items())[::1]:
            market.rows["XRPUSDT"][t] = market.first["XRPUSDT"][t] = (
                *row[:4],
                2**64 if t % (5 * MINUTE_MS) == 0 else row[4],
            )
        async with Stage(market, START + 3 * DAY_MS, SPEED, 9) as stage:
            feed = stage.feed(store)
            await live(stage, feed)
            assert feed.batches.counts.unstorable > 0
            assert all(t % (5 * MINUTE_MS) for t in stored(store, "XRPUSDT", 0, 1 << 42))

    asyncio.run(run())
    (found,) = {(r.symbol, r.levelname) for r in caplog.records if "do not fit the volume scale" in r.getMessage()}  # type: ignore[attr-defined]
    assert found == ("XRPUSDT", "ERROR")


def test_no_or_too_many_symbols(store: ClickHouseStore) -> None:
    for symbols in ([], [f"S{k}" for k in range(5001)]):
        with pytest.raises(BadInput, match="a feed follows 1 to 5000"):
            LiveFeed(None, symbols, store, FAST, VirtualClock(0, 0, 1), None)  # type: ignore[arg-type]


# -- the process -------------------------------------------------------------------------------------------------------


class Service:
    """functions/feed/main.py as in a container, in real time."""

    def __init__(self, stage: Stage, folder: Path, *before: str) -> None:
        """`before`: statements that run first, to inject faults."""
        self.port = free_port()
        env = {
            **os.environ,
            "PYTHONPATH": python_path(),
            "XDG_DATA_HOME": str(folder),
            "CANDLEMILL_CLICKHOUSE_DSN": f"chdb://{folder / 'db'}",
            "CANDLEMILL_FEED_SYMBOLS": "btcusdt",
            "CANDLEMILL_FEED_REST": f"http://127.0.0.1:{stage.ports.rest}",
            "CANDLEMILL_FEED_STREAM": f"ws://127.0.0.1:{stage.ports.stream}/stream",
            "PORT": str(self.port),
        }
        main = ROOT / "functions" / "feed" / "main.py"
        script = "\n".join([*before, f"import runpy; runpy.run_path({str(main)!r}, run_name='__main__')"])
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", script], env=env, stderr=log)

    async def get(self, path: str) -> str:
        return await asyncio.to_thread(fetch, self.port, path)

    async def wait_for(self, path: str, *texts: str) -> str:
        """Poll `path` until the response contains all texts; return it."""
        for _ in range(2400):
            body = await self.get(path)
            if all(text in body for text in texts):
                return body
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{texts} not in {body}")

    async def stop(self) -> tuple[int, list[dict[str, str]]]:
        """Send SIGTERM; return the exit status and the log."""
        self.process.send_signal(signal.SIGTERM)
        status = await asyncio.to_thread(self.process.wait, 300)
        return status, [json.loads(line) for line in self.log.read_text().splitlines()]


def recent(days: int = 4) -> Market:
    today = int(time.time() * 1000) // DAY_MS * DAY_MS
    return synthetic(4, ["BTCUSDT"], today - 2 * DAY_MS, days * 1440, calm=True)


@pytest.mark.clock
def test_health_metrics_and_graceful_stop_of_the_service(tmp_path: Path) -> None:
    market = recent()

    async def run() -> None:
        async with Stage(market, int(time.time() * 1000), 1.0, 1, shared=True) as stage:
            service = Service(stage, tmp_path)
            try:
                # Before the back-fill is done, the symbol may still lag.
                early = await service.get("/healthz")
                assert early in ("still starting\n", "ok\n", "1 of 1 symbols lag more than 180 s\n")
                text = await service.wait_for("/metrics", 'lag_seconds{symbol="BTCUSDT"} 0.0', "feed_gap_minutes 0.0")
                assert await service.get("/healthz") == "ok\n"
                status, log = await service.stop()
            finally:
                service.process.kill()
            assert (status, {row["level"] for row in log}) == (0, {"info"})
            assert any(row["message"].startswith("following 1 symbols of binance, 14") for row in log)
            assert log[-1]["message"] == "stopped: all candles are stored"
            for name in ("messages_total", "reconnects_total", "batch_rows", "lag_seconds", "requests_total"):
                assert f"candlemill_feed_{name}" in text

    asyncio.run(run())
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as store:  # including the batch that was buffered at the stop
        have = stored(store, "BTCUSDT", 0, 1 << 42)
        assert len(have) >= 1438 and all(market.rows["BTCUSDT"][t] == row for t, row in have.items())


def test_health_says_which_exchange_keeps_it_from_starting(store: ClickHouseStore) -> None:
    async def run() -> None:
        async with Stage(market_of(1, calm=True), START, SPEED, 1) as stage:
            nobody = exchange("binance", f"http://127.0.0.1:{free_port()}", "ws://127.0.0.1:9/stream", None)
            feed = LiveFeed(nobody, ["BTCUSDT"], store, FAST, stage.ours, random.Random(1))
            health = Health(feed, stage.ours)
            assert health.problem() == "still starting"

            async def its_cause_is_shown() -> int:
                assert await until(lambda: health.problem().startswith("cannot start: binance, /api/v3/time"), 60)
                return 0

            await with_feed(feed, its_cause_is_shown)

    asyncio.run(run())


@pytest.mark.clock
def test_the_service_reports_a_stuck_exchange_and_stops_although_the_database_hangs(tmp_path: Path) -> None:
    market = recent()
    now = int(time.time() * 1000)
    for rows in (market.rows["BTCUSDT"], market.first["BTCUSDT"]):
        for t in [t for t in rows if t > now - 10 * MINUTE_MS]:
            del rows[t]

    async def run() -> None:
        async with Stage(market, now, 1.0, 1, shared=True) as stage:
            service = Service(
                stage, tmp_path, "import functools, time",
                "import candlemill.feed.live as feed, candlemill.store.clickhouse as store",
                "store.ClickHouseStore.insert_rows = lambda self, parts: time.sleep(1000)",
                "feed.Settings = functools.partial(feed.Settings, drain_seconds=1.0)",
            )  # fmt: skip
            try:
                assert "symbols lag more than 180 s" in await service.wait_for("/healthz", "lag")
                assert await service.get("/livez") == "ok\n"
                await service.wait_for("/metrics", "feed_filled_total 14", "feed_buffered_rows 0.0")
                status, log = await service.stop()
            finally:
                service.process.kill()
            assert status == 1  # not all candles were written
            assert [(row["level"], row["logger"]) for row in log][-1] == ("error", "candlemill.feed")
            assert "the next start requests them again" in log[-1]["message"]

    asyncio.run(run())


def fetch(port: int, path: str) -> str:
    for _ in range(1200):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=300) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(path)
