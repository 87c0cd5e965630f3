"""Fills of one symbol of a panel: its targets, protective levels, and its end when it has no candles any more."""

import msgspec
import numpy as np

from candlemill.backtests.account import NEVER, Columns, Holding
from candlemill.backtests.gaps import gap_bars
from candlemill.backtests.panel_bars import AlignedBars, Decisions, SymbolWindow
from candlemill.engine.candles import Column
from candlemill.engine.panel_targets import KEEP, NOTHING, PanelTargets, SymbolRun, empty_ranges
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import ranges_of


class SymbolFills(msgspec.Struct, frozen=True):
    """Fills of a symbol in a slice, as columns of a FillTape, and its `state` after it.

    `pending` is the instant at which a target was stated that waits for the symbol's next bar, NEVER without one;
    `ambiguous` are the minutes in which the order of events is unknown.
    """

    columns: Columns
    state: bytes
    pending: int
    ambiguous: Column


class _Statements(msgspec.Struct, frozen=True):
    """Targets of a symbol: the bar at whose close each was stated, its instant and its value."""

    bar: Column
    instant: Column
    value: Column


class _Ending(msgspec.Struct, frozen=True):
    """The symbol counts as ended in `minute`: before its bar `bar`, after the first `stated` targets."""

    bar: int
    stated: int
    minute: int


def fills_of(
    window: SymbolWindow,
    own: Decisions,
    bars: AlignedBars,
    targets: Column,
    rules: ExecutionRules,
    delist_after: int,
    start: bytes,
    holding: Holding,
) -> SymbolFills:
    """Return the fills of the slice. `targets` are those of each row of the panel, `start` is the state before.

    `holding` has the symbol's last candle before the slice, and when a target that waits was stated. A position is
    closed at its last close at the first minute of the panel that comes `delist_after` ms after its last candle.
    """
    statements = _statements(own, bars, targets)
    endings = _endings(window, statements, bars.minutes, delist_after, holding)
    forgotten = [ending.stated for ending in endings]
    source = PanelTargets(
        statements.bar, statements.instant, statements.value, forgotten, _stated_before(start), rules.timeframe
    )
    ranges = ranges_of(window.candles) if rules.has_stops else empty_ranges()
    run = SymbolRun(window.candles, source, rules, ranges, start)
    at = window.lo
    for ending in endings:
        bar = ending.bar
        run.run(at, bar, ending.stated)
        at = bar
        raw = int(window.candles.columns()["close"][bar - 1]) if bar else holding.close
        run.end(ending.minute, raw)
    run.run(at, window.hi, len(statements.bar))
    pending, columns = int(run.pending(holding.made)), run.columns(holding.made)
    return SymbolFills(columns, run.state(), pending, run.fills.ambiguous()["minute"])


def _statements(own: Decisions, bars: AlignedBars, targets: Column) -> _Statements:
    """Return all targets of the slice."""
    a, b = np.searchsorted(own.rows, [bars.first, bars.end])
    rows = own.rows[a:b]
    return _Statements(own.last[a:b], bars.instants[rows], targets[rows])


def _stated_before(start: bytes) -> int:
    """Return the last target of a state; a symbol begins with a target of 0, and after an end there is none."""
    if not start:
        return 0
    target, acted = start.split(b"\n")[0].split(b",")[9:11]
    if target == b"-":
        return KEEP if acted == b"-" else NOTHING
    return int(target)


def _endings(
    window: SymbolWindow, statements: _Statements, minutes: Column, after: int, holding: Holding
) -> list[_Ending]:
    """Return when the symbol counts as ended. `statements` are all its targets.

    A target that is stated after the end of a symbol, in its last bar of the timeframe, ends with the next minute.
    """
    if not len(minutes):
        return []
    t, lo, hi = window.candles.columns()["t"], window.lo, window.hi
    waits = [(bar, int(t[bar - 1]), int(t[bar])) for bar in gap_bars(window.candles, lo, hi).tolist()]
    if lo == 0 and hi and holding.t != NEVER:
        waits.insert(0, (0, holding.t, int(t[0])))
    if (last := int(t[hi - 1]) if hi else holding.t) != NEVER:
        waits.append((hi, last, int(minutes[-1]) + 1))
    out = []
    for bar, time, until in waits:
        if until - time <= after:
            continue
        at = int(np.searchsorted(minutes, time + after))
        if at == len(minutes) or minutes[at] >= until:
            continue
        stated = int(np.searchsorted(statements.instant, minutes[at]))
        out.append(_Ending(bar, stated, int(minutes[at])))
        if stated < len(statements.bar) and statements.bar[stated] < bar:  # stated later, at a close that was before
            at = int(np.searchsorted(minutes, statements.instant[stated], side="right"))
            if at < len(minutes) and minutes[at] < until:
                out.append(_Ending(bar, stated + 1, int(minutes[at])))
    return out
