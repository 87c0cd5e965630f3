"""Series computed from a trace for figures and tables: drawdowns, buy and hold, the rolling Sharpe ratio."""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from candlemill.backtests.replay import Replay
from candlemill.engine.candles import Column
from candlemill.units import SCALE

WINDOW_DAYS = 90
BINS = 60


class Drawdown(NamedTuple):
    """A period below the running peak: times in ms (`end` None if not recovered), depth in scaled money (> 0)."""

    start: int
    bottom: int
    end: int | None
    depth: int
    share: float  # of the account's value at the peak


def underwater(trace: Replay) -> Column:
    """Return the cumulative profit minus its running peak, which starts at 0: [n], <= 0."""
    return trace.equity - np.maximum.accumulate(np.maximum(trace.equity, 0))


def worst_drawdowns(trace: Replay, limit: int) -> list[Drawdown]:
    """Return at most `limit` drawdowns, deepest first."""
    below = underwater(trace)
    edges = np.flatnonzero(np.diff(below < 0, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return []
    depths = np.minimum.reduceat(below, starts)  # 0 between the drawdowns
    found = []
    for k in np.argsort(depths, kind="stable")[:limit].tolist():
        a, b = int(starts[k]), int(ends[k])
        bottom = a + int(below[a:b].argmin())
        depth = -int(below[bottom])
        peak = trace.capital + int(trace.equity[bottom]) + depth
        end = int(trace.t[b]) if b < len(trace.t) else None
        found.append(Drawdown(int(trace.t[max(a - 1, 0)]), int(trace.t[bottom]), end, depth, depth / max(peak, 1)))
    return found


def holding(trace: Replay) -> Column:
    """Return the profit of buying at the first open and holding, before costs: [n].

    The quantity is that of the run if every trade has the same one, else the whole capital is used; of several symbols
    in equal parts.
    """
    if trace.panel is not None:
        return trace.panel.hold
    first = int(trace.open[0])
    if trace.spec.sizing == "fixed" and trace.spec.account == "units":
        return ((trace.close - first).astype(np.float64) * (trace.spec.quantity / SCALE)).astype(np.int64)
    return ((trace.close / first - 1) * trace.capital).astype(np.int64)


def returns(daily: Column, capital: int, compound: bool) -> NDArray[np.float64]:
    """Return the values of the Sharpe ratio, [d]: daily returns if profits are reinvested, else daily profits."""
    profits = daily / SCALE
    if not compound:
        return profits
    before = capital / SCALE + np.cumsum(profits) - profits
    return np.divide(profits, before, out=np.zeros(len(profits)), where=before > 0)


def window_of(days: int) -> int:
    """Return the number of days of a rolling figure: fewer if the range is short."""
    return min(WINDOW_DAYS, max(days // 3, 7))


def rolling_sharpe(days: Column, values: NDArray[np.float64], window: int) -> tuple[Column, NDArray[np.float64]]:
    """Return the days from the `window`-th on, and the Sharpe ratio of the `window` days that end with each."""
    if len(days) < window:
        return days[:0], np.zeros(0)
    views = sliding_window_view(values, window)
    spread = views.std(axis=1, ddof=1)
    return days[window - 1 :], np.divide(
        views.mean(axis=1) * np.sqrt(365), spread, out=np.zeros(len(views)), where=spread > 0
    )


class Bins(NamedTuple):
    """A histogram of profits in money: bin k begins at (first + k) · width. The outer bins hold what is beyond."""

    width: float
    first: int
    counts: list[int]
    reach: float
    beyond: int


def profit_bins(profit: Column) -> Bins | None:
    """Return the histogram of profits [n] (scaled); None without any. 0 is an edge: no bin mixes gains and losses."""
    if not len(profit):
        return None
    money = profit / SCALE
    reach = float(np.quantile(np.abs(money), 0.99)) or float(np.abs(money).max()) or 1.0
    half = BINS // 2
    width = reach / half
    slot = np.clip(np.floor(money / width), -half, half - 1).astype(np.int64)
    counts = np.bincount(slot + half, minlength=BINS)
    return Bins(width, -half, counts.tolist(), reach, int((np.abs(money) > reach).sum()))
