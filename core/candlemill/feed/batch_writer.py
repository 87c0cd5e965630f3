"""Write final candles to the store in batches, with retries and a bounded buffer. Used by one event loop.

A batch is written when it is old or large enough. A failed batch is retried; new candles are buffered meanwhile, up to
a limit. Above the limit, while the store fails or hangs, buffered candles are dropped and reported through `on_lost`;
the feed requests them again from the exchange when the store accepts writes.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from candlemill.errors import StoreError
from candlemill.exchanges.base import MINUTE_MS, Candle
from candlemill.feed.backfill import SCALE_DIGITS, columns_of, storable
from candlemill.feed.rest_client import Clock
from candlemill.intervals import Interval
from candlemill.store.candle_writer import Columns, recount, touched_days, write
from candlemill.store.clickhouse import ClickHouseStore

RETRY_SECONDS: Final = 1.0
RETRY_SECONDS_MAX: Final = 30.0
WRITE_SECONDS_MAX: Final = 60.0  # a longer write counts as failed

log = logging.getLogger("candlemill.feed")

Rows = dict[str, dict[int, Candle]]


class BatchCounts(msgspec.Struct):
    batches: int = 0
    rows: int = 0
    last_rows: int = 0
    failures: int = 0
    dropped: int = 0
    unstorable: int = 0


class BatchWriter:
    """Batches of candles by symbol. `digits`: decimals of the volumes, by the symbol's name in the store."""

    def __init__(
        self,
        store: ClickHouseStore,
        pool: ThreadPoolExecutor,
        clock: Clock,
        on_lost: Callable[[str, list[Interval]], None],
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
        self._write_deadline = 0.0  # time.monotonic()
        self._since_ms = 0
        self._dropped = 0  # since the last successful write
        self._outages: list[tuple[str, int, int]] = []
        self._uncounted: dict[str, set[int]] = {}
        self._not_empty = asyncio.Event()
        self._full = asyncio.Event()
        self.failing_since_ms = 0

    def add(self, symbol: str, candle: Candle) -> None:
        """Buffer a final candle. A later candle of the same minute replaces it."""
        rows = self._rows.setdefault(symbol, {})
        before = len(rows)
        rows[candle.t] = candle
        self.waiting += len(rows) - before
        if not self._since_ms:
            self._since_ms = self._clock.now_ms()
            self._not_empty.set()
        if self.waiting >= self._rows_max:
            self._full.set()
        if self.waiting + self._writing_rows > self._buffer_rows and self._is_failing():
            self._drop()

    def _is_failing(self) -> bool:
        """Whether writes fail or hang."""
        return bool(self.failing_since_ms or (self._writing_since_ms and time.monotonic() > self._write_deadline))

    def add_outage(self, symbol: str, start: int, end: int) -> None:
        self._outages.append((symbol, start, end))
        self._not_empty.set()

    def pending(self, symbol: str) -> set[int]:
        """Open times of the candles that are buffered or being written."""
        return set(self._rows.get(symbol, ())) | set(self._writing.get(symbol, ()))

    @property
    def overloaded(self) -> bool:
        """Whether requests for history should wait."""
        return self.waiting > self._buffer_rows // 4 or self._is_failing()

    def oldest_ms(self) -> int:
        """Time (ms) since which candles have been buffered or written without success; 0 if there are none."""
        return self.failing_since_ms or self._writing_since_ms or self._since_ms

    def _drop(self) -> None:
        rows, self._rows, self.waiting, self._since_ms = self._rows, {}, 0, 0
        self._full.clear()
        for symbol, lost in rows.items():
            self._on_lost(symbol, [(t, t + MINUTE_MS) for t in sorted(lost)])
            self.counts.dropped += len(lost)
            self._dropped += len(lost)
        if self._dropped == sum(map(len, rows.values())):  # first drop since the last write
            log.warning("the store does not accept candles: some are dropped and will be requested again")

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._wait_for_batch()
            await self.flush()

    async def _wait_for_batch(self) -> None:
        """Wait until the batch is old enough or large enough."""
        await self._not_empty.wait()
        aged = self._clock.sleep(self._age_seconds)
        triggers: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._full.wait()), asyncio.ensure_future(aged)}
        try:
            await asyncio.wait(triggers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for trigger in triggers:
                trigger.cancel()

    async def flush(self) -> None:
        """Write the buffered candles, with retries until it succeeds."""
        # `_writing` still holds the candles of an earlier flush that was cancelled.
        self._writing = {
            name: self._writing.get(name, {}) | self._rows.get(name, {}) for name in self._writing | self._rows
        }
        self._writing_rows = sum(map(len, self._writing.values()))
        self._rows, self.waiting, self._since_ms = {}, 0, 0
        self._full.clear()
        self._not_empty.clear()
        outages, wait = list(self._outages), RETRY_SECONDS
        while True:
            self._writing_since_ms = self._clock.now_ms()
            self._write_deadline = time.monotonic() + self._clock.real_seconds(WRITE_SECONDS_MAX)
            try:
                await asyncio.get_running_loop().run_in_executor(self._pool, self._write, self._writing, outages)
                break
            except StoreError as error:
                self.counts.failures += 1
                self.failing_since_ms = self.failing_since_ms or self._clock.now_ms()
                log.warning("writing %d candles failed, retrying: %s", self._writing_rows, error)
            await self._clock.sleep(wait)
            wait = min(2 * wait, RETRY_SECONDS_MAX)
        self.counts.batches += 1
        self.counts.rows += self._writing_rows
        self.counts.last_rows = self._writing_rows
        self._writing, self._writing_rows, self._writing_since_ms, self.failing_since_ms = {}, 0, 0, 0
        del self._outages[: len(outages)]
        if self._uncounted or self._outages:
            self._not_empty.set()
        if self._dropped:
            log.info("the store accepts candles again: %d were dropped", self._dropped)
            self._dropped = 0

    def _write(self, rows: Rows, outages: list[tuple[str, int, int]]) -> None:
        """Write a batch, in the store's thread. Writing it twice has no further effect."""
        parts = {
            symbol: part for symbol in rows if (part := self._columns(symbol, list(rows[symbol].values()))) is not None
        }
        if outages:
            self._store.put_outages(outages)
        if parts:
            write(self._store, parts)
            for symbol, days in touched_days(parts).items():
                self._uncounted.setdefault(symbol, set()).update(days)
        if self._uncounted:
            self._recount()

    def _recount(self) -> None:
        if recount(self._store, {symbol: sorted(days) for symbol, days in self._uncounted.items()}).kept:
            self._uncounted = {}

    def _columns(self, symbol: str, candles: list[Candle]) -> Columns | None:
        digits = self.digits.get(symbol, SCALE_DIGITS)
        kept = storable(candles, digits)
        if len(kept) < len(candles):
            self.counts.unstorable += len(candles) - len(kept)
            text = "%d volumes do not fit the volume scale of 10^%d: ingest the symbol again with another scale"
            log.error(text, len(candles) - len(kept), digits, extra={"symbol": symbol})
        return columns_of(kept, digits) if kept else None
