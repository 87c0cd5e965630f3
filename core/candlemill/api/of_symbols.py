"""Sweeps and walk-forwards of several symbols: one of each symbol, and a table of all together."""

from collections.abc import Mapping
from html import escape
from typing import TypeVar

import numpy as np

from candlemill.api.results import Run, Sweep, WalkForward
from candlemill.backtests.metric_table import MAIN, is_descending, order_of, value_of
from candlemill.errors import UnknownName
from candlemill.tables.runs import figures
from candlemill.tables.table import Kind, Series, Table, from_rows

LUCK = "the best of all symbols is one of {sets:,} sets on {symbols:,} symbols: each symbol's guards count its own only"


class Sweeps:
    """A strategy over a grid, for each of several symbols. `parts` has each symbol's sweep, `sets` the sets of all."""

    def __init__(self, job_id: str, parts: Mapping[str, Sweep], metric: str) -> None:
        self.job_id, self.metric = job_id, metric
        self.parts = dict(parts)

    def __getitem__(self, symbol: str) -> Sweep:
        return _part(self.parts, symbol)

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    @property
    def sets(self) -> Table:
        """The sets of all symbols: symbol, varied parameters, main figures; the best first, ties in the sets' order."""
        rows = [(symbol, row) for symbol, part in self.parts.items() for row in part.results]
        order = order_of([value_of(row, self.metric) for _, row in rows], is_descending(self.metric))
        ordered = [rows[k][1] for k in order]
        symbols = np.array([rows[k][0] for k in order], dtype=object)
        spec = next(iter(self.parts.values())).spec
        columns = {"symbol": Series(Kind.OBJECT, symbols)}
        columns |= from_rows([row["params"] for row in ordered], list(spec.grid))
        names = dict.fromkeys((*MAIN, self.metric))
        return Table(columns | {name: figures(ordered, name) for name in names})

    def best(self, metric: str | None = None) -> dict[str, Run]:
        """Return the run of each symbol's best set, by symbol."""
        return {symbol: part.best(metric) for symbol, part in self.parts.items()}

    @property
    def warnings(self) -> list[str]:
        """The cautions of each symbol's guards, and that the best of all is one of more trials than these count."""
        own = [f"{symbol}: {text}" for symbol, part in self.parts.items() for text in part.warnings]
        return [*own, LUCK.format(sets=len(self), symbols=len(self.parts))]

    def __repr__(self) -> str:
        return "\n".join([self._title(), repr(self.sets), *(f"warning: {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        warned = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        return f"<p><b>{escape(self._title())}</b></p><ul>{warned}</ul>{self.sets._repr_html_()}"

    def _title(self) -> str:
        spec = next(iter(self.parts.values())).spec
        return f"{spec.strategy} on {len(self.parts)} symbols, {len(self):,} sets by {self.metric}"


class WalkForwards:
    """A walk-forward of each of several symbols. `parts` has each symbol's, `results` a row for each."""

    def __init__(self, job_id: str, parts: Mapping[str, WalkForward]) -> None:
        self.job_id = job_id
        self.parts = dict(parts)

    def __getitem__(self, symbol: str) -> WalkForward:
        return _part(self.parts, symbol)

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def results(self) -> Table:
        """The main figures of each symbol's choices, in the order of the symbols."""
        rows = [part.result for part in self.parts.values()]
        columns = {"symbol": Series(Kind.OBJECT, np.array(list(self.parts), dtype=object))}
        return Table(columns | {name: figures(rows, name) for name in MAIN})

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.results!r}"

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self._title())}</b></p>{self.results._repr_html_()}"

    def _title(self) -> str:
        first = next(iter(self.parts.values()))
        return f"{first.result['strategy_id']} on {len(self.parts)} symbols, a walk-forward of each"


T = TypeVar("T")


def _part(parts: Mapping[str, T], symbol: str) -> T:
    if symbol not in parts:
        raise UnknownName("symbol", symbol, list(parts), f"the symbols are {', '.join(parts)}")
    return parts[symbol]
