"""Whether a store holds what the exchange has, row for row. Every verdict is empty, or 0, where all is well."""

import hashlib
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from candlemill.feed.backfill import missing_intervals
from candlemill.intervals import IntervalSet
from candlemill.store.candle_writer import current_days
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import Day

from loadtests.exchange_simulator.market import MINUTE_MS, Market, Row
from loadtests.exchange_simulator.run import adapter, stored
from loadtests.exchange_simulator.server import FREE_PORTS

DAY_MS = 86_400_000
FOREVER = 1 << 42
Rows = Mapping[str, Mapping[int, Row]]


def judge(
    store: ClickHouseStore, names: Mapping[str, str], first: Rows, last: Rows, start: int, end: int
) -> dict[str, Any]:
    """The store beside what the exchange said `first` and says at `last`: each minute of `start <= t < end` must be
    there as one of the two, and later ones as one of the two or not at all. `names` are the store's of the symbols.

    Beside rows: the store's own account of what is missing, of what the exchange lacks, and its index with its digests.
    """
    found: dict[str, Any] = {}
    for symbol, name in names.items():
        have, want = stored(store, name, 0, FOREVER), last[symbol]
        due = {t for t in want if start <= t < end}
        gone: Callable[[int], bool] = lambda t, want=want: t not in want  # type: ignore[misc]  # noqa: E731
        found |= {
            f"{symbol} {kind}": short(minutes)
            for kind, minutes in (
                ("lost", due - have.keys()),
                ("extra", {t for t in have if gone(t)}),
                ("wrong", {t for t in have.keys() & want.keys() if have[t] not in (want[t], first[symbol][t])}),
                ("holes", minutes_of(missing_intervals(store, name, start, end))),
                ("false outages", {t for t in minutes_of(store.outages(name)) if not gone(t)}),
                ("index", {day.start for day in set(current_days(store, name)) ^ set(index_of(have))}),
            )
            if minutes
        }
    return found


def judge_live(
    folder: Path, market: Market, exchange: str, symbols: list[str], start: int, end: int, alone: bool
) -> dict[str, Any]:
    """What feeds alone have come to: corrections that came after their audits may be missing. Where one feed was
    `alone` and has ended in order, no day is left unsure."""
    store_name = adapter(exchange, FREE_PORTS).store_name
    names = {symbol: store_name(symbol) for symbol in symbols}
    with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
        unsure = {name: [day.start for day in store.days(name) if not day.digest] for name in names.values()}
        found = judge(store, names, market.first, market.at(end).rows, start, end)
    return found | ({f"{name} unsure": days for name, days in unsure.items() if days} if alone else {})


def index_of(rows: Mapping[int, Row]) -> list[Day]:
    """The metadata index as its documentation says it, made from rows by other means."""
    days: dict[int, list[int]] = {}
    for t in sorted(rows):
        days.setdefault(t // DAY_MS * DAY_MS, []).append(t)
    out = []
    for day, times in days.items():
        columns = [times, *([rows[t][k] for t in times] for k in range(5))]
        raw = b"".join(struct.pack(f"<{len(times)}Q", *column) for column in columns)
        out.append(Day(day, len(times), times[0], times[-1], hashlib.sha256(raw).hexdigest()))
    return out


def minutes_of(spans: Any) -> set[int]:
    return {t for a, b in IntervalSet(spans) for t in range(a, b, MINUTE_MS)}


def short(minutes: set[int]) -> list[int]:
    """How many, the first and the last."""
    return [len(minutes), min(minutes), max(minutes)]
