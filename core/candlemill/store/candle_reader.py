"""Slices of candles for the engine, from a bounded cache of decoded month columns.

The cache key includes the digest of the month's content, so that corrected candles are read again. Worker processes get
the columns through shared memory; only one process reads the database.
"""

import shutil
import threading
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.slice import SliceWindow
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.backtests.universe import turnover_of_days
from candlemill.config import cache_bytes
from candlemill.engine.candles import DAY_MS, CandleColumns, end_of_bar
from candlemill.errors import BeingWritten, StoreError, TooLarge
from candlemill.store.base import Store
from candlemill.store.candle_writer import CANDLE_COLUMNS, day_runs
from candlemill.store.column_cache import ColumnCache, Key
from candlemill.store.integrity import check_read, differs_from
from candlemill.store.shared_memory import FOLDER, new_name
from candlemill.stored_days import Day, Month, months_of
from candlemill.telemetry import instrument
from candlemill.units import iso

if TYPE_CHECKING:  # imported late: executors do not use shared memory
    from multiprocessing.shared_memory import SharedMemory

TURNOVERS_KEPT = 500_000  # days: some 50 MB
CACHE_BYTES, CACHE_SHARE = 1 << 30, 4  # at most, and which part of the memory


class Shared(msgspec.Struct, frozen=True):
    """Columns in one block of shared memory: `places` are (key, offset, length), in elements."""

    name: str
    places: list[tuple[Key, int, int]]


class CandleReader:
    """Reads windows of a symbol's bars.

    `index`: returns a symbol's days. `store`: None if all columns come from `adopt`. `shared`: cache that several
    readers share.
    """

    def __init__(
        self,
        index: Callable[[str], Sequence[Day]],
        store: Store | None,
        limit: int | None = None,
        shared: ColumnCache | None = None,
    ) -> None:
        self._index = index
        self._store = store
        self._limit = cache_bytes(CACHE_BYTES, CACHE_SHARE) if limit is None else limit
        self._shared = shared
        self._bytes = 0
        self._turnovers: dict[tuple[str, int, str], int] = {}
        self._columns: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._memory: SharedMemory | None = None
        self._indexed: dict[str, tuple[Sequence[Day], list[Month]]] = {}
        self._latest: tuple[tuple[object, ...], SliceWindow] | None = None  # which the next batch of sets reads too

    def prefetch(self, spec: Spec, spans: Sequence[tuple[int, int]], context: int, names: Sequence[str]) -> None:
        """Read the columns of these spans and of `context` bars before each into the cache, if they fit in it.

        Consecutive months are read by one query.
        """
        by_start = {month.start: month for span in spans for month in self._months_of(spec, *span, context)[0]}
        months = [by_start[start] for start in sorted(by_start)]
        size = sum(month.rows for month in months) * 8 * len(names)
        if size <= self._limit:
            self._fetch(spec, months, names)

    def window(self, spec: Spec, start: int, end: int, context: int, names: Sequence[str]) -> SliceWindow:
        """Return the bars of `start <= t < end`, at least `context` bars before them, if the job may read so many, and
        those after them that belong to the slice's last k-bar."""
        months, from_first = self._months_of(spec, start, end, context)
        cut = start, end, spec.start, spec.end, spec.read_from, spec.timeframe, context
        key = spec.symbol, cut, tuple(names), tuple(month.digest for month in months)
        latest = self._latest
        if latest is not None and latest[0] == key:
            return latest[1]
        window = self._cut(spec, months, from_first, start, end, _stop(spec, end), context, names)
        self._latest = None if spec.funding else (key, window)  # rates are added to a window
        return window

    def turnover(self, spec: Spec, start: int, end: int) -> dict[int, int]:
        """Return the sums of close times volume of the job's days from `start` on that end by `end`, by their starts.

        Sums of whole days are kept: slices after each other look back at the same days. Raises TooLarge for volumes
        that do not fit 64 bits.
        """
        found: dict[int, int] = {}
        missing: list[Day] = []
        for day in _inside(self._index(spec.symbol), start - DAY_MS + 1, end - DAY_MS + 1):
            known = self._turnovers.get((spec.symbol, day.start, day.digest))
            whole = spec.start <= day.start and day.start + DAY_MS <= spec.end
            if whole and known is not None:
                found[day.start] = known
            else:
                missing.append(day)
        for run in day_runs([day.start for day in missing]):
            try:
                window = self.window(spec, run[0], run[-1] + DAY_MS, 0, ("t", "close", "volume"))
            except OverflowError as error:
                raise TooLarge(f"{spec.symbol}: {error}; leave it out of the universe") from None
            columns = window.candles.columns()
            inside = slice(window.lo, window.hi)
            found |= turnover_of_days(columns["t"][inside], columns["close"][inside], columns["volume"][inside])
        for day in missing:
            if day.start in found and spec.start <= day.start and day.start + DAY_MS <= spec.end:
                self._turnovers[spec.symbol, day.start, day.digest] = found[day.start]
        while len(self._turnovers) > TURNOVERS_KEPT:
            self._turnovers.pop(next(iter(self._turnovers)))
        return found

    def _months_of(self, spec: Spec, start: int, end: int, context: int) -> tuple[list[Month], bool]:
        """Months with the bars of a window, and whether the first of them is the first that the job may read."""
        months, stop = self._months(spec), _stop(spec, end)
        first = last = bisect_left(months, start + 1, key=lambda month: month.end)
        while last < len(months) and months[last].start < stop:
            last += 1
        before = (
            self._rows_between(spec.symbol, max(months[first].start, spec.read_from), start)
            if first < len(months)
            else 0
        )
        while first > 0 and before < context:
            first -= 1
            before += months[first].rows
        selected = months[first:last]
        return selected, selected[:1] == months[:1]

    def _rows_between(self, symbol: str, start: int, end: int) -> int:
        """Number of rows of the whole days in `start <= t < end`."""
        days = self._index(symbol)
        a, b = (bisect_left(days, at, key=lambda day: day.start) for at in (start, end - DAY_MS + 1))
        return sum(day.rows for day in days[a:b])

    def _cut(
        self,
        spec: Spec,
        months: Sequence[Month],
        from_first: bool,
        start: int,
        end: int,
        stop: int,
        context: int,
        names: Sequence[str],
    ) -> SliceWindow:
        columns = self._fetch(spec, months, names)
        times = columns["t"]
        offsets = [0]
        for part in times:
            offsets.append(offsets[-1] + len(part))

        def position(t: int) -> int:
            return sum(int(np.searchsorted(part, t)) for part in times)

        first_read = position(spec.read_from)
        lo, hi, upto = position(max(start, spec.start)), position(min(end, spec.end)), position(stop)
        begin = max(first_read, lo - context)
        parts = {name: _slice_parts(columns[name], offsets, begin, upto) for name in names}
        candles = CandleColumns(*(parts.get(name, []) for name in COLUMNS))
        self._keep_once(spec.symbol, months, offsets, begin, upto, candles, names)
        cold, job_begin = from_first and begin == first_read, max(0, position(spec.start) - begin)
        return SliceWindow(candles, lo - begin, hi - begin, cold, begin=job_begin)

    def _keep_once(
        self,
        symbol: str,
        months: Sequence[Month],
        offsets: Sequence[int],
        begin: int,
        upto: int,
        candles: CandleColumns,
        names: Sequence[str],
    ) -> None:
        """Let the cache have views of a window's columns instead of its own months that are whole in it."""
        if self._shared is not None or self._memory is not None:
            return  # other readers have these months anyway
        with self._lock:
            for month, a, b in zip(months, offsets, offsets[1:], strict=False):
                for name in names if begin <= a and b <= upto else ():
                    key = symbol, month.start, month.digest, name
                    if key in self._columns:
                        own = candles.columns()[name][a - begin : b - begin]
                        self._columns[key] = own.view(self._columns[key].dtype)

    def _months(self, spec: Spec) -> list[Month]:
        """Months that have candles which the job may read."""
        days = self._index(spec.symbol)
        cached = self._indexed.get(spec.symbol)
        if cached is None or cached[0] is not days:
            cached = (days, _kept_months(days))
            self._indexed[spec.symbol] = cached
        months = cached[1]
        return [month for month in months if month.end > spec.read_from and month.start < spec.end]

    def _fetch(self, spec: Spec, months: Sequence[Month], names: Sequence[str]) -> dict[str, list[NDArray[Any]]]:
        """Return the months' columns; read those that are not cached, consecutive months by one query."""
        symbol = spec.symbol
        with self._lock:
            missing = [m for m in months if not all(self._has((symbol, m.start, m.digest, n)) for n in names)]
            instrument.on_cache_lookup("month", len(months) - len(missing), len(missing))
            for run in _consecutive(missing, self._months(spec)):
                self._read(spec.symbol, run, names)
            out: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
            for month in months:
                for name in names:
                    key = (symbol, month.start, month.digest, name)
                    self._columns.move_to_end(key)
                    out[name].append(self._columns[key])
            self._trim()
            return out

    def _read(self, symbol: str, months: Sequence[Month], names: Sequence[str]) -> None:
        columns = self._read_checked(symbol, months, names)
        for month in months:
            a, b = np.searchsorted(columns["t"], [month.start, month.end])
            for name in names:
                key, column = (symbol, month.start, month.digest, name), columns[name][a:b]
                self._put(key, column)
                if self._shared is not None:
                    self._shared.put(key, column)

    def _read_checked(self, symbol: str, months: Sequence[Month], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Read columns and verify them against the job's index.

        Raises BeingWritten if they are changing, CandlesMissing if the database has lost candles.
        """
        if self._store is None:
            raise LookupError(f"{symbol}: the shared columns lack a month of the task")
        start, end = months[0].start, months[-1].end
        columns = self._store.read_columns(symbol, start, end, [name for name in names if name != "t"])
        # A write marks its days before its first row, so an unchanged index proves that there was no write.
        stored = _inside(self._store.days(symbol, start, end), start, end)
        if _same_months(months, stored):
            check_read(symbol, columns, stored)
            return columns
        days = _inside(self._index(symbol), start, end)
        if _same_months(months, days) and any(not day.digest for day in stored):
            # A write is running or was interrupted after the job counted the days: compare the content.
            columns = self._store.read_columns(symbol, start, end, CANDLE_COLUMNS[1:])
            if not differs_from(columns, days):
                return columns
        raise BeingWritten(f"{symbol}'s candles from {iso(start)} on changed while they were read: run the job again")

    def _has(self, key: Key) -> bool:
        """Whether the column is cached here, or in the shared cache, from which it is copied."""
        if key not in self._columns and self._shared is not None:
            column = self._shared.get(key)
            if column is not None:
                self._put(key, column)
        return key in self._columns

    def _put(self, key: Key, column: NDArray[Any]) -> None:
        old = self._columns.pop(key, None)
        self._bytes += column.nbytes - (old.nbytes if old is not None else 0)
        self._columns[key] = column

    def _trim(self) -> None:
        while self._bytes > self._limit and len(self._columns) > 1:
            self._bytes -= self._columns.popitem(last=False)[1].nbytes

    # -- sharing with worker processes ------------------------------------------------------------------------------

    def shareable(self) -> bool:
        """Whether shared memory has space for the columns: a write beyond its end kills the process (containers often
        have 64 MiB)."""
        return not FOLDER.is_dir() or shutil.disk_usage(FOLDER).free > self._bytes

    def share(self) -> "tuple[SharedMemory, Shared]":
        """Move the cached columns into shared memory, for `adopt` in another process. The caller unlinks it."""
        from multiprocessing.shared_memory import SharedMemory

        with self._lock:
            memory = SharedMemory(new_name(), create=True, size=max(8, self._bytes))
            block = _elements(memory)
            places: list[tuple[Key, int, int]] = []
            at = 0
            for key, column in self._columns.items():
                block[at : at + len(column)] = column
                places.append((key, at, len(column)))
                at += len(column)
            del block
            self._columns.clear()
            self._bytes = 0
            return memory, Shared(memory.name, places)

    def adopt(self, shared: Shared) -> None:
        """Use the columns of another process's `share`, without copies."""
        from multiprocessing.shared_memory import SharedMemory

        self._memory = SharedMemory(name=shared.name)
        block = _elements(self._memory)
        self._limit = max(self._limit, block.nbytes)
        for key, at, count in shared.places:
            self._put(key, block[at : at + count])


_months_kept: "deque[tuple[Sequence[Day], list[Month]]]" = deque(maxlen=8)


def _kept_months(days: Sequence[Day]) -> list[Month]:
    """Return the months of days, which other readers may have computed: an index that is kept has the same object for
    each job."""
    for known, months in tuple(_months_kept):
        if known is days:
            return months
    months = months_of(days)
    _months_kept.append((days, months))
    return months


def _stop(spec: Spec, end: int) -> int:
    """End (ms) of the last k-bar of a slice that ends at `end`."""
    return min(spec.end, end_of_bar(end, spec.timeframe))


def _inside(days: Sequence[Day], start: int, end: int) -> Sequence[Day]:
    """Days that begin in `start <= t < end`."""
    a, b = (bisect_left(days, at, key=lambda day: day.start) for at in (start, end))
    return days[a:b]


def _same_months(months: Sequence[Month], days: Sequence[Day]) -> bool:
    """Whether the index `days` has equal months."""
    now = {month.start: month.digest for month in months_of(days)}
    return all(now.get(month.start) == month.digest for month in months)


def _elements(memory: "SharedMemory") -> NDArray[np.int64]:
    if memory.buf is None:
        raise StoreError(f"shared memory {memory.name} is closed")
    return np.frombuffer(memory.buf, dtype=np.int64, count=memory.size // 8)


def _consecutive(missing: Sequence[Month], months: Sequence[Month]) -> list[list[Month]]:
    """Group missing months that are consecutive in `months`, the months with candles."""
    runs: list[list[Month]] = []
    place = {month.start: k for k, month in enumerate(months)}
    for month in missing:
        if runs and place[runs[-1][-1].start] + 1 == place[month.start]:
            runs[-1].append(month)
        else:
            runs.append([month])
    return runs


def _slice_parts(parts: Sequence[NDArray[Any]], offsets: Sequence[int], a: int, b: int) -> list[NDArray[Any]]:
    """Views of the elements `a` to `b - 1` of the concatenated parts."""
    out = []
    for part, offset in zip(parts, offsets, strict=False):
        view = part[max(0, a - offset) : max(0, b - offset)]
        if len(view):
            out.append(view)
    return out
