"""Writing of candles, and of the metadata index that describes them."""

import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import DAY_MS
from candlemill.pipeline.context import Unchanged
from candlemill.store.base import PRICES, CandleStore, Store
from candlemill.store.writers import has_ended, writer_name
from candlemill.stored_days import Day
from candlemill.units import monotonic_ms

CANDLE_COLUMNS = ("t", *PRICES, "volume")
LEASE_NS: Final = 180 * 10**9
DAYS_PER_READ: Final = 31
WAIT_SECONDS: Final = 1.0
LOG_SECONDS: Final = 30.0
WRITER: Final = writer_name()

Columns = dict[str, NDArray[Any]]
Versions = dict[tuple[str, int], int]  # by symbol and midnight in ms

log = logging.getLogger("candlemill")


def count_days(columns: dict[str, NDArray[Any]]) -> list[Day]:
    """Index rows of whole days of candles in time order.

    A day's digest is SHA-256 over its columns t, open, high, low, close, volume, one after the other, each as
    little-endian 64-bit integers in time order.
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
    """Index of `symbol`; days with an unfinished write are counted again first."""
    return _counted_days(store, symbol)[0]


def settled_days(store: Store, symbol: str) -> Sequence[Day]:
    """Index of `symbol` for a job, after running writes have ended.

    Waits for writers that may be alive, with a log line, for at most the duration of a write.
    """
    end = time.monotonic() + LEASE_NS / 10**9
    log_at = 0.0
    while True:
        days, writers = _counted_days(store, symbol)
        if all(map(has_ended, writers)) or time.monotonic() > end:
            return days
        if time.monotonic() > log_at:
            log_at = time.monotonic() + LOG_SECONDS
            log.warning("%s is being written: waiting, %.0f s at most", symbol, end - time.monotonic())
        time.sleep(WAIT_SECONDS)


def _counted_days(store: Store, symbol: str) -> tuple[Sequence[Day], list[str]]:
    """Days, and the open writers that prevent storing the counted ones in the index."""
    days = store.days(symbol)
    uncounted = [day.start for day in days if not day.digest]
    if not uncounted:
        return days, []
    assert isinstance(store, CandleStore), "candles that cannot be written are counted"
    counted = recount(store, {symbol: uncounted})
    finished = [day for day in days if day.digest]
    found = (*finished, *(day for day in counted.days[symbol] if day.rows))
    return sorted(found, key=lambda day: day.start), counted.writers


# -- writing -------------------------------------------------------------------------------------------------------
#
# Several processes may write candles of the same day at the same time. A digest must always match the stored rows, for
# every order of their steps and wherever one of them is killed. The row of a day with the highest version is valid;
# since clocks may be set, versions are derived from versions:
#   1. A writer stores that it is open (`candle_writers`), then marks its days as uncounted, with at least two versions
#      above the highest that it finds.
#   2. It inserts, then stores that it is closed.
#   3. A recount first reads the highest version and takes the next one, then looks for other open writers of these
#      days, then reads. If there is one, the days stay uncounted. If not, each writer that opens later finds at least
#      this version, marks with a higher one than the recount, and wins.
# A writer that died stays open for LEASE_NS, longer than any insert: by the database's clock, or by the clock of this
# process since it first saw the writer, whichever ends first. The index keeps its days uncounted until then; jobs count
# them for themselves and compare the candles that they read (`CandleReader`).


class _Versions:
    """Ascending versions of this process's rows in `candle_writers`, even if the clock is set back."""

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, now: int) -> int:
        with self._lock:
            self._last = max(now, self._last + 1)
            return self._last


_versions = _Versions()
_unchanged = Unchanged(monotonic_ms)


def write(store: CandleStore, parts: Mapping[str, Columns]) -> None:
    """Store candles of several symbols in few inserts, and mark their days as uncounted, for `recount`."""
    days = touched_days(parts)
    first, last = min(map(min, days.values())), max(map(max, days.values())) + DAY_MS - 1
    with open_writer(store, days, first, last):
        for month in _by_month(parts):
            store.insert_rows(month)


@contextmanager
def open_writer(store: CandleStore, days: Mapping[str, Sequence[int]], first: int, last: int) -> Iterator[Versions]:
    """Open a writer around the inserts of candles into these days. Yields the versions of their marks in the index.

    After a failure the days stay uncounted, and the writer open until its next write or the end of its lease, since an
    insert may complete after its timeout.
    """
    now = _versions.next(store.now_ns())
    store.put_writer(WRITER, now, True, first, last)
    marks = {symbol: [Day(day, 0, day, day, "") for day in starts] for symbol, starts in days.items()}
    versions = {key: max(now, known + 2) for key, known in store.day_versions(days).items()}
    store.put_days(marks, versions)
    yield versions
    store.put_writer(WRITER, _versions.next(now), False, first, last)


class Written(NamedTuple):
    """All candles of these days, counted by who has just written them, and the versions of that writer's marks."""

    days: dict[str, list[Day]]
    marks: Versions

    def is_all(self, store: CandleStore, versions: Versions) -> bool:
        """Return whether the store has exactly these candles: no later writer has marked the days, and the numbers of
        rows are the same. Only an embedded store has no writers in other processes.
        """
        if not store.embedded or versions != self.marks:
            return False
        rows = {(symbol, day.start): day.rows for symbol, days in self.days.items() for day in days}
        return store.day_rows({symbol: [day.start for day in days] for symbol, days in self.days.items()}) == rows


class Recount(NamedTuple):
    """Counted days by symbol, also empty ones; whether the index has stored them; else the open writers."""

    days: dict[str, list[Day]]
    kept: bool
    writers: list[str]


def recount(store: CandleStore, days: Mapping[str, Sequence[int]], written: "Written | None" = None) -> Recount:
    """Count stored days (midnights in ms, by symbol); store the result in the index if there is no open writer.

    The candles of days that were just `written` are not read again where nothing else can be stored of them.
    """
    first, last = min(map(min, days.values())), max(map(max, days.values())) + DAY_MS - 1
    found = store.day_versions(days)
    versions = {key: known + 1 for key, known in found.items()}
    writers = [] if store.embedded else _open_writers(store, first, last)
    counted = written.days if written is not None and written.is_all(store, found) else _count(store, days)
    if not writers:
        store.put_days(counted, versions)
    return Recount(counted, not writers, writers)


def _open_writers(store: CandleStore, first: int, last: int) -> list[str]:
    """Other writers with an unexpired lease on days of this range."""
    found = store.open_writers(WRITER, first, last)
    now = store.now_ns() if found else 0
    return [
        writer
        for writer, version in found
        if now - version <= LEASE_NS and _unchanged.for_ms(writer, version) <= LEASE_NS // 10**6
    ]


def uncounted_days(store: CandleStore, symbols: Sequence[str]) -> dict[str, list[int]]:
    """Days of these symbols that must be counted."""
    found = {symbol: [day.start for day in store.days(symbol) if not day.digest] for symbol in symbols}
    return {symbol: starts for symbol, starts in found.items() if starts}


def touched_days(parts: Mapping[str, Columns]) -> dict[str, list[int]]:
    return {symbol: (np.unique(part["t"] // DAY_MS) * DAY_MS).tolist() for symbol, part in parts.items()}


def _count(store: CandleStore, days: Mapping[str, Sequence[int]]) -> dict[str, list[Day]]:
    """Count days; symbols with the same days are read by one query."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for symbol, starts in days.items():
        groups.setdefault(tuple(sorted(starts)), []).append(symbol)
    out: dict[str, list[Day]] = {}
    for starts, symbols in groups.items():
        for run in day_runs(starts):
            columns = store.read_many(symbols, run[0], run[-1] + DAY_MS)
            for symbol in symbols:
                found = {day.start: day for day in count_days(columns[symbol])} if symbol in columns else {}
                empty = (Day(day, 0, day, day, "empty") for day in run if day not in found)
                out.setdefault(symbol, []).extend(sorted((*found.values(), *empty), key=lambda day: day.start))
    return out


def day_runs(starts: Sequence[int]) -> list[list[int]]:
    """Group consecutive days, at most 31 per group."""
    out: list[list[int]] = []
    for day in starts:
        if out and out[-1][-1] + DAY_MS == day and len(out[-1]) < DAYS_PER_READ:
            out[-1].append(day)
        else:
            out.append([day])
    return out


def _by_month(parts: Mapping[str, Columns]) -> list[list[tuple[str, Columns]]]:
    """Split columns by month, since an insert into one partition is one atomic part."""
    months: dict[int, list[tuple[str, Columns]]] = {}
    for symbol, part in parts.items():
        month = part["t"].astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
        for each in np.unique(month).tolist():
            rows = month == each
            months.setdefault(each, []).append((symbol, {name: column[rows] for name, column in part.items()}))
    return [months[month] for month in sorted(months)]
