"""Slices of candles for the engine, from a bounded cache of decoded month columns.

A month's columns are kept under the digest of their content, so a warm executor reads a month once, and a corrected
candle is seen. Worker processes get the same columns through shared memory: the database is read in one place.
"""

import shutil
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.tape import DAY_MS, MINUTE_MS, Tape
from candlemill.errors import BeingWritten, StoreError
from candlemill.io import telemetry
from candlemill.io.columns import Columns, Key
from candlemill.io.store import Store
from candlemill.model import Spec, iso
from candlemill.plan import Day, Month, months_of
from candlemill.work import COLUMNS, Window

if TYPE_CHECKING:  # imported late: executors share nothing with other processes
    from multiprocessing.shared_memory import SharedMemory

CACHE_BYTES = 1 << 30
SHARED = Path("/dev/shm")  # where Linux keeps shared memory


class Shared(msgspec.Struct, frozen=True):
    """Where another process finds columns: offsets in elements into one block of shared memory."""

    name: str
    places: list[tuple[Key, int, int]]


class Tapes:
    """Windows of a symbol's bars. `index` tells the symbol's days, `store` is None where all comes from `adopt`;
    `shared` are columns that others have read, and will."""

    def __init__(
        self,
        index: Callable[[str], Sequence[Day]],
        store: Store | None,
        limit: int = CACHE_BYTES,
        shared: Columns | None = None,
    ) -> None:
        self._index = index
        self._store = store
        self._limit = limit
        self._shared = shared
        self._bytes = 0
        self._columns: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._memory: SharedMemory | None = None
        self._indexed: dict[str, tuple[Sequence[Day], list[Month]]] = {}

    def prefetch(self, spec: Spec, spans: Sequence[tuple[int, int]], context: int, names: Sequence[str]) -> None:
        """Read the columns of these spans and of `context` bars before each in few goes, as far as the cache has room:
        neighbouring months take one."""
        wanted = {month.start: month for span in spans for month in self._months_of(spec, *span, context)[0]}
        months = [wanted[start] for start in sorted(wanted)]
        size = sum(month.rows for month in months) * 8 * len(names)
        if size <= self._limit:
            self._fetch(spec, months, names)

    def window(self, spec: Spec, start: int, end: int, context: int, names: Sequence[str]) -> Window:
        """The bars of `start <= t < end` with at least `context` bars before them, as far as the job has them, and
        with those after them that belong to the slice's last k-bar."""
        months, from_first = self._months_of(spec, start, end, context)
        return self._cut(spec, months, from_first, start, end, _stop(spec, end), context, names)

    def _months_of(self, spec: Spec, start: int, end: int, context: int) -> tuple[list[Month], bool]:
        """The months that have the bars of a window, and whether they begin with the job's first."""
        months, stop = self._months(spec), _stop(spec, end)
        first = last = bisect_left(months, start + 1, key=lambda month: month.end)
        while last < len(months) and months[last].start < stop:
            last += 1
        before = (
            self._rows_between(spec.symbol, max(months[first].start, spec.start), start) if first < len(months) else 0
        )
        while first > 0 and before < context:
            first -= 1
            before += months[first].rows
        chosen = months[first:last]
        return chosen, chosen[:1] == months[:1]

    def _rows_between(self, symbol: str, start: int, end: int) -> int:
        """The rows of the days that lie in `start` to `end` with all of their minutes."""
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
    ) -> Window:
        columns = self._fetch(spec, months, names)
        times = columns["t"]
        offsets = [0]
        for part in times:
            offsets.append(offsets[-1] + len(part))

        def position(t: int) -> int:
            return sum(int(np.searchsorted(part, t)) for part in times)

        job_first = position(spec.start)
        lo, hi, upto = position(max(start, spec.start)), position(min(end, spec.end)), position(stop)
        begin = max(job_first, lo - context)
        parts = {name: _slice_parts(columns[name], offsets, begin, upto) for name in names}
        tape = Tape(*(parts.get(name, []) for name in COLUMNS))
        return Window(tape, lo - begin, hi - begin, from_first and begin == job_first)

    def _months(self, spec: Spec) -> list[Month]:
        """The months of the job's range that have candles."""
        days = self._index(spec.symbol)
        kept = self._indexed.get(spec.symbol)
        if kept is None or kept[0] is not days:
            kept = (days, months_of(days))
            self._indexed[spec.symbol] = kept
        months = kept[1]
        return [month for month in months if month.end > spec.start and month.start < spec.end]

    def _fetch(self, spec: Spec, months: Sequence[Month], names: Sequence[str]) -> dict[str, list[NDArray[Any]]]:
        """The months' columns, read where the cache lacks them: neighbours in one query."""
        symbol = spec.symbol
        with self._lock:
            missing = [m for m in months if not all(self._has((symbol, m.start, m.digest, n)) for n in names)]
            telemetry.looked("month", len(months) - len(missing), len(missing))
            for run in _neighbours(missing, self._months(spec)):
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
        if self._store is None:
            raise LookupError(f"{symbol}: the shared columns lack a month of the task")
        wanted = [name for name in names if name != "t"]
        columns = self._store.read_columns(symbol, months[0].start, months[-1].end, wanted)
        # A write marks its days before its first row: where the index still says the same, none was under way.
        days = self._store.days(symbol, months[0].start, months[-1].end)
        now = {month.start: month.digest for month in months_of(days)}
        for month in months:
            if now.get(month.start) != month.digest:
                raise BeingWritten(
                    f"{symbol}'s candles from {iso(month.start)} on changed while they were read: ask again"
                )
        for month in months:
            a, b = np.searchsorted(columns["t"], [month.start, month.end])
            for name in names:
                key, column = (symbol, month.start, month.digest, name), columns[name][a:b]
                self._keep(key, column)
                if self._shared is not None:
                    self._shared.keep(key, column)

    def _has(self, key: Key) -> bool:
        """Whether the column is at hand, if need be from those that others have read."""
        if key not in self._columns and self._shared is not None:
            column = self._shared.get(key)
            if column is not None:
                self._keep(key, column)
        return key in self._columns

    def _keep(self, key: Key, column: NDArray[Any]) -> None:
        old = self._columns.pop(key, None)
        self._bytes += column.nbytes - (old.nbytes if old is not None else 0)
        self._columns[key] = column

    def _trim(self) -> None:
        while self._bytes > self._limit and len(self._columns) > 1:
            self._bytes -= self._columns.popitem(last=False)[1].nbytes

    # -- sharing with worker processes ------------------------------------------------------------------------------

    def shareable(self) -> bool:
        """Whether shared memory has room for the columns. Past its end a write would kill the process; containers
        often have 64 MiB."""
        return not SHARED.is_dir() or shutil.disk_usage(SHARED).free > self._bytes

    def share(self) -> "tuple[SharedMemory, Shared]":
        """Move what the cache holds into shared memory, for `adopt` in another process. The caller unlinks it."""
        from multiprocessing.shared_memory import SharedMemory

        with self._lock:
            memory = SharedMemory(create=True, size=max(8, self._bytes))
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
        """Use columns that another process has shared; nothing is copied."""
        from multiprocessing.shared_memory import SharedMemory

        self._memory = SharedMemory(name=shared.name)
        block = _elements(self._memory)
        self._limit = max(self._limit, block.nbytes)
        for key, at, count in shared.places:
            self._keep(key, block[at : at + count])


def _stop(spec: Spec, end: int) -> int:
    """Where the last k-bar of a slice that ends at `end` is complete, in ms."""
    k_ms = spec.timeframe * MINUTE_MS
    return min(spec.end, -(-end // k_ms) * k_ms)


def _elements(memory: "SharedMemory") -> NDArray[np.int64]:
    if memory.buf is None:
        raise StoreError(f"shared memory {memory.name} is closed")
    return np.frombuffer(memory.buf, dtype=np.int64, count=memory.size // 8)


def _neighbours(missing: Sequence[Month], months: Sequence[Month]) -> list[list[Month]]:
    """Runs of missing months that follow each other in `months`, all that have candles."""
    runs: list[list[Month]] = []
    place = {month.start: k for k, month in enumerate(months)}
    for month in missing:
        if runs and place[runs[-1][-1].start] + 1 == place[month.start]:
            runs[-1].append(month)
        else:
            runs.append([month])
    return runs


def _slice_parts(parts: Sequence[NDArray[Any]], offsets: Sequence[int], a: int, b: int) -> list[NDArray[Any]]:
    """Elements `a` to `b - 1` of the parts' concatenation, as views."""
    out = []
    for part, offset in zip(parts, offsets, strict=False):
        piece = part[max(0, a - offset) : max(0, b - offset)]
        if len(piece):
            out.append(piece)
    return out
