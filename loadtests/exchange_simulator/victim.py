"""A feed, or an ingest, as a process of its own at the simulator's time, for tests that kill it.

python -m loadtests.exchange_simulator.victim '{"dsn": ..., "ports": ..., "base_ms": ..., "start": ..., "speed": ...}'

A feed says several times a second how it stands. An ingest says so when it is done, and ends.
"""

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from candlemill.errors import StoreDown
from candlemill.feed.download import Downloader
from candlemill.feed.live import LiveFeed
from candlemill.feed.rest_client import cooldown_of
from candlemill.intervals import Interval
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.exchange_simulator.market import VirtualClock
from loadtests.exchange_simulator.run import FAST, adapter
from loadtests.exchange_simulator.server import Ports


class Death(msgspec.Struct, frozen=True):
    """SIGKILL at the `number`-th call (from 1) that writes to the database: before it, after it, or `delay_ms` in."""

    number: int
    when: str
    delay_ms: float = 0.0


class Orders(msgspec.Struct, frozen=True):
    """`down` are stretches of virtual ms in which the database fails; `skew_ms` is what our clock is ahead. With a
    `span` it is an ingest of it, and `folder` keeps its files. `folder` keeps what the exchange forbade, too."""

    dsn: str
    ports: Ports
    symbols: list[str]
    base_ms: int
    start: float
    speed: float
    seed: int
    folder: str
    skew_ms: int = 0
    down: list[Interval] = []
    exchange: str = "binance"
    buffer_rows: int = 400_000
    new_days: int = 2
    death: Death | None = None
    span: Interval | None = None
    weight: int = 0


class Standing(msgspec.Struct, frozen=True):
    """`until_ms`: everything before it has been accounted for, written and audited. `phase`: what it is doing."""

    phase: str
    until_ms: int = 0
    holes: int = 0
    rows: int = 0
    given_up: int = 0
    refused: int = 0
    requests: int = 0


def say(standing: Standing) -> None:
    print(msgspec.json.encode(standing).decode(), flush=True)


class RiggedStore(ClickHouseStore):
    """A store that is down at times, and that kills its process at the call that was chosen for it."""

    clock: VirtualClock | None = None
    down: Sequence[Interval] = ()
    death: Death | None = None
    writes = 0

    def _rows(self, *given: Any) -> Any:
        self._check()
        return super()._rows(*given)

    def _column_blocks(self, *given: Any) -> Any:
        self._check()
        return super()._column_blocks(*given)

    def _many(self, *given: Any) -> Any:
        self._check()
        return super()._many(*given)

    def _insert(self, table: str, rows: Any) -> None:
        self._strike(table, lambda: super(RiggedStore, self)._insert(table, rows))

    def _insert_block(self, *given: Any) -> None:
        self._strike("market_data_1m", lambda: super(RiggedStore, self)._insert_block(*given))

    def _check(self) -> None:
        if self.clock is None:
            return
        now = self.clock.now_ms() - self.clock.skew_ms
        if any(a <= now < b for a, b in self.down):
            raise StoreDown("the database does not answer: it is simulated to be down")

    def _strike(self, table: str, call: Callable[[], None]) -> None:
        self._check()
        self.writes += 1
        death = self.death if self.death and self.death.number == self.writes else None
        if death is None:
            return call()

        def die() -> None:
            if death.when == "during":
                time.sleep(death.delay_ms / 1000)
            say(Standing(f"{death.when} {table}"))
            os.kill(os.getpid(), signal.SIGKILL)

        if death.when == "before":
            die()
        if death.when == "during":
            threading.Thread(target=die).start()
        call()
        if death.when == "after":
            die()
        return None


async def live(orders: Orders) -> int:
    say(Standing("start"))
    clock = VirtualClock(orders.base_ms, orders.start, orders.speed, orders.skew_ms)
    store = RiggedStore(orders.dsn)
    store.clock, store.down, store.death = clock, orders.down, orders.death
    exchange = adapter(orders.exchange, orders.ports, orders.weight)
    cooldown = cooldown_of(exchange, Path(orders.folder) / "silence")
    if orders.span:
        loader = Downloader(exchange, store, clock, Path(orders.folder) / "files", cooldown)
        report = await loader.run(orders.symbols, orders.span)
        store.close()
        say(Standing("done", rows=report.stored))
        return 0
    settings = msgspec.structs.replace(FAST, buffer_rows=orders.buffer_rows, new_days=orders.new_days)
    feed = LiveFeed(exchange, orders.symbols, store, settings, clock, random.Random(orders.seed), cooldown)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, feed.stop)
    saying = asyncio.create_task(_say(feed))
    try:
        written = await feed.run()
    finally:
        saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saying
        store.close()
    return 0 if written else 1


async def _say(feed: LiveFeed) -> None:
    while True:
        await asyncio.sleep(0.1)
        counts, holes = feed.batches.counts, feed.feed.gap_minutes()
        until = min(feed.audited.values(), default=0) if len(feed.audited) == len(feed.feed.trackers) else 0
        phase = "start" if not feed.started else "database down" if feed.batches.failing_since_ms else "live"
        if phase == "live" and holes > 200:
            phase = "back-fill"
        requested = (feed.rest.refused, feed.rest.requests) if hasattr(feed, "rest") else (0, 0)
        say(Standing(phase, until, holes, counts.rows, counts.dropped, *requested))


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL if "-q" in sys.argv else logging.ERROR)
    sys.exit(asyncio.run(live(msgspec.json.decode(sys.argv[1], type=Orders))))
