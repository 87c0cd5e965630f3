"""Slices of a paper run: what a backtest computes of some minutes, from the state before them. Pure: no I/O.

A slice covers the minutes `start <= t < end` (ms) of the run's inputs. What follows it is known or still open; at the
end of a range there is nothing.
"""

from typing import Protocol

import msgspec

from candlemill.backtests.panel import panel_rules, run_panel_slice, run_set
from candlemill.backtests.panel_bars import PanelWindow, SymbolWindow, aligned
from candlemill.backtests.recording import Recording
from candlemill.backtests.slice import SliceOutcomes, SliceWindow, run_recorded, run_slice
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import sees_panel
from candlemill.backtests.universe import Members, members_of, parse_universe
from candlemill.engine.candles import MINUTE_MS, end_of_bar
from candlemill.paper.candles import CandleBuffer, Following
from candlemill.paper.decision import PaperFill
from candlemill.paper.inputs import Inputs
from candlemill.paper.reading import fills_of, panel_fills_of, plain_panel
from candlemill.strategies import Strategy


class Slices(Protocol):
    """Computes slices. `context` is the number of candles before a slice that its decisions read."""

    def run(self, start: int, end: int, context: int, state: bytes, is_last: bool = False) -> SliceOutcomes: ...

    def record(self, start: int, end: int, context: int, state: bytes) -> tuple[str, list[PaperFill]]:
        """Return the state after the slice, and its fills."""


def slices_of(spec: Spec, strategy: Strategy, inputs: Inputs) -> Slices:
    return PanelSlices(spec, strategy, inputs) if sees_panel(spec.strategy) else SymbolSlices(spec, strategy, inputs)


class SymbolSlices:
    """Slices of a run of one symbol."""

    def __init__(self, spec: Spec, strategy: Strategy, inputs: Inputs) -> None:
        self._spec, self._strategy, self._inputs = spec, strategy, inputs
        self._buffer = inputs.buffers[spec.symbol]

    def run(self, start: int, end: int, context: int, state: bytes, is_last: bool = False) -> SliceOutcomes:
        window = self._window(start, end, context, is_last)
        return run_slice(self._inputs.complete, window, [(0, self._strategy)], {0: state})

    def record(self, start: int, end: int, context: int, state: bytes) -> tuple[str, list[PaperFill]]:
        window, record = self._window(start, end, context, False), Recording()
        _, outcome = run_recorded(self._inputs.complete, window, self._strategy, record, state)
        return outcome.end, fills_of(self._spec, window.candles, record, state)

    def _window(self, start: int, end: int, context: int, is_last: bool) -> SliceWindow:
        spec, one = self._spec, self._buffer
        lo, hi = one.index(start), one.index(end)
        readable, begin = _begin(spec, one)
        first = max(readable, lo - context)
        following: Following = "nothing" if is_last else "open" if hi == one.n else "next"
        candles = one.bars(first, hi, following, one.time(hi - 1) + MINUTE_MS)
        if spec.funding:
            rates = self._inputs.facts.funding(spec.symbol)
            candles.add_funding(rates.t, rates.rate)
        cold, marks = one.whole and first == readable, self._inputs.marks(candles)
        return SliceWindow(candles, lo - first, hi - first, cold, marks, max(0, begin - first))


class PanelSlices:
    """Slices of a run of several symbols with one account."""

    def __init__(self, spec: Spec, strategy: Strategy, inputs: Inputs) -> None:
        self._spec, self._strategy, self._inputs = spec, strategy, inputs
        self._universe = parse_universe(spec.universe) if spec.universe else None

    def run(self, start: int, end: int, context: int, state: bytes, is_last: bool = False) -> SliceOutcomes:
        window = self._window(start, end, context, is_last)
        done = run_panel_slice(self._spec, window, [(0, self._strategy)], {0: state})
        outcomes = [msgspec.structs.replace(one, end=plain_panel(one.end.encode()).decode()) for one in done.outcomes]
        return SliceOutcomes(done.days, outcomes)

    def record(self, start: int, end: int, context: int, state: bytes) -> tuple[str, list[PaperFill]]:
        window = self._window(start, end, context, False)
        bars = aligned(window, self._spec.timeframe)
        found = run_set(window, bars, self._strategy, panel_rules(self._spec), state)
        closes = {
            name: (one.candles.columns()["t"], one.candles.columns()["close"]) for name, one in window.symbols.items()
        }
        return plain_panel(found.state).decode(), panel_fills_of(found.accounted.entries, closes)

    def _window(self, start: int, end: int, context: int, is_last: bool) -> PanelWindow:
        """Return the slice. A symbol that decides nothing in it is read only as far back as all others are."""
        spec, inputs = self._spec, self._inputs
        following: Following = "nothing" if is_last else "next"
        last = inputs.previous(end)
        still_open = last is not None and following == "next" and inputs.next(end) is None
        if still_open and last is not None:
            end = last + MINUTE_MS
        bar = end_of_bar(start + 1, spec.timeframe) - spec.timeframe * MINUTE_MS  # the one that `start` is in
        bounds = {name: (one.index(start), one.index(end)) for name, one in inputs.buffers.items()}
        firsts = {}
        for name, one in inputs.buffers.items():
            if one.index(bar) < bounds[name][1]:
                firsts[name] = max(_begin(spec, one)[0], bounds[name][0] - context)
        since = min((inputs.buffers[name].time(at) for name, at in firsts.items()), default=start)
        symbols = {}
        for name, one in inputs.buffers.items():
            (lo, hi), (readable, _) = bounds[name], _begin(spec, one)
            first = firsts.get(name, max(readable, min(lo, one.index(since))))
            ends = still_open and hi > first and one.time(hi - 1) == last
            candles = one.bars(first, hi, "open" if ends else following, end)
            rates = inputs.facts.funding(name)
            cold = one.whole and first == readable
            symbols[name] = SymbolWindow(candles, lo - first, hi - first, cold, (rates.t, rates.rate))
        return PanelWindow(start, end, symbols, self._members(min(since, bar), end))

    def _members(self, start: int, end: int) -> Members | None:
        if self._universe is None:
            return None
        names = self._spec.symbols
        return members_of(self._universe, {name: ({}, 1) for name in names}, start, end)


def _begin(spec: Spec, one: CandleBuffer) -> tuple[int, int]:
    """Return the number of the first candle that decisions may see, and of the first of the range."""
    begin = one.index(spec.start)
    return (0 if spec.warm_up == "stored" else begin), begin
