"""The synthetic market that all rows run on, as arrays, as candles, and as days of a metadata index."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from candlemill.backtests.resolve import resolve
from candlemill.backtests.slice import SliceWindow
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import DAY_MS, CandleColumns
from candlemill.store.candle_reader import CandleReader
from candlemill.stored_days import Day
from data import synthetic
from numpy.typing import NDArray

SYMBOL = "SYNTHUSDT"
SEED = 1
YEAR = 2024  # a leap year: with its outages cut out it still has a common year's minutes
YEAR_BARS = 525_600
FIRST_OF_TEN = 2016
COLUMNS = ("open", "high", "low", "close")

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Market:
    """Minute bars in time order as int64 columns: `t` in ms, prices times 10^8."""

    columns: dict[str, Ints]

    @property
    def n(self) -> int:
        return len(self.columns["t"])

    @cached_property
    def day_ends(self) -> Ints:
        """The index of each UTC day's last bar."""
        days = self.columns["t"] // DAY_MS
        return np.append(np.flatnonzero(days[1:] != days[:-1]), self.n - 1).astype(np.int64)

    @cached_property
    def days(self) -> list[Day]:
        """The days as the metadata index lists them."""
        t = self.columns["t"]
        firsts = np.concatenate(([0], self.day_ends[:-1] + 1)).tolist()
        return [
            Day(int(t[a]) // DAY_MS * DAY_MS, b - a + 1, int(t[a]), int(t[b]), f"day {a}")
            for a, b in zip(firsts, self.day_ends.tolist(), strict=True)
        ]

    @property
    def span(self) -> tuple[int, int]:
        """From the first bar to the end of the last one, in ms."""
        t = self.columns["t"]
        return int(t[0]), int(t[-1]) + synthetic.MINUTE_MS

    def head(self, bars: int) -> "Market":
        return Market({name: column[:bars] for name, column in self.columns.items()})

    def window(self) -> SliceWindow:
        """All bars as one slice."""
        candles = CandleColumns([self.columns["t"]], *([self.columns[name]] for name in COLUMNS), [])
        return SliceWindow(candles, 0, self.n, True)

    def candles(self) -> CandleReader:
        """Where slices come from, with all columns in its cache already."""
        days = self.days
        source = CandleReader(lambda _: days, _Columns(self.columns, days))  # type: ignore[arg-type]
        source.prefetch(self.spec("buy_and_hold", {}), [self.span], 0, ("t", *COLUMNS))
        return source

    def spec(self, strategy: str, params: dict[str, object], **rest: object) -> Spec:
        """A job over all bars; `rest` is its grid and its costs."""
        return resolve(symbol=SYMBOL, strategy=strategy, span=self.span, params=params, **{"account": "units"} | rest)  # type: ignore[arg-type]


class _Columns:
    """What a store answers, from memory."""

    def __init__(self, columns: dict[str, Ints], days: Sequence[Day]) -> None:
        self._columns = columns
        self._days = days

    def days(self, symbol: str, start: int, end: int) -> Sequence[Day]:
        return [day for day in self._days if start <= day.start < end]

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, Ints]:
        a, b = np.searchsorted(self._columns["t"], [start, end]).tolist()
        return {name: self._columns[name][a:b] for name in ("t", *names)}


def years(first: int, count: int) -> list[dict[str, Ints]]:
    """Consecutive years, each beginning at the price that the one before it ended at."""
    price = 30_000.0
    found = []
    for number in range(first, first + count):
        candles = synthetic.year(SEED, number, price)
        price = int(candles["close"][-1]) / 10**8
        found.append(candles)
    return found


def market_of(parts: Sequence[dict[str, Ints]]) -> Market:
    return Market({name: np.concatenate([part[name] for part in parts]) for name in ("t", *COLUMNS)})


def one_year() -> Market:
    """Exactly a common year's number of minute bars."""
    return market_of(years(YEAR, 1)).head(YEAR_BARS)
