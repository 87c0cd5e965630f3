"""The always-on feed: sockets, REST and the store around the state machine of `candlemill.feed`.

One event loop and one thread for the store. At the start, after whatever went wrong, and every hour, what the store has
is compared with what it should have; what is missing is asked for over REST. And what the streams brought is read over
REST once more and compared candle by candle: the exchange's own history is the truth, the streams a first edition.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import aiohttp
import msgspec

from candlemill.engine.tape import DAY_MS
from candlemill.errors import BadInput, BadMessage, ExchangeDown, NotThere, StoreError, UnknownName
from candlemill.exchange import MINUTE_MS, Exchange, Rules
from candlemill.feed import Feed, Outage, Question
from candlemill.io.batches import Batches
from candlemill.io.coverage import recount, unsure_days
from candlemill.io.feedstore import FeedStore, iso
from candlemill.io.healing import SCALE_DIGITS, correct, holes_of
from candlemill.io.rest import Clock, Rest, Silence
from candlemill.io.sockets import Sockets
from candlemill.lines import Close, Open, Send, Tuning
from candlemill.minutes import Minutes, Span, Spans

SETTLE_MS: Final = 600_000  # the schedule looks at minutes older than this: younger ones are the live path's
SYMBOLS_MAX: Final = 5000
KEEP_AUDITS_MS: Final = 60_000
LATE_MS: Final = 180_000  # a symbol whose last candle is older lags

log = logging.getLogger("candlemill.feed")
T = TypeVar("T")


class Settings(msgspec.Struct, frozen=True):
    """What an operator may set. See docs/feed.md."""

    tuning: Tuning = Tuning()
    batch_rows: int = 20_000
    batch_seconds: float = 2.0
    buffer_rows: int = 400_000
    heal_days: int = 30  # how far back gaps are looked for
    new_days: int = 1  # history of a symbol that the store does not know
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
    """`await run()` until `stop()`. Symbols are the exchange's own names."""

    def __init__(
        self,
        exchange: Exchange,
        symbols: Sequence[str],
        store: FeedStore,
        settings: Settings,
        clock: Clock,
        rng: random.Random,
        silence: Silence | None = None,
    ) -> None:
        if not 0 < len(set(symbols)) <= SYMBOLS_MAX:
            raise BadInput(f"{len(set(symbols))} symbols, but a feed follows 1 to {SYMBOLS_MAX}")
        self.exchange = exchange
        self.settings = settings
        self.feed = Feed(exchange, settings.tuning, rng)
        self.audits = AuditCounts()
        self.store = store
        self.started = False
        self._wanted = list(dict.fromkeys(symbols))
        self._clock = clock
        self._rng = rng
        self._silence = silence
        self._pool = ThreadPoolExecutor(1, "store")
        self.batches = Batches(
            store, self._pool, clock, self._missing, settings.batch_rows, settings.batch_seconds, settings.buffer_rows
        )
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._names: dict[str, str] = {}  # the store's name of a symbol -> the exchange's
        self.audited: dict[str, int] = {}  # by the store's names: everything before it has been compared with REST
        self._audits_kept: dict[str, int] = {}
        self._known: dict[str, Rules] = {}
        self._rules_stored: dict[str, Rules] = {}

    # -- life ----------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End soon, and in order: what has come is written first. May be called more than once."""
        self._stop.set()

    async def run(self) -> bool:
        """Feed until `stop`; whether all that had come is written. What is not, the next start asks for."""
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
            self._sockets = Sockets(
                session, self.exchange.stream_url, self._clock, self._opened, self._received, self._closed
            )
            self.rest = Rest(self.exchange, session, self._clock, self._rng, self._silence)
            jobs = [self._spawn(self._work())]
            stopping = asyncio.create_task(self._stop.wait())
            try:
                await asyncio.wait([*jobs, stopping], return_when=asyncio.FIRST_COMPLETED)
                for job in jobs:
                    if job.done():
                        job.result()
            finally:
                stopping.cancel()
                written = await self._drain()
        return written

    async def _work(self) -> None:
        await self._until_done(self.rest.sync)
        await self._until_done(self._learn_rules)
        await self._until_done(lambda: self.follow(self._wanted))
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
        """Close what is open, write what is there. Never waits longer than it may for a database that hangs."""
        running = list(self._tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._sockets.end()
        self._pump_candles()
        try:
            await asyncio.wait_for(self.batches.flush(), self._clock.patience(self.settings.drain_seconds))
        except TimeoutError:
            log.error("the store does not take the last candles: the next start asks for them again")
            self._pool.shutdown(wait=False, cancel_futures=True)
            return False
        self._pool.shutdown()
        log.info("ended: all that had come is stored")
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
                log.warning("%s; trying again", error)
                await self._clock.sleep(wait)
                wait = min(2 * wait, 60.0)

    async def _every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self._clock.sleep(seconds * self._rng.uniform(0.9, 1.0))
            try:
                await job()
            except (ExchangeDown, BadMessage, NotThere, StoreError) as error:
                log.warning("%s; the next round tries again", error)

    async def _in_store(self, job: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, job, *arguments)

    async def _report(self) -> None:
        """A line when nothing is missing any more, and then from time to time."""
        minutes = self.feed.hole_minutes()
        log.info("following %d symbols of %s, %d minutes to fill", len(self._wanted), self.exchange.name, minutes)
        while self.feed.hole_minutes() or self.batches.waiting:
            await self._clock.sleep(1.0)
        while True:
            now, accounts = self.rest.now(), self.feed.minutes
            fresh = sum(self.feed.lag_ms(symbol, now) < LATE_MS for symbol in accounts)
            rows, minutes = self.batches.counts.rows, self.feed.hole_minutes()
            log.info(
                "%d of %d symbols up to date, %d candles stored, %d minutes missing",
                fresh,
                len(accounts),
                rows,
                minutes,
            )
            await self._clock.sleep(self.settings.report_seconds)

    # -- symbols -------------------------------------------------------------------------------------------------------

    async def _learn_rules(self) -> None:
        """The exchange's rules of our symbols, into the store where they are new or have changed."""
        rules = {rule.symbol: rule for rule in await self.rest.rules()}
        self._known = rules
        scales = await self._in_store(self.store.scales)
        changed = {}
        for symbol in self._wanted:
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
        """Follow exactly these symbols from now on. Raises UnknownName, and follows what it did before."""
        for symbol in symbols:
            if symbol not in self._known:
                raise UnknownName("symbol", symbol, sorted(self._known), f"{self.exchange.name} does not list it")
        self._wanted = list(dict.fromkeys(symbols))
        if self.started:
            await self._learn_rules()
        audits = await self._in_store(self.store.audits)
        accounts: dict[str, Minutes] = {}
        for symbol in self._wanted:
            account = self.feed.minutes.get(symbol)
            if account is None:
                name = self.exchange.store_name(symbol)
                account = await self._in_store(self._account, name, audits.get(name, 0))
            accounts[symbol] = account
        self._names = {self.exchange.store_name(symbol): symbol for symbol in self._wanted}
        self.feed.want(accounts)
        self._pump()

    def _account(self, name: str, audited: int) -> Minutes:
        """Where to go on: after the last candle that is stored, with the holes before it."""
        unsure = unsure_days(self.store, [name])  # whoever wrote last may have died writing
        if unsure:
            recount(self.store, unsure)
        now = whole_minute(self.rest.now())
        start = self._begin(name, now)
        end = max([start, *(min(day.last + MINUTE_MS, now) for day in self.store.days(name)[-1:])])
        # Whoever fed before may have ended before it came to audit what it had stored; a feed beside this one may have
        # stored something after that was audited.
        self.audited.setdefault(name, max(start, min(audited, end - DAY_MS)))
        return Minutes(end, holes_of(self.store, name, start, end))

    def _begin(self, name: str, now: int) -> int:
        """From when on candles are this feed's business: as far back as they are stored, and a little in any case."""
        first = min((day.first for day in self.store.days(name) if day.rows), default=now)
        return max(min(first, now - self.settings.new_days * DAY_MS), now - self.settings.heal_days * DAY_MS)

    # -- doing what the state machine says -----------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            self.feed.paused = self.batches.crowded
            self.feed.tick(self.rest.now())
            self._pump()
            await self._clock.sleep(self.settings.tick_seconds)

    def _pump(self) -> None:
        self._pump_candles()
        while actions := self.feed.take():
            for action in actions:
                if isinstance(action, Open):
                    self._sockets.open(action.connection)
                elif isinstance(action, Close):
                    self._sockets.close(action.connection, action.why)
                elif isinstance(action, Send):
                    self._spawn(self._sockets.send(action.connection, action.text))
                elif isinstance(action, Question):
                    self._spawn(self._ask(action))
                elif isinstance(action, Outage):
                    name = self.exchange.store_name(action.symbol)
                    self.batches.add_outage(name, action.start, action.end)

    def _pump_candles(self) -> None:
        if self.feed.fresh:
            fresh, self.feed.fresh = self.feed.fresh, []
            for candle in fresh:
                self.batches.add(self.exchange.store_name(candle.symbol), candle)

    def _opened(self, number: int) -> None:
        self.feed.opened(number, self.rest.now())
        self._pump()

    def _received(self, number: int, raw: bytes | str) -> None:
        self.feed.received(number, raw, self.rest.now())
        self._pump()

    def _closed(self, number: int) -> None:
        self.feed.closed(number, self.rest.now())

    async def _ask(self, question: Question) -> None:
        try:
            candles, full = await self.rest.candles(question.symbol, question.start, question.end)
        except (ExchangeDown, BadMessage, NotThere) as error:
            log.info("asked for candles from %s: %s", iso(question.start), error, extra={"symbol": question.symbol})
            self.feed.unanswered(question, self.rest.now())
        except BaseException:
            self.feed.unanswered(question, self.rest.now())
            raise
        else:
            self.feed.answered(question, candles, full, self.rest.now())
        self._pump()

    def _missing(self, name: str, spans: Iterable[Span]) -> None:
        if name in self._names:
            self.feed.missing(self._names[name], spans)

    # -- on schedule ---------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Compare the store with what it should have, and have what is missing asked for."""
        for name, symbol in list(self._names.items()):
            account = self.feed.minutes.get(symbol)
            if account is None:
                continue
            now = self.rest.now()
            end = min(account.next, whole_minute(now - SETTLE_MS))
            coming = Spans(account.holes)
            for t in self.batches.pending(name):
                coming.add(t, t + MINUTE_MS)
            spans = await self._in_store(self._lacking, name, now, end)
            missing = Spans(spans)
            for a, b in coming:
                missing.remove(a, b)
            if missing:
                minutes = missing.total() // MINUTE_MS
                log.warning("%d minutes are not in the store", minutes, extra={"symbol": symbol})
                self.feed.missing(symbol, missing)

    def _lacking(self, name: str, now: int, end: int) -> list[Span]:
        unsure = {name: [day.start for day in self.store.days(name) if not day.digest and day.start < end]}
        if unsure[name]:
            recount(self.store, unsure)
        return holes_of(self.store, name, self._begin(name, whole_minute(now)), end)

    async def audit(self) -> None:
        """Read what has come since the last audit over REST once more, and correct what differs from it."""
        kept_at = self._clock.now_ms()
        for name, symbol in list(self._names.items()):
            account = self.feed.minutes.get(symbol)
            if account is None:
                continue
            # Not beyond what is still on its way: a first edition must not be written after its correction.
            firsts = [account.next, *(a for a, _ in account.holes), *self.batches.pending(name)]
            end = min(whole_minute(self.rest.now() - SETTLE_MS), *firsts)
            start = self.audited[name]
            while start < end:
                while self.batches.crowded:
                    await self._clock.sleep(1.0)
                candles, full = await self.rest.candles(symbol, start, end)
                candles = [candle for candle in candles if candle.t < end]
                self.audits.corrected += await self._in_store(
                    correct, self.store, name, candles, self.batches.digits.get(name, SCALE_DIGITS)
                )
                self.audits.minutes += len(candles)
                start = candles[-1].t + MINUTE_MS if candles and full else end
            self.audited[name] = max(start, self.audited[name])
            if self._clock.now_ms() > kept_at + KEEP_AUDITS_MS:  # with many symbols a round takes long
                kept_at = await self._keep_audits()
        await self._keep_audits()

    async def _keep_audits(self) -> int:
        """Have the store know; returns when."""
        new = {name: until for name, until in self.audited.items() if self._audits_kept.get(name) != until}
        await self._in_store(self.store.put_audits, new)
        self._audits_kept |= new
        return self._clock.now_ms()


def whole_minute(ms: int) -> int:
    return ms // MINUTE_MS * MINUTE_MS
