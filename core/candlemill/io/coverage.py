"""Keeping the metadata index true to the candles."""

import hashlib
import itertools
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candlemill.engine.tape import DAY_MS
from candlemill.io.store import PRICES, Store
from candlemill.plan import Day

CANDLE_COLUMNS = ("t", *PRICES, "volume")
LEASE_NS: Final = 180 * 10**9
DAYS_AT_ONCE: Final = 31
WRITER: Final = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"

Columns = dict[str, NDArray[Any]]


def count_days(columns: dict[str, NDArray[Any]]) -> list[Day]:
    """Index rows of candles in time order, whole days each.

    A day's digest is SHA-256 over its columns t, open, high, low, close, volume, one after the other, each as
    little-endian 64-bit integers in time order: anyone can recompute it from the candles.
    """
    t = columns["t"]
    if not len(t):
        return []
    days = t // DAY_MS
    starts = np.concatenate(([0], np.flatnonzero(days[1:] != days[:-1]) + 1, [len(t)])).tolist()
    raw = [columns[name].astype(_wire(name), copy=False).view(np.uint8) for name in CANDLE_COLUMNS]
    out = []
    for a, b in itertools.pairwise(starts):
        digest = hashlib.sha256()
        for column in raw:
            digest.update(column[8 * a : 8 * b].data)
        out.append(Day(int(days[a]) * DAY_MS, b - a, int(t[a]), int(t[b - 1]), digest.hexdigest()))
    return out


def _wire(name: str) -> str:
    return "<u8" if name == "volume" else "<i8"


def current_days(store: Store, symbol: str) -> Sequence[Day]:
    """The index of `symbol`; days whose last write did not end are counted again first."""
    days = store.days(symbol)
    unsure = [day.start for day in days if not day.digest]
    if not unsure:
        return days
    counted = recount(store, {symbol: unsure}).days[symbol]
    sure = [day for day in days if day.digest]
    return sorted((*sure, *(day for day in counted if day.rows)), key=lambda day: day.start)


# -- writing -------------------------------------------------------------------------------------------------------
#
# Several processes may write candles of the same day at once. A digest must never stand for rows that it does not
# cover, however their steps interleave and wherever one of them dies. So:
#   1. A writer says that it is open (`candle_writers`), and then marks the days that it touches as unsure, with a
#      version that it takes from the database's clock after it could be seen to be open.
#   2. It inserts, and says that it is closed.
#   3. Whoever counts days takes a version first, looks for other open writers of these days second, reads third. If it
#      finds one, it leaves the days unsure. If not, each writer that opens later marks with a higher version, and wins.
# A writer that died is open until LEASE_NS have passed, longer than any insert lasts; its days are unsure until then.


def write(store: Store, parts: Mapping[str, Columns]) -> None:
    """Store candles of any number of symbols, few inserts in all, and mark their days as unsure. See `recount`."""
    days = touched_days(parts)
    first, last = min(map(min, days.values())), max(map(max, days.values())) + DAY_MS - 1
    with open_writer(store, days, first, last):
        for month in _by_month(parts):
            store.insert_rows(month)


@contextmanager
def open_writer(store: Store, days: Mapping[str, Sequence[int]], first: int, last: int) -> Iterator[None]:
    """Around the inserts of candles into these days. A failure leaves the days unsure, and the writer open until its
    next write, or until its lease is over: an insert that was given up may still land."""
    store.put_writer(WRITER, store.now_ns(), True, first, last)
    marks = {symbol: [Day(day, 0, day, day, "") for day in starts] for symbol, starts in days.items()}
    store.put_days(marks, store.now_ns())
    yield
    store.put_writer(WRITER, store.now_ns(), False, first, last)


class Recount(NamedTuple):
    """Days as counted, by symbol, those without candles too; and whether the index keeps them."""

    days: dict[str, list[Day]]
    kept: bool


def recount(store: Store, days: Mapping[str, Sequence[int]]) -> Recount:
    """Count days (midnights in ms, by symbol) as they are stored, and keep that unless someone is writing them."""
    first, last = min(map(min, days.values())), max(map(max, days.values())) + DAY_MS - 1
    version = store.now_ns()
    busy = not store.embedded and store.open_writers(WRITER, version - LEASE_NS, first, last)
    counted = _count(store, days)
    if not busy:
        store.put_days(counted, version)
    return Recount(counted, not busy)


def unsure_days(store: Store, symbols: Sequence[str]) -> dict[str, list[int]]:
    """The days of these symbols that have to be counted."""
    found = {symbol: [day.start for day in store.days(symbol) if not day.digest] for symbol in symbols}
    return {symbol: starts for symbol, starts in found.items() if starts}


def touched_days(parts: Mapping[str, Columns]) -> dict[str, list[int]]:
    return {symbol: (np.unique(part["t"] // DAY_MS) * DAY_MS).tolist() for symbol, part in parts.items()}


def _count(store: Store, days: Mapping[str, Sequence[int]]) -> dict[str, list[Day]]:
    """Symbols with the same days are read together: all of today's, or one symbol's month."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for symbol, starts in days.items():
        groups.setdefault(tuple(sorted(starts)), []).append(symbol)
    out: dict[str, list[Day]] = {}
    for starts, symbols in groups.items():
        for run in _runs(starts):
            columns = store.read_many(symbols, run[0], run[-1] + DAY_MS)
            for symbol in symbols:
                found = {day.start: day for day in count_days(columns[symbol])} if symbol in columns else {}
                empty = (Day(day, 0, day, day, "empty") for day in run if day not in found)
                out.setdefault(symbol, []).extend(sorted((*found.values(), *empty), key=lambda day: day.start))
    return out


def _runs(starts: Sequence[int]) -> list[list[int]]:
    """Consecutive days together, a month at most."""
    out: list[list[int]] = []
    for day in starts:
        if out and out[-1][-1] + DAY_MS == day and len(out[-1]) < DAYS_AT_ONCE:
            out[-1].append(day)
        else:
            out.append([day])
    return out


def _by_month(parts: Mapping[str, Columns]) -> list[list[tuple[str, Columns]]]:
    """Pieces that lie in one month each: an insert into one partition is one atomic part."""
    months: dict[int, list[tuple[str, Columns]]] = {}
    for symbol, part in parts.items():
        month = part["t"].astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
        for each in np.unique(month).tolist():
            rows = month == each
            months.setdefault(each, []).append((symbol, {name: column[rows] for name, column in part.items()}))
    return [months[month] for month in sorted(months)]
