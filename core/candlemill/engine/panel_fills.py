"""Fills of the symbols of a panel: their targets, protective levels, and their ends. SEMANTICS-2 sections 10 and 13."""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column
from candlemill.engine.decide import restore, state_bytes
from candlemill.engine.fill_tape import AT_CLOSE, AT_OPEN, NO_KEY, NOT_MADE, TARGET, FillTape
from candlemill.engine.levels import FAR, MILLION
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.panel_rows import NO_TIME, PanelRows, SymbolBars
from candlemill.engine.panel_targets import KEEP, NOTHING, PanelTargets
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import Ranges
from candlemill.engine.signals import first_at_least

FLAT: Final = b"0,0,0,0,0,0,0,0,0,0,0"  # no position, target 0: the state before the first target
KEPT: Final = b"0,0,0,0,0,0,0,0,0,-,-"  # no position, nothing to trade


class Ending:
    """A symbol counts as ended in `minute`: before its bar `bar`, after the first `stated` targets."""

    def __init__(self, bar: i64, stated: i64, minute: i64) -> None:
        self.bar: i64 = bar
        self.stated: i64 = stated
        self.minute: i64 = minute


class PanelFills:
    """Fills of a slice from the targets of all rows and symbols: `run` each symbol.

    Then `pending` is the instant at which a target was stated that waits for the symbol's next bar, NOT_MADE without
    one, and `state` the position after the slice; empty where nothing depends on it. A position is closed at its last
    close at the first minute of the panel that comes `delist_after` ms after its last candle.
    """

    def __init__(self, rows: PanelRows, targets: Column, rules: ExecutionRules, delist_after: i64) -> None:
        self.panel: PanelRows = rows
        self.rules: ExecutionRules = rules
        self.delist_after: i64 = delist_after
        self.source: PanelTargets = PanelTargets(rows, targets)
        self.no_ranges: Ranges = Ranges(vec[i64](), vec[i64]())
        self.engine: MinuteEngine = MinuteEngine(rows.symbols[0].candles, rules, self.no_ranges, FillTape())
        self.pending: i64 = NOT_MADE
        self.state: bytes = b""

    def run(self, number: i64, start: bytes, time: i64, close: i64, made: i64) -> FillTape:
        """Return the fills of a symbol, with the instants of the panel instead of the minutes of its own bars.

        `start` is the state before the slice; `time` and `close` are those of its last candle before the slice, `made`
        says when a target was stated that waits. Raises OverflowError for slippage that does not fit 64 bits,
        ValueError for an invalid state.
        """
        bars, rules, source = self.panel.symbols[number], self.rules, self.source
        candles = bars.candles
        if (int(candles.top) // MILLION + 1) * int(rules.slippage) > FAR >> 2:
            raise OverflowError(
                f"prices up to {candles.top} (scaled) with a slippage of {rules.slippage} ppm leave 64 bits"
            )
        source.open_symbol(bars)
        endings = self.endings(bars, time)
        source.begin_symbol(bars, number, stated_last(start), [ending.stated for ending in endings])
        fills = FillTape()
        self.pending, self.state = NOT_MADE, b""
        if source.count == 0 and start == b"" and len(endings) == 0:  # it is flat, and nothing is to be traded
            return fills
        self.begin(candles, fills, start)
        at: i64 = bars.lo
        for ending in endings:
            self.trade(at, ending.bar, ending.stated)
            at = ending.bar
            self.close(ending.minute, candles.close[at - 1] if at != 0 else close)
        self.trade(at, bars.hi, source.stop - source.first)
        self.name_instants(candles, fills, made)
        if self.engine.has_pending_target():
            self.pending = source.instant[source.count - 1] if source.count != 0 else made
        state = state_bytes(self.engine, source)
        if state != FLAT and state != KEPT:
            self.state = state
        return fills

    def endings(self, bars: SymbolBars, time: i64) -> list[Ending]:
        """Return when the symbol counts as ended. `time` is that of its last candle before the slice.

        A target that is stated after the end of a symbol, in its last bar of the timeframe, ends with the next minute.
        """
        out: list[Ending] = []
        minutes = self.panel.minutes
        if len(minutes) == 0:
            return out
        t, gaps = bars.candles.t, bars.candles.gaps
        lo: i64 = bars.lo
        hi: i64 = bars.hi
        if lo == 0 and hi != 0 and time != NO_TIME:
            self.end_between(bars, 0, time, t[0], out)
        k: i64 = first_at_least(gaps, max(lo, 1))
        while k < len(gaps) and gaps[k] < hi:
            self.end_between(bars, gaps[k], t[gaps[k] - 1], t[gaps[k]], out)
            k += 1
        if hi != 0:
            time = t[hi - 1]
        if time != NO_TIME:
            self.end_between(bars, hi, time, minutes[len(minutes) - 1] + 1, out)
        return out

    def end_between(self, bars: SymbolBars, bar: i64, time: i64, until: i64, out: list[Ending]) -> None:
        """Add the ends of a symbol without candles between `time` and `until`, where its bar `bar` begins."""
        if until - time <= self.delist_after:
            return
        minutes, source = self.panel.minutes, self.source
        at: i64 = first_at_least(minutes, time + self.delist_after)
        if at == len(minutes) or minutes[at] >= until:
            return
        stated: i64 = source.stated_before(bars, minutes[at])
        out.append(Ending(bar, stated, minutes[at]))
        j: i64 = source.first + stated
        if j < source.stop and bars.last[j] < bar:  # stated later, at a close that was before
            at = first_at_least(minutes, self.panel.instants[bars.rows[j]] + 1)
            if at < len(minutes) and minutes[at] < until:
                out.append(Ending(bar, stated + 1, minutes[at]))

    def begin(self, candles: CandleColumns, fills: FillTape, start: bytes) -> None:
        """Put the engine into the state of another symbol. A panel has no orders, so none is left in it."""
        engine = self.engine
        engine.candles = candles
        engine.fills = fills
        engine.ranges = Ranges(candles.high, candles.low) if self.rules.has_stops else self.no_ranges
        engine.target = engine.acted = 0
        engine.now.flatten()
        engine.now.clear_rows()
        restore(engine, start if start else FLAT)

    def trade(self, begin: i64, end: i64, stated: i64) -> None:
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

    def close(self, minute: i64, raw: i64) -> None:
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
        engine.fills.add(minute, AT_OPEN, NOT_MADE, TARGET, NO_KEY, before, 0, 0, 0, price, raw, rate, 0)
        now.flatten()

    def name_instants(self, candles: CandleColumns, fills: FillTape, made: i64) -> None:
        """Replace the minutes of the symbol's own bars by the instants of the panel."""
        source = self.source
        k: i64 = 0
        while k < fills.n:
            if fills.made[k] != NOT_MADE:
                fills.made[k] = source.instant_of(candles, fills.made[k], made)
            if self.rules.at_close and fills.stage[k] == AT_CLOSE:
                fills.minute[k] = source.instant_of(candles, fills.minute[k], fills.minute[k])
            k += 1


def stated_last(start: bytes) -> i64:
    """Return the last target of a state; a symbol begins with a target of 0, and after an end there is none."""
    if not start:
        return 0
    target, acted = start.split(b"\n")[0].split(b",")[9:11]
    if target == b"-":
        return KEEP if acted == b"-" else NOTHING
    return int(target)
