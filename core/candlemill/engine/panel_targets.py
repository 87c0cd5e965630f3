"""Targets of one symbol of a panel, traded bar by bar. SEMANTICS-2 sections 9, 10 and 13.

A panel states the targets of all symbols together, at instants that may lie after a symbol's own last bar. So which
decisions count before a bar is given by their number, and a position can be closed from outside between two bars.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, native
from candlemill.engine.decide import BookSource, restore, state_bytes
from candlemill.engine.fill_tape import AT_OPEN, NO_KEY, NOT_MADE, TARGET, FillTape
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import Ranges
from candlemill.engine.walk import FAR, MILLION

FLAT: Final = b"0,0,0,0,0,0,0,0,0,0,0"  # no position, target 0: the state before the first target
KEPT: Final = b"0,0,0,0,0,0,0,0,0,-,-"  # no position, nothing to trade


class PanelTargets(BookSource):
    """Source of targets (ppm) stated at the close of bars `at`; `keep` is 1 where nothing is to be traded.

    `late` is 1 where missing candles have cut the panel's bar: see `ExecutionRules`.
    `allowed` is the number of targets that may be stated so far.
    """

    def __init__(self, at: Column, value: Column, keep: Column, late: Column) -> None:
        super().__init__(None, 0, False, False)
        self.at: vec[i64] = native(at)
        self.value: vec[i64] = native(value)
        self.keeps: vec[i64] = native(keep)
        self.late: vec[i64] = native(late)
        self.stated: i64 = 0
        self.allowed: i64 = 0

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
        engine.late = self.late[k]
        engine.replace(engine.new_orders(), i, self.keeps[k] != 0, self.value[k], 0, 0)


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

    def run(self, begin: i64, end: i64, allowed: i64) -> None:
        """Trade bars `begin` to `end - 1` and state the first `allowed` targets."""
        engine, source = self.engine, self.source
        source.allowed = allowed
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

    def has_pending(self) -> bool:
        """Return whether the symbol's next bar trades a target."""
        return self.engine.has_pending_target()

    def state(self) -> bytes:
        """Return the state after the slice; empty where nothing depends on it."""
        found = state_bytes(self.engine, self.source)
        return b"" if found in (FLAT, KEPT) else found


def empty_ranges() -> Ranges:
    """Return ranges for rules without protective levels, which read none."""
    none = native(np.empty(0, dtype=np.int64))
    return Ranges(none, none)
