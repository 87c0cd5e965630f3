"""Candles on their way into the store: bounded whatever the store does, and none lost without a word."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from candlemill.errors import StoreDown
from candlemill.exchange import MINUTE_MS, Candle
from candlemill.io.batches import Batches
from candlemill.io.feedstore import FeedStore
from candlemill.io.rest import Clock
from candlemill.minutes import Span, Spans

T = 1_709_164_800_000
DAY_MS = 86_400_000


class Held(FeedStore):
    """A store whose inserts fail, or wait until they may go on."""

    go = threading.Event()
    down = False

    def insert_rows(self, parts) -> None:  # type: ignore[no-untyped-def]
        if self.down:
            raise StoreDown("down")
        assert self.go.wait(20)
        super().insert_rows(parts)


class Fast(Clock):
    """Waiting takes a hundredth, and patience is what the test says."""

    patient = 1000.0

    def patience(self, seconds: float) -> float:
        return self.patient

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Held]:
    with Held(f"chdb://{tmp_path / 'db'}") as opened:
        opened.go = threading.Event()
        yield opened
        opened.go.set()


def candle(minute: int, volume: int = 1) -> Candle:
    return Candle("A", T + minute * MINUTE_MS, 1, 1, 1, 1, volume, True)


class World:
    def __init__(self, store: Held, buffer_rows: int = 50) -> None:
        self.clock = Fast()
        self.lost = Spans()
        self.store = store
        self.pool = ThreadPoolExecutor(1)
        self.batches = Batches(store, self.pool, self.clock, self.on_lost, 20, 0.2, buffer_rows)

    def on_lost(self, symbol: str, spans: list[Span]) -> None:
        for a, b in spans:
            self.lost.add(a, b)

    def add(self, first: int, last: int) -> None:
        for k in range(first, last):
            self.batches.add("A", candle(k))

    def stored(self) -> int:
        return len(self.store.times("A", 0, 1 << 42))


async def eventually(condition) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_store_that_hangs_bounds_memory_and_what_is_given_up_is_known(store: Held) -> None:
    async def run() -> None:
        world = World(store)
        world.clock.patient = 0.4
        writing = asyncio.create_task(world.batches.run())
        world.add(0, 20)
        await eventually(lambda: world.batches.pending("A") and not world.batches.waiting)
        world.add(20, 30)
        await asyncio.sleep(0.5)
        assert world.batches.crowded and not world.lost and world.batches.oldest_ms()
        world.add(30, 2000)
        assert world.batches.waiting <= 50
        store.go.set()
        await eventually(lambda: not world.batches.pending("A"))
        writing.cancel()
        assert world.stored() + world.lost.total() // MINUTE_MS == 2000
        assert world.batches.counts.given_up == world.lost.total() // MINUTE_MS > 0
        assert not {t for a, b in world.lost for t in range(a, b, MINUTE_MS)} & set(
            store.times("A", 0, 1 << 42).tolist()
        )

    asyncio.run(run())


def test_slow_is_not_broken(store: Held) -> None:
    """What is under way when the bound is reached is still taken: it is asking that stops."""

    async def run() -> None:
        world = World(store)
        writing = asyncio.create_task(world.batches.run())
        world.add(0, 20)
        await eventually(lambda: world.batches.pending("A") and not world.batches.waiting)
        world.add(20, 200)
        assert world.batches.waiting == 180 and not world.lost and world.batches.crowded
        store.go.set()
        await eventually(lambda: not world.batches.pending("A"))
        writing.cancel()
        assert world.stored() == 200

    asyncio.run(run())


def test_a_store_that_fails_gets_everything_when_it_is_back(store: Held) -> None:
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
        assert world.batches.crowded and world.batches.oldest_ms()
        store.down = False
        await eventually(lambda: not world.batches.pending("A") and not world.batches.waiting)
        await eventually(lambda: len(store.outages("A")) == 2)
        writing.cancel()
        assert world.stored() == 60 and not world.lost and not world.batches.crowded
        assert store.days("A")[0].rows == 60 and store.days("A")[0].digest

    asyncio.run(run())


def test_what_a_cancelled_write_held_is_written_by_the_next(store: Held) -> None:
    """As at the end of a feed, which cancels its batches and then writes what is left: rows and outages."""

    async def run() -> None:
        world = World(store)
        writing = asyncio.create_task(world.batches.run())
        world.add(0, 20)
        world.batches.add_outage("A", T - MINUTE_MS, T)
        await eventually(lambda: world.batches.pending("A") and not world.batches.waiting)
        writing.cancel()
        world.add(20, 25)
        world.batches.add("A", candle(3, volume=7))  # the last that was taken counts
        store.go.set()
        await world.batches.flush()
        assert world.stored() == 25 and store.outages("A") == [(T - MINUTE_MS, T)]
        assert store.read_columns("A", T, T + DAY_MS, ("volume",))["volume"].tolist()[3] == 7

    asyncio.run(run())
