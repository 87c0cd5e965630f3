"""Fewer points that draw the same picture: no spike and no extreme is lost."""

import numpy as np

from candlemill.engine.tape import MINUTE_MS, Column
from candlemill.trace import Trace

STEPS = (1, 5, 15, 30, 60, 120, 240, 480, 720, 1440, 2880, 10_080, 20_160, 43_200)  # minutes of a drawn candle


def extremes(values: Column, limit: int) -> Column:
    """Indices, ascending, of about `limit` points: both ends, and of every stretch its lowest and its highest."""
    n = len(values)
    if n <= limit:
        return np.arange(n)
    width = -(-n // max(limit // 2, 1))
    rows = np.pad(values, (0, -n % width), mode="edge").reshape(-1, width)
    first = np.arange(len(rows)) * width
    found = [[0, n - 1], first + rows.argmin(axis=1), first + rows.argmax(axis=1)]
    return np.unique(np.minimum(np.concatenate(found), n - 1))


def step_for(t: Column, limit: int) -> int:
    """The shortest candle, in minutes, of which the range has at most `limit`."""
    minutes = (int(t[-1]) - int(t[0])) // MINUTE_MS + 1
    return next((step for step in STEPS if minutes <= step * limit), STEPS[-1])


def candles(trace: Trace, step: int, first: int = 0) -> tuple[Column, Column, Column, Column, Column]:
    """Open time, open, high, low, close of candles of `step` minutes, aligned to UTC, from bar `first` on."""
    return candle_rows(step, *(column[first:] for column in (trace.t, trace.open, trace.high, trace.low, trace.close)))


def candle_rows(
    step: int, t: Column, open: Column, high: Column, low: Column, close: Column
) -> tuple[Column, Column, Column, Column, Column]:
    """The same of columns of minutes, of which there is at least one."""
    start = t // (step * MINUTE_MS) * (step * MINUTE_MS)
    starts = np.flatnonzero(np.diff(start, prepend=start[0] - 1))
    ends = np.append(starts[1:], len(t)) - 1
    high, low = np.maximum.reduceat(high, starts), np.minimum.reduceat(low, starts)
    return start[starts], open[starts], high, low, close[ends]


def telling(profit: Column, limit: int) -> Column:
    """Indices, ascending, of at most `limit` trades: a third of them the best, a third the worst, the rest evenly."""
    n = len(profit)
    if n <= limit:
        return np.arange(n)
    order = np.argsort(profit, kind="stable")
    even = np.linspace(0, n - 1, limit - 2 * (limit // 3)).astype(np.int64)
    return np.unique(np.concatenate([order[: limit // 3], order[-(limit // 3) :], even]))
