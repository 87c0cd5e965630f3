"""The batch writer: its buffer is bounded, and dropped candles are always reported."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from candlemill.errors import StoreDown
from candlemill.exchanges.base import MINUTE_MS, Candle
from candlemill.feed.batch_writer import BatchWriter
from candlemill.feed.rest_client import Clock
from candlemill.intervals import Interval, IntervalSet
from candlemill.store.clickhouse import ClickHouseStore

T = 1_709_164_800_000
DAY_MS = 86_400_000


class BlockedStore(ClickHouseStore):
    """A store whose inserts fail, or wait for the event `go`."""

    go = threading.Event()
    down = False

    def insert_rows(self, parts) -> None:  # type: ignore[no-untyped-def]
        if self.down:
            raise StoreDown("down")
        assert self.go.wait(300)
        super().insert_rows(parts)


class FastClock(Clock):
    """A clock that sleeps a hundredth of the time; timeouts have the value `timeout`."""

    timeout = 1000.0

    def real_seconds(self, seconds: float) -> float:
        return self.timeout

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockedStore]:
    with BlockedStore(f"chdb://{tmp_path / 'db'}") as opened:
        opened.go = threading.Event()
        yield opened
        opened.go.set()


def candle(minute: int, volume: int = 1) -> Candle:
    return Candle("A", T + minute * MINUTE_MS, 1, 1, 1, 1, volume, True)


class World:
    def __init__(self, store: BlockedStore, buffer_rows: int = 50) -> None:
        self.clock = FastClock()
        self.lost = IntervalSet()
        self.store = store
        self.pool = ThreadPoolExecutor(1)
        self.batches = BatchWriter(store, self.pool, self.clock, self.on_lost, 20, 0.2, buffer_rows)

    def on_lost(self, symbol: str, spans: list[Interval]) -> None:
        for a, b in spans:
            self.lost.add(a, b)

    def add(self, first: int, last: int) -> None:
        for k in range(first, last):
            self.batches.add("A", candle(k))

    def stored(self) -> int:
        return len(self.store.times("A", 0, 1 << 42))


async def eventually(condition) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(300):
        while not condition():
            await asyncio.sleep(0.005)


def test_buffer_is_bounded_and_dropped_candles_are_reported_while_the_store_hangs(store: BlockedStore) -> None:
    async def run() -> None:
        world = World(store)
        world.clock.timeout = 0.4
        writing = asyncio.create_task(world.batches.run())
        world.add(0, 20)
        await eventually(lambda: world.batches.pending("A") and not world.batches.waiting)
        world.add(20, 30)
        await eventually(lambda: world.batches.overloaded)
        assert not world.lost and world.batches.oldest_ms()
        world.add(30, 2000)
        assert world.batches.waiting <= 50
        store.go.set()
        await eventually(lambda: not world.batches.pending("A"))
        writing.cancel()
        assert world.stored() + world.lost.total() // MINUTE_MS == 2000
        assert world.batches.counts.dropped == world.lost.total() // MINUTE_MS > 0
        assert not {t for a, b in world.lost for t in range(a, b, MINUTE_MS)} & set(
            store.times("A", 0, 1 << 42).tolist()
        )

    asyncio.run(run())


def test_a_slow_store_drops_nothing(store: BlockedStore) -> None:
    """Above the limit, candles are still accepted while the store is only slow; `overloaded` stops new requests."""

    async def run() -> None:
        world = World(store)
        writing = asyncio.create_task(world.batches.run())
        world.add(0, 20)
        await eventually(lambda: world.batches.pending("A") and not world.batches.waiting)
        world.add(20, 200)
        assert world.batches.waiting == 180 and not world.lost and world.batches.overloaded
        store.go.set()
        await eventually(lambda: not world.batches.pending("A"))
        writing.cancel()
        assert world.stored() == 200

    asyncio.run(run())


def test_all_candles_are_written_after_the_store_recovers(store: BlockedStore) -> None:
    async def run() -> None:
        world = World(store, buffer_rows=500)
        store.go.set()
        store.down = True
        writing = asyncio.create_task(world.batches.run())
        world.add(0, 30)
        world.batches.add_outage("A", T - MINUTE_MS, T)
        await eventually(lambda: world.batches.counts.failures > 1)
        world.add(25, 60)
        world.batches.add_outage("A", T - 3 * MINUTE_MS, T - 2 * MINUTE_MS)
        assert world.batches.overloaded and world.batches.oldest_ms()
        store.down = False
        await eventually(lambda: not world.batches.pending("A") and not world.batches.waiting)
        await eventually(lambda: len(store.outages("A")) == 2)
        writing.cancel()
        assert world.stored() == 60 and not world.lost and not world.batches.overloaded
        assert store.days("A")[0].rows == 60 and store.days("A")[0].digest

    asyncio.run(run())


def test_flush_writes_the_candles_of_a_cancelled_write(store: BlockedStore) -> None:
    """As at the stop of a feed: the writer is cancelled, then the remaining rows and outages are flushed."""

    async def run() -> None:
        world = World(store)
        writing = asyncio.create_task(world.batches.run())
        world.add(0, 20)
        world.batches.add_outage("A", T - MINUTE_MS, T)
        await eventually(lambda: world.batches.pending("A") and not world.batches.waiting)
        writing.cancel()
        world.add(20, 25)
        world.batches.add("A", candle(3, volume=7))  # replaces the first candle of this minute
        store.go.set()
        await world.batches.flush()
        assert world.stored() == 25 and store.outages("A") == [(T - MINUTE_MS, T)]
        assert store.read_columns("A", T, T + DAY_MS, ("volume",))["volume"].tolist()[3] == 7

    asyncio.run(run())
