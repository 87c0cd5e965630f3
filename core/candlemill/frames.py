"""Columns for whoever wants to go on with them: NumPy, Arrow, pandas, polars.

Numbers are kept as the engine's integers; they become floats in their own units when they leave, or leave as they are
with `exact=True`. What can be handed over without copying is: times and counts always, with `exact` everything.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from html import escape
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.errors import BadInput, UnknownName
from candlemill.model import SCALE, iso

SHOWN = 5  # rows at each end that are shown


class Kind(Enum):
    """What a column's integers mean."""

    TIME = "time"  # UTC milliseconds
    SCALED = "scaled"  # times 10^8
    COUNT = "count"
    FLAG = "flag"
    LABEL = "label"  # places in `labels`
    FLOAT = "float"  # in its own unit already; NaN for what is undefined
    OBJECT = "object"


class Series(msgspec.Struct, frozen=True):
    """One column. `labels` are the texts of a LABEL."""

    kind: Kind
    values: NDArray[Any]
    labels: tuple[str, ...] = ()
    unit: int = SCALE  # of SCALED

    def numpy(self, exact: bool = False) -> NDArray[Any]:
        if self.kind is Kind.TIME:
            return self.values.view("datetime64[ms]")
        found: NDArray[Any] = self.values
        if self.kind is Kind.SCALED and not exact:
            found = found / self.unit
        if self.kind is Kind.LABEL:
            found = np.array(self.labels)[found]
        return found


class Table:
    """Columns of one length. `table["profit"]` is a NumPy array, in floats where the unit has decimals."""

    def __init__(self, columns: Mapping[str, Series], index: str = "") -> None:
        """`index` names the column that is pandas' index."""
        self._columns = dict(columns)
        self._index = index
        self._len = len(next(iter(columns.values())).values)

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._series(name).numpy()

    def exact(self, name: str) -> NDArray[Any]:
        """A column's integers: times in ms, what has decimals times 10^8. Not copied."""
        return self._series(name).values

    def _series(self, name: str) -> Series:
        if name not in self._columns:
            raise UnknownName("column", name, self.columns, f"known are {', '.join(self.columns)}")
        return self._columns[name]

    # -- handing over ----------------------------------------------------------------------------------------------

    def to_numpy(self, exact: bool = False) -> dict[str, NDArray[Any]]:
        """Arrays by name. `exact`: the integers themselves, nothing copied but labels."""
        return {name: series.numpy(exact) for name, series in self._columns.items()}

    def arrow(self, exact: bool = False) -> Any:
        """A pyarrow Table; times are timestamps in UTC."""
        pa = package("pyarrow", "arrow()", "candlemill[dataframes]")
        return pa.table({name: _arrow(pa, series, exact) for name, series in self._columns.items()})

    def pandas(self, exact: bool = False) -> Any:
        """A pandas DataFrame; times are UTC, labels categories."""
        pd = package("pandas", "pandas()", "pandas")
        data = {name: _pandas(pd, series, exact) for name, series in self._columns.items()}
        index = data.pop(self._index) if self._index else None
        if index is not None:
            index = pd.DatetimeIndex(index, name=self._index)
        return pd.DataFrame(data, index=index, copy=False)

    def polars(self, exact: bool = False) -> Any:
        """A polars DataFrame; times are UTC, labels an Enum."""
        pl = package("polars", "polars()", "polars")
        return pl.DataFrame([_polars(pl, name, series, exact) for name, series in self._columns.items()])

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Arrow's own way between libraries: `pl.DataFrame(table)`, `pa.table(table)` and DuckDB use it."""
        return self.arrow().__arrow_c_stream__(requested_schema)

    # -- looking ---------------------------------------------------------------------------------------------------

    def head(self, count: int = SHOWN) -> "Table":
        return self.rows(0, count)

    def rows(self, first: int, end: int) -> "Table":
        """Rows `first` to `end - 1`, as views."""
        cut = {n: msgspec.structs.replace(s, values=s.values[first:end]) for n, s in self._columns.items()}
        return Table(cut, self._index)

    def records(self) -> list[dict[str, Any]]:
        """A dict per row, of texts as people read them."""
        texts = [[_text(series, k) for k in range(len(self))] for series in self._columns.values()]
        return [dict(zip(self._columns, row, strict=True)) for row in zip(*texts, strict=True)]

    def __repr__(self) -> str:
        from tabulate import tabulate

        rows = [list(row.values()) for row in self._ends()]
        aligned = ["right"] * len(self._columns)
        shown = tabulate(rows, headers=self.columns, tablefmt="simple", colalign=aligned, disable_numparse=True)
        return f"{shown if rows else ', '.join(self.columns)}\n{len(self):,} rows"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self._columns)
        rows = (f"<tr>{''.join(f'<td>{escape(x)}</td>' for x in row.values())}</tr>" for row in self._ends())
        body = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        return f"{body}<p>{len(self):,} rows</p>"

    def _ends(self) -> list[dict[str, str]]:
        if len(self) <= 2 * SHOWN + 1:
            return self.records()
        dots = dict.fromkeys(self._columns, "…")
        return [*self.head().records(), dots, *self.rows(len(self) - SHOWN, len(self)).records()]


def package(name: str, what: str, install: str) -> Any:
    """An optional package. Raises BadInput with the way to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise BadInput(f"{what} needs {name}: pip install '{install}'") from None


def from_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Series]:
    """Columns of what a grid varies: numbers, booleans or texts."""
    return {name: _column([row[name] for row in rows]) for name in names}


def _column(values: list[Any]) -> Series:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return Series(Kind.FLAG, np.array(values, dtype=np.bool_))
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in values):
        return Series(Kind.COUNT, np.array(values, dtype=np.int64))
    if kinds <= {int, float}:
        return Series(Kind.FLOAT, np.array(values, dtype=np.float64))
    return Series(Kind.OBJECT, np.array([str(value) for value in values], dtype=object))


def _arrow(pa: Any, series: Series, exact: bool) -> Any:
    if series.kind is Kind.LABEL:
        return pa.DictionaryArray.from_arrays(pa.array(series.values.astype(np.int8)), list(series.labels))
    if series.kind is Kind.TIME:
        values = np.ascontiguousarray(series.values)
        return pa.Array.from_buffers(pa.timestamp("ms", tz="UTC"), len(values), [None, pa.py_buffer(values)])
    values = series.numpy(exact)
    if values.dtype == np.int64:
        values = np.ascontiguousarray(values)
        return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])
    return pa.array(values)


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


def _text(series: Series, row: int) -> str:
    value = series.values[row]
    if series.kind is Kind.TIME:
        return iso(int(value)).replace("T", " ").rstrip("Z")
    if series.kind is Kind.LABEL:
        return str(series.labels[value])
    if series.kind is Kind.SCALED:
        return f"{value / series.unit:,.10g}"
    if series.kind is Kind.FLOAT:
        return "–" if np.isnan(value) else f"{value:,.6g}"
    return str(value) if series.kind is not Kind.COUNT else f"{value:,}"
