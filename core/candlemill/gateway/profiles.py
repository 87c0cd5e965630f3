"""How a run came to its profit, as the dashboard draws it; the figures of reports are made of the same numbers."""

from typing import Any

import numpy as np

from candlemill.backtests.daily import unpack
from candlemill.backtests.portfolio import profits_of
from candlemill.backtests.replay import Replay
from candlemill.backtests.trades import Trades
from candlemill.engine.candles import Column
from candlemill.gateway.job_service import JobService
from candlemill.gateway.schemas.results import DrawdownRow, Excursions, Histogram, Profile
from candlemill.pipeline.rows import ResultRow
from candlemill.report.figures import EXCURSIONS_SHOWN
from candlemill.report.series import profit_bins, returns, rolling_sharpe, window_of, worst_drawdowns
from candlemill.report.thin import extremes, telling
from candlemill.units import SCALE, divide, scaled

POINTS, WORST = 1_200, 8


def profile_of(world: JobService, row: ResultRow, result: dict[str, Any]) -> Profile:
    """Return the profile of a finished run; of a portfolio only what its days tell. Blocking."""
    days, daily = unpack(row.daily)
    profits = np.asarray(profits_of(result, daily), dtype=np.int64)
    compound = result.get("spec", {}).get("sizing") == "compound"
    window = window_of(len(days))
    t, values = rolling_sharpe(days, returns(profits, result["capital"], compound), window)
    ratios: Column = np.round(values * SCALE).astype(np.int64)
    kept = extremes(ratios, POINTS)
    sharpe = (window, t[kept].tolist(), ratios[kept].tolist())
    if "parts" in result:
        return Profile(*sharpe, None, None, [])
    trace = world.traces.of(result)
    return Profile(*sharpe, _histogram(trace.trades), _excursions(trace.trades), _drawdowns(trace))


def _histogram(trades: Trades) -> Histogram | None:
    bins = profit_bins(trades.profit)
    if bins is None:
        return None
    mean = divide(int(trades.profit.sum()), len(trades)) or 0
    return Histogram(*bins, mean, int(np.median(trades.profit)))


def _excursions(trades: Trades) -> Excursions | None:
    if not len(trades):
        return None
    kept = telling(trades.profit, EXCURSIONS_SHOWN)
    columns = (column[kept].tolist() for column in (trades.side, trades.profit, trades.mae, trades.mfe))
    return Excursions(len(trades), *columns)


def _drawdowns(trace: Replay) -> list[DrawdownRow]:
    found = worst_drawdowns(trace, WORST)
    return [DrawdownRow(one.start, one.bottom, one.end, one.depth, scaled(one.share)) for one in found]
