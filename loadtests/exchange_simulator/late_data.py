"""What comes late by nature, for the simulated exchange: mark prices and funding rates of perpetuals.

All follow from a seed, so that a process that was killed goes on with the same ones. Mark prices are published some
minutes after their candle, rates an hour or more after they are due, and some again with another value.
"""

import random
import threading
from collections.abc import Sequence

import numpy as np
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.exchanges.binance.markets import mark_name
from candlemill.store.candle_writer import recount, touched_days, write
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import Funding

from loadtests.exchange_simulator.market import MINUTE_MS, VirtualClock, synthetic

HOUR_MS = 3_600_000
LATEST_MINUTES = 4
TIERS = [Tier(0, 4_000, 0), Tier(2_000_000 * 10**8, 5_000, 2_000 * 10**8)]


class LateData:
    """Publishes what is due at the clock's time, in a thread of its own until `stop`. `names` are those of the store by
    the exchange's symbols."""

    def __init__(
        self, dsn: str, clock: VirtualClock, seed: int, names: dict[str, str], start_ms: int, minutes: int, begin: int
    ) -> None:
        self._dsn, self._clock, self._seed, self._names = dsn, clock, seed, names
        self._market = synthetic(seed, list(names), start_ms, minutes)
        self._times = range(begin, start_ms + minutes * MINUTE_MS, MINUTE_MS)
        self._published = 0  # of the minutes
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="late-data")

    def start(self) -> None:
        with ClickHouseStore(self._dsn) as store:
            for name in self._names.values():
                store.put_margin_tiers(name, [TierTable(self._times[0] - 24 * HOUR_MS, TIERS)])
        self._thread.start()

    def stop(self) -> None:
        """Publish all that is due at the clock's time."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with ClickHouseStore(self._dsn) as store:
            while not self._stopping.wait(0.3):
                self._publish(store, self._clock.now_ms(), late=True)
            self._publish(store, self._clock.now_ms(), late=False)

    def _publish(self, store: ClickHouseStore, now: int, late: bool) -> None:
        chance = random.Random(f"{self._seed} {now if late else 0}")
        until = now - (chance.randrange(LATEST_MINUTES) + 1 if late else 1) * MINUTE_MS
        due = [t for t in self._times[self._published :] if t <= until]
        self._published += len(due)
        for symbol, name in self._names.items():
            mark = mark_name(name)
            rows = [(t, *self._mark(symbol, t)) for t in due if t in self._market.first[symbol]]
            if mark is not None and rows:
                _write(store, mark, rows)
            self._publish_rates(store, name, now, late)

    def _mark(self, symbol: str, t: int) -> Sequence[int]:
        """Return a mark price beside the first version of a candle; the prices of every seventh are missing."""
        o, h, low, c, _ = self._market.first[symbol][t]
        away = (t // MINUTE_MS * 7_919 % 11 - 5) * 10**8
        return o + away, h + away, low + away, c + away, 0

    def _publish_rates(self, store: ClickHouseStore, name: str, now: int, late: bool) -> None:
        """Rates of every two hours; an hour late, and first with another value for another hour."""
        found = [], []
        for t in range(-(-self._times[0] // (2 * HOUR_MS)) * 2 * HOUR_MS, now, 2 * HOUR_MS):
            if now - t < HOUR_MS and late:
                continue
            first = late and now - t < 2 * HOUR_MS
            found[0].append(t)
            found[1].append((t // HOUR_MS * 7_919 % 5 - 2) * 40_000 + first * 1_000)
        if found[0]:
            store.put_funding(name, Funding(np.array(found[0]), np.array(found[1])))


def _write(store: ClickHouseStore, name: str, rows: Sequence[Sequence[int]]) -> None:
    columns = zip(*rows, strict=True)
    names = ("t", "open", "high", "low", "close", "volume")
    parts = {name: {one: np.array(column, dtype=np.int64) for one, column in zip(names, columns, strict=True)}}
    if store.volume_scale(name) is None:
        store.add_symbol(name, 10**8)
    write(store, parts)
    recount(store, touched_days(parts))
