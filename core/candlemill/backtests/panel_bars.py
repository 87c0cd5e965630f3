"""Bars of the symbols of a panel, aligned on UTC bars of the timeframe. SEMANTICS-2, section 13."""

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.universe import Members
from candlemill.engine.candles import MINUTE_MS, CandleColumns, Column
from candlemill.engine.panel_rows import PanelRows, SymbolBars
from candlemill.strategies.panels import Panel

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


class AlignedBars(msgspec.Struct, frozen=True):
    """Panel of a slice and the bars before it that are read.

    `instants` [T] are the open times (ms) of the minutes at whose closes the rows are decided; those of the slice are
    rows `first` to `end - 1`. `minutes` are the slice's minutes in which any symbol has a candle. `rows` has what the
    engine reads.
    """

    panel: Panel
    instants: Column
    first: int
    end: int
    minutes: Column
    rows: PanelRows


def aligned(window: PanelWindow, timeframe: int) -> AlignedBars:
    """Align the bars of all symbols."""
    names = tuple(sorted(window.symbols))
    symbols = [SymbolBars(one.candles, one.lo, one.hi, one.cold) for one in map(window.symbols.__getitem__, names)]
    rows = PanelRows(symbols, timeframe, window.start, window.end)
    times, columns = rows.times(), rows.columns()
    member = _members(window, times["instants"], len(names))
    for array in (times["t"], member, *columns.values()):
        array.flags.writeable = False
    panel = Panel(names, timeframe, times["t"], **columns, member=member)
    return AlignedBars(panel, times["instants"], int(rows.first), int(rows.stop), times["minutes"], rows)


def _members(window: PanelWindow, instants: Column, symbols: int) -> NDArray[np.bool_]:
    """Return which symbols are members at each row: at the end of the minute at whose close it is decided."""
    if window.members is None:
        return np.ones((len(instants), symbols), dtype=np.bool_)
    return window.members.at(instants + MINUTE_MS)
