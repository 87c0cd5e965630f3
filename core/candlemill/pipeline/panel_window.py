"""Read the bars of all symbols of a panel's slice."""

from collections.abc import Sequence

import msgspec
import numpy as np

from candlemill.backtests.panel_bars import NO_FUNDING, PanelWindow, SymbolWindow
from candlemill.backtests.slice import SliceWindow
from candlemill.backtests.spec import Spec
from candlemill.backtests.universe import Members, Turnover, members_of, parse_universe
from candlemill.engine.candles import Column, end_of_bar
from candlemill.pipeline.cache_keys import PanelData
from candlemill.pipeline.interfaces import CandleSource, DayIndex


def panel_window(
    candles: CandleSource,
    index: DayIndex,
    spec: Spec,
    data: PanelData,
    cuts: tuple[int, int],
    context: int,
    columns: Sequence[str],
) -> PanelWindow:
    """Return the slice between `cuts` (ms), with `context` candles of each symbol's own before it.

    A symbol that decides nothing in the slice is read only as far back as all symbols are: it may have ended years ago.
    """
    start, end = cuts
    stop = min(spec.end, end_of_bar(end, spec.timeframe))
    present = set(data.present(start, stop))
    since = data.reading_from(start, context, stop)
    symbols = {}
    for name in spec.symbols:
        single = msgspec.structs.replace(spec, symbol=name)
        if name in present:
            window = candles.window(single, start, end, context, columns)
        else:
            window = _before(candles.window(_readable(single), min(since, start), start, 0, columns), start)
        symbols[name] = SymbolWindow(window.candles, window.lo, window.hi, window.cold, _funding(index, spec, name))
    members = _members(candles, index, spec, min(since, start), stop) if spec.universe else None
    return PanelWindow(start, end, symbols, members)


def _members(candles: CandleSource, index: DayIndex, spec: Spec, start: int, end: int) -> Members:
    """Return the members of the job's universe from `start` to `end` (ms), by candles of the job only."""
    universe = parse_universe(spec.universe)
    turnovers: dict[str, Turnover] = {}
    for name in spec.symbols:
        single = _readable(msgspec.structs.replace(spec, symbol=name))
        days = {} if universe.names else candles.turnover(single, max(single.start, universe.reads_from(start)), end)
        turnovers[name] = days, index.volume_scale(name)
    return members_of(universe, turnovers, start, end)


def _readable(spec: Spec) -> Spec:
    """Return the spec with all that the job may read as its range."""
    return msgspec.structs.replace(spec, start=spec.read_from, warm_up="none")


def _before(window: SliceWindow, start: int) -> SliceWindow:
    """Return a window of the bars before `start` (ms) as one whose slice has no bars."""
    lo = int(np.searchsorted(window.candles.columns()["t"], start))
    return SliceWindow(window.candles, lo, lo, window.cold)


def _funding(index: DayIndex, spec: Spec, symbol: str) -> tuple[Column, Column]:
    if not spec.funding:
        return NO_FUNDING
    found = index.funding(symbol)
    return found.t, found.rate
