"""A sweep's sets as columns, and pivot tables over two of its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.command_line import value_text
from candlemill.backtests.metric_table import is_descending, order_of, shown, unit_of
from candlemill.backtests.settings import declared
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput, UnknownName
from candlemill.formatting import Unit, largest_of
from candlemill.units import SCALE

CELLS = 120  # maximum per side of a heat map; longer axes group neighbouring values

Doubles = NDArray[np.float64]


class Pivot(NamedTuple):
    """`cells[j, k]`: the best or the mean metric of the sets with y in group j and x in group k; NaN for no set."""

    x: list[str]
    y: list[str]
    cells: Doubles


class Sets:
    """The sets of a sweep: the varied parameters, and each metric as a column of floats (shares in percent)."""

    def __init__(self, sweep: Mapping[str, Any]) -> None:
        given = sweep["spec"]
        self.spec: Spec = given if isinstance(given, Spec) else msgspec.convert(given, Spec)
        self.results: Sequence[Mapping[str, Any]] = sweep["results"]
        if not self.results:
            raise BadInput("the sweep has no result: run it before its report")
        self._axes: dict[str, list[Any]] = {}
        self._places: dict[str, NDArray[np.int64]] = {}
        self._columns: dict[str, Doubles] = {}
        self.grid = declared(self.spec.strategy, self.spec.grid)
        self.axes = [name for name in self.grid if len(self.axis(name)) > 1]  # the first is drawn across

    def axis(self, name: str) -> list[Any]:
        """Return the values of a parameter, ascending."""
        if name not in self.spec.grid:
            raise UnknownName("parameter of the grid", name, sorted(self.spec.grid), "choose one that the sweep varies")
        if name not in self._axes:
            found = {r["params"][name] for r in self.results}
            self._axes[name] = sorted(found, key=lambda v: (isinstance(v, str), v))
        return self._axes[name]

    def raw(self, metric: str, result: Mapping[str, Any]) -> int | None:
        found = result.get(metric, (result.get("metrics") or {}).get(metric))
        return found if isinstance(found, int) else None

    def column(self, metric: str) -> Doubles:
        if metric in self._columns:
            return self._columns[metric]
        unit = self.unit(metric)
        values = [self.raw(metric, r) for r in self.results]
        if all(value is None for value in values):
            known = [name for name, value in self.results[0].items() if isinstance(value, int)]
            raise UnknownName("metric", metric, [*known, *(self.results[0].get("metrics") or {})], "no set has it")
        self._columns[metric] = np.array([np.nan if value is None else value / unit for value in values])
        return self._columns[metric]

    def unit(self, metric: str) -> float:
        """Return the factor from the column's floats to a result's integers."""
        unit = unit_of(metric, self.spec.sizing)
        return SCALE / 100 if unit is Unit.SHARE else float(unit.scale)

    def suffix(self, metric: str) -> str:
        return "%" if unit_of(metric, self.spec.sizing) is Unit.SHARE else ""

    def shown(self, metric: str, value: int | None, largest: int | None = None) -> str:
        return shown(metric, value, self.spec.sizing, largest)

    def largest(self, metric: str, chosen: Sequence[int]) -> int:
        """Return the largest absolute value of a metric among the chosen sets, to choose the column's decimals."""
        return largest_of(self.raw(metric, self.results[k]) for k in chosen)

    def has(self, metric: str) -> bool:
        return any(self.raw(metric, r) is not None for r in self.results)

    def order(self, metric: str) -> list[int]:
        """Return the sets' indices in `results`, best first; sets without the metric last, equal ones in order."""
        self.column(metric)  # raises where no set has it
        return order_of([self.raw(metric, r) for r in self.results], is_descending(metric))

    def pivot(self, x: str, y: str, metric: str, over: str) -> Pivot:
        """Return the pivot table of a metric; `over` is how the other parameters are reduced: `best` or `mean`."""
        if over not in ("best", "mean"):
            raise BadInput(f"over={over!r}: give 'best' or 'mean'")
        (across, xs), (down, ys) = self.groups(x), self.groups(y)
        values, slots = self.column(metric), down * len(xs) + across
        known = ~np.isnan(values)
        values, slots, size = values[known], slots[known], len(xs) * len(ys)
        if over == "mean":
            counts = np.bincount(slots, minlength=size)
            sums = np.bincount(slots, weights=values, minlength=size)
            cells = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
        else:
            cells = np.full(size, np.nan)
            (np.fmax if is_descending(metric) else np.fmin).at(cells, slots, values)
        return Pivot(xs, ys, cells.reshape(len(ys), len(xs)))

    def groups(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return each set's group along a parameter, and the groups' names: values, or ranges of values."""
        values, width = self.axis(name), self._width(name)
        edges = [(values[k], values[min(k + width, len(values)) - 1]) for k in range(0, len(values), width)]
        names = [value_text(a) if a == b else f"{value_text(a)}–{value_text(b)}" for a, b in edges]
        if name not in self._places:
            place = {value: k // width for k, value in enumerate(values)}
            self._places[name] = np.array([place[r["params"][name]] for r in self.results])
        return self._places[name], names

    def place(self, name: str, value: Any) -> int:
        """Return the index of the group that contains a value."""
        return self.axis(name).index(value) // self._width(name)

    def _width(self, name: str) -> int:
        return -(-len(self.axis(name)) // CELLS)
