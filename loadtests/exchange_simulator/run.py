"""A feed beside a simulator in one process, and the comparison of what both ended with."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import msgspec
from candlemill.exchanges.base import Exchange
from candlemill.exchanges.registry import exchange
from candlemill.feed.connections import Tuning
from candlemill.feed.live import LiveFeed, Settings
from candlemill.store.candle_writer import current_days
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.exchange_simulator.faults import NONE, Dice, Menu
from loadtests.exchange_simulator.market import (
    MINUTE_MS,
    STEP_SECONDS,
    Market,
    PatientClock,
    Row,
    SkewedClock,
    VirtualClock,
)
from loadtests.exchange_simulator.server import Ports, Simulator, serve

NAMES = ("open", "high", "low", "close", "volume")
CALM_SPEED = 600.0
FAST = Settings(
    tuning=Tuning(connecting_ms=3_600_000), new_days=2, heal_seconds=600.0, tick_seconds=1.0, batch_seconds=2.0
)


def adapter(name: str, ports: Ports, weight: int = 0) -> Exchange:
    """The real adapter, pointed at the simulator; with another limit for requests where it is given."""
    path = "/v5/public/spot" if name == "bybit" else "/stream"
    rest, stream = f"http://127.0.0.1:{ports.rest}", f"ws://127.0.0.1:{ports.stream}{path}"
    found = exchange(name, rest=rest, stream=stream, archive=rest)
    if weight:
        found.limits = msgspec.structs.replace(found.limits, weight=weight)
    return found


def stored(store: ClickHouseStore, symbol: str, start: int, end: int) -> dict[int, Row]:
    """What a reader gets, by minute. Raises AssertionError where a minute comes twice or out of order."""
    columns = store.read_columns(symbol, start, end, NAMES)
    assert (columns["t"][1:] > columns["t"][:-1]).all(), f"{symbol}: minutes come twice"
    rows = zip(*(columns[name].tolist() for name in NAMES), strict=True)
    return dict(zip(columns["t"].tolist(), rows, strict=True))


def differences(
    store: ClickHouseStore, market: Market, names: dict[str, str], start: int, end: int
) -> dict[str, list[int]]:
    """Minutes of `start <= t < end` that are lost, wrong or too many in the store; empty where all is well."""
    found: dict[str, list[int]] = {}
    for symbol, name in names.items():
        have = stored(store, name, start, end)
        want = {t: row for t, row in market.rows[symbol].items() if start <= t < end}
        for kind, minutes in (
            ("lost", want.keys() - have.keys()),
            ("extra", have.keys() - want.keys()),
            ("wrong", {t for t in want.keys() & have.keys() if want[t] != have[t]}),
        ):
            if minutes:
                found[f"{symbol} {kind}"] = sorted(minutes)
    return found


def digests_true(store: ClickHouseStore, symbols: list[str]) -> bool:
    """Whether every digest of the index is that of the stored rows."""
    from candlemill.store.candle_writer import CANDLE_COLUMNS, count_days

    for symbol in symbols:
        days = list(current_days(store, symbol))
        columns = store.read_columns(symbol, 0, 1 << 42, CANDLE_COLUMNS[1:])
        if days != count_days(columns):
            return False
    return True


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for it; `seconds` pass as in `RunningTime`, so a limit is one of the work and not of the machine."""
    for _ in range(int(seconds / STEP_SECONDS)):
        if condition():
            return True
        await asyncio.sleep(STEP_SECONDS)
    return condition()


class Stage:
    """A simulator that runs, and feeds made for it. `skew_ms` is how far our clock is ahead of the exchange's.

    `shared`: other processes have the same time, which also passes where this one waits for a core."""

    def __init__(
        self,
        market: Market,
        base_ms: int,
        speed: float,
        seed: int,
        menu: Menu = NONE,
        skew_ms: int = 0,
        weight: int = 0,
        shared: bool = False,
    ) -> None:
        self.market = market
        self.seed = seed
        self.clock = VirtualClock(base_ms, time.time(), speed) if shared else PatientClock(base_ms, speed)
        self.ours = SkewedClock(self.clock, skew_ms)
        self.simulator = Simulator(market, self.clock, Dice(seed, menu), weight=weight)
        self._serving = serve(self.simulator)

    async def __aenter__(self) -> "Stage":
        self.ports = await self._serving.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._serving.__aexit__(None, None, None)

    def change(self, speed: float, jump_ms: int = 0) -> None:
        """Both clocks go on at another speed, some time ahead."""
        self.clock.change(speed, jump_ms)

    def feed(self, store: ClickHouseStore, name: str = "binance", settings: Settings = FAST, **tuning: int) -> LiveFeed:
        if tuning:
            settings = msgspec.structs.replace(settings, tuning=msgspec.structs.replace(settings.tuning, **tuning))
        rng = random.Random(self.seed)
        return LiveFeed(adapter(name, self.ports), self.market.symbols, store, settings, self.ours, rng)

    async def caught_up(self, feed: LiveFeed, seconds: float = 120.0) -> int:
        """Calm the simulator, wait until nothing is missing, and return until when everything must be there."""
        self.simulator.dice.menu = NONE
        self.change(min(self.clock.speed, CALM_SPEED))  # a loaded machine must not have to race against virtual time
        for subscriber in list(self.simulator.subscribers):  # silent ones would take long to be noticed
            self.simulator.abort(subscriber)
        now = self.clock.now_ms()
        end = (now - MINUTE_MS) // MINUTE_MS * MINUTE_MS

        def done() -> bool:
            trackers = feed.feed.trackers.values()
            return feed.started and all(a.next >= end and not a.gaps.within(0, end) for a in trackers)

        if not await until(done, seconds):
            raise TimeoutError(f"gaps after {seconds} s: {feed.feed.gap_minutes()} minutes; {feed.feed.counts}")
        return end


async def audited(stage: Stage, feed: LiveFeed) -> int:
    """Calm down, catch up, audit; returns until when the store must equal the exchange."""
    await stage.caught_up(feed)
    await stage.ours.sleep(700)
    await feed.audit()
    return min(feed.audited.values())


async def with_feed(feed: LiveFeed, body: Callable[[], Awaitable[int]]) -> int:
    """Run the feed while `body` runs, then stop it in order."""
    running = asyncio.create_task(feed.run())
    try:
        working = asyncio.ensure_future(body())
        await asyncio.wait([running, working], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            working.cancel()
            running.result()
            raise AssertionError("the feed has ended by itself")
        return await working
    finally:
        feed.stop()
        await running
