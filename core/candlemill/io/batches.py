"""Candles on their way into the store: gathered, bounded, retried. Belongs to one event loop.

A batch is written by age or by size, whichever comes first. One that fails stays and is tried again; what comes
meanwhile is gathered up to a bound, whether the store fails or hangs. Beyond the bound rows are given up, and only
then, and only after the feed has been told that they are missing: it asks the exchange for them when the store takes
candles again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from candlemill.errors import StoreError
from candlemill.exchange import MINUTE_MS, Candle
from candlemill.io.coverage import Columns, recount, touched_days, write
from candlemill.io.feedstore import FeedStore
from candlemill.io.healing import SCALE_DIGITS, columns_of, storable
from candlemill.io.rest import Clock
from candlemill.minutes import Span

RETRY_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 30.0
HANGS_SECONDS: Final = 60.0  # a write that takes so long is one that fails

log = logging.getLogger("candlemill.feed")

Rows = dict[str, dict[int, Candle]]


class BatchCounts(msgspec.Struct):
    batches: int = 0
    rows: int = 0
    last_rows: int = 0
    failures: int = 0
    given_up: int = 0
    unstorable: int = 0


class Batches:
    """`digits` are the decimals of each symbol's volumes, by the store's names of symbols."""

    def __init__(
        self,
        store: FeedStore,
        pool: ThreadPoolExecutor,
        clock: Clock,
        on_lost: Callable[[str, list[Span]], None],
        rows_max: int,
        age_seconds: float,
        buffer_rows: int,
    ) -> None:
        self.digits: dict[str, int] = {}
        self.counts = BatchCounts()
        self.waiting = 0
        self._store = store
        self._pool = pool
        self._clock = clock
        self._on_lost = on_lost
        self._rows_max = rows_max
        self._age_seconds = age_seconds
        self._buffer_rows = buffer_rows
        self._rows: Rows = {}
        self._writing: Rows = {}
        self._writing_rows = 0
        self._writing_since_ms = 0
        self._hangs_at = 0.0  # on this machine's clock
        self._since_ms = 0
        self._given_up = 0  # since a write last succeeded
        self._outages: list[tuple[str, int, int]] = []
        self._unsure: dict[str, set[int]] = {}
        self._any = asyncio.Event()
        self._full = asyncio.Event()
        self.failing_since_ms = 0

    def add(self, symbol: str, candle: Candle) -> None:
        """Take a final candle. Of one minute's candles the last taken counts."""
        rows = self._rows.setdefault(symbol, {})
        before = len(rows)
        rows[candle.t] = candle
        self.waiting += len(rows) - before
        if not self._since_ms:
            self._since_ms = self._clock.now_ms()
            self._any.set()
        if self.waiting >= self._rows_max:
            self._full.set()
        if self.waiting + self._writing_rows > self._buffer_rows and self._fails():
            self._give_up()

    def _fails(self) -> bool:
        """Whether the store takes nothing, by its word or by its silence."""
        return bool(self.failing_since_ms or (self._writing_since_ms and time.monotonic() > self._hangs_at))

    def add_outage(self, symbol: str, start: int, end: int) -> None:
        self._outages.append((symbol, start, end))
        self._any.set()

    def pending(self, symbol: str) -> set[int]:
        """The minutes that are on their way."""
        return set(self._rows.get(symbol, ())) | set(self._writing.get(symbol, ()))

    @property
    def crowded(self) -> bool:
        """Whether nothing should be asked for that can wait."""
        return self.waiting > self._buffer_rows // 4 or self._fails()

    def oldest_ms(self) -> int:
        """Since when candles have been waiting, or are being written; 0 when none are."""
        return self.failing_since_ms or self._writing_since_ms or self._since_ms

    def _give_up(self) -> None:
        rows, self._rows, self.waiting, self._since_ms = self._rows, {}, 0, 0
        self._full.clear()
        for symbol, found in rows.items():
            self._on_lost(symbol, [(t, t + MINUTE_MS) for t in sorted(found)])
            self.counts.given_up += len(found)
            self._given_up += len(found)
        if self._given_up == sum(map(len, rows.values())):  # the first time
            log.warning("the store takes no candles: some are given up, to be asked for again")

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._gathered()
            await self.flush()

    async def _gathered(self) -> None:
        """Wait until the oldest candle has waited long enough, or enough of them are there."""
        await self._any.wait()
        aged = self._clock.sleep(self._age_seconds)
        enough: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._full.wait()), asyncio.ensure_future(aged)}
        try:
            await asyncio.wait(enough, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in enough:
                each.cancel()

    async def flush(self) -> None:
        """Write what is there now; tries again until it is written."""
        # What an earlier flush was cancelled over is still in `_writing`.
        self._writing = {
            name: self._writing.get(name, {}) | self._rows.get(name, {}) for name in self._writing | self._rows
        }
        self._writing_rows = sum(map(len, self._writing.values()))
        self._rows, self.waiting, self._since_ms = {}, 0, 0
        self._full.clear()
        self._any.clear()
        outages, wait = list(self._outages), RETRY_SECONDS
        while True:
            self._writing_since_ms = self._clock.now_ms()
            self._hangs_at = time.monotonic() + self._clock.patience(HANGS_SECONDS)
            try:
                await asyncio.get_running_loop().run_in_executor(self._pool, self._write, self._writing, outages)
                break
            except StoreError as error:
                self.counts.failures += 1
                self.failing_since_ms = self.failing_since_ms or self._clock.now_ms()
                log.warning("a batch of %d candles is tried again: %s", self._writing_rows, error)
            await self._clock.sleep(wait)
            wait = min(2 * wait, RETRY_SECONDS_MAX)
        self.counts.batches += 1
        self.counts.rows += self._writing_rows
        self.counts.last_rows = self._writing_rows
        self._writing, self._writing_rows, self._writing_since_ms, self.failing_since_ms = {}, 0, 0, 0
        del self._outages[: len(outages)]
        if self._unsure or self._outages:
            self._any.set()
        if self._given_up:
            log.info("the store takes candles again: %d had been given up", self._given_up)
            self._given_up = 0

    def _write(self, rows: Rows, outages: list[tuple[str, int, int]]) -> None:
        """In the store's thread. Writing a batch twice changes nothing."""
        parts = {
            symbol: part for symbol in rows if (part := self._columns(symbol, list(rows[symbol].values()))) is not None
        }
        if outages:
            self._store.put_outages(outages)
        if parts:
            write(self._store, parts)
            for symbol, days in touched_days(parts).items():
                self._unsure.setdefault(symbol, set()).update(days)
        if self._unsure:
            self._count()

    def _count(self) -> None:
        if recount(self._store, {symbol: sorted(days) for symbol, days in self._unsure.items()}).kept:
            self._unsure = {}

    def _columns(self, symbol: str, candles: list[Candle]) -> Columns | None:
        digits = self.digits.get(symbol, SCALE_DIGITS)
        kept = storable(candles, digits)
        if len(kept) < len(candles):
            self.counts.unstorable += len(candles) - len(kept)
            text = "%d volumes do not fit the volume scale of 10^%d: ingest the symbol anew with another one"
            log.error(text, len(candles) - len(kept), digits, extra={"symbol": symbol})
        return columns_of(kept, digits) if kept else None
