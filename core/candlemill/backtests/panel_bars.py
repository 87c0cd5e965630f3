"""Bars of the symbols of a panel, aligned on UTC bars of the timeframe. SEMANTICS-2, section 13."""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.marks import union_of
from candlemill.backtests.universe import Members
from candlemill.engine.candles import MINUTE_MS, Bars, CandleColumns, Column, k_minute_bars
from candlemill.strategies.panels import Panel

FIELDS = ("open", "high", "low", "close", "volume")
NO_FUNDING = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class SymbolWindow(msgspec.Struct, frozen=True):
    """Bars of one symbol: `lo` to `hi - 1` of `candles` are the slice, those before are context, those after complete
    the last bar of the timeframe. `cold` says that the candles begin with the job's first bar. `funding` has instants
    and rates.
    """

    candles: CandleColumns
    lo: int
    hi: int
    cold: bool
    funding: tuple[Column, Column] = NO_FUNDING


class PanelWindow(msgspec.Struct, frozen=True):
    """Slice of a panel, `start <= t < end` in ms: a window of each symbol, and the members of the job's universe."""

    start: int
    end: int
    symbols: Mapping[str, SymbolWindow]
    members: Members | None = None


class Decisions(msgspec.Struct, frozen=True):
    """Decision bars of one symbol: the `rows` of the panel, and the number of each one's `last` minute bar."""

    rows: Column
    last: Column


class AlignedBars(msgspec.Struct, frozen=True):
    """Panel of a slice and the bars before it that are read.

    `instants` [T] are the open times (ms) of the minutes at whose closes the rows are decided; those of the slice are
    rows `first` to `end - 1`. `minutes` are the slice's minutes in which any symbol has a candle.
    """

    panel: Panel
    instants: Column
    first: int
    end: int
    symbols: dict[str, Decisions]
    minutes: Column


def aligned(window: PanelWindow, timeframe: int) -> AlignedBars:
    """Align the bars of all symbols."""
    names = tuple(sorted(window.symbols))
    bars = {}
    for name in names:
        one = window.symbols[name]
        bars[name] = k_minute_bars(one.candles, timeframe, skip_first=not one.cold)
    t = union_of([bars[name].t for name in names], timeframe * MINUTE_MS)
    rows = {name: np.searchsorted(t, bars[name].t) for name in names}
    instants = np.full(len(t), -1, dtype=np.int64)
    symbols, times = {}, []
    for name in names:
        one, minutes = window.symbols[name], window.symbols[name].candles.columns()["t"]
        ends = bars[name].last
        last = np.arange(bars[name].n) if ends is None else ends
        instants[rows[name]] = np.maximum(instants[rows[name]], minutes[last])
        symbols[name] = Decisions(rows[name], last)
        times.append(minutes[one.lo : one.hi])
    panel = _panel(names, timeframe, t, bars, rows, _members(window, instants, len(names)))
    first, end = np.searchsorted(instants, [window.start, window.end]).tolist()
    return AlignedBars(panel, instants, first, end, symbols, union_of(times, MINUTE_MS))


def _members(window: PanelWindow, instants: Column, symbols: int) -> NDArray[np.bool_]:
    """Return which symbols are members at each row: at the end of the minute at whose close it is decided."""
    if window.members is None:
        return np.ones((len(instants), symbols), dtype=np.bool_)
    return window.members.at(instants + MINUTE_MS)


def _panel(
    names: tuple[str, ...],
    timeframe: int,
    t: Column,
    bars: Mapping[str, Bars],
    rows: Mapping[str, Column],
    member: NDArray[np.bool_],
) -> Panel:
    """Return the aligned bars; `rows` are those of each symbol's bars."""
    columns = {field: np.zeros((len(t), len(names)), dtype=np.int64) for field in FIELDS}
    present = np.zeros((len(t), len(names)), dtype=np.bool_)
    for k, name in enumerate(names):
        where = slice(None) if len(rows[name]) == len(t) else rows[name]
        present[where, k] = True
        for field in FIELDS:
            values = getattr(bars[name], field)
            if len(values):
                columns[field][where, k] = values
    for array in (t, present, member, *columns.values()):
        array.flags.writeable = False
    return Panel(names, timeframe, t, **columns, present=present, member=member)
