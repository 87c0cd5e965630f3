"""What a finished job has to show: its equity, months and trades; a sweep's sets and heat map."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from litestar import MediaType, Response, get
from litestar.params import Parameter

from candlemill.daily import unpack
from candlemill.engine.tape import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput
from candlemill.io.gateway.answers import Equity, HeatMap, Months, Page, TradeRow, TradesPage
from candlemill.io.gateway.cursors import offset_of, page_cursor
from candlemill.io.gateway.jobs import JobId
from candlemill.io.gateway.problems import Conflict
from candlemill.io.gateway.traces import within
from candlemill.io.gateway.world import World
from candlemill.ledger import JobRow, ResultRow
from candlemill.metrics import monthly
from candlemill.model import spec_from_json
from candlemill.portfolio import profits_of
from candlemill.ranking import SMALLER_IS_BETTER, path_of
from candlemill.report.pivot import Sets
from candlemill.report.series import holding, underwater
from candlemill.report.thin import extremes
from candlemill.trace import Reason, Trace

# A report carries its own scripts: they run nowhere but in it, and may ask nobody.
PAGE_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)

Points = Annotated[int, Parameter(ge=10, le=20_000, description="about how many points to draw")]
From = Annotated[int | None, Parameter(query="from", ge=0, le=4_102_444_800_000, description="UTC ms, included")]
To = Annotated[int | None, Parameter(query="to", ge=0, le=4_102_444_800_000, description="UTC ms, included")]
Limit = Annotated[int, Parameter(ge=1, le=1_000)]
Cursor = Annotated[str, Parameter(max_length=100, description="`next` of the page before")]
Metric = Annotated[str, Parameter(pattern="^[a-z_]{1,40}$")]


@get("/api/v1/backtest/{job_id:str}/equity", summary="Profit and drawdown over time, thinned without losing extremes")
async def equity(job_id: JobId, world: World, points: Points = 1_000, first: From = None, last: To = None) -> Equity:
    row, result = await finished(world, job_id)
    if "parts" in result:
        return await asyncio.to_thread(_daily_equity, row, result, points)
    trace = await asyncio.to_thread(world.traces.of, result)
    return await asyncio.to_thread(_equity, trace, points, first, last)


def _equity(trace: Trace, points: int, first: int | None, last: int | None) -> Equity:
    part = within(trace.t, first, last)
    chosen = extremes(trace.equity[part], points) + part.start
    return Equity(
        trace.capital,
        trace.t[chosen].tolist(),
        trace.equity[chosen].tolist(),
        underwater(trace)[chosen].tolist(),
        holding(trace)[chosen].tolist(),
    )


def _daily_equity(row: ResultRow, result: dict[str, Any], points: int) -> Equity:
    """At the ends of UTC days: a portfolio has no minutes of its own."""
    days, profits = unpack(row.daily)
    marks = np.cumsum(profits)
    chosen = extremes(marks, points)
    below = marks - np.maximum.accumulate(np.maximum(marks, 0))
    ends = days + DAY_MS - MINUTE_MS
    return Equity(result["capital"], ends[chosen].tolist(), marks[chosen].tolist(), below[chosen].tolist(), [])


@get("/api/v1/backtest/{job_id:str}/monthly", summary="Profit by month")
async def months(job_id: JobId, world: World) -> Months:
    row, result = await finished(world, job_id)
    days, daily = unpack(row.daily)
    return Months(monthly(days, profits_of(result, daily), result["capital"]))


@get("/api/v1/backtest/{job_id:str}/trades", summary="Closed trades, in order of their exits")
async def trades(
    job_id: JobId, world: World, limit: Limit = 100, cursor: Cursor = "", first: From = None, last: To = None
) -> TradesPage:
    _, result = await finished(world, job_id)
    _of_kind(result, "spec", "a portfolio's trades are those of its parts")
    trace = await asyncio.to_thread(world.traces.of, result)
    part = within(trace.trades.exit_t, first, last)
    start = part.start + offset_of(cursor)
    stop = min(start + limit, part.stop)
    rows = [_trade(trace, k) for k in range(start, stop)]
    return TradesPage(part.stop - part.start, rows, page_cursor(stop - part.start) if stop < part.stop else None)


def _trade(trace: Trace, k: int) -> TradeRow:
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
    )


@get("/api/v1/backtest/{job_id:str}/results", summary="A sweep's parameter sets, ordered by a figure")
async def results(
    job_id: JobId,
    world: World,
    sort: Metric = "sharpe_ratio",
    order: Literal["best", "worst"] = "best",
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page:
    await _sweep(world, job_id)
    path = path_of(sort)
    start = offset_of(cursor)
    descending = (sort not in SMALLER_IS_BETTER) == (order == "best")

    def read() -> tuple[int, list[dict[str, Any]]]:
        found = world.store.sweep_results(job_id, path, descending, limit, start)
        return world.store.count_sweep(job_id), [msgspec.json.decode(one) for one in found]

    total, rows = await asyncio.to_thread(read)
    return Page(rows, page_cursor(start + limit) if start + limit < total else None, total)


@get("/api/v1/backtest/{job_id:str}/heatmap", summary="A figure over two parameters of a sweep")
async def heatmap(job_id: JobId, world: World, metric: Metric = "sharpe_ratio", x: str = "", y: str = "") -> HeatMap:
    """Of the sets that share a cell, the best. `z` is in the figure's own unit, `job_ids` lead to the sets."""
    row = await _sweep(world, job_id)
    return await asyncio.to_thread(_heatmap, world, row, metric, x, y)


def _heatmap(world: World, row: JobRow, metric: str, x: str, y: str) -> HeatMap:
    figures = world.store.sweep_figures(row.job_id, path_of(metric))
    rows = [{"params": params, metric: value} for _, params, value in figures]
    sets = Sets({"spec": spec_from_json(row.spec), "results": rows})
    axes = [name for name in (x, y) if name] or sets.axes[:2] or list(sets.spec.grid)[:1]
    axes = list(dict.fromkeys(axes))
    if len(axes) == 1:
        axes += [name for name in sets.axes if name not in axes][:1] or axes
    (across, xs), (down, ys) = sets.groups(axes[0]), sets.groups(axes[1])
    if axes[0] == axes[1]:
        down, ys = np.zeros(len(rows), dtype=np.int64), [""]
    best: dict[tuple[int, int], int] = {}
    for k in reversed(sets.order(metric)):
        best[int(down[k]), int(across[k])] = k
    cells = [[best.get((j, i)) for i in range(len(xs))] for j in range(len(ys))]
    return HeatMap(
        metric,
        axes[0],
        xs,
        axes[1] if ys != [""] else "",
        ys,
        [[None if k is None else figures[k][2] for k in line] for line in cells],
        [[None if k is None else figures[k][0] for k in line] for line in cells],
    )


@get("/api/v1/backtest/{job_id:str}/report", summary="The report as one HTML page", media_type=MediaType.HTML)
async def report(job_id: JobId, world: World) -> Response[str]:
    row = await world.known_job(job_id)
    text = await asyncio.to_thread(_report, world, row)
    return Response(text, media_type=MediaType.HTML, headers={"Content-Security-Policy": PAGE_POLICY})


def _report(world: World, row: JobRow) -> str:
    if row.state != "done":
        raise Conflict(f"job {row.job_id} is {row.state}: it has no result to show")
    spec = spec_from_json(row.spec)
    if spec.grid:
        from candlemill.report import sweep as pages

        rows = world.store.sweep_results(row.job_id, ("sharpe_ratio",), True, None)
        told = {"job_id": row.job_id, "spec": spec, "results": [msgspec.json.decode(one) for one in rows]}
        return str(pages.page(told | {"guards": msgspec.json.decode(row.figures) if row.figures else None}))
    from candlemill.guards.run import with_guards
    from candlemill.report import run

    result = msgspec.json.decode(world.store.results([row.job_id])[0].result)
    _of_kind(result, "spec", "a portfolio has no report: look at its parts'")
    return str(run.page(with_guards(world.traces.of(result), 1)))


async def finished(world: World, job_id: str) -> tuple[ResultRow, dict[str, Any]]:
    """A finished job's row and result. A sweep's set has them too. Raises UnknownName, Conflict."""
    rows = await asyncio.to_thread(world.store.results, [job_id])
    if rows:
        return rows[0], msgspec.json.decode(rows[0].result)
    row = await world.known_job(job_id)
    if row.state != "done":
        raise Conflict(f"job {job_id} is {row.state}: it has no result yet")
    raise BadInput(f"job {job_id} is a sweep: its sets are under /results, each with a job id of its own")


async def _sweep(world: World, job_id: str) -> JobRow:
    row = await world.known_job(job_id)
    if row.state != "done":
        raise Conflict(f"job {job_id} is {row.state}: it has no results yet")
    if not spec_from_json(row.spec).grid:
        raise BadInput(f"job {job_id} is not a sweep: its result is at /api/v1/backtest/{job_id}")
    return row


def _of_kind(result: dict[str, Any], key: str, advice: str) -> None:
    if "parts" in result or key not in result:
        raise BadInput(advice)


EXPLORE = [equity, months, trades, results, heatmap, report]
