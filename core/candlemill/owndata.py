"""Candles of one's own: from NumPy, pandas, polars, Arrow or a CSV, used wherever a symbol is.

They become the same integers that ingesting them would store, so results and their addresses are the same too.
"""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

from candlemill.engine.tape import MINUTE_MS, PRICE_LIMIT, Column
from candlemill.errors import BadInput, NoData, one_line
from candlemill.exact import scaled_column, utc_ms
from candlemill.frames import Kind, Series, Table, package
from candlemill.model import FIRST_MS, LAST_MS, SCALE, iso
from candlemill.plan import Day, digest_of_days

PRICES = ("open", "high", "low", "close")
TIME_NAMES = ("time", "t", "timestamp", "datetime", "date", "open_time")
BINANCE = ("open_time", *PRICES, "volume")  # the first columns of its files, which have no header


class Tape:
    """One-minute candles in time order. Make one with `from_pandas`, `from_polars`, `from_arrow`, `from_csv` or
    `from_columns`; each takes

    - `symbol`: the name in results;
    - `tz`: the zone of times that have none (UTC if left out). A candle's time is when it opens, on a whole minute;
    - `decimals`: round all numbers to so many first. Otherwise more than 8 decimals are an error;
    - `scaled`: the numbers are whole and times 10^8 already;
    - `volume_scale`: what volumes are multiplied by (10^8), smaller where they would not fit 64 bits.

    Columns are found by their names, in any case: open, high, low, close, volume (may be missing) and one of time, t,
    timestamp, datetime, date, open_time; a pandas index can be the time. Raises BadInput with the first row, from 0,
    that is not as it should be; nothing is sorted, dropped or filled.
    """

    def __init__(self, symbol: str, columns: Mapping[str, Column], volume_scale: int = SCALE) -> None:
        """`columns`: `t` in UTC ms, prices times 10^8 and maybe `volume` times `volume_scale`, all int64."""
        _check_symbol(symbol)
        _check_scale(volume_scale)
        self.symbol = symbol
        self.volume_scale = volume_scale
        self.has_volume = "volume" in columns
        given = {name: np.ascontiguousarray(column) for name, column in columns.items()}
        _check_times(given["t"])
        _check_values(given)
        if not self.has_volume:
            given["volume"] = np.zeros(len(given["t"]), dtype=np.int64)
        self.columns = {name: given[name] for name in ("t", *PRICES, "volume")}
        for column in self.columns.values():
            column.flags.writeable = False  # the digests below are of these numbers
        self.days: list[Day] = _days_of(self.columns)
        self._store: Any = None

    # -- from others -----------------------------------------------------------------------------------------------

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        symbol: str = "OWN",
        *,
        tz: str | None = None,
        decimals: int | None = None,
        scaled: bool = False,
        volume_scale: int = SCALE,
    ) -> "Tape":
        """Arrays or lists by name: numbers or decimal text; times as NumPy's or Python's datetimes, ISO text, or
        numbers since 1970 in s, ms, us or ns."""
        _check_scale(volume_scale)
        found = _named(list(columns))
        out = {"t": utc_ms(columns[found["t"]], tz)}
        for name in PRICES:
            out[name] = scaled_column(columns[found[name]], name, SCALE, decimals, scaled)
        if "volume" in found:
            out["volume"] = scaled_column(columns[found["volume"]], "volume", volume_scale, decimals, scaled)
        lengths = {name: len(column) for name, column in out.items()}
        if len(set(lengths.values())) > 1:
            raise BadInput(f"the columns have different lengths: {lengths}")
        return cls(symbol, out, volume_scale)

    @classmethod
    def from_pandas(cls, frame: Any, symbol: str = "OWN", **options: Any) -> "Tape":
        """A DataFrame; without a column of times its index is taken."""
        names = [str(name) for name in frame.columns]
        columns = {name: _of_pandas(frame.iloc[:, k]) for k, name in enumerate(names) if _known(name)}
        if not any(name.lower() in TIME_NAMES for name in columns):
            if frame.index.dtype.kind not in "MiuO" or type(frame.index).__name__ == "RangeIndex":
                raise BadInput(_no_column("time", names))
            columns["time"] = _of_pandas(frame.index.to_series())
        return cls.from_columns(columns, symbol, **options)

    @classmethod
    def from_polars(cls, frame: Any, symbol: str = "OWN", **options: Any) -> "Tape":
        """A DataFrame."""
        columns = {name: _of_polars(frame[name], name) for name in frame.columns if _known(name)}
        return cls.from_columns(columns or dict.fromkeys(frame.columns), symbol, **options)

    @classmethod
    def from_arrow(cls, table: Any, symbol: str = "OWN", **options: Any) -> "Tape":
        """A pyarrow Table, or anything that speaks Arrow's C stream."""
        pa = package("pyarrow", "Tape.from_arrow", "candlemill[dataframes]")
        table = pa.table(table)
        columns = {name: _of_arrow(pa, table[name], name) for name in table.column_names if _known(name)}
        return cls.from_columns(columns or dict.fromkeys(table.column_names), symbol, **options)

    @classmethod
    def from_csv(cls, path: str | PathLike[str], symbol: str = "OWN", **options: Any) -> "Tape":
        """A CSV with a header, or one like Binance's, which has none. Prices are read as the decimal text they are."""
        from candlemill.io.textfiles import read_csv

        names, rows = read_csv(path)
        if not names:
            names, rows = list(BINANCE), rows or [[] for _ in BINANCE]
        columns: dict[str, Any] = {name: texts for name, texts in zip(names, rows, strict=False) if _known(name)}
        for name in columns:
            if name.lower() in TIME_NAMES and columns[name] and all(text.isdecimal() for text in columns[name]):
                columns[name] = np.array([int(text) for text in columns[name]], dtype=np.int64)
        return cls.from_columns(columns or dict.fromkeys(names), symbol, **options)

    # -- looking and handing over ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns["t"])

    @property
    def start(self) -> int:
        """The first candle's time, in UTC ms."""
        return int(self.columns["t"][0])

    @property
    def end(self) -> int:
        """When the last candle ends, in UTC ms."""
        return int(self.columns["t"][-1]) + MINUTE_MS

    @property
    def missing_minutes(self) -> int:
        return (self.end - self.start) // MINUTE_MS - len(self)

    @property
    def data_digest(self) -> str:
        """SHA-256 of the candles, as the metadata index has it for stored ones."""
        return digest_of_days(self.days)

    @property
    def candles(self) -> Table:
        """The candles as a table, that goes on to NumPy, Arrow, pandas and polars."""
        columns = {"time": Series(Kind.TIME, self.columns["t"])}
        columns |= {name: Series(Kind.SCALED, self.columns[name]) for name in PRICES}
        if self.has_volume:
            columns["volume"] = Series(Kind.SCALED, self.columns["volume"], unit=self.volume_scale)
        return Table(columns, index="time")

    def to_numpy(self, exact: bool = False) -> dict[str, Any]:
        return self.candles.to_numpy(exact)

    def arrow(self, exact: bool = False) -> Any:
        return self.candles.arrow(exact)

    def pandas(self, exact: bool = False) -> Any:
        return self.candles.pandas(exact)

    def polars(self, exact: bool = False) -> Any:
        return self.candles.polars(exact)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.candles.__arrow_c_stream__(requested_schema)

    def store(self) -> Any:
        """Where this tape's candles and the results made of them are: this process's memory."""
        if self._store is None:
            from candlemill.io.memory import MemoryStore

            self._store = MemoryStore([self])
        return self._store

    def __repr__(self) -> str:
        return (
            f"Tape {self.symbol}: {len(self):,} candles, {iso(self.start)}..{iso(self.end)}, "
            f"{self.missing_minutes:,} minutes missing"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.candles._repr_html_()}"


# -- what is asked of candles --------------------------------------------------------------------------------------


def _check_symbol(symbol: str) -> None:
    if not (isinstance(symbol, str) and 1 <= len(symbol) <= 64 and symbol.isprintable()) or set(symbol) & set(",*?["):
        raise BadInput(one_line(f"symbol {symbol!r:.80} is not 1 to 64 printable letters without , * ? ["))


def _check_scale(scale: int) -> None:
    if str(scale) not in [str(10**k) for k in range(9)]:
        raise BadInput(f"volume_scale={scale} is not a power of ten from 1 to {SCALE:,}")


def _check_times(t: Column) -> None:
    if not len(t):
        raise NoData("there is no candle")
    _refuse(t % MINUTE_MS != 0, t, "is not on a whole minute: a candle's time is when it opens")
    _refuse((t < FIRST_MS) | (t >= LAST_MS), t, "is not in the years 2009 to 2099")
    steps = np.diff(t, prepend=t[0] - MINUTE_MS)
    _refuse(steps == 0, t, "comes twice: keep one of the two")
    _refuse(steps < 0, t, "is before the row above it: sort by time")
    if len(t) > 2 and steps[1:].min() > MINUTE_MS:
        least = int(steps[1:].min()) // MINUTE_MS
        raise BadInput(
            f"no two candles are a minute apart, the nearest are {least:,}: candles of one minute are needed"
        )


def _check_values(columns: Mapping[str, Column]) -> None:
    t, high, low = columns["t"], columns["high"], columns["low"]
    for name in PRICES:
        _refuse(columns[name] <= 0, t, f"has a {name} of 0 or less")
        _refuse(columns[name] > PRICE_LIMIT, t, f"has a {name} above {PRICE_LIMIT // SCALE:,}, the engine's limit")
    for name in ("open", "close", "low"):
        _refuse(columns[name] > high, t, f"has its {name} above its high")
    for name in ("open", "close"):
        _refuse(columns[name] < low, t, f"has its {name} below its low")
    if "volume" in columns:
        _refuse(columns["volume"] < 0, t, "has a volume below 0")


def _refuse(wrong: Any, t: Column, reason: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        row, ms = int(rows[0]), int(t[rows[0]])
        when = np.datetime_as_string(np.datetime64(ms, "ms"), unit="auto")
        more = f" (and {len(rows) - 1:,} more rows)" if len(rows) > 1 else ""
        raise BadInput(f"row {row:,}, {when}Z, {reason}{more}")


def _days_of(columns: Mapping[str, Column]) -> list[Day]:
    from candlemill.io.coverage import count_days

    return count_days(
        {name: column.astype(np.uint64) if name == "volume" else column for name, column in columns.items()}
    )


# -- finding and reading columns -----------------------------------------------------------------------------------


def _known(name: str) -> bool:
    return _plain(name) in (*PRICES, "volume", *TIME_NAMES)


def _plain(name: str) -> str:
    return str(name).strip().lower().replace(" ", "_")


def _named(names: Sequence[str]) -> dict[str, str]:
    """The given names by ours: `t`, the prices, `volume` where there is one."""
    found: dict[str, str] = {}
    for name in names:
        if not _known(name):
            continue
        own = "t" if _plain(name) in TIME_NAMES else _plain(name)
        if own in found:
            raise BadInput(one_line(f"columns {found[own]!r} and {name!r} mean the same: leave one out"))
        found[own] = name
    for own in ("t", *PRICES):
        if own not in found:
            raise BadInput(_no_column("time" if own == "t" else own, names))
    return found


def _no_column(name: str, names: Sequence[str]) -> str:
    called = f" (called {', '.join(TIME_NAMES)})" if name == "time" else ""
    return one_line(f"no column {name!r}{called} among {', '.join(map(str, names)) or 'none'}: rename one")


def _of_pandas(series: Any) -> Any:
    if getattr(series.dtype, "tz", None) is not None:
        return series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return series.to_numpy()


def _of_polars(series: Any, name: str) -> Any:
    """Zoned times come out as UTC. Nulls of numbers would become NaN without a word of where they are from."""
    if series.null_count():
        raise BadInput(f"{name} of row {series.is_null().arg_max():,} is missing: fill it or drop the row")
    return series.to_list() if series.dtype.is_decimal() else series.to_numpy()


def _of_arrow(pa: Any, column: Any, name: str) -> Any:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise BadInput(f"{name} of row {row:,} is missing: fill it or drop the row")
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind):
        return column.to_numpy()  # zoned times are UTC inside
    return column.to_pylist()
