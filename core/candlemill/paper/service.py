"""Paper runs as the main program of a process: with a feed of their own, or beside one that writes the same store."""

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from candlemill.config import cooldown_folder
from candlemill.errors import CandlemillError
from candlemill.exchanges.base import Candle, Exchange
from candlemill.feed.backfill import SCALE_DIGITS
from candlemill.feed.live import LiveFeed, Settings
from candlemill.feed.rest_client import Clock, cooldown_of
from candlemill.feed.service import FeedCollector, Health, application
from candlemill.paper.desk import AWAITED_SECONDS, Desk, TakenOver
from candlemill.paper.loop import CHECK_SECONDS, PaperLoop
from candlemill.paper.order import Order
from candlemill.paper.outbox import Outbox
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import PaperLogRow
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.transport.asgi import serving
from candlemill.transport.sink import post
from candlemill.units import clock_ms

STUCK_SECONDS: Final = 120.0

log = logging.getLogger("candlemill.paper")


class PaperCollector:
    """Prometheus metrics of the runs, computed at each scrape."""

    def __init__(self, desk: Desk, loop: PaperLoop, outbox: Outbox) -> None:
        self._desk, self._loop, self._outbox = desk, loop, outbox

    def collect(self) -> Iterator[Metric]:
        for name, text, value in (
            ("published", "Events that were accepted", self._outbox.published),
            ("publish_failures", "Attempts to publish an event that failed", self._outbox.failures),
            ("lost", "Candles that the inbox had no room for; they come from the store", self._loop.lost),
        ):
            yield CounterMetricFamily(f"candlemill_paper_{name}", text, value=value)
        lag = GaugeMetricFamily("candlemill_paper_lag_seconds", "Age of the last used minute's end", labels=["symbol"])
        now = clock_ms()
        for symbol, run in list(self._desk.runs.items()):
            lag.add_metric([symbol], max(0, now - run.last - 60_000) / 1000)
        yield lag
        yield GaugeMetricFamily("candlemill_paper_waiting", "Events to publish", value=self._outbox.waiting)
        yield GaugeMetricFamily("candlemill_paper_failed", "Runs that have ended", value=len(self._loop.failed))


class Paper:
    """The runs of a process, from `start` to `stop`."""

    def __init__(
        self,
        store: ClickHouseStore,
        order: Order,
        follows: bool,
        said: Callable[[Sequence[PaperLogRow]], None],
        now_ms: int,
        check_seconds: float = CHECK_SECONDS,
        publish: Callable[[Event], None] | None = None,
        awaited_seconds: float = AWAITED_SECONDS,
    ) -> None:
        self.desk = Desk(store, awaited_seconds)
        self.desk.open(order.specs, now_ms, order.begin, order.since)
        self.outbox = Outbox(store, publish or (lambda event: _publish(order.sink, event)))
        self.on_end: Callable[[], object] = lambda: None
        self.loop = PaperLoop(store, self.desk, self.outbox, follows, said, lambda: self.on_end(), check_seconds)
        self.collector = PaperCollector(self.desk, self.loop, self.outbox)

    def problem(self) -> str:
        """One line, empty if all is well."""
        if self.loop.failed:
            symbol, why = next(iter(self.loop.failed.items()))
            return f"the run of {symbol} has ended: {why}"
        failing = self.loop.store_failing_since
        if failing and time.monotonic() - failing > STUCK_SECONDS:
            return f"the store has failed for {time.monotonic() - failing:.0f} s"
        return ""


def _publish(sink: str, event: Event) -> None:
    if sink:
        post(sink, event)


def run_beside_store(
    store: ClickHouseStore,
    order: Order,
    said: Callable[[Sequence[PaperLogRow]], None],
    once: bool = False,
    host: str = "127.0.0.1",
    port: int | None = None,
    ready: Callable[[int], None] = lambda port: None,
    handed_over_seconds: float = 0.0,
) -> Paper:
    """Follow a store that a feed of another process writes, until SIGINT or SIGTERM; `once`: use what it has now.

    If another process goes on with the runs, wait for a signal for so many seconds before the end: a process that is
    started again at once would take the runs back.
    """
    paper = Paper(store, order, True, said, clock_ms())
    if once:
        paper.loop.start()
    else:
        asyncio.run(_follow(paper, host, port, ready, handed_over_seconds))
    return end(paper)


async def _follow(
    paper: Paper, host: str, port: int | None, ready: Callable[[int], None], handed_over_seconds: float
) -> None:
    loop, stopped, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def stop() -> None:
        stopped.set()
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    paper.on_end = lambda: loop.call_soon_threadsafe(ended.set)
    async with AsyncExitStack() as stack:
        if port is not None:
            app = application(paper.problem, paper.collector)
            ready(await stack.enter_async_context(serving(app, host, port)))
        paper.loop.start()
        await ended.wait()
        if isinstance(paper.loop.error, TakenOver):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), handed_over_seconds)


def run_with_feed(
    store: ClickHouseStore,
    order: Order,
    exchange: Exchange,
    symbols: Sequence[str],
    settings: Settings,
    said: Callable[[Sequence[PaperLogRow]], None],
    host: str = "127.0.0.1",
    port: int | None = None,
    ready: Callable[[int], None] = lambda port: None,
) -> Paper:
    """Run a feed of `symbols` (the exchange's names) and the paper runs on its candles, until SIGINT or SIGTERM.

    The feed writes `store`, the runs use a connection of their own.
    """
    with closing(ClickHouseStore(store.dsn)) as own:
        paper = Paper(own, order, False, said, clock_ms())
        asyncio.run(_feed(paper, store, exchange, symbols, settings, host, port, ready))
        return end(paper)


async def _feed(
    paper: Paper,
    store: ClickHouseStore,
    exchange: Exchange,
    symbols: Sequence[str],
    settings: Settings,
    host: str,
    port: int | None,
    ready: Callable[[int], None],
) -> None:
    clock = Clock()
    cooldown = cooldown_of(exchange, cooldown_folder())
    feed = LiveFeed(exchange, symbols, store, settings, clock, random.Random(), cooldown)
    feed.on_candle = hand_over(feed, paper.loop)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, feed.stop)
    paper.on_end = lambda: loop.call_soon_threadsafe(feed.stop)
    async with AsyncExitStack() as stack:
        if port is not None:
            health = Health(feed, clock)
            app = application(lambda: health.problem() or paper.problem(), FeedCollector(feed), paper.collector)
            ready(await stack.enter_async_context(serving(app, host, port)))
        paper.loop.start()
        if not await feed.run():
            log.error("the last candles were not written: the next start requests them again")


def hand_over(feed: LiveFeed, loop: PaperLoop) -> Callable[[str, Candle], None]:
    """Return what hands a feed's candles over to the loop, as the store will have them."""

    def use(name: str, candle: Candle) -> None:
        divisor = 10 ** (SCALE_DIGITS - feed.batches.digits.get(name, SCALE_DIGITS))
        if candle.volume % divisor == 0:  # others cannot be stored
            prices = (candle.open, candle.high, candle.low, candle.close)
            loop.offer(name, (candle.t, *prices, candle.volume // divisor))

    return use


def end(paper: Paper) -> Paper:
    """Stop the runs. Raises the error that has ended them, if one has."""
    published = paper.loop.stop()
    if paper.loop.error is not None:
        raise paper.loop.error
    if not published:
        raise CandlemillError("not all decisions were published: the next start publishes the rest")
    return paper
