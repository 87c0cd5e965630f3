"""What figures and tables read off a trace: drawdowns, buy and hold, the rolling Sharpe ratio."""

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from candlemill.engine.tape import Column
from candlemill.model import SCALE
from candlemill.trace import Trace


class Drawdown(NamedTuple):
    """One stay below the running peak: times in ms (`end` None while it lasts), depth in scaled money (> 0)."""

    start: int
    bottom: int
    end: int | None
    depth: int
    share: float  # of the account's value at the peak


def underwater(trace: Trace) -> Column:
    """n; the profit so far below its running peak, which starts at 0: <= 0."""
    return trace.equity - np.maximum.accumulate(np.maximum(trace.equity, 0))


def worst_drawdowns(trace: Trace, limit: int) -> list[Drawdown]:
    """The deepest first."""
    below = underwater(trace)
    edges = np.flatnonzero(np.diff(below < 0, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return []
    depths = np.minimum.reduceat(below, starts)  # between the stretches it is 0
    found = []
    for k in np.argsort(depths, kind="stable")[:limit].tolist():
        a, b = int(starts[k]), int(ends[k])
        bottom = a + int(below[a:b].argmin())
        depth = -int(below[bottom])
        peak = trace.capital + int(trace.equity[bottom]) + depth
        end = int(trace.t[b]) if b < len(trace.t) else None
        found.append(Drawdown(int(trace.t[max(a - 1, 0)]), int(trace.t[bottom]), end, depth, depth / max(peak, 1)))
    return found


def holding(trace: Trace) -> Column:
    """n; the profit of buying at the first open and holding, before costs: for the same quantity when sizing is
    fixed, else with the whole capital."""
    first = int(trace.open[0])
    if trace.spec.sizing == "fixed":
        return ((trace.close - first).astype(np.float64) * (trace.spec.quantity / SCALE)).astype(np.int64)
    return ((trace.close / first - 1) * trace.capital).astype(np.int64)


def returns(trace: Trace) -> NDArray[np.float64]:
    """d; what the Sharpe ratio is made of: daily returns when profits are put back in, else daily profits."""
    daily = trace.daily / SCALE
    if trace.spec.sizing != "compound":
        return daily
    before = trace.capital / SCALE + np.cumsum(daily) - daily
    return np.divide(daily, before, out=np.zeros(len(daily)), where=before > 0)


def rolling_sharpe(trace: Trace, window: int) -> tuple[Column, NDArray[np.float64]]:
    """The days from the `window`-th on, and the Sharpe ratio of the `window` days that end with each."""
    if len(trace.days) < window:
        return trace.days[:0], np.zeros(0)
    views = sliding_window_view(returns(trace), window)
    spread = views.std(axis=1, ddof=1)
    return trace.days[window - 1 :], np.divide(
        views.mean(axis=1) * np.sqrt(365), spread, out=np.zeros(len(views)), where=spread > 0
    )
