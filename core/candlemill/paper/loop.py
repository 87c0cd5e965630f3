"""The loop of a process that runs paper runs: candles come from a feed or from the store, decisions go to the outbox.

It runs in a thread of its own, beside the feed's event loop. Only this thread uses the desk.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Full, Queue
from typing import Final

from candlemill.errors import BadInput, BadStrategy, StoreError
from candlemill.paper.candles import Row
from candlemill.paper.desk import Desk, rows_of
from candlemill.paper.outbox import Outbox
from candlemill.pipeline.rows import PaperLogRow
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import LAST_MS

INBOX_MAX: Final = 200_000  # candles; of more, the rest comes from the store
WAIT_SECONDS: Final = 0.25
CHECK_SECONDS: Final = 60.0  # each symbol's days in the store are compared so often
FOLLOW_SECONDS: Final = 0.5  # a store that a feed of another process writes is read so often
REFILL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
RECENT_MS: Final = 600_000

log = logging.getLogger("candlemill.paper")


class PaperLoop:
    """Runs until `stop`. `follows`: candles come from the store alone, which another process writes.

    `said` gets all rows that have been logged. `on_end` is called when the loop ends, in its thread; `error` is why it
    has ended by itself.
    """

    def __init__(
        self,
        store: ClickHouseStore,
        desk: Desk,
        outbox: Outbox,
        follows: bool,
        said: Callable[[Sequence[PaperLogRow]], None] = lambda rows: None,
        on_end: Callable[[], object] = lambda: None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._store, self._desk, self._outbox, self._follows = store, desk, outbox, follows
        self._said, self._on_end, self._check_seconds = said, on_end, check_seconds
        self._inbox: Queue[tuple[str, Row]] = Queue(INBOX_MAX)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="paper")
        self._next_check = self._next_follow = self._next_refill = 0.0
        self._requested: deque[str] = deque()
        self._checked = 0  # symbols whose days have been compared so far
        self.failed: dict[str, str] = {}  # why the runs of symbols have ended
        self.error: BaseException | None = None
        self.lost = 0  # candles that the inbox had no room for
        self.store_failing_since = 0.0

    def start(self) -> None:
        self._outbox.start([row.run_id for row in self._desk.rows.values()])
        self._thread.start()

    def offer(self, symbol: str, row: Row) -> None:
        """Hand a candle over, from any thread."""
        try:
            self._inbox.put_nowait((symbol, row))
        except Full:
            self.lost += 1

    def check(self, symbol: str) -> None:
        """Ask for a comparison of a symbol's days with the store in the next round, from any thread."""
        self._requested.append(symbol)

    def stop(self, seconds: float = 10.0) -> bool:
        """Use the candles that have come, publish what was decided, and end; return whether all was published."""
        self._stopping.set()
        self._thread.join()
        return self._outbox.stop(seconds)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._once(WAIT_SECONDS)
            self._once(0)
        except BaseException as error:
            self.error = error
            log.error("the paper runs end: %s", error, exc_info=error)
        finally:
            self._on_end()

    def _once(self, wait: float) -> None:
        """Do one round: what has come, what the store has, and what is to be published."""
        try:
            came = self._came(wait)
            self._use(came)
            now = time.monotonic()
            while self._requested:
                requested = self._requested.popleft()
                self._take(requested, lambda requested=requested: self._desk.check_store(requested))  # type: ignore[misc]
            if now >= self._next_follow:
                self._follow()
                self._next_follow = now + FOLLOW_SECONDS
            for symbol in list(self._desk.runs):
                self._take(symbol, lambda symbol=symbol: self._desk.go_on(symbol, now))  # type: ignore[misc]
            if not came and now >= self._next_check:
                self._check_next(now)
            written = self._desk.commit()
            self._outbox.put(written)
            self._said(written)
            if now >= self._next_refill:
                self._outbox.refill()
                self._next_refill = now + REFILL_SECONDS
            self.store_failing_since = 0.0
        except StoreError as error:
            self.store_failing_since = self.store_failing_since or time.monotonic()
            log.warning("the store fails, retrying: %s", error)
            self._stopping.wait(RETRY_SECONDS)

    def _came(self, wait: float) -> dict[str, list[Row]]:
        """Return the candles that have come, by symbol; wait for the first one."""
        found: dict[str, list[Row]] = {}
        try:
            symbol, row = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            while True:
                if symbol in self._desk.readers:
                    found.setdefault(symbol, []).append(row)
                symbol, row = self._inbox.get_nowait()
        except Empty:
            return found

    def _use(self, candles: Mapping[str, Sequence[Row]]) -> None:
        for symbol, own in self._desk.by_run(candles).items():
            self._take(symbol, lambda symbol=symbol, own=own: self._desk.take(symbol, own))  # type: ignore[misc]

    def _follow(self) -> None:
        """Use the candles of the last minutes that the store has: all, or those that no feed of this process brings."""
        names = list(self._desk.readers) if self._follows else self._desk.marks
        if names:
            last = max((run.last for run in self._desk.runs.values()), default=0)
            found = self._store.read_many(names, last - RECENT_MS, LAST_MS)
            self._use({name: rows_of(columns) for name, columns in found.items()})

    def _check_next(self, now: float) -> None:
        """Compare the days of the next symbol in turn."""
        symbols = list(self._desk.runs)
        symbol = symbols[self._checked % len(symbols)]
        self._checked += 1
        self._next_check = now + self._check_seconds / len(symbols)
        self._take(symbol, lambda: self._desk.check_store(symbol))

    def _take(self, symbol: str, use: Callable[[], None]) -> None:
        """Use candles of a symbol. Where its strategy fails its run ends, and with the last run the loop."""
        try:
            use()
        except (BadStrategy, BadInput, RuntimeError) as error:
            log.error("the paper run of %s ends: %s", symbol, error)
            self.failed[symbol] = str(error)
            del self._desk.runs[symbol]
            if not self._desk.runs:
                raise
