"""Store candles from files: each file completely or not at all, and only rows that are new or different."""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from candlemill.config import DSN_VARIABLE
from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadFile, BadInput
from candlemill.exchanges.binance.kline_files import Candles, clean
from candlemill.ingest.disagreements import Disagreement, Disagreements
from candlemill.ingest.own_files import OwnFormat, own_paths, read_own
from candlemill.ingest.read_ahead import ReadAhead
from candlemill.store.base import CandleStore
from candlemill.store.candle_writer import CANDLE_COLUMNS, Written, count_days, current_days, open_writer, recount
from candlemill.stored_days import Day

GROUP_ROWS = 800_000  # candles that are written together at most, which bounds the memory
EARLY_SHARE = 4  # of which a fourth is written at once while nothing else is
DEFAULT_SCALE = 100_000_000

Columns = dict[str, NDArray[Any]]


class Refused(msgspec.Struct, frozen=True):
    """A file that is not stored, and why; `line` counts from 1."""

    file: str
    line: int | None
    reason: str

    def __str__(self) -> str:
        return str(BadFile(self.file, self.line, self.reason))


class Report(msgspec.Struct):
    """What an ingest did. `rows` were read, `stored` of them were new or different."""

    files: int = 0
    rows: int = 0
    stored: int = 0
    symbols: list[str] = []
    ignored: list[Refused] = []  # within folders, and no kline files of one minute
    refused: list[Refused] = []
    disagreements: list[Disagreement] = []
    incomplete: int = 0  # minutes at the edges of folded files

    def to_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

    def text(self) -> str:
        names = ", ".join(self.symbols[:8]) + (f" and {len(self.symbols) - 8} more" if len(self.symbols) > 8 else "")
        lines = [f"{self.files:,} files, {self.rows:,} rows read, {self.stored:,} new or changed: {names or 'none'}"]
        if self.incomplete:
            lines.append(f"{self.incomplete:,} minutes left out: a file began or ended within them")
        lines += [f"ignored {note}" for note in self.ignored]
        lines += [f"disagreement {one}" for one in self.disagreements]
        lines += [f"refused {note}" for note in self.refused]
        return "\n".join(lines)


class FilesRefused(BadFile):
    """Files of an ingest were refused: this is the first; `report` has all of them, and what was stored."""

    def __init__(self, report: Report) -> None:
        first = report.refused[0]
        super().__init__(first.file, first.line, first.reason)
        self.report = report

    def __str__(self) -> str:
        more = len(self.report.refused) - 1
        return super().__str__() + (f" (and {more:,} more files refused; {self.report.files:,} stored)" if more else "")


def ingest(
    store: CandleStore,
    paths: Sequence[Path],
    volume_scale: int | None = None,
    quiet: bool = False,
    market: str | None = None,
) -> Report:
    """Store the candles of all kline files among `paths`.

    `market` is whose candles these are, where neither folders nor symbols say it (see `find_kline_files`). A file that
    is refused leaves no trace, the others are stored all the same; then FilesRefused tells.
    `volume_scale` is for symbols that are new; BadInput refuses another than a stored symbol has.
    """
    with read_ahead(paths, volume_scale, market) as ahead:
        return store_files(store, ahead, volume_scale, quiet)


def read_ahead(paths: Sequence[Path], volume_scale: int | None = None, market: str | None = None) -> ReadAhead:
    """Start to read the kline files among `paths`, for `store_files`: the store can be opened meanwhile."""
    return ReadAhead(paths, market, _digits(checked_scale(volume_scale) or DEFAULT_SCALE))


def store_files(store: CandleStore, ahead: ReadAhead, volume_scale: int | None = None, quiet: bool = False) -> Report:
    """Store the candles of files that are being read, as `ingest` does."""
    found = ahead.found
    report = Report(ignored=[_refused(error) for error in found.ignored])
    refused = found.refused
    scales = _Scales(store, volume_scale)
    disagreements = Disagreements()
    bar = tqdm(total=len(found.files), desc="ingest", unit="file", delay=1, disable=quiet or None, dynamic_ncols=True)
    with bar, _Writer(store, report) as writer:
        for file, loaded in ahead.files(scales.digits):
            bar.update()
            if isinstance(loaded, BadFile):
                refused.append(scales.advise(loaded, file.symbol))
                continue
            scales.fix(file.symbol)
            report.files += 1
            disagreements.add(file, loaded)
            writer.add(file.symbol, loaded)
        writer.finish()
    report.disagreements = disagreements.found
    report.refused = [_refused(error) for error in refused]
    if report.refused:
        raise FilesRefused(report)
    return report


def ingest_own(
    store: CandleStore, paths: Sequence[Path], how: OwnFormat, volume_scale: int | None = None, quiet: bool = False
) -> Report:
    """Store the candles of the user's own files, each completely or not at all, as `ingest` does."""
    report, scales = Report(), _Scales(store, volume_scale)
    files = own_paths(paths, how.form)
    bar = tqdm(total=len(files), desc="ingest", unit="file", delay=1, disable=quiet or None, dynamic_ncols=True)
    with bar, _Writer(store, report) as writer:
        for path in files:
            bar.update()
            try:
                found, left_out = read_own(path, how, scales.digits)
            except BadFile as error:
                report.refused.append(_refused(error))
                continue
            report.files += 1
            report.incomplete += left_out
            for symbol, candles in found.items():
                scales.fix(symbol)
                writer.add(symbol, candles)
        writer.finish()
    if report.refused:
        raise FilesRefused(report)
    return report


def store_candles(store: CandleStore, symbol: str, candles: Candles, volume_scale: int) -> Report:
    """Store checked candles of one symbol."""
    report, scales = Report(), _Scales(store, volume_scale)
    scales.digits(symbol)
    scales.fix(symbol)
    with _Writer(store, report) as writer:
        writer.add(symbol, candles)
        writer.finish()
    return report


def _refused(error: BadFile) -> Refused:
    return Refused(error.file, error.line, error.reason)


def checked_scale(given: int | None) -> int | None:
    """Return a volume scale. Raises BadInput for one that no symbol can have."""
    if given is not None and str(given) not in [str(10**k) for k in range(9)]:
        raise BadInput(f"volume scale {given} is not a power of ten from 1 to {DEFAULT_SCALE}")
    return given


def _digits(scale: int) -> int:
    return len(str(scale)) - 1


class _Scales:
    """Volume scales: fixed when a symbol is first stored, then read from the store."""

    def __init__(self, store: CandleStore, given: int | None) -> None:
        self._store = store
        self._given = checked_scale(given)
        self._fixed: dict[str, int] = {}

    def digits(self, symbol: str) -> int:
        if symbol not in self._fixed:
            self._fixed[symbol] = self._store.volume_scale(symbol) or 0
        fixed = self._fixed[symbol] or self._given or DEFAULT_SCALE
        if self._given not in (None, fixed):
            raise BadInput(
                f"{symbol} is stored with volume scale {fixed}, which cannot change to {self._given}: leave out "
                f"--volume-scale, or ingest into a new database (set {DSN_VARIABLE})"
            )
        return _digits(fixed)

    def fix(self, symbol: str) -> None:
        if not self._fixed[symbol]:
            self._fixed[symbol] = self._given or DEFAULT_SCALE
            self._store.add_symbol(symbol, self._fixed[symbol])

    def advise(self, error: BadFile, symbol: str) -> BadFile:
        """The refusal of a volume beyond 64 bits, with the way out."""
        if "does not fit UInt64" not in error.reason:
            return error
        way = "give a smaller --volume-scale, such as 100"
        if self._fixed[symbol]:
            way = f"{symbol} is stored with this scale already: use a new database (set {DSN_VARIABLE}) and {way}"
        return BadFile(error.file, error.line, f"{error.reason}: {way}")


class _Writer:
    """Collects consecutive files of a symbol and writes them together in a thread (inserts release the GIL)."""

    def __init__(self, store: CandleStore, report: Report) -> None:
        self._store = store
        self._report = report
        self._symbol = ""
        self._parts: list[Candles] = []
        self._days: dict[int, Day] = {}
        self._pool, self._counter = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._counter.shutdown()

    def add(self, symbol: str, candles: Candles) -> None:
        if symbol != self._symbol:
            self.finish()
            self._symbol = symbol
            self._days = {day.start: day for day in current_days(self._store, symbol)}
            if symbol not in self._report.symbols:
                self._report.symbols.append(symbol)
        self._report.rows += len(candles)
        self._parts.append(candles)
        is_idle = self._writing is None or self._writing.done()
        if sum(map(len, self._parts)) >= (GROUP_ROWS // EARLY_SHARE if is_idle else GROUP_ROWS):
            self._flush()

    def finish(self) -> None:
        """Write the collected candles, and wait until they are written."""
        self._flush()
        self._wait()

    def _flush(self) -> None:
        self._wait()  # at most one group is being written
        if self._parts:
            parts, self._parts = self._parts, []
            self._writing = self._pool.submit(self._write, parts)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, parts: Sequence[Candles]) -> None:
        new = [_columns(part) for part in _months_apart(parts)]
        starts = [start for columns in new for start in _midnights(columns["t"])]
        if self._days.keys().isdisjoint(starts):
            counting = self._counter.submit(lambda: [day for columns in new for day in count_days(columns)])
            self._insert(starts, new, counting)
            return
        days, changed = self._with_stored(_columns(_concatenate(list(map(_candles, new)))))
        self._insert([day.start for day in days], [changed] if days else [], None)

    def _insert(self, starts: Sequence[int], changed: Sequence[Columns], counting: Future[list[Day]] | None) -> None:
        """Insert candles of these days. `counting` counts them meanwhile, if nothing is stored of these days."""
        if not changed:
            return
        with open_writer(self._store, {self._symbol: starts}, starts[0], starts[-1] + DAY_MS - 1) as marks:
            self._store.insert_candles(self._symbol, (month for columns in changed for month in _by_month(columns)))
        written = Written({self._symbol: counting.result()}, marks) if counting is not None else None
        # Other writers may have changed these days too.
        counted = recount(self._store, {self._symbol: starts}, written).days[self._symbol]
        self._days |= {day.start: day for day in counted}
        self._report.stored += sum(len(columns["t"]) for columns in changed)

    def _with_stored(self, new: Columns) -> tuple[list[Day], Columns]:
        """Return the days that change, with their new content, and the candles of `new` that differ from the store."""
        touched = np.unique(new["t"] // DAY_MS) * DAY_MS
        known = [day for day in touched.tolist() if day in self._days]
        old = self._store.read_columns(self._symbol, known[0], known[-1] + DAY_MS, CANDLE_COLUMNS[1:])
        in_touched = np.isin(old["t"] // DAY_MS * DAY_MS, touched)
        old = {name: column[in_touched] for name, column in old.items()}
        both = _columns(clean(_concatenate([_candles(old), _candles(new)])))
        different = ~_same(old, new)
        changed = {name: column[different] for name, column in new.items()}
        changing = set((changed["t"] // DAY_MS * DAY_MS).tolist())
        return [day for day in count_days(both) if day.start in changing], changed


def _same(old: Columns, new: Columns) -> NDArray[np.bool_]:
    """Mask of the rows of `new` that are equal in `old`."""
    at = np.searchsorted(old["t"], new["t"])
    inside = at < len(old["t"])
    at[~inside] = 0
    same = inside.copy()
    for name in CANDLE_COLUMNS:
        same &= old[name][at] == new[name] if len(old["t"]) else False
    return same


def _months_apart(parts: Sequence[Candles]) -> list[Candles]:
    """Return the candles of parts, given in file order, as ascending parts of which no two have a month in common.

    A part that shares none is not copied.
    """
    apart: list[Candles] = []
    for part in filter(len, map(clean, parts)):
        sharing = [part]
        while apart and _month(int(apart[-1].t[-1])) >= _month(int(sharing[0].t[0])):
            sharing.insert(0, apart.pop())
            sharing = [clean(_concatenate(sharing))]
        apart.append(sharing[0])
    return apart


def _midnights(t: NDArray[np.int64]) -> list[int]:
    """Return the midnights (ms) of the days of ascending times."""
    days = t // DAY_MS
    is_first = np.append(True, days[1:] != days[:-1])
    found: list[int] = (days[is_first] * DAY_MS).tolist()
    return found


def _month(ms: int) -> int:
    return int(np.datetime64(ms, "ms").astype("datetime64[M]").astype(np.int64))


def _by_month(columns: Columns) -> Iterator[Columns]:
    """Split ascending columns by month, since an insert into one partition is one atomic part."""
    t = columns["t"]
    months = np.arange(_month(int(t[0])) + 1, _month(int(t[-1])) + 1)
    starts = months.astype("datetime64[M]").astype("datetime64[ms]").astype(np.int64)
    for a, b in itertools.pairwise([0, *np.searchsorted(t, starts).tolist(), len(t)]):
        if a < b:
            yield {name: column[a:b] for name, column in columns.items()}


def _columns(candles: Candles) -> Columns:
    return {name: getattr(candles, name) for name in CANDLE_COLUMNS}


def _candles(columns: Columns) -> Candles:
    return Candles(*(columns[name] for name in CANDLE_COLUMNS))


def _concatenate(parts: Sequence[Candles]) -> Candles:
    if len(parts) == 1:
        return parts[0]
    return Candles(*(np.concatenate([getattr(part, name) for part in parts]) for name in CANDLE_COLUMNS))
