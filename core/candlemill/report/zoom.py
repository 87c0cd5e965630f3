"""Candles of the zoomed price figure: coarse ones of the whole range, minutes of the last days and around trades.

Columns are integers in ticks, each candle relative to the previous one: compressed, this is a third of the decimals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from candlemill.backtests.replay import Replay
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Column
from candlemill.report import thin
from candlemill.units import SCALE

CANDLES = 9000  # maximum for the whole range: a year of hours
LAST_DAYS = 10  # days shown in minutes
AROUND = 180  # minutes before and after a listed trade
LONGEST = 1440  # maximum number of minutes shown of a listed trade
TRADES = 20_000
DIGITS = 8  # digits of a fill's price


def detail(trace: Replay, listed: Sequence[int]) -> dict[str, Any]:
    """Return candles of the whole range, minutes of its last days and around the `listed` trades, and the trades."""
    tick = int(np.gcd.reduce(np.concatenate([trace.open, trace.high, trace.low, trace.close]))) or 1
    unit = int(10 ** max(0, len(str(int(trace.high.max()))) - DIGITS))
    step = thin.step_for(trace.t, CANDLES)
    windows = _windows(trace, listed)
    inside = np.zeros(len(trace.t), np.bool_)
    for first, last in windows:
        inside[np.searchsorted(trace.t, first) : np.searchsorted(trace.t, last)] = True
    minutes = [column[inside] for column in (trace.t, trace.open, trace.high, trace.low, trace.close)]
    return {
        "tick": tick / SCALE,
        "levels": [
            {"step": step, "windows": None, "candles": _candles(list(thin.candles(trace, step)), tick)},
            {"step": 1, "windows": windows, "candles": _candles(minutes, tick)},
        ],
        "unit": unit / SCALE,
        "trades": _trades(trace, unit),
        "total": len(trace.trades),
    }


def _windows(trace: Replay, listed: Sequence[int]) -> list[tuple[int, int]]:
    """Return ranges [first, last) in ms, ascending; adjacent ones are merged."""
    end = int(trace.t[-1]) + MINUTE_MS
    spans = [(max(end - LAST_DAYS * DAY_MS, int(trace.t[0])), end)]
    for k in listed:
        first, last = int(trace.trades.entry_t[k]), int(trace.trades.exit_t[k])
        if last - first <= LONGEST * MINUTE_MS:
            spans.append((first - AROUND * MINUTE_MS, min(last + AROUND * MINUTE_MS, end)))
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _steps(values: Column) -> list[int]:
    found: list[int] = np.diff(values, prepend=0).tolist()
    return found


def _candles(columns: Sequence[Column], tick: int) -> list[list[int]]:
    """Return lists of differences: minutes between candles; open - last close; close - open; wicks above and below."""
    t = columns[0] // MINUTE_MS
    o, h, low, c = (column // tick for column in columns[1:])
    before = np.concatenate([np.zeros(1, np.int64), c[:-1]])
    parts = [o - before, c - o, h - np.maximum(o, c), np.minimum(o, c) - low]
    return [_steps(t), *(part.tolist() for part in parts)]


def _trades(trace: Replay, unit: int) -> list[list[int]]:
    """Return entry and exit minutes, sides, entry and exit prices, profits; money in `unit`."""
    chosen = thin.telling(trace.trades.profit, TRADES)
    entry, leave = trace.trades.entry_t[chosen] // MINUTE_MS, trace.trades.exit_t[chosen] // MINUTE_MS
    at, to = trace.trades.entry_price[chosen] // unit, trace.trades.exit_price[chosen] // unit
    side, profit = trace.trades.side[chosen], trace.trades.profit[chosen] // unit
    return [_steps(entry), (leave - entry).tolist(), side.tolist(), _steps(at), (to - at).tolist(), profit.tolist()]
