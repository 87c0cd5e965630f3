"""Candles from files into the store: all or nothing per file, and nothing changes where nothing is new."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from candlemill.binance import Candles, KlineName, clean
from candlemill.engine.tape import DAY_MS
from candlemill.errors import BadFile, BadInput
from candlemill.io.coverage import CANDLE_COLUMNS, count_days, current_days, open_writer, recount
from candlemill.io.files import find_kline_files, load
from candlemill.io.settings import DSN_VARIABLE
from candlemill.io.store import Store
from candlemill.plan import Day

GROUP_ROWS = 400_000  # candles written together: few inserts, bounded memory
AHEAD = 4  # files that are read while others are written
DEFAULT_SCALE = 100_000_000

Columns = dict[str, NDArray[Any]]


class Report(msgspec.Struct):
    """What an ingest did. `rows` were read, `stored` of them were new or different."""

    files: int = 0
    rows: int = 0
    stored: int = 0
    symbols: list[str] = []
    ignored: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def text(self) -> str:
        names = ", ".join(self.symbols[:8]) + (f" and {len(self.symbols) - 8} more" if len(self.symbols) > 8 else "")
        lines = [f"{self.files:,} files, {self.rows:,} rows read, {self.stored:,} new or changed: {names}"]
        lines += [f"ignored {note}" for note in self.ignored]
        return "\n".join(lines)


def ingest(store: Store, paths: Sequence[Path], volume_scale: int | None = None, quiet: bool = False) -> Report:
    """Store the candles of all kline files among `paths`.

    A file that is refused leaves no trace, the others are stored all the same; then BadFile or BadInput tells.
    `volume_scale` is for symbols that are new; BadInput refuses another than a stored symbol has.
    """
    report = Report()
    files = find_kline_files(paths, report.ignored)
    refused: list[BadFile] = []
    scales = _Scales(store, volume_scale)
    bar = tqdm(total=len(files), desc="ingest", unit="file", delay=1, disable=quiet or None, dynamic_ncols=True)
    with bar, _Writer(store, report) as writer:
        for loaded in _loaded(files, scales):
            bar.update()
            if isinstance(loaded, BadFile):
                refused.append(scales.advise(loaded))
                continue
            symbol, candles = loaded
            scales.fix(symbol)
            report.files += 1
            writer.add(symbol, candles)
        writer.finish()
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise BadInput(f"{refused[0]} (and {len(refused) - 1:,} more files refused; {report.files:,} stored)")
    return report


class _Scales:
    """What volumes are multiplied by: fixed when a symbol is first stored, read from the store ever after."""

    def __init__(self, store: Store, given: int | None) -> None:
        if given is not None and str(given) not in [str(10**k) for k in range(9)]:
            raise BadInput(f"volume scale {given} is not a power of ten from 1 to {DEFAULT_SCALE}")
        self._store = store
        self._given = given
        self._fixed: dict[str, int] = {}

    def digits(self, symbol: str) -> int:
        if symbol not in self._fixed:
            self._fixed[symbol] = self._store.volume_scale(symbol) or 0
        fixed = self._fixed[symbol] or self._given or DEFAULT_SCALE
        if self._given not in (None, fixed):
            raise BadInput(
                f"{symbol} is stored with volume scale {fixed} for good, not {self._given}: leave --volume-scale out, "
                f"or ingest into a new database (set {DSN_VARIABLE})"
            )
        return len(str(fixed)) - 1

    def fix(self, symbol: str) -> None:
        if not self._fixed[symbol]:
            self._fixed[symbol] = self._given or DEFAULT_SCALE
            self._store.add_symbol(symbol, self._fixed[symbol])

    def advise(self, error: BadFile) -> BadFile:
        """The refusal of a volume beyond 64 bits, with the way out."""
        if "does not fit UInt64" not in error.reason:
            return error
        symbol = KlineName.parse(Path(error.file).name).symbol
        way = "give a smaller --volume-scale, such as 100"
        if self._fixed[symbol]:
            way = f"{symbol} is stored with this scale already: use a new database (set {DSN_VARIABLE}) and {way}"
        return BadFile(error.file, error.line, f"{error.reason}: {way}")


def _loaded(files: Sequence[Path], scales: _Scales) -> Iterator[tuple[str, Candles] | BadFile]:
    """Each file's candles or its refusal, in order. Reading and inflating run ahead in other threads."""

    def read(file: Path, digits: int) -> tuple[str, Candles] | BadFile:
        try:
            return load(file, digits)
        except BadFile as error:
            return error

    waiting: deque[Future[tuple[str, Candles] | BadFile]] = deque()
    with ThreadPoolExecutor(2) as pool:
        try:
            for file in files:
                waiting.append(pool.submit(read, file, scales.digits(KlineName.parse(file.name).symbol)))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Writer:
    """Gathers consecutive files of a symbol and writes them together, in a thread: the database needs no Python."""

    def __init__(self, store: Store, report: Report) -> None:
        self._store = store
        self._report = report
        self._symbol = ""
        self._parts: list[Candles] = []
        self._days: dict[int, Day] = {}
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def add(self, symbol: str, candles: Candles) -> None:
        if symbol != self._symbol:
            self.finish()
            self._symbol = symbol
            self._days = {day.start: day for day in current_days(self._store, symbol)}
            if symbol not in self._report.symbols:
                self._report.symbols.append(symbol)
        self._report.rows += len(candles)
        self._parts.append(candles)
        if sum(map(len, self._parts)) >= GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write what has been gathered, and wait until it is written."""
        self._flush()
        self._wait()

    def _flush(self) -> None:
        self._wait()  # one group is written while the next is read, never more
        if self._parts:
            parts, self._parts = self._parts, []
            self._writing = self._pool.submit(self._write, parts)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(self, parts: Sequence[Candles]) -> None:
        new = _columns(clean(_concatenate(parts)))
        days = count_days(new)
        changed = new
        if any(day.start in self._days for day in days):
            days, changed = self._with_stored(new)
        if not len(changed["t"]):
            return
        starts = [day.start for day in days]
        with open_writer(self._store, {self._symbol: starts}, starts[0], starts[-1] + DAY_MS - 1):
            self._store.insert_candles(self._symbol, _by_month(changed))
        counted = recount(self._store, {self._symbol: starts}).days[self._symbol]  # others may have written them too
        self._days |= {day.start: day for day in counted}
        self._report.stored += len(changed["t"])

    def _with_stored(self, new: Columns) -> tuple[list[Day], Columns]:
        """The days that change, as they will be, and the candles of `new` that are not stored like that yet."""
        touched = np.unique(new["t"] // DAY_MS) * DAY_MS
        known = [day for day in touched.tolist() if day in self._days]
        old = self._store.read_columns(self._symbol, known[0], known[-1] + DAY_MS, CANDLE_COLUMNS[1:])
        mine = np.isin(old["t"] // DAY_MS * DAY_MS, touched)
        old = {name: column[mine] for name, column in old.items()}
        both = _columns(clean(_concatenate([_candles(old), _candles(new)])))
        different = ~_same(old, new)
        changed = {name: column[different] for name, column in new.items()}
        changing = set((changed["t"] // DAY_MS * DAY_MS).tolist())
        return [day for day in count_days(both) if day.start in changing], changed


def _same(old: Columns, new: Columns) -> NDArray[np.bool_]:
    """Which rows of `new` stand in `old` just so."""
    at = np.searchsorted(old["t"], new["t"])
    inside = at < len(old["t"])
    at[~inside] = 0
    same = inside.copy()
    for name in CANDLE_COLUMNS:
        same &= old[name][at] == new[name] if len(old["t"]) else False
    return same


def _by_month(columns: Columns) -> Iterator[Columns]:
    """Pieces that lie in one month each: an insert into one partition is one atomic part."""
    months = columns["t"].astype("datetime64[ms]").astype("datetime64[M]")
    edges = np.concatenate(([0], np.flatnonzero(months[1:] != months[:-1]) + 1, [len(months)]))
    for a, b in itertools.pairwise(edges):
        yield {name: column[a:b] for name, column in columns.items()}


def _columns(candles: Candles) -> Columns:
    return {name: getattr(candles, name) for name in CANDLE_COLUMNS}


def _candles(columns: Columns) -> Candles:
    return Candles(*(columns[name] for name in CANDLE_COLUMNS))


def _concatenate(parts: Sequence[Candles]) -> Candles:
    if len(parts) == 1:
        return parts[0]
    return Candles(*(np.concatenate([getattr(part, name) for part in parts]) for name in CANDLE_COLUMNS))
