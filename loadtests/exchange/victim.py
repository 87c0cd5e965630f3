"""A feed as a process of its own, at the simulator's time, for tests that kill it. Says once a second how it stands.

python -m loadtests.exchange.victim '{"dsn": ..., "port": ..., "base_ms": ..., "start": ..., "speed": ...}'
"""

import asyncio
import contextlib
import logging
import random
import signal
import sys

import msgspec
from candlemill.errors import StoreDown
from candlemill.io.feed import LiveFeed
from candlemill.io.feedstore import FeedStore
from candlemill.minutes import Span

from loadtests.exchange.market import VirtualClock
from loadtests.exchange.run import FAST, adapter


class Orders(msgspec.Struct, frozen=True):
    """`down` are stretches of virtual ms in which the database fails; `skew_ms` is what our clock is ahead."""

    dsn: str
    port: int
    symbols: list[str]
    base_ms: int
    start: float
    speed: float
    seed: int
    skew_ms: int = 0
    down: list[Span] = []
    exchange: str = "binance"
    buffer_rows: int = 400_000


class Standing(msgspec.Struct, frozen=True):
    """`until_ms`: everything before it has been accounted for, written and audited."""

    until_ms: int
    holes: int
    rows: int
    given_up: int


class FlakyStore(FeedStore):
    """A store whose writes fail at times."""

    clock: VirtualClock
    down: list[Span]

    def _check(self) -> None:
        now = self.clock.now_ms() - self.clock.skew_ms
        if any(a <= now < b for a, b in self.down):
            raise StoreDown("the database does not answer: it is simulated to be down")

    def insert_rows(self, parts) -> None:  # type: ignore[no-untyped-def]
        self._check()
        super().insert_rows(parts)

    def put_days(self, found, version=None) -> None:  # type: ignore[no-untyped-def]
        if hasattr(self, "clock"):
            self._check()
        super().put_days(found, version)


async def live(orders: Orders) -> None:
    clock = VirtualClock(orders.base_ms, orders.start, orders.speed, orders.skew_ms)
    store = FlakyStore(orders.dsn)
    store.clock, store.down = clock, orders.down
    settings = msgspec.structs.replace(FAST, buffer_rows=orders.buffer_rows)
    rng = random.Random(orders.seed)
    feed = LiveFeed(adapter(orders.exchange, orders.port), orders.symbols, store, settings, clock, rng)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, feed.stop)
    saying = asyncio.create_task(_say(feed))
    try:
        await feed.run()
    finally:
        saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saying
        store.close()


async def _say(feed: LiveFeed) -> None:
    while True:
        await asyncio.sleep(0.2)
        until = min(feed.audited.values(), default=0) if len(feed.audited) == len(feed.feed.minutes) else 0
        counts = feed.batches.counts
        standing = Standing(until, feed.feed.hole_minutes(), counts.rows, counts.given_up)
        print(msgspec.json.encode(standing).decode(), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(live(msgspec.json.decode(sys.argv[1], type=Orders)))
