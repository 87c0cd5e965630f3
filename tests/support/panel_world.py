"""World of several symbols for the real handlers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from candlemill.store.candle_writer import count_days
from candlemill.stored_days import NO_FUNDING, Day, Funding
from world import COLUMNS, World


class PanelWorld(World):
    """Candles of each symbol by name, and funding rates as pairs of instant and rate."""

    def __init__(
        self, candles: Mapping[str, Sequence[Any]], funding: Mapping[str, Sequence[tuple[int, int]]] = {}
    ) -> None:
        self.of_symbols: dict[str, dict[str, Any]] = {}
        self.days_of: dict[str, list[Day]] = {}
        for name, bars in candles.items():
            self.put(name, bars)
        self.rates = {
            name: Funding(*(np.array([pair[k] for pair in rows], dtype=np.int64) for k in (0, 1)))
            for name, rows in funding.items()
        }
        super().__init__([])

    def put(self, name: str, bars: Sequence[Any]) -> None:
        """Have these bars of a symbol instead of what was there."""
        kinds = {one: np.uint64 if one == "volume" else np.int64 for one in COLUMNS}
        columns = {one: np.array([getattr(bar, one) for bar in bars], dtype=kinds[one]) for one in COLUMNS}
        self.of_symbols[name], self.days_of[name] = columns, count_days(columns)

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, Any]:
        columns = self.of_symbols[symbol]
        inside = (columns["t"] >= start) & (columns["t"] < end)
        return {name: columns[name][inside] for name in ("t", *names)}

    def symbols(self) -> list[str]:
        return sorted(self.of_symbols)

    def days(self, symbol: str, start: int = 0, end: int = 1 << 62) -> list[Day]:
        return self.days_of[symbol]

    def funding(self, symbol: str) -> Funding:
        return self.rates.get(symbol, NO_FUNDING)
