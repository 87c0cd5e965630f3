"""The live feed: connects sockets, REST and the store to the state machine of `candlemill.feed.state`.

Runs in one event loop, with one thread for the store. At the start and every hour, missing minutes are found in the
store and requested over REST. The hourly audit reads streamed candles again over REST and corrects the ones that
differ: the exchange's history is authoritative, streamed candles are provisional.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Final, TypeVar

import msgspec

from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadInput, BadMessage, ExchangeDown, NotThere, StoreError, UnknownName
from candlemill.exchanges.base import MINUTE_MS, Candle, Exchange, SymbolRules
from candlemill.feed.backfill import SCALE_DIGITS, correct, missing_intervals
from candlemill.feed.batch_writer import BatchWriter
from candlemill.feed.connections import Close, Open, Send, Tuning
from candlemill.feed.gaps import GapTracker
from candlemill.feed.rest_client import Clock, Cooldown, Rest
from candlemill.feed.state import BackfillRequest, Feed, Outage
from candlemill.feed.stream_sockets import Sockets
from candlemill.feed.web_client import WebClient
from candlemill.intervals import Interval, IntervalSet
from candlemill.store.candle_writer import recount, uncounted_days
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import iso

SETTLE_MS: Final = 600_000  # scheduled checks skip younger minutes, which the streams still deliver
SYMBOLS_MAX: Final = 5000
STORE_AUDITS_MS: Final = 60_000
LATE_MS: Final = 180_000  # a symbol whose last candle is older is late

log = logging.getLogger("candlemill.feed")
T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True):
    """Settings of the feed, described in docs/feed.md."""

    tuning: Tuning = Tuning()
    batch_rows: int = 20_000
    batch_seconds: float = 2.0
    buffer_rows: int = 400_000
    heal_days: int = 30  # how far back gaps are searched
    new_days: int = 1  # history of a symbol that is not in the store
    heal_seconds: float = 3600.0
    sync_seconds: float = 600.0
    tick_seconds: float = 0.25
    drain_seconds: float = 20.0
    report_seconds: float = 3600.0
    audit: bool = True


class AuditCounts(msgspec.Struct):
    minutes: int = 0
    corrected: int = 0


class LiveFeed:
    """Follows symbols from `run()` to `stop()`. Symbols have the exchange's names."""

    def __init__(
        self,
        exchange: Exchange,
        symbols: Sequence[str],
        store: ClickHouseStore,
        settings: Settings,
        clock: Clock,
        rng: random.Random,
        cooldown: Cooldown | None = None,
    ) -> None:
        if not 0 < len(set(symbols)) <= SYMBOLS_MAX:
            raise BadInput(f"{len(set(symbols))} symbols, but a feed follows 1 to {SYMBOLS_MAX}")
        self.exchange = exchange
        self.settings = settings
        self.feed = Feed(exchange, settings.tuning, rng)
        self.audits = AuditCounts()
        self.store = store
        self.started = False
        self.waits_for = ""  # why it has not started, if it could not
        # Gets each new candle before it is written, with its symbol's name in the store.
        self.on_candle: Callable[[str, Candle], None] = lambda name, candle: None
        self._symbols = list(dict.fromkeys(symbols))
        self._clock = clock
        self._rng = rng
        self._cooldown = cooldown
        self._pool = ThreadPoolExecutor(1, "store")
        self.batches = BatchWriter(
            store,
            self._pool,
            clock,
            self._mark_missing,
            settings.batch_rows,
            settings.batch_seconds,
            settings.buffer_rows,
        )
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._names: dict[str, str] = {}  # the exchange's name, by the name in the store
        self.audited: dict[str, int] = {}  # by the name in the store: candles before this time are audited
        self._audits_stored: dict[str, int] = {}
        self._rules: dict[str, SymbolRules] = {}
        self._rules_stored: dict[str, SymbolRules] = {}

    # -- life ----------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Request a graceful stop: buffered candles are written first. May be called more than once."""
        self._stop.set()

    async def run(self) -> bool:
        """Run until `stop`; return whether all candles were written. The next start requests the others again."""
        self._sockets = Sockets(self.exchange.stream_url, self._clock, self._opened, self._received, self._closed)
        with closing(WebClient(self.settings.tuning.requests)) as client:
            self.rest = Rest(self.exchange, client, self._clock, self._rng, self._cooldown)
            tasks = [self._spawn(self._work())]
            stopping = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    if task.done():
                        task.result()
            finally:
                stopping.cancel()
                written = await self._drain()
        return written

    async def _work(self) -> None:
        await self._until_done(self.rest.sync)
        await self._until_done(self._learn_rules)
        await self._until_done(lambda: self.follow(self._symbols))
        self.started = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(self.batches.run())
            group.create_task(self._report())
            group.create_task(self._every(self.settings.sync_seconds, self.rest.sync))
            group.create_task(self._every(self.settings.heal_seconds, self._learn_rules))
            group.create_task(self._every(self.settings.heal_seconds, self.heal))
            if self.settings.audit:
                group.create_task(self._every(self.settings.heal_seconds, self.audit))

    async def _drain(self) -> bool:
        """Close connections and write buffered candles, for at most `drain_seconds`; return whether that succeeded."""
        running = list(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._sockets.end()
        self._queue_candles()
        try:
            await asyncio.wait_for(self.batches.flush(), self._clock.real_seconds(self.settings.drain_seconds))
        except TimeoutError:
            log.error("the store does not accept the last candles: the next start requests them again")
            self._pool.shutdown(wait=False, cancel_futures=True)
            return False
        self._pool.shutdown()
        log.info("stopped: all candles are stored")
        return True

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _until_done(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        wait = 1.0
        while True:
            try:
                return await job()
            except (ExchangeDown, BadMessage, NotThere, StoreError) as error:
                log.warning("%s; retrying", error)
                self.waits_for = str(error)
                await self._clock.sleep(wait)
                wait = min(2 * wait, 60.0)

    async def _every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self._clock.sleep(seconds * self._rng.uniform(0.9, 1.0))
            try:
                await job()
            except (ExchangeDown, BadMessage, NotThere, StoreError) as error:
                log.warning("%s; retrying in the next round", error)

    async def _in_store(self, job: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, job, *arguments)

    async def _report(self) -> None:
        """Log a line when no minute is missing any more, and then periodically."""
        minutes = self.feed.gap_minutes()
        log.info("following %d symbols of %s, %d minutes to fill", len(self._symbols), self.exchange.name, minutes)
        while self.feed.gap_minutes() or self.batches.waiting:
            await self._clock.sleep(1.0)
        while True:
            now, trackers = self.rest.now(), self.feed.trackers
            current = sum(self.feed.lag_ms(symbol, now) < LATE_MS for symbol in trackers)
            rows, minutes = self.batches.counts.rows, self.feed.gap_minutes()
            log.info(
                "%d of %d symbols up to date, %d candles stored, %d minutes missing",
                current,
                len(trackers),
                rows,
                minutes,
            )
            await self._clock.sleep(self.settings.report_seconds)

    # -- symbols -------------------------------------------------------------------------------------------------------

    async def _learn_rules(self) -> None:
        """Read the trading rules of the followed symbols and store those that are new or changed."""
        rules = {rule.symbol: rule for rule in await self.rest.rules()}
        self._rules = rules
        scales = await self._in_store(self.store.scales)
        changed = {}
        for symbol in self._symbols:
            if symbol not in rules:
                continue
            name = self.exchange.store_name(symbol)
            scale = scales.get(name, 10 ** rules[symbol].volume_digits)
            self.batches.digits[name] = len(str(scale)) - 1
            if self._rules_stored.get(name) != rules[symbol]:
                changed[name] = (rules[symbol], scale)
        if changed:
            await self._in_store(self.store.put_rules, changed)
            self._rules_stored |= {name: rule for name, (rule, _) in changed.items()}

    async def follow(self, symbols: Sequence[str]) -> None:
        """Follow exactly these symbols. Raises UnknownName and then changes nothing."""
        for symbol in symbols:
            if symbol not in self._rules:
                raise UnknownName("symbol", symbol, sorted(self._rules), f"{self.exchange.name} does not list it")
        self._symbols = list(dict.fromkeys(symbols))
        if self.started:
            await self._learn_rules()
        audits = await self._in_store(self.store.audits)
        trackers: dict[str, GapTracker] = {}
        for symbol in self._symbols:
            tracker = self.feed.trackers.get(symbol)
            if tracker is None:
                name = self.exchange.store_name(symbol)
                tracker = await self._in_store(self._tracker, name, audits.get(name, 0))
            trackers[symbol] = tracker
        self._names = {self.exchange.store_name(symbol): symbol for symbol in self._symbols}
        self.feed.follow(trackers)
        self._run_actions()

    def _tracker(self, name: str, audited: int) -> GapTracker:
        """Tracker that starts after the last stored candle, with the gaps before it."""
        uncounted = uncounted_days(self.store, [name])  # the last writer may have been killed
        if uncounted:
            recount(self.store, uncounted)
        now = whole_minute(self.rest.now())
        start = self._first_minute(name, now)
        end = max([start, *(min(day.last + MINUTE_MS, now) for day in self.store.days(name)[-1:])])
        # An earlier feed may have stopped before its audit; a parallel feed may have stored candles after it.
        self.audited.setdefault(name, max(start, min(audited, end - DAY_MS)))
        return GapTracker(end, missing_intervals(self.store, name, start, end))

    def _first_minute(self, name: str, now: int) -> int:
        """First minute (ms) of this feed's history: the first stored one, from `heal_days` to `new_days` ago."""
        first = min((day.first for day in self.store.days(name) if day.rows), default=now)
        return max(min(first, now - self.settings.new_days * DAY_MS), now - self.settings.heal_days * DAY_MS)

    # -- actions of the state machine ----------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            self.feed.paused = self.batches.overloaded
            self.feed.tick(self.rest.now())
            self._run_actions()
            await self._clock.sleep(self.settings.tick_seconds)

    def _run_actions(self) -> None:
        self._queue_candles()
        while actions := self.feed.pop_actions():
            for action in actions:
                if isinstance(action, Open):
                    self._sockets.open(action.connection)
                elif isinstance(action, Close):
                    self._sockets.close(action.connection, action.why)
                elif isinstance(action, Send):
                    self._spawn(self._sockets.send(action.connection, action.text))
                elif isinstance(action, BackfillRequest):
                    self._spawn(self._backfill(action))
                elif isinstance(action, Outage):
                    name = self.exchange.store_name(action.symbol)
                    self.batches.add_outage(name, action.start, action.end)

    def _queue_candles(self) -> None:
        if self.feed.new_candles:
            candles, self.feed.new_candles = self.feed.new_candles, []
            for candle in candles:
                name = self.exchange.store_name(candle.symbol)
                self.batches.add(name, candle)
                self.on_candle(name, candle)

    def _opened(self, number: int) -> None:
        self.feed.opened(number, self.rest.now())
        self._run_actions()

    def _received(self, number: int, raw: bytes) -> None:
        self.feed.received(number, raw, self.rest.now())
        self._run_actions()

    def _closed(self, number: int, refused: bool) -> None:
        self.feed.closed(number, self.rest.now(), refused)

    async def _backfill(self, request: BackfillRequest) -> None:
        try:
            candles, full = await self.rest.candles(request.symbol, request.start, request.end)
        except (ExchangeDown, BadMessage, NotThere) as error:
            log.info(
                "requesting candles from %s failed: %s", iso(request.start), error, extra={"symbol": request.symbol}
            )
            self.feed.backfill_failed(request, self.rest.now())
        except BaseException:
            self.feed.backfill_failed(request, self.rest.now())
            raise
        else:
            self.feed.backfilled(request, candles, full, self.rest.now())
        self._run_actions()

    def _mark_missing(self, name: str, spans: Iterable[Interval]) -> None:
        if name in self._names:
            self.feed.mark_missing(self._names[name], spans)

    # -- on schedule ---------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Find minutes that are missing in the store, and request them."""
        for name, symbol in list(self._names.items()):
            tracker = self.feed.trackers.get(symbol)
            if tracker is None:
                continue
            now = self.rest.now()
            end = min(tracker.next, whole_minute(now - SETTLE_MS))
            expected = IntervalSet(tracker.gaps)
            for t in self.batches.pending(name):
                expected.add(t, t + MINUTE_MS)
            spans = await self._in_store(self._missing_spans, name, now, end)
            missing = IntervalSet(spans)
            for a, b in expected:
                missing.remove(a, b)
            if missing:
                minutes = missing.total() // MINUTE_MS
                log.warning("%d minutes are not in the store", minutes, extra={"symbol": symbol})
                self.feed.mark_missing(symbol, missing)

    def _missing_spans(self, name: str, now: int, end: int) -> list[Interval]:
        uncounted = {name: [day.start for day in self.store.days(name) if not day.digest and day.start < end]}
        if uncounted[name]:
            recount(self.store, uncounted)
        return missing_intervals(self.store, name, self._first_minute(name, whole_minute(now)), end)

    async def audit(self) -> None:
        """Read all candles since the last audit again over REST, and correct those that differ."""
        stored_at = self._clock.now_ms()
        for name, symbol in list(self._names.items()):
            tracker = self.feed.trackers.get(symbol)
            if tracker is None:
                continue
            # Stop before buffered candles: a streamed candle must not be written after its correction.
            firsts = [tracker.next, *(a for a, _ in tracker.gaps), *self.batches.pending(name)]
            end = min(whole_minute(self.rest.now() - SETTLE_MS), *firsts)
            start = self.audited[name]
            while start < end:
                while self.batches.overloaded:
                    await self._clock.sleep(1.0)
                candles, full = await self.rest.candles(symbol, start, end)
                candles = [candle for candle in candles if candle.t < end]
                self.audits.corrected += await self._in_store(
                    correct, self.store, name, candles, self.batches.digits.get(name, SCALE_DIGITS)
                )
                self.audits.minutes += len(candles)
                start = candles[-1].t + MINUTE_MS if candles and full else end
            self.audited[name] = max(start, self.audited[name])
            if self._clock.now_ms() > stored_at + STORE_AUDITS_MS:  # a round of many symbols takes long
                stored_at = await self._store_audits()
        await self._store_audits()

    async def _store_audits(self) -> int:
        """Store the new audit times; return the current time (ms)."""
        new = {name: until for name, until in self.audited.items() if self._audits_stored.get(name) != until}
        await self._in_store(self.store.put_audits, new)
        self._audits_stored |= new
        return self._clock.now_ms()


def whole_minute(ms: int) -> int:
    return ms // MINUTE_MS * MINUTE_MS
