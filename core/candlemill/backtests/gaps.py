"""Profit of a position over gaps in the candles: from the last close before a gap to the first open after it."""

import numpy as np

from candlemill.engine.account import Sizing
from candlemill.engine.candles import MINUTE_MS, CandleColumns, Column
from candlemill.engine.fills import Fills
from candlemill.engine.summary import FINE, CarriedState


def gap_bars(candles: CandleColumns, lo: int, hi: int) -> Column:
    """Return those of bars `lo` to `hi - 1` before which a minute is missing."""
    gaps = candles.columns()["gaps"]
    if not len(gaps):
        return gaps
    found: Column = gaps[(gaps >= max(lo, 1)) & (gaps < hi)]
    return found


def bars_at(columns: dict[str, Column], times: Column) -> Column:
    """Return the bars that open at `times` (ms), each of them one of the columns' bars.

    From a gap to the next one there is a bar at each minute, so only the gaps are searched.
    """
    firsts = np.append(0, columns["gaps"])
    opened = columns["t"][firsts]
    stretch = np.searchsorted(opened, times, side="right") - 1
    found: Column = firsts[stretch] + (times - opened[stretch]) // MINUTE_MS
    return found


def gap_profit(candles: CandleColumns, gaps: Column, log: Fills, start: CarriedState, sizing: Sizing | None) -> int:
    """Return the sum of profits over `gaps` in the account's unit.

    The unit is 10^-16 per unit of base, 10^-24 if trades have quantities. `log` has the fills from the state `start`
    on.
    """
    fills, columns = log.columns(), candles.columns()
    last = np.searchsorted(fills["bar"], gaps) - 1  # the last fill before each gap; one at its first open is too late
    total = 0
    for gap, fill in zip(gaps.tolist(), last.tolist(), strict=True):
        side = int(fills["side"][fill]) if fill >= 0 else int(start.side)
        if not side:
            continue
        before, after = int(columns["close"][gap - 1]), int(columns["open"][gap])
        if sizing is None:
            total += side * (after - before) * FINE
            continue
        entry = int(fills["price"][fill]) if fill >= 0 else int(start.entry)
        quantity = sizing.at_entry(candles, int(fills["bar"][fill]), entry) if fill >= 0 else int(start.quantity)
        total += side * (after - before) * quantity * FINE
    return total


def held_over_gaps(held: Column, close: Column, opened: Column) -> int:
    """Return the profit of the quantities `held` over gaps, from the last close before each to the first open after it.

    The three arrays have one element per gap; the result is in 10^-16, exact.
    """
    moves = zip(held.tolist(), close.tolist(), opened.tolist(), strict=True)
    return sum(quantity * (after - before) for quantity, before, after in moves)
