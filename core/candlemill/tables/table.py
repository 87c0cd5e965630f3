"""Columns of results, convertible to NumPy, Arrow, pandas and polars.

Numbers are kept as the engine's integers. Conversion makes floats in their own units, or keeps the integers with
`exact=True`. Copies are avoided where possible: always for times and counts, with `exact` for everything but labels.
Files have decimals instead, which are exact and in their own units.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Context, Decimal
from enum import Enum
from html import escape
from math import nan
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.errors import BadInput, UnknownName, one_line
from candlemill.formatting import NO_VALUE, Unit, decimal, exact, largest_of, text
from candlemill.units import SCALE, iso

SHOWN = 5  # rows shown at each end
DIGITS, WIDEST = 19, 38  # of decimals: as many as an int64 has; as many as 128 bits hold

_WIDE = Context(prec=WIDEST)


class Kind(Enum):
    """Meaning of a column's integers."""

    TIME = "time"  # UTC milliseconds
    SCALED = "scaled"  # times 10^8
    COUNT = "count"
    FLAG = "flag"
    LABEL = "label"  # indexes into `labels`
    FLOAT = "float"  # in its own unit; NaN if undefined
    OBJECT = "object"


class Series(msgspec.Struct, frozen=True):
    """One column. `labels` are the texts of a LABEL; `shown_as` is the unit in which a figure is shown.

    Values of SCALED and COUNT are int64, or objects: integers of any size, and None where a figure is undefined.
    """

    kind: Kind
    values: NDArray[Any]
    labels: tuple[str, ...] = ()
    unit: int = SCALE  # of SCALED
    shown_as: Unit | None = None

    def numpy(self, exact: bool = False) -> NDArray[Any]:
        if self.kind is Kind.TIME:
            return self.values.view("datetime64[ms]")
        found: NDArray[Any] = self.values
        if found.dtype == object and self.kind in (Kind.SCALED, Kind.COUNT) and not exact:
            found = np.array([nan if value is None else value for value in found], dtype=np.float64)
        if self.kind is Kind.SCALED and not exact:
            found = found / self.unit
        if self.kind is Kind.LABEL:
            found = np.array(self.labels)[found]
        return found


class Table:
    """Columns of one length. `table["profit"]` is a NumPy array, in floats where the unit has decimals."""

    def __init__(self, columns: Mapping[str, Series], index: str = "", name: str = "") -> None:
        """`index` names the column that becomes pandas' index; `name` is the table's, such as trades."""
        self.name = name
        self._columns = dict(columns)
        self._index = index
        self._len = len(next(iter(columns.values())).values)

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    @property
    def index(self) -> str:
        return self._index

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    @overload
    def __getitem__(self, name: str) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, name: int) -> dict[str, Any]: ...

    def __getitem__(self, name: str | int) -> NDArray[Any] | dict[str, Any]:
        """Return the column of a name, or the row of a number as a dict by column; -1 is the last row."""
        if not isinstance(name, int | np.integer):
            return self.series(name).numpy()
        if not -len(self) <= name < len(self):
            raise BadInput(f"row {name} is none of {len(self):,} rows: the first is 0, the last is -1")
        row = int(name) % len(self)
        return {key: _plain(column[0]) for key, column in self.rows(row, row + 1).to_numpy().items()}

    def exact(self, name: str) -> NDArray[Any]:
        """Return a column's integers, not copied: times in ms, decimals times 10^8."""
        return self.series(name).values

    def series(self, name: str) -> Series:
        """Return a column with its kind and unit. Raises BadInput, UnknownName."""
        if not isinstance(name, str):
            raise BadInput(one_line(f"table[{name!r:.40}]: give a column's name or a row's number"))
        if name not in self._columns:
            raise UnknownName("column", name, self.columns, f"known are {', '.join(self.columns)}")
        return self._columns[name]

    # -- conversion ------------------------------------------------------------------------------------------------

    def to_numpy(self, exact: bool = False) -> dict[str, NDArray[Any]]:
        """Return arrays by name. `exact`: the integers themselves; only labels are copied."""
        return {name: series.numpy(exact) for name, series in self._columns.items()}

    def arrow(self, exact: bool = False, decimals: bool = False) -> Any:
        """Return a pyarrow Table; times are timestamps in UTC. `decimals`: exact decimals in their own units."""
        pa = package("pyarrow", "arrow()", "candlemill[dataframes]")
        made = _arrow_decimals if decimals else _arrow
        return pa.table({name: made(pa, series, exact) for name, series in self._columns.items()})

    def pandas(self, exact: bool = False) -> Any:
        """Return a pandas DataFrame; times are UTC, labels categories."""
        pd = package("pandas", "pandas()", "pandas")
        data = {name: _pandas(pd, series, exact) for name, series in self._columns.items()}
        index = data.pop(self._index) if self._index else None
        if index is not None:
            index = pd.DatetimeIndex(index, name=self._index)
        return pd.DataFrame(data, index=index, copy=False)

    def polars(self, exact: bool = False) -> Any:
        """Return a polars DataFrame; times are UTC, labels an Enum."""
        pl = package("polars", "polars()", "polars")
        return pl.DataFrame([_polars(pl, name, series, exact) for name, series in self._columns.items()])

    def write(self, path: str | PathLike[str]) -> Path:
        """Write a file, whose name ends with .parquet, .arrow or .csv, with exact decimals and the units of columns."""
        from candlemill.tables.files import write_file

        write_file(self, Path(path), {})
        return Path(path)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return an Arrow C stream, which `pl.DataFrame(table)`, `pa.table(table)` and DuckDB read."""
        return self.arrow().__arrow_c_stream__(requested_schema)

    # -- display ---------------------------------------------------------------------------------------------------

    def head(self, count: int = SHOWN) -> "Table":
        return self.rows(0, count)

    def rows(self, first: int, end: int) -> "Table":
        """Return the rows `first` to `end - 1`, as views."""
        cut = {n: msgspec.structs.replace(s, values=s.values[first:end]) for n, s in self._columns.items()}
        return Table(cut, self._index, self.name)

    def records(self) -> list[dict[str, Any]]:
        """Return a dict per row, with formatted texts."""
        texts = [_texts(series) for series in self._columns.values()]
        return [dict(zip(self._columns, row, strict=True)) for row in zip(*texts, strict=True)]

    def __repr__(self) -> str:
        from tabulate import tabulate

        rows = self._ends()
        aligned = ["right"] * len(self._columns)
        shown = tabulate(rows, headers=self.columns, tablefmt="simple", colalign=aligned, disable_numparse=True)
        return f"{shown if rows else ', '.join(self.columns)}\n{len(self):,} rows"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self._columns)
        rows = (f"<tr>{''.join(f'<td>{escape(x)}</td>' for x in row)}</tr>" for row in self._ends())
        body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f"{body}<p>{len(self):,} rows</p>"

    def _ends(self) -> list[list[str]]:
        """Return the first and the last rows as texts; a column has the same number of decimals in both."""
        n = len(self)
        if n <= 2 * SHOWN + 1:
            return [list(row.values()) for row in self.records()]
        kept = np.r_[0:SHOWN, n - SHOWN : n]
        cut = {name: msgspec.structs.replace(s, values=s.values[kept]) for name, s in self._columns.items()}
        rows = [list(row.values()) for row in Table(cut).records()]
        return [*rows[:SHOWN], ["…"] * len(cut), *rows[SHOWN:]]


def package(name: str, what: str, install: str) -> Any:
    """Import an optional package. Raises BadInput with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise BadInput(f"{what} needs {name}: pip install '{install}'") from None


def from_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Series]:
    """Return columns of the parameters that a grid varies: numbers, booleans or texts. A missing number is NaN."""
    return {name: _column([row.get(name) for row in rows]) for name in names}


def stacked(parts: Sequence[Series]) -> Series:
    """Put columns of one kind and unit together, one below the other; labels keep their texts."""
    first = parts[0]
    if first.kind is not Kind.LABEL:
        return msgspec.structs.replace(first, values=np.concatenate([part.values for part in parts]))
    labels = tuple(dict.fromkeys(label for part in parts for label in part.labels))
    at = [np.array([labels.index(label) for label in part.labels], dtype=np.int16)[part.values] for part in parts]
    return msgspec.structs.replace(first, values=np.concatenate(at), labels=labels)


def _column(values: list[Any]) -> Series:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return Series(Kind.FLAG, np.array(values, dtype=np.bool_))
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in values):
        return Series(Kind.COUNT, np.array(values, dtype=np.int64))
    if kinds <= {int, float, NoneType}:
        return Series(Kind.FLOAT, np.array([nan if value is None else value for value in values], dtype=np.float64))
    return Series(Kind.OBJECT, np.array([str(value) for value in values], dtype=object))


def _arrow(pa: Any, series: Series, exact: bool) -> Any:
    if series.kind is Kind.LABEL:
        return pa.DictionaryArray.from_arrays(pa.array(series.values), list(series.labels))
    if series.kind is Kind.TIME:
        values = np.ascontiguousarray(series.values)
        return pa.Array.from_buffers(pa.timestamp("ms", tz="UTC"), len(values), [None, pa.py_buffer(values)])
    if series.kind is Kind.OBJECT:
        return pa.array(series.values.tolist(), pa.string())
    values = series.numpy(exact)
    if series.kind is Kind.COUNT and values.dtype == object:
        return pa.array(values.tolist(), pa.int64())
    if values.dtype == np.int64:
        values = np.ascontiguousarray(values)
        return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])
    return pa.array(values)


def _arrow_decimals(pa: Any, series: Series, _: bool) -> Any:
    """Return a column with decimals in place of scaled integers, and texts in place of labels.

    The buffer of decimals is made directly: 128 bits a value.
    """
    if series.kind is Kind.LABEL:
        return _arrow(pa, series, True).dictionary_decode()
    if series.kind is not Kind.SCALED and series.values.dtype != object:
        return _arrow(pa, series, True)
    places = len(str(series.unit)) - 1 if series.kind is Kind.SCALED else 0
    if series.kind is Kind.SCALED and series.values.dtype == np.int64:
        wide = np.empty((len(series.values), 2), dtype="<i8")
        wide[:, 0], wide[:, 1] = series.values, series.values >> 63
        return pa.Array.from_buffers(pa.decimal128(DIGITS, places), len(wide), [None, pa.py_buffer(wide)])
    if series.kind is Kind.SCALED:
        found = [None if value is None else _WIDE.scaleb(Decimal(value), -places) for value in series.values]
        return pa.array(found, pa.decimal128(WIDEST, places))
    return _arrow(pa, series, True)


def _pandas(pd: Any, series: Series, exact: bool) -> Any:
    if series.kind is Kind.TIME:
        return pd.DatetimeIndex(series.numpy(), copy=False).tz_localize("UTC")
    if series.kind is Kind.LABEL:
        return pd.Categorical.from_codes(series.values, categories=list(series.labels))
    return series.numpy(exact)


def _polars(pl: Any, name: str, series: Series, exact: bool) -> Any:
    if series.kind is Kind.TIME:
        return pl.Series(name, series.numpy()).dt.replace_time_zone("UTC")
    if series.kind is Kind.LABEL:
        return pl.Series(name, series.numpy().tolist(), dtype=pl.Enum(list(series.labels)))
    return pl.Series(name, series.numpy(exact))


def _texts(series: Series) -> list[str]:
    """Return a column as formatted texts."""
    values = series.values.tolist()
    match series.kind:
        case Kind.TIME:
            return [iso(ms).replace("T", " ").rstrip("Z") for ms in values]
        case Kind.LABEL:
            return [str(series.labels[value]) for value in values]
        case Kind.COUNT:
            return [NO_VALUE if value is None else f"{value:,}" for value in values]
        case Kind.SCALED if series.shown_as is None:
            return _decimals(values, series.unit)
        case Kind.SCALED | Kind.FLOAT if series.shown_as is not None:
            return _figures(values, series)
        case Kind.FLOAT:
            return [NO_VALUE if value != value else f"{value:,.6g}" for value in values]
    return [str(value) for value in values]


def _decimals(values: list[int], unit: int) -> list[str]:
    """Format prices and quantities, with as many decimals as the longest value needs."""
    scaled = [value * SCALE // unit for value in values]
    places = max((len(exact(value).partition(".")[2]) for value in scaled), default=0)
    return [decimal(value, places) for value in scaled]


def _figures(values: list[Any], series: Series) -> list[str]:
    unit = series.shown_as
    assert unit is not None
    per = (SCALE // 100 if unit is Unit.SHARE else unit.scale) if series.kind is Kind.FLOAT else 1
    whole = [None if value is None or value != value else round(value * per) for value in values]
    return [text(value, unit, largest_of(whole)) for value in whole]


def _plain(value: Any) -> Any:
    """Return a number or a label of an array as Python's own; times stay `datetime64`, which is UTC."""
    return value.item() if isinstance(value, np.generic) and not isinstance(value, np.datetime64) else value
