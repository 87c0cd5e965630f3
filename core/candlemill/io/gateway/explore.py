"""What a finished job has to show: its equity, months and trades; a sweep's sets and heat map."""

import asyncio
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from litestar import MediaType, Response, get
from litestar.params import QueryParameter

from candlemill.campaigns import chosen_of
from candlemill.command import command_of
from candlemill.daily import unpack
from candlemill.engine.tape import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput, UnknownName
from candlemill.io.gateway.answers import Axis, Equity, HeatMap, MonthRow, Months, Page, TradeRow, TradesPage
from candlemill.io.gateway.cursors import offset_of, page_cursor
from candlemill.io.gateway.jobs import JobId
from candlemill.io.gateway.problems import Conflict, told
from candlemill.io.gateway.traces import within
from candlemill.io.gateway.world import World
from candlemill.ledger import JobRow, ResultRow
from candlemill.metrics import monthly
from candlemill.model import LAST_MS, spec_from_json
from candlemill.portfolio import profits_of
from candlemill.ranking import SMALLER_IS_BETTER, path_of
from candlemill.report.pivot import Sets
from candlemill.report.series import holding, underwater
from candlemill.report.thin import extremes
from candlemill.states import request_of
from candlemill.trace import Reason, Trace

# A report carries its own scripts: they run nowhere but in it, and may ask nobody.
PAGE_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)

Points = Annotated[int, QueryParameter(ge=10, le=20_000, description="about how many points to draw")]
From = Annotated[int, QueryParameter(name="from", ge=0, le=LAST_MS, description="UTC ms, included")]
To = Annotated[int, QueryParameter(name="to", ge=0, le=LAST_MS, description="UTC ms, included")]
Limit = Annotated[int, QueryParameter(ge=1, le=1_000)]
Cursor = Annotated[str, QueryParameter(max_length=100, description="`next` of the page before")]
Metric = Annotated[str, QueryParameter(pattern="^[a-z_]{1,40}$")]


@get(
    "/api/v1/backtest/{job_id:str}/equity",
    summary="Profit and drawdown over time, thinned without losing extremes",
    responses=told(404, 409, 422),
)
async def equity(job_id: JobId, world: World, points: Points = 1_000, first: From = 0, last: To = LAST_MS) -> Equity:
    row, result = await finished(world, job_id)
    if "parts" in result:
        return await asyncio.to_thread(_daily_equity, row, result, points)
    trace = await asyncio.to_thread(world.traces.of, result)
    return await asyncio.to_thread(_equity, trace, points, first, last)


def _equity(trace: Trace, points: int, first: int, last: int) -> Equity:
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


@get("/api/v1/backtest/{job_id:str}/monthly", summary="Profit by month", responses=told(404, 409, 422))
async def months(job_id: JobId, world: World) -> Months:
    row, result = await finished(world, job_id)
    days, daily = unpack(row.daily)
    found = monthly(days, profits_of(result, daily), result["capital"])
    return Months([MonthRow(month.year, month.month, month.profit, month.gain) for month in found])


@get("/api/v1/backtest/{job_id:str}/trades", summary="Closed trades", responses=told(404, 409, 422))
async def trades(
    job_id: JobId,
    world: World,
    limit: Limit = 100,
    cursor: Cursor = "",
    first: From = 0,
    last: To = LAST_MS,
    sort: Literal["exit", "pnl", "size"] = "exit",
    order: Literal["asc", "desc"] = "asc",
) -> TradesPage:
    """Those that were open at some time from `from` to `to`, by their exits, profits, or sizes of profit or loss."""
    _, result = await finished(world, job_id)
    trace = await asyncio.to_thread(_trace, world, result)
    of = trace.trades
    open_then = (of.exit_t >= first) & (of.entry_t <= last)
    found = np.flatnonzero(open_then)
    if sort != "exit":
        by = of.profit[found] if sort == "pnl" else np.abs(of.profit[found])
        found = found[np.argsort(by, kind="stable")]
    found = found if order == "asc" else found[::-1]
    start = offset_of(cursor)
    rows = [_trade(trace, k) for k in found[start : start + limit].tolist()]
    return TradesPage(len(found), rows, page_cursor(start + limit) if start + limit < len(found) else None)


def _trace(world: World, result: dict[str, Any]) -> Trace:
    """Blocking. Raises BadInput for a portfolio."""
    if "parts" in result:
        raise BadInput("a portfolio has no minutes of its own: look at its parts")
    return world.traces.of(result)


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


@get(
    "/api/v1/backtest/{job_id:str}/results",
    summary="A sweep's parameter sets, ordered by a figure",
    responses=told(404, 409, 422),
)
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


@get(
    "/api/v1/backtest/{job_id:str}/heatmap",
    summary="A figure over two parameters of a sweep",
    responses=told(404, 409, 422),
)
async def heatmap(
    job_id: JobId,
    world: World,
    metric: Metric = "sharpe_ratio",
    x: str = "",
    y: str = "",
    over: Literal["best", "mean"] = "best",
) -> HeatMap:
    """Of the sets that share a cell, the best or the mean. `z` is scaled as the figure is in a result."""
    row = await _sweep(world, job_id)
    return await asyncio.to_thread(_heatmap, world, row, metric, [name for name in (x, y) if name], over)


def _heatmap(world: World, row: JobRow, metric: str, axes: list[str], over: str) -> HeatMap:
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
        return None if not known else known[0] if over == "best" else sum(known) // len(known)

    grid = [[cells.get((j, i)) for i in range(len(xs))] for j in range(len(ys))]
    return HeatMap(
        metric,
        "low" if metric in SMALLER_IS_BETTER else "high",
        Axis(axes[0], xs),
        Axis(axes[1] if len(axes) > 1 else None, ys),
        [[value(members) for members in line] for line in grid],
        [[figures[members[0]][0] if members else None for members in line] for line in grid],
    )


@get(
    "/api/v1/backtest/{job_id:str}/report",
    summary="The report as one HTML page",
    media_type=MediaType.HTML,
    responses=told(404, 409, 422),
)
async def report(job_id: JobId, world: World, download: bool = False) -> Response[str]:
    row = await world.job(job_id)
    if row is not None and row.state == "done" and row.kind == "sweep":
        text = await asyncio.to_thread(_sweep_report, world, row)
    else:
        _, result = await finished(world, job_id)
        text = await asyncio.to_thread(_report, world, row, result)
    headers = {"Content-Security-Policy": PAGE_POLICY}
    if download:
        headers["Content-Disposition"] = f'attachment; filename="candlemill-{job_id[:12]}.html"'
    return Response(text, media_type=MediaType.HTML, headers=headers)


def _sweep_report(world: World, row: JobRow) -> str:
    from candlemill.report import sweep as pages

    found = world.store.sweep_results(row.job_id, ("sharpe_ratio",), True, None)
    told = {"job_id": row.job_id, "spec": spec_from_json(row.spec)}
    told |= {"results": [msgspec.json.decode(one) for one in found], "guards": _guards(row)}
    return str(pages.page(told))


def _guards(row: JobRow | None) -> Any:
    return msgspec.json.decode(row.figures) if row is not None and row.figures else None


def _report(world: World, row: JobRow | None, result: dict[str, Any]) -> str:
    trace = _trace(world, result)
    if row is not None and row.kind == "walk_forward":
        from candlemill.report import walk

        chosen = chosen_of(row)
        told = {"folds": chosen.folds, "trace": trace, "score": chosen.score}
        told |= {"guards": _guards(world.store.job(chosen.sweep_id)), "command": _command(row)}
        return str(walk.page(told))
    from candlemill.guards.run import with_guards
    from candlemill.report import run

    return str(run.page(with_guards(trace, 1)))


def _command(row: JobRow) -> str:
    """The command line of a walk-forward."""
    wanted = request_of(row)
    walk = wanted.walk_forward if wanted is not None else None
    asked = {} if walk is None else {"train": walk.train, "test": walk.test, "score": walk.score}
    if walk is not None and walk.anchored:
        asked["anchored"] = ""
    return command_of(spec_from_json(row.spec), "walk-forward", **asked)


async def finished(world: World, job_id: str) -> tuple[ResultRow, dict[str, Any]]:
    """A finished job's row and result: a set of a sweep has them too, a walk-forward has those of the run of its
    choices. Raises UnknownName, Conflict."""
    found = await asyncio.to_thread(world.result, job_id)
    if found is None:
        row = await world.known_job(job_id)
        if row.state != "done":
            raise Conflict(f"job {job_id} is {row.state}: it has no result yet")
        if row.kind == "sweep":
            raise BadInput(f"job {job_id} is a sweep: its sets are under /results, each with a job id of its own")
        found = await asyncio.to_thread(world.result, chosen_of(row).job_id)
    if found is None:
        raise UnknownName("result", job_id, [], "ask for the job again")
    return found, msgspec.json.decode(found.result)


async def _sweep(world: World, job_id: str) -> JobRow:
    row = await world.known_job(job_id)
    if row.state != "done":
        raise Conflict(f"job {job_id} is {row.state}: it has no results yet")
    if row.kind != "sweep":
        raise BadInput(f"job {job_id} is not a sweep: its result is at /api/v1/backtest/{job_id}")
    return row


EXPLORE = [equity, months, trades, results, heatmap, report]
