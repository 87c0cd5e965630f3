"""Files of the user's own candles: Parquet or CSV of any source, read part by part and checked as a whole."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from candlemill.backtests.long_candles import long_symbol
from candlemill.engine.candles import Column
from candlemill.errors import BadFile, BadInput, UnknownName, one_line
from candlemill.exchanges.binance.kline_files import Candles
from candlemill.ingest.fold import Folder
from candlemill.ingest.long_candles import as_minutes
from candlemill.ingest.own_columns import (
    BINANCE,
    PRICES,
    TIME_NAMES,
    check_symbol,
    check_times,
    check_values,
    converted,
    is_known,
    of_arrow,
    plain,
)
from candlemill.tables.table import package
from candlemill.units import SCALE

FIELDS = ("time", *PRICES, "volume", "symbol")
ROWS_AT_ONCE = 250_000
BLOCK_BYTES = 16 << 20  # of a CSV
MINUTES_LIMIT = 20_000_000  # of one file, a gigabyte in memory

Columns = dict[str, Column]


class OwnFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How files are to be read: `names` maps fields (see FIELDS) to the file's columns, `symbol` is that of all rows
    unless a column has it; the others are those of `candlemill.Candles`."""

    form: Literal["parquet", "csv"]
    names: dict[str, str] = {}
    symbol: str | None = None
    tz: str | None = None
    decimals: int | None = None
    fold: bool = False
    minutes: int = 1  # of a candle

    def __post_init__(self) -> None:
        for field in self.names:
            if field not in FIELDS:
                raise UnknownName("field", field, list(FIELDS), f"map {', '.join(FIELDS)}")
        if (self.symbol is None) == ("symbol" not in self.names):
            raise BadInput("whose candles: give one symbol, or map symbol to the column that has it")
        name = long_symbol(self.symbol or "", self.minutes)
        if self.symbol is not None:
            check_symbol(name)
        if self.fold and self.minutes > 1:
            raise BadInput("candles of seconds are folded, long ones have a timeframe: give one of the two")


def read_own(path: Path, how: OwnFormat, digits: Any) -> tuple[dict[str, Candles], int]:
    """Return a file's candles by symbol, and the number of incomplete minutes that folding has left out.

    `digits(symbol)` is the number of decimals of its volumes. Raises BadFile, with the first row that is wrong.
    """
    parts: dict[str, list[Columns]] = {}
    folders: dict[str, Folder] = {}
    row = minutes = 0
    try:
        for batch in _batches(path, how):
            for symbol, rows in _by_symbol(batch, how):
                scale = 10 ** digits(symbol)
                found = _numbered(rows, how, scale, row)
                if how.fold:
                    check_values(found)
                    found = folders.setdefault(symbol, Folder()).add(found)
                minutes += len(found["t"]) * how.minutes
                parts.setdefault(symbol, []).append(found)
            row += len(batch)
            if minutes > MINUTES_LIMIT:
                raise BadInput(f"more than {MINUTES_LIMIT:,} candles in one file: split it")
        for symbol, folder in folders.items():
            if rest := folder.finish():
                parts[symbol].append(rest)
        candles = {symbol: _candles(some, how.minutes) for symbol, some in parts.items()}
        return candles, sum(f.left_out for f in folders.values())
    except BadFile:
        raise
    except BadInput as error:
        raise BadFile(str(path), None, str(error)) from None


def _numbered(table: Any, how: OwnFormat, scale: int, row: int) -> Columns:
    """Convert a part; an error counts its rows from the part's first, `row`."""
    import pyarrow as pa

    numbers = [name for name in table.column_names if name in (*PRICES, "volume")]
    quick: dict[str, Any] = {}
    if how.decimals is None:
        quick = {name: _quick(pa, table[name], scale if name == "volume" else SCALE) for name in numbers}
    is_quick = bool(quick) and all(column is not None for column in quick.values())
    columns = quick if is_quick else {name: of_arrow(pa, table[name], name) for name in numbers}
    try:
        if "time" in table.column_names:
            columns["time"] = _times(pa, table["time"])
        return converted(columns, how.tz, how.decimals, is_quick, scale)
    except BadInput as error:
        raise BadInput(f"{error}, counted from row {row:,} on" if row else str(error)) from None


def _quick(pa: Any, column: Any, scale: int) -> Column | None:
    """Return decimals or their texts times `scale`, exactly; None where the slower conversion has to tell why not."""
    if not (pa.types.is_string(column.type) or pa.types.is_decimal(column.type)) or column.null_count:
        return None
    try:
        found = column.cast(pa.decimal128(38, len(str(scale)) - 1)).combine_chunks()
    except pa.ArrowInvalid:
        return None
    raw = np.frombuffer(found.buffers()[1], dtype="<i8")
    low, high = raw[2 * found.offset :: 2][: len(found)], raw[2 * found.offset + 1 :: 2][: len(found)]
    return np.ascontiguousarray(low) if bool((high == low >> 63).all()) else None


def _candles(parts: Sequence[Columns], minutes: int) -> Candles:
    """Join and check the candles of a symbol."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    check_times(columns["t"], minutes)
    check_values(columns)
    columns = as_minutes(columns, minutes)
    volume = columns.get("volume")
    amounts = np.zeros(len(columns["t"]), np.uint64) if volume is None else volume.astype(np.uint64)
    t, (open_, high, low, close) = columns["t"], (columns[name] for name in PRICES)
    return Candles(t, open_, high, low, close, amounts)


def own_paths(paths: Sequence[Path], form: str) -> list[Path]:
    """Return the files among `paths` and, by their suffix, those in the folders among them. Raises BadFile."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadFile(str(path), None, "no such file or folder")
        inside = sorted(file for file in path.rglob(f"*.{form}") if file.is_file()) if path.is_dir() else [path]
        if not inside:
            raise BadFile(str(path), None, f"no file in it ends with .{form}")
        found += inside
    return list(dict.fromkeys(found))


# -- reading -------------------------------------------------------------------------------------------------------


def _batches(path: Path, how: OwnFormat) -> Iterator[Any]:
    """Yield a file's columns under the names of the fields, as Arrow tables. Raises BadFile."""
    pa = package("pyarrow", f"--format {how.form}", "candlemill[dataframes]")
    read = _parquet if how.form == "parquet" else _csv
    try:
        for table in read(pa, path, how):
            if len(table):
                yield table
    except (pa.ArrowException, OSError) as error:
        raise BadFile(str(path), None, one_line(f"no {how.form}: {error}")[:300]) from None


def _parquet(pa: Any, path: Path, how: OwnFormat) -> Iterator[Any]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        chosen = chosen_columns(file.schema_arrow.names, how)
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(chosen.values())):
            yield pa.table({field: batch[column] for field, column in chosen.items()})


def _csv(pa: Any, path: Path, how: OwnFormat) -> Iterator[Any]:
    """Read a CSV as texts, so that decimals stay exact. One without a header has Binance's columns."""
    from pyarrow import csv

    with path.open(encoding="utf-8-sig") as file:
        head = file.readline(1 << 16).rstrip("\r\n").split(",")
    bare = head[0].strip().isdecimal()
    names = [*BINANCE, *(f"column {k}" for k in range(len(BINANCE), len(head)))][: len(head)]
    options = csv.ReadOptions(block_size=BLOCK_BYTES, column_names=names if bare else None)
    columns = names if bare else [name.strip().strip('"') for name in head]
    texts = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True)
    with csv.open_csv(path, read_options=options, convert_options=texts) as reader:
        chosen = chosen_columns(reader.schema.names, how)
        for batch in reader:
            yield pa.table({field: batch[column] for field, column in chosen.items()})


def chosen_columns(names: Sequence[str], how: OwnFormat) -> dict[str, str]:
    """Return the column of each field: the one that is mapped, else the one with the field's usual name.

    Raises UnknownName for a mapped column that is not there.
    """
    for column in how.names.values():
        if column not in names:
            raise UnknownName("column", column, list(names), f"the file has {', '.join(names)[:200]}")
    found = dict(how.names)
    for name in names:
        field = "time" if plain(name) in TIME_NAMES else plain(name)
        if is_known(name) and field not in how.names:
            if field in found:
                raise BadInput(one_line(f"columns {found[field]!r} and {name!r} mean the same: map {field}"))
            found[field] = name
    return found


def _by_symbol(batch: Any, how: OwnFormat) -> Iterator[tuple[str, Any]]:
    """Yield the rows of each symbol of a part."""
    from pyarrow import compute

    if how.symbol is not None:
        yield long_symbol(how.symbol, how.minutes), batch
        return
    if batch["symbol"].null_count:
        raise BadInput("a row has no symbol: fill it or drop the row")
    for symbol in compute.unique(batch["symbol"]).to_pylist():
        check_symbol(name := long_symbol(str(symbol), how.minutes))
        yield name, batch.filter(compute.equal(batch["symbol"], symbol))


def _times(pa: Any, column: Any) -> Any:
    """Return times as an array or list; texts of digits become numbers."""
    found = of_arrow(pa, column, "time")
    if pa.types.is_string(column.type) and all(text.isdecimal() and len(text) < 19 for text in found):
        return np.array(found, dtype=np.int64)
    return found
