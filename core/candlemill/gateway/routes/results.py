"""Routes of finished jobs' results: equity, months and trades; a sweep's sets and heat map."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from candlemill.backtests.daily import unpack
from candlemill.backtests.metric_table import is_descending, order_of, path_of, value_of
from candlemill.backtests.metrics import monthly
from candlemill.backtests.portfolio import profits_of
from candlemill.backtests.replay import Replay
from candlemill.backtests.spec import spec_from_json
from candlemill.backtests.trades import Reason
from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput, UnknownName
from candlemill.gateway import profiles
from candlemill.gateway.decimals import Form, shaped
from candlemill.gateway.job_service import JobService
from candlemill.gateway.pagination import offset_of, page_cursor
from candlemill.gateway.problems import Conflict, problem_responses
from candlemill.gateway.replays import within
from candlemill.gateway.routes.jobs import JobId
from candlemill.gateway.schemas.results import (
    Axis,
    Equity,
    HeatMap,
    MonthRow,
    Months,
    OrderFill,
    OrderLine,
    OrdersShown,
    Page,
    Profile,
    TradeRow,
    TradesPage,
)
from candlemill.local import workflow_runs
from candlemill.pipeline.job_state import OF_SYMBOLS
from candlemill.pipeline.rows import JobRow, ResultRow
from candlemill.pipeline.workflows import fold_choices
from candlemill.report.pivot import Sets
from candlemill.report.series import holding, underwater
from candlemill.report.thin import extremes, gaps, with_breaks
from candlemill.units import LAST_MS, divide

Points = Annotated[int, QueryParameter(ge=10, le=20_000, description="about how many points to draw")]
From = Annotated[int, QueryParameter(name="from", ge=0, le=LAST_MS, description="UTC ms, included")]
To = Annotated[int, QueryParameter(name="to", ge=0, le=LAST_MS, description="UTC ms, included")]
Limit = Annotated[int, QueryParameter(ge=1, le=1_000)]
Cursor = Annotated[str, QueryParameter(max_length=100, description="`next` of the page before")]
Metric = Annotated[str, QueryParameter(pattern="^[a-z_]{1,40}$")]


@get(
    "/api/v1/backtest/{job_id:str}/equity",
    summary="Profit and drawdown over time, thinned without losing extremes",
    responses=problem_responses(404, 409, 422),
)
async def equity(
    job_id: JobId,
    world: NamedDependency[JobService],
    points: Points = 1_000,
    first: From = 0,
    last: To = LAST_MS,
    form: Form = "scaled",
) -> Equity:
    row, result = await finished(world, job_id)
    if "parts" in result or "," in result["symbol"]:
        return shaped(await asyncio.to_thread(_daily_equity, row, result, points), form)
    trace = await asyncio.to_thread(world.traces.of, result)
    return shaped(await asyncio.to_thread(_equity, trace, points, first, last), form)


def _equity(trace: Replay, points: int, first: int, last: int) -> Equity:
    part = within(trace.t, first, last)
    t = trace.t[part]
    hold = holding(trace)
    each = points if len(t) <= points else points // 2
    telling = np.union1d(*(extremes(line[part], each) for line in (trace.equity, hold)))
    kept, breaks = with_breaks(telling, gaps(t, MINUTE_MS, points))
    chosen = kept + part.start
    return Equity(
        trace.capital,
        trace.t[chosen].tolist(),
        trace.equity[chosen].tolist(),
        underwater(trace)[chosen].tolist(),
        hold[chosen].tolist(),
        breaks.tolist(),
    )


def _daily_equity(row: ResultRow, result: dict[str, Any], points: int) -> Equity:
    """Return the equity at the ends of UTC days, for portfolios and panels: their symbols share no minute bars."""
    days, profits = unpack(row.daily)
    marks = np.cumsum(profits)
    chosen, breaks = with_breaks(extremes(marks, points), gaps(days, DAY_MS, points))
    below = marks - np.maximum.accumulate(np.maximum(marks, 0))
    ends = days + DAY_MS - MINUTE_MS
    columns = (ends[chosen].tolist(), marks[chosen].tolist(), below[chosen].tolist())
    return Equity(result["capital"], *columns, [], breaks.tolist())


@get("/api/v1/backtest/{job_id:str}/monthly", summary="Profit by month", responses=problem_responses(404, 409, 422))
async def months(job_id: JobId, world: NamedDependency[JobService], form: Form = "scaled") -> Months:
    row, result = await finished(world, job_id)
    days, daily = unpack(row.daily)
    found = monthly(days, profits_of(result, daily), result["capital"])
    rows = [MonthRow(month.year, month.month, month.profit, month.gain) for month in found]
    return shaped(Months(rows), form)


@get(
    "/api/v1/backtest/{job_id:str}/profile",
    summary="Rolling Sharpe ratio, histogram and excursions of trades, deepest drawdowns",
    responses=problem_responses(404, 409, 422),
)
async def profile(job_id: JobId, world: NamedDependency[JobService], form: Form = "scaled") -> Profile:
    row, result = await finished(world, job_id)
    return shaped(await asyncio.to_thread(profiles.profile_of, world, row, result), form)


@get("/api/v1/backtest/{job_id:str}/trades", summary="Closed trades", responses=problem_responses(404, 409, 422))
async def trades(
    job_id: JobId,
    world: NamedDependency[JobService],
    limit: Limit = 100,
    cursor: Cursor = "",
    first: From = 0,
    last: To = LAST_MS,
    sort: FromQuery[Literal["exit", "pnl", "size"]] = "exit",
    order: FromQuery[Literal["asc", "desc"]] = "asc",
    form: Form = "scaled",
) -> TradesPage:
    """Those that were open at some time from `from` to `to`, by their exits, profits, or sizes of profit or loss."""
    _, result = await finished(world, job_id)
    trace = await asyncio.to_thread(trace_of, world, result)
    of = trace.trades
    open_then = (of.exit_t >= first) & (of.entry_t <= last)
    found = np.flatnonzero(open_then)
    if sort != "exit":
        by = of.profit[found] if sort == "pnl" else np.abs(of.profit[found])
        found = found[np.argsort(by, kind="stable")]
    found = found if order == "asc" else found[::-1]
    start = offset_of(cursor)
    rows = [_trade(trace, k) for k in found[start : start + limit].tolist()]
    more = page_cursor(start + limit) if start + limit < len(found) else None
    return shaped(TradesPage(len(found), rows, more), form)


def trace_of(world: JobService, result: dict[str, Any]) -> Replay:
    """Return the replay of a run. Blocking. Raises BadInput for a portfolio."""
    if "parts" in result:
        raise BadInput("a portfolio has no minutes of its own: look at its parts")
    return world.traces.of(result)


def _trade(trace: Replay, k: int) -> TradeRow:
    of = trace.trades
    return TradeRow(
        int(of.entry_t[k]),
        int(of.exit_t[k]),
        int(of.side[k]),
        int(of.entry_price[k]),
        int(of.exit_price[k]),
        int(of.quantity[k]),
        int(of.profit[k]),
        int(of.fees[k]),
        int(of.funding[k]),
        int(of.bars[k]),
        Reason(int(of.reason[k])).name.lower(),
        bool(of.gap[k]),
        int(of.borrow[k]),
        trace.panel.symbols[trace.panel.of_trade[k]] if trace.panel else trace.spec.symbol,
    )


@get(
    "/api/v1/backtest/{job_id:str}/orders",
    summary="Where the orders of a run stood, and how each ended",
    responses=problem_responses(404, 409, 422),
)
async def orders(
    job_id: JobId, world: NamedDependency[JobService], first: From = 0, last: To = LAST_MS, form: Form = "scaled"
) -> OrdersShown:
    """Orders, protective levels, fills and ambiguous minutes from `from` to `to`, at most 20,000 minutes."""
    _, result = await finished(world, job_id)
    if "parts" in result:
        raise BadInput("a portfolio has no orders of its own: look at its parts")
    start, end = max(first, result["start"]), min(last + MINUTE_MS, result["end"])
    return shaped(await asyncio.to_thread(_orders, world, result, start, end), form)


def _orders(world: JobService, result: dict[str, Any], start: int, end: int) -> OrdersShown:
    chart = world.traces.orders(result, start, end)
    lines = [OrderLine(*msgspec.structs.astuple(line)) for line in chart.lines]
    fills = [OrderFill(*msgspec.structs.astuple(fill)) for fill in chart.fills]
    return OrdersShown(lines, fills, chart.ambiguous)


@get(
    "/api/v1/backtest/{job_id:str}/results",
    summary="A sweep's parameter sets, ordered by a figure",
    responses=problem_responses(404, 409, 422),
)
async def results(
    job_id: JobId,
    world: NamedDependency[JobService],
    sort: Metric = "sharpe_ratio",
    order: FromQuery[Literal["best", "worst"]] = "best",
    limit: Limit = 50,
    cursor: Cursor = "",
    form: Form = "scaled",
) -> Page:
    row = await _sweep(world, job_id, "sweep", "sweeps")
    path = path_of(sort)
    start = offset_of(cursor)
    descending = is_descending(sort, order == "best")

    def read() -> tuple[int, list[dict[str, Any]]]:
        if row.kind == "sweeps":
            return _of_symbols(world, row, sort, descending, start, limit)
        found = world.store.sweep_results(job_id, path, descending, limit, start)
        return world.store.count_sweep(job_id), [msgspec.json.decode(one) for one in found]

    total, rows = await asyncio.to_thread(read)
    return shaped(Page(rows, page_cursor(start + limit) if start + limit < total else None, total), form)


def _of_symbols(
    world: JobService, row: JobRow, sort: str, descending: bool, start: int, limit: int
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many sets the sweeps of several symbols have, and those from `start` on in their common order."""
    sweeps = [part["job_id"] for part in workflow_runs.parts_of_symbols(row)]
    found = [world.store.sweep_results(one, path_of(sort), descending, start + limit) for one in sweeps]
    rows = [msgspec.json.decode(one) for some in found for one in some]
    order = order_of([value_of(one, sort) for one in rows], descending)
    return sum(map(world.store.count_sweep, sweeps)), [rows[k] for k in order[start : start + limit]]


@get(
    "/api/v1/backtest/{job_id:str}/heatmap",
    summary="A figure over two parameters of a sweep",
    responses=problem_responses(404, 409, 422),
)
async def heatmap(
    job_id: JobId,
    world: NamedDependency[JobService],
    metric: Metric = "sharpe_ratio",
    x: FromQuery[str] = "",
    y: FromQuery[str] = "",
    over: FromQuery[Literal["best", "mean"]] = "best",
    form: Form = "scaled",
) -> HeatMap:
    """Of the sets that share a cell, the best or the mean. `z` is scaled as the figure is in a result."""
    row = await _sweep(world, job_id)
    axes = [name for name in (x, y) if name]
    return shaped(await asyncio.to_thread(_heatmap, world, row, metric, axes, over), form)


def _heatmap(world: JobService, row: JobRow, metric: str, axes: list[str], over: str) -> HeatMap:
    figures = world.store.sweep_figures(row.job_id, path_of(metric))
    spec = spec_from_json(row.spec)
    sets = Sets({"spec": spec, "results": [{"params": params, metric: value} for _, params, value in figures]})
    axes = list(dict.fromkeys([*axes, *sets.axes, *spec.grid]))[:2]
    across, xs = sets.groups(axes[0])
    down, ys = sets.groups(axes[1]) if len(axes) > 1 else (np.zeros(len(figures), dtype=np.int64), [""])
    cells: dict[tuple[int, int], list[int]] = {}
    for k in sets.order(metric):
        cells.setdefault((int(down[k]), int(across[k])), []).append(k)

    def value(members: list[int] | None) -> int | None:
        known = [found for k in members or [] if (found := figures[k][2]) is not None]
        return None if not known else known[0] if over == "best" else divide(sum(known), len(known))

    grid = [[cells.get((j, i)) for i in range(len(xs))] for j in range(len(ys))]
    return HeatMap(
        metric,
        "high" if is_descending(metric) else "low",
        Axis(axes[0], xs),
        Axis(axes[1] if len(axes) > 1 else None, ys),
        [[value(members) for members in line] for line in grid],
        [[figures[members[0]][0] if members else None for members in line] for line in grid],
    )


async def finished(world: JobService, job_id: str) -> tuple[ResultRow, dict[str, Any]]:
    """Return a finished job's row and result. Raises UnknownName, Conflict.

    A set of a sweep has both too; a walk-forward has those of the run of its choices.
    """
    found = await asyncio.to_thread(world.result, job_id)
    if found is None:
        row = await world.known_job(job_id)
        if row.state != "done":
            raise Conflict(f"job {job_id} is {row.state}: it has no result yet")
        if row.kind == "sweep":
            raise BadInput(f"job {job_id} is a sweep: its sets are under /results, each with a job id of its own")
        if row.kind == "study":
            raise BadInput(f"job {job_id} is a study: each of its trials has a job id of its own")
        if row.kind in OF_SYMBOLS:
            raise BadInput(f"job {job_id} is of several symbols: each of its parts has a job id of its own")
        found = await asyncio.to_thread(world.result, fold_choices(row).job_id)
    if found is None:
        raise UnknownName("result", job_id, [], "ask for the job again")
    return found, msgspec.json.decode(found.result)


async def _sweep(world: JobService, job_id: str, *kinds: str) -> JobRow:
    row = await world.known_job(job_id)
    if row.state != "done":
        raise Conflict(f"job {job_id} is {row.state}: it has no results yet")
    if row.kind not in (kinds or ("sweep",)):
        raise BadInput(f"job {job_id} is not a sweep: its result is at /api/v1/backtest/{job_id}")
    return row


EXPLORE = [equity, months, profile, trades, orders, results, heatmap]
