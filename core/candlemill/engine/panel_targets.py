"""Targets of one symbol of a panel, traded bar by bar. SEMANTICS-2 sections 9, 10 and 13.

A panel states the targets of all symbols together, at instants that may lie after a symbol's own last bar. So which
decisions count before a bar is given by their number, and a position can be closed from outside between two bars.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, is_cut, native
from candlemill.engine.decide import BookSource, restore, state_bytes
from candlemill.engine.fill_tape import AT_CLOSE, AT_OPEN, NO_KEY, NOT_MADE, TARGET, FillTape
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import Ranges
from candlemill.engine.settle import zeros
from candlemill.engine.walk import FAR, MILLION

KEEP: Final = -(1 << 62)  # instead of a target: trade nothing
NOTHING: Final = KEEP - 1  # instead of the last target: there is none
FLAT: Final = b"0,0,0,0,0,0,0,0,0,0,0"  # no position, target 0: the state before the first target
KEPT: Final = b"0,0,0,0,0,0,0,0,0,-,-"  # no position, nothing to trade


class PanelTargets(BookSource):
    """Source of targets (ppm) that a panel has stated for one symbol: at the close of bars `at`, at its own `instants`
    (open times in ms of minutes).

    Only those count that differ from the one stated before, which was `before` at first: the others trade nothing.
    After the numbers in `forgotten` there is none before, so what follows counts. `allowed` is how many of the targets
    that count may be stated so far.
    """

    def __init__(
        self, at: Column, instants: Column, targets: Column, forgotten: list[int], before: i64, timeframe: i64
    ) -> None:
        super().__init__(None, 0, False, False)
        bars, times, values = native(at), native(instants), native(targets)
        n: i64 = len(values)
        self.at: vec[i64] = zeros(n)
        self.instant: vec[i64] = zeros(n)
        self.value: vec[i64] = zeros(n)
        self.number: vec[i64] = zeros(n)
        self.count: i64 = 0
        self.timeframe: i64 = timeframe
        self.stated: i64 = 0
        self.allowed: i64 = 0
        f: i64 = 0
        k: i64 = 0
        while k < n:
            while f < len(forgotten) and forgotten[f] == int(k):
                before = NOTHING
                f += 1
            if values[k] != before:
                c: i64 = self.count
                self.at[c], self.instant[c], self.value[c], self.number[c] = bars[k], times[k], values[k], k
                self.count = c + 1
            before = values[k]
            k += 1

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

    def begin(self, engine: MinuteEngine) -> None:
        """Treat the target 0 as traded: the states before the first target and after a return to 0 are equal."""
        engine.keep = False
        engine.has_acted = True

    def state(self, engine: MinuteEngine, i: i64) -> None:
        k: i64 = self.stated
        self.stated = k + 1
        engine.late = 1 if is_cut(int(self.instant[k]), int(self.timeframe)) else 0
        keeps: bool = self.value[k] == KEEP
        target: i64 = 0 if keeps else self.value[k]
        engine.replace(engine.new_orders(), i, keeps, target, 0, 0)


class SymbolRun:
    """Position of one symbol in a slice. `fills` are recorded; `start` is the state before the slice, or empty."""

    def __init__(
        self, candles: CandleColumns, targets: PanelTargets, rules: ExecutionRules, ranges: Ranges, start: bytes
    ) -> None:
        """Raises OverflowError for slippage that does not fit 64 bits, ValueError for an invalid state."""
        if (int(candles.top) // MILLION + 1) * int(rules.slippage) > FAR >> 2:
            raise OverflowError(
                f"prices up to {candles.top} (scaled) with a slippage of {rules.slippage} ppm leave 64 bits"
            )
        self.fills: FillTape = FillTape()
        self.source: PanelTargets = targets
        self.engine: MinuteEngine = MinuteEngine(candles, rules, ranges, self.fills)
        self.engine.follows_best = rules.trailing_stop != 0
        if start:
            restore(self.engine, start)
        else:
            targets.begin(self.engine)

    def run(self, begin: i64, end: i64, stated: i64) -> None:
        """Trade bars `begin` to `end - 1` and state the first `stated` targets."""
        engine, source = self.engine, self.source
        source.allow(stated)
        i: i64 = begin
        while True:
            decision: i64 = source.next_decision(i)
            stop: i64 = min(decision + 1, end)
            while i < stop:
                i = engine.quiet_until(i, stop)
                if i < stop:
                    engine.minute(i)
                    i += 1
            if decision >= end:
                return
            source.state(engine, decision)

    def end(self, minute: i64, raw: i64) -> None:
        """Close the position at `raw` at the open of `minute` (ms), and forget what is to be traded."""
        engine = self.engine
        now = engine.now
        before: i64 = now.exposure
        engine.keep = True
        engine.target = 0
        if before == 0:
            return
        price: i64 = now.slipped(raw, -before)
        rate: i64 = engine.rules.fee
        self.fills.add(minute, AT_OPEN, NOT_MADE, TARGET, NO_KEY, before, 0, 0, 0, price, raw, rate, 0)
        now.flatten()

    def pending(self, earlier: i64) -> i64:
        """Return the instant at which a target was stated that waits for the symbol's next bar, NOT_MADE without one.

        `earlier` is that of the targets stated before this slice.
        """
        if not self.engine.has_pending_target():
            return NOT_MADE
        return self.source.instant[self.source.count - 1] if self.source.count != 0 else earlier

    def columns(self, earlier: i64) -> dict[str, Column]:
        """Return the fills with the instants of the panel instead of the minutes of the symbol's own bars."""
        fills, source, candles = self.fills, self.source, self.engine.candles
        n: i64 = fills.n
        k: i64 = 0
        while k < n:
            if fills.made[k] != NOT_MADE:
                fills.made[k] = source.instant_of(candles, fills.made[k], earlier)
            if self.engine.rules.at_close and fills.stage[k] == AT_CLOSE:
                fills.minute[k] = source.instant_of(candles, fills.minute[k], fills.minute[k])
            k += 1
        return fills.columns()

    def state(self) -> bytes:
        """Return the state after the slice; empty where nothing depends on it."""
        found = state_bytes(self.engine, self.source)
        return b"" if found in (FLAT, KEPT) else found


def empty_ranges() -> Ranges:
    """Return ranges for rules without protective levels, which read none."""
    none = native(np.empty(0, dtype=np.int64))
    return Ranges(none, none)
