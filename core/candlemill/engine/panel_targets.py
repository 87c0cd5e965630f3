"""Targets of the symbols of a panel. SEMANTICS-2 sections 9 and 13.

A panel states the targets of all symbols together, at instants that may lie after a symbol's own last bar. So which
decisions count before a bar is given by their number, and a position can be closed from outside between two bars.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, is_cut, native
from candlemill.engine.decide import BookSource
from candlemill.engine.levels import FAR
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.panel_rows import PanelRows, SymbolBars, zeros
from candlemill.engine.signals import first_at_least

KEEP: Final = -(1 << 62)  # instead of a target: trade nothing
NOTHING: Final = KEEP - 1  # instead of the last target: there is none


class PanelTargets(BookSource):
    """Source of the targets (ppm) that a panel has stated in a slice, of one symbol after another: see `begin_symbol`.

    Of the present symbol, a target is stated at the close of bars `at`, at its own `instant` (the open time in ms of a
    minute). Only those count that differ from the one stated before: the others trade nothing. `allowed` is how many of
    the targets that count may be stated so far.
    """

    def __init__(self, rows: PanelRows, targets: Column) -> None:
        """`targets` are those of all rows and symbols of the panel, row by row."""
        super().__init__(None, 0, False, False)
        self.panel: PanelRows = rows
        self.targets: vec[i64] = native(targets)
        room: i64 = rows.stop - rows.first
        self.at: vec[i64] = zeros(room)
        self.instant: vec[i64] = zeros(room)
        self.value: vec[i64] = zeros(room)
        self.number: vec[i64] = zeros(room)
        self.count: i64 = 0
        self.stated: i64 = 0
        self.allowed: i64 = 0
        self.first: i64 = 0  # the symbol's decision bars in the slice
        self.stop: i64 = 0

    def open_symbol(self, bars: SymbolBars) -> None:
        """Go to a symbol: `instant_at` is that of its bars then."""
        self.first = first_at_least(bars.rows, self.panel.first)
        self.stop = first_at_least(bars.rows, self.panel.stop)

    def begin_symbol(self, bars: SymbolBars, symbol: i64, before: i64, forgotten: list[i64]) -> None:
        """Take the targets of the symbol with this number, `before` which another was stated.

        After the numbers in `forgotten` there is none before, so what follows counts.
        """
        rows, instants = bars.rows, self.panel.instants
        width: i64 = len(self.panel.symbols)
        self.count = self.stated = self.allowed = 0
        f: i64 = 0
        j: i64 = self.first
        while j < self.stop:
            while f < len(forgotten) and forgotten[f] == j - self.first:
                before = NOTHING
                f += 1
            value: i64 = self.targets[rows[j] * width + symbol]
            if value != before:
                c: i64 = self.count
                self.at[c], self.instant[c] = bars.last[j], instants[rows[j]]
                self.value[c], self.number[c] = value, j - self.first
                self.count = c + 1
            before = value
            j += 1

    def stated_before(self, bars: SymbolBars, minute: i64) -> i64:
        """Return how many of the symbol's targets are stated before `minute` (ms)."""
        low: i64 = self.first
        high: i64 = self.stop
        while low < high:
            middle: i64 = (low + high) >> 1
            if self.panel.instants[bars.rows[middle]] < minute:
                low = middle + 1
            else:
                high = middle
        return low - self.first

    def allow(self, stated: i64) -> None:
        """Allow those of the first `stated` targets that count."""
        while self.allowed < self.count and self.number[self.allowed] < stated:
            self.allowed += 1

    def instant_of(self, candles: CandleColumns, minute: i64, other: i64) -> i64:
        """Return the instant of the target stated at the close of `minute`; `other` if there is none."""
        low: i64 = 0
        high: i64 = self.count
        while low < high:
            middle: i64 = (low + high) >> 1
            if candles.t[self.at[middle]] < minute:
                low = middle + 1
            else:
                high = middle
        return self.instant[low] if low < self.count and candles.t[self.at[low]] == minute else other

    def next_decision(self, i: i64) -> i64:
        if self.stated < self.allowed:
            return self.at[self.stated]
        return FAR

    def state(self, engine: MinuteEngine, i: i64) -> None:
        k: i64 = self.stated
        self.stated = k + 1
        engine.late = 1 if is_cut(int(self.instant[k]), int(self.panel.k)) else 0
        keeps: bool = self.value[k] == KEEP
        target: i64 = 0 if keeps else self.value[k]
        engine.replace(engine.new_orders(), i, keeps, target, 0, 0)
