"""Downsampling for plots that keeps all visible extremes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from candlemill.backtests.replay import Replay
from candlemill.engine.candles import MINUTE_MS, Column
from candlemill.units import SCALE

STEPS = (1, 5, 15, 30, 60, 120, 240, 480, 720, 1440, 2880, 10_080, 20_160, 43_200)  # minutes of a drawn candle


def extremes(values: Column, limit: int) -> Column:
    """Return indices, ascending, of about `limit` points: both ends, and the minimum and maximum of each section."""
    n = len(values)
    if n <= limit:
        return np.arange(n)
    width = -(-n // max(limit // 2, 1))
    rows = np.pad(values, (0, -n % width), mode="edge").reshape(-1, width)
    first = np.arange(len(rows)) * width
    found = [[0, n - 1], first + rows.argmin(axis=1), first + rows.argmax(axis=1)]
    return np.unique(np.minimum(np.concatenate(found), n - 1))


def gaps(t: Column, step_ms: int, limit: int) -> Column:
    """Return the indices of the points after a gap.

    A gap is longer than `step_ms` and than 1 / `limit` of the whole range, so that it is visible in a plot.
    """
    if len(t) < 2:
        return np.empty(0, np.int64)
    wide = max(step_ms, (int(t[-1]) - int(t[0])) // limit)
    return np.flatnonzero(np.diff(t) > wide) + 1


def with_breaks(kept: Column, gaps: Column) -> tuple[Column, Column]:
    """Return the kept indices with both ends of each gap, and the positions in them before which a line breaks."""
    points = np.unique(np.concatenate((kept, gaps, gaps - 1)))
    return points, np.searchsorted(points, gaps)


def broken(values: list[Any], breaks: Column) -> list[Any]:
    """Return the values with None at each break, where plotly interrupts a line."""
    out = list(values)
    for place in reversed(breaks.tolist()):
        out.insert(place, None)
    return out


def step_for(t: Column, limit: int) -> int:
    """Return the shortest candle, in minutes, with at most `limit` candles in the range."""
    minutes = (int(t[-1]) - int(t[0])) // MINUTE_MS + 1
    return next((step for step in STEPS if minutes <= step * limit), STEPS[-1])


def candles(trace: Replay, step: int, first: int = 0) -> tuple[Column, Column, Column, Column, Column]:
    """Return open time, open, high, low, close of candles of `step` minutes, aligned to UTC, from bar `first` on."""
    return candle_rows(step, *(column[first:] for column in (trace.t, trace.open, trace.high, trace.low, trace.close)))


def candle_rows(
    step: int, t: Column, open: Column, high: Column, low: Column, close: Column
) -> tuple[Column, Column, Column, Column, Column]:
    """Return the same as `candles` from columns of minutes; at least one minute."""
    start = t // (step * MINUTE_MS) * (step * MINUTE_MS)
    starts = np.flatnonzero(np.diff(start, prepend=start[0] - 1))
    ends = np.append(starts[1:], len(t)) - 1
    high, low = np.maximum.reduceat(high, starts), np.minimum.reduceat(low, starts)
    return start[starts], open[starts], high, low, close[ends]


def telling(profit: Column, limit: int) -> Column:
    """Return indices, ascending, of at most `limit` trades: a third the best, a third the worst, the rest evenly."""
    n = len(profit)
    if n <= limit:
        return np.arange(n)
    order = np.argsort(profit, kind="stable")
    even = np.linspace(0, n - 1, limit - 2 * (limit // 3)).astype(np.int64)
    return np.unique(np.concatenate([order[: limit // 3], order[-(limit // 3) :], even]))


def floats(scaled: ArrayLike) -> list[float]:
    """Convert scaled integers to floats for a plot, rounded to visible digits to keep the page small."""
    values = np.asarray(scaled) / SCALE
    top = float(np.abs(values).max()) if values.size else 0.0
    found: list[float] = np.round(values, 8 if top < 1 else max(2, 7 - len(str(int(top))))).tolist()
    return found
