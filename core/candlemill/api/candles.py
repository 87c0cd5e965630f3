"""Candles from the user's own data (NumPy, pandas, polars, Arrow or CSV), accepted wherever a symbol is.

They are converted to the same integers that ingesting would store, so results and their job ids are the same too.
"""

import threading
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from candlemill.backtests.long_candles import long_symbol
from candlemill.engine.candles import MINUTE_MS, Column
from candlemill.errors import BadInput
from candlemill.ingest.long_candles import as_minutes
from candlemill.ingest.own_columns import (
    BINANCE,
    PRICES,
    TIME_NAMES,
    check_scale,
    check_symbol,
    check_times,
    check_values,
    converted,
    is_known,
    no_column,
    of_arrow,
    own_names,
    plain,
)
from candlemill.stored_days import Day, digest_of_days
from candlemill.tables.table import Kind, Series, Table, package
from candlemill.units import SCALE, iso, parse_timeframe

CCXT = ("time", *PRICES, "volume")

TURNS = threading.RLock()  # one call at a time uses a store: an embedded database is open once in a process


class Candles:
    """One-minute candles in time order.

    Create them with `from_pandas`, `from_polars`, `from_arrow`, `from_csv`, `from_ccxt` or `from_columns`. Each takes

    - `symbol`: the name in results;
    - `tz`: the time zone of times that have none (default UTC). A candle's time is its opening time, on a whole minute;
    - `decimals`: round all numbers to this many decimals first. Otherwise more than 8 decimals are an error;
    - `scaled`: the numbers are integers, times 10^8 already;
    - `timeframe`: of candles longer than a minute, such as "1h" or "1d"; their symbol then ends with it (`MINE@1h`);
    - `volume_scale`: the factor of volumes (default 10^8); use a smaller one if they would not fit 64 bits.

    Columns are found by name, in upper or lower case: open, high, low, close, volume (optional) and one of time, t,
    timestamp, datetime, date, open_time; a pandas index can be the time. Raises BadInput with the first invalid row,
    counted from 0; nothing is sorted, dropped or filled.
    """

    def __init__(self, symbol: str, columns: Mapping[str, Column], volume_scale: int = SCALE) -> None:
        """`columns`: `t` in UTC ms, prices times 10^8 and optionally `volume` times `volume_scale`, all int64."""
        check_symbol(symbol)
        check_scale(volume_scale)
        self.symbol = symbol
        self.volume_scale = volume_scale
        self.has_volume = "volume" in columns
        given = {name: np.ascontiguousarray(column) for name, column in columns.items()}
        check_times(given["t"])
        check_values(given)
        if not self.has_volume:
            given["volume"] = np.zeros(len(given["t"]), dtype=np.int64)
        self.columns = {name: given[name] for name in ("t", *PRICES, "volume")}
        for column in self.columns.values():
            column.flags.writeable = False  # the digests below are computed from these numbers
        self.days: list[Day] = _days_of(self.columns)
        self._store: Any = None

    # -- construction ----------------------------------------------------------------------------------------------

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
        timeframe: str | None = None,
    ) -> "Candles":
        """Create candles from arrays or lists by name.

        Values are numbers or decimal text; times are datetimes of NumPy or Python, ISO text, or numbers since 1970 in
        s, ms, us or ns.
        """
        out = converted(columns, tz, decimals, scaled, volume_scale)
        if timeframe is None:
            return cls(symbol, out, volume_scale)
        minutes = parse_timeframe(timeframe)
        check_symbol(name := long_symbol(symbol, minutes))
        check_times(out["t"], minutes)
        check_values(out)
        return cls(name, as_minutes(out, minutes), volume_scale)

    @classmethod
    def from_pandas(cls, frame: Any, symbol: str = "OWN", **options: Any) -> "Candles":
        """Create candles from a pandas DataFrame. Without a time column, its index is the time."""
        names = [str(name) for name in frame.columns]
        own_names(names)
        columns = {name: _of_pandas(frame.iloc[:, k]) for k, name in enumerate(names) if is_known(name)}
        if not any(plain(name) in TIME_NAMES for name in columns):
            if frame.index.dtype.kind not in "MiuO" or type(frame.index).__name__ == "RangeIndex":
                raise BadInput(no_column("time", names))
            columns["time"] = _of_pandas(frame.index.to_series())
        return cls.from_columns(columns, symbol, **options)

    @classmethod
    def from_polars(cls, frame: Any, symbol: str = "OWN", **options: Any) -> "Candles":
        """Create candles from a polars DataFrame."""
        columns = {name: _of_polars(frame[name], name) for name in frame.columns if is_known(name)}
        return cls.from_columns(columns or dict.fromkeys(frame.columns), symbol, **options)

    @classmethod
    def from_arrow(cls, table: Any, symbol: str = "OWN", **options: Any) -> "Candles":
        """Create candles from a pyarrow Table, or any object with an Arrow C stream."""
        pa = package("pyarrow", "Candles.from_arrow", "candlemill[dataframes]")
        table = pa.table(table)
        own_names(table.column_names)
        columns = {name: of_arrow(pa, table[name], name) for name in table.column_names if is_known(name)}
        return cls.from_columns(columns or dict.fromkeys(table.column_names), symbol, **options)

    @classmethod
    def from_csv(cls, path: str | PathLike[str], symbol: str = "OWN", **options: Any) -> "Candles":
        """Create candles from a CSV file with a header, or one in Binance's format without. Prices are read exactly, as
        decimal text."""
        from candlemill.ingest.csv_files import read_csv

        names, rows = read_csv(path)
        if not names:
            names, rows = list(BINANCE), rows or [[] for _ in BINANCE]
        own_names(names)
        columns: dict[str, Any] = {name: texts for name, texts in zip(names, rows, strict=False) if is_known(name)}
        for name in columns:
            if plain(name) in TIME_NAMES and columns[name] and all(text.isdecimal() for text in columns[name]):
                columns[name] = np.array([int(text) for text in columns[name]], dtype=np.int64)
        return cls.from_columns(columns or dict.fromkeys(names), symbol, **options)

    @classmethod
    def from_ccxt(cls, rows: Any, symbol: str = "OWN", **options: Any) -> "Candles":
        """Create candles from rows as CCXT's `fetch_ohlcv` returns them: time in ms, open, high, low, close, volume.

        An exchange's last row may be of the minute that is not over: leave it out (`rows[:-1]`).
        """
        lines = [list(row) for row in rows]
        if odd := next((k for k, line in enumerate(lines) if len(line) != len(CCXT)), None):
            raise BadInput(f"row {odd:,} has {len(lines[odd])} values, expected {', '.join(CCXT)}")
        columns = {name: [line[k] for line in lines] for k, name in enumerate(CCXT)}
        return cls.from_columns(columns, symbol, **options)

    # -- properties and export -------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.columns["t"])

    @property
    def start(self) -> int:
        """The opening time of the first candle, in UTC ms."""
        return int(self.columns["t"][0])

    @property
    def end(self) -> int:
        """The end of the last candle, in UTC ms."""
        return int(self.columns["t"][-1]) + MINUTE_MS

    @property
    def missing_minutes(self) -> int:
        return (self.end - self.start) // MINUTE_MS - len(self)

    @property
    def data_digest(self) -> str:
        """SHA-256 of the candles, the same as in the metadata index of stored candles."""
        return digest_of_days(self.days)

    @property
    def candles(self) -> Table:
        """Return the candles as a table, which converts to NumPy, Arrow, pandas and polars."""
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

    def store(self, *others: "Candles") -> Any:
        """The in-memory store of these candles (and of `others`), and of the results computed from them."""
        if self._store is None or self._store[0] != others:
            from candlemill.store.memory import MemoryStore

            self._store = others, MemoryStore([self, *others])
        return self._store[1]

    def save(self, store: str | None = None) -> int:
        """Store the candles in a database under their symbol; return how many were new or changed there."""
        from candlemill import config
        from candlemill.exchanges.binance.kline_files import Candles as Rows
        from candlemill.ingest.candles import store_candles
        from candlemill.store.clickhouse import ClickHouseStore

        t, open_, high, low, close, volume = self.columns.values()
        with TURNS, ClickHouseStore(config.dsn(store)) as opened:
            rows = Rows(t, open_, high, low, close, volume.astype(np.uint64))
            return store_candles(opened, self.symbol, rows, self.volume_scale).stored

    def __repr__(self) -> str:
        return (
            f"Candles {self.symbol}: {len(self):,} candles, {iso(self.start)}..{iso(self.end)}, "
            f"{self.missing_minutes:,} minutes missing"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.candles._repr_html_()}"


def candles_of(given: Any) -> Any:
    """Convert a DataFrame of pandas or polars, or a pyarrow Table, to Candles; return anything else unchanged."""
    match type(given).__module__.partition(".")[0], type(given).__name__:
        case "pandas", "DataFrame":
            return Candles.from_pandas(given)
        case "polars", "DataFrame":
            return Candles.from_polars(given)
        case "pyarrow", "Table":
            return Candles.from_arrow(given)
    return given


# -- helpers -------------------------------------------------------------------------------------------------------


def _days_of(columns: Mapping[str, Column]) -> list[Day]:
    from candlemill.store.candle_writer import count_days

    return count_days(
        {name: column.astype(np.uint64) if name == "volume" else column for name, column in columns.items()}
    )


def _of_pandas(series: Any) -> Any:
    if getattr(series.dtype, "tz", None) is not None:
        return series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return series.to_numpy()


def _of_polars(series: Any, name: str) -> Any:
    """Convert a polars Series. Zoned times become UTC. Nulls in numbers are refused: NumPy would show them as NaN."""
    if series.null_count():
        raise BadInput(f"{name} of row {series.is_null().arg_max():,} is missing: fill it or drop the row")
    return series.to_list() if series.dtype.is_decimal() else series.to_numpy()
