"""Find missing candles in the store and correct candles that differ from the exchange's."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from candlemill.engine.candles import DAY_MS
from candlemill.exchanges.base import MINUTE_MS, Candle
from candlemill.intervals import Interval, IntervalSet
from candlemill.store.candle_writer import CANDLE_COLUMNS, Columns, recount, touched_days, write
from candlemill.store.clickhouse import ClickHouseStore

SCALE_DIGITS: Final = 8


def storable(candles: Sequence[Candle], digits: int) -> list[Candle]:
    """Candles whose volumes are unsigned 64-bit integers at a volume scale of 10^digits."""
    divisor = 10 ** (SCALE_DIGITS - digits)
    return [c for c in candles if c.volume % divisor == 0 and c.volume // divisor < 1 << 64]


def columns_of(candles: Sequence[Candle], digits: int) -> Columns:
    """Candles as columns in time order, volumes times 10^digits."""
    divisor = 10 ** (SCALE_DIGITS - digits)
    ordered = sorted(candles, key=lambda c: c.t)
    columns: dict[str, Any] = {
        name: np.array([getattr(c, name) for c in ordered], np.int64) for name in CANDLE_COLUMNS[:-1]
    }
    columns["volume"] = np.array([c.volume // divisor for c in ordered], np.uint64)
    return columns


def missing_spans(times: Iterable[int], start: int, end: int) -> list[Interval]:
    """Intervals of `start <= t < end` (ms) without a minute among `times`."""
    out: list[Interval] = []
    at = start
    for t in sorted(x for x in times if start <= x < end):
        if t > at:
            out.append((at, t))
        at = t + MINUTE_MS
    if at < end:
        out.append((at, end))
    return out


def missing_intervals(store: ClickHouseStore, name: str, start: int, end: int) -> list[Interval]:
    """Intervals of `start <= t < end` (ms) that are missing in the store and are not known outages of the exchange."""
    if start >= end:
        return []
    full = {day.start for day in store.days(name, start, end) if day.rows == DAY_MS // MINUTE_MS}
    lacking = IntervalSet()
    for day in range(start // DAY_MS * DAY_MS, end, DAY_MS):
        if day not in full:
            lacking.add(max(day, start), min(day + DAY_MS, end))
    for a, b in store.outages(name):
        lacking.remove(a, b)
    return [hole for a, b in lacking for hole in missing_spans(store.times(name, a, b).tolist(), a, b)]


def remaining_outages(store: ClickHouseStore, name: str, start: int, end: int) -> list[Interval]:
    """Known outages of the exchange in `start <= t < end` (ms) whose minutes are still missing in the store."""
    known = IntervalSet(store.outages(name)).within(start, end)
    return [hole for a, b in known for hole in missing_spans(store.times(name, a, b).tolist(), a, b)]


def correct(store: ClickHouseStore, name: str, candles: Sequence[Candle], digits: int) -> int:
    """Write the candles that are missing or stored with other values; return how many."""
    candles = storable(candles, digits)
    if not candles:
        return 0
    new = columns_of(candles, digits)
    old = store.read_columns(name, int(new["t"][0]), int(new["t"][-1]) + 1, CANDLE_COLUMNS[1:])
    stored = set(zip(*(old[column].tolist() for column in CANDLE_COLUMNS), strict=True))
    rows = zip(*(new[column].tolist() for column in CANDLE_COLUMNS), strict=True)
    different = np.array([row not in stored for row in rows])
    if not different.any():
        return 0
    part = {column: values[different] for column, values in new.items()}
    write(store, {name: part})
    recount(store, touched_days({name: part}))
    return int(different.sum())
