"""The tools that assistants are offered, over the Model Context Protocol: each is one or two calls of the REST
interface, so it has its checks, limits and errors. Money, ratios and shares come as decimal text."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from candlemill._version import __version__
from candlemill.assistants.caller import Caller, ask
from candlemill.backtests.tiers import MILLION
from candlemill.errors import CandlemillError
from candlemill.units import SCALE

INSTRUCTIONS = """Exact backtests over one-minute crypto candles. Begin with `coverage` and `strategies`. Rates are
texts like 0.1% or 10bp, ranges like 2023, 2023-05 or 2023-01-01..2023-06-30. Numbers in results are decimal texts;
shares are fractions of 1. Many parameter sets make a good best one by luck: read the guards of a sweep before its best
set."""
WAIT_LIMIT = 60
POLL_SECONDS = 0.25
PARTS_SHOWN = 20
SCALED = ("price", "stop", "take", "quantity", "equity")  # of a decision, its orders and fills
SHARES = ("target", "exposure", "size", "part")

Params = Annotated[dict[str, Any], Field(description="of the strategy, such as {'fast': 10}; see `strategies`")]
Grid = Annotated[dict[str, Any], Field(description="values of parameters: {'fast': [5, 10], 'slow': '20:100:20'}")]
Options = Annotated[
    dict[str, Any],
    Field(
        description="such as fee, slippage, stop_loss, take_profit, trailing_stop (rates like '0.1%'), "
        "timeframe ('15m'), sizing, quantity, capital (decimal texts), account ('cash'), fill ('close')"
    ),
]
Range = Annotated[str, Field(description="2023, 2023-05, 2023-01-01..2023-06-30 or all")]
JobId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Wait = Annotated[int, Field(ge=0, le=WAIT_LIMIT, description="seconds to wait for the end")]
Some = Annotated[int, Field(ge=1, le=100)]

READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)
COMPUTES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


def server(caller: Caller, allow_jobs: bool) -> MCPServer:
    """Return the server: with the tools that read, and with `allow_jobs` those that compute and write."""
    made = MCPServer("candlemill", version=__version__, instructions=INSTRUCTIONS, log_level="WARNING")
    for tool in _Reading(caller).tools():
        made.tool(annotations=READS)(_plain_errors(tool))
    if allow_jobs:
        for tool in _Computing(caller).tools():
            made.tool(annotations=COMPUTES)(_plain_errors(tool))
    return made


def _plain_errors(tool: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Hand this program's errors to the assistant, as their one line."""
    from functools import wraps

    @wraps(tool)
    async def called(*arguments: Any, **named: Any) -> Any:
        try:
            return await tool(*arguments, **named)
        except CandlemillError as error:
            raise ToolError(str(error)) from None

    return called


class _Reading:
    """Tools that read what is stored."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def tools(self) -> list[Callable[..., Awaitable[Any]]]:
        return [
            self.coverage, self.strategies, self.figures, self.plan, self.jobs, self.result, self.sets, self.trades,
            self.picture, self.paper,
        ]  # fmt: skip

    async def coverage(self) -> dict[str, Any]:
        """List the symbols that have candles: first and last minute (UTC ms), candles, missing minutes."""
        found: dict[str, Any] = await ask(self._caller, "GET", "symbols")
        return found

    async def strategies(self) -> dict[str, Any]:
        """List the strategies with the JSON Schema of their parameters."""
        found: dict[str, Any] = await ask(self._caller, "GET", "strategies")
        return found

    async def figures(self) -> dict[str, Any]:
        """List the figures of results: key, name, unit, better direction, definition."""
        found: dict[str, Any] = await ask(self._caller, "GET", "metrics")
        return found

    async def plan(
        self,
        symbol: str,
        strategy: str,
        range: Range = "all",
        params: Params = {},  # noqa: B006
        grid: Grid = {},  # noqa: B006
        options: Options = {},  # noqa: B006
    ) -> dict[str, Any]:
        """Say what a backtest or sweep would do, without doing it: bars, sets, seconds, what is stored already."""
        body = request_body(symbol, strategy, range, params, grid, options)
        found: dict[str, Any] = await ask(self._caller, "POST", "plan", body=body)
        return found

    async def jobs(
        self,
        symbol: str = "",
        strategy: str = "",
        kind: Literal["", "backtest", "sweep", "portfolio", "walk_forward", "study"] = "",
        text: Annotated[str, Field(description="words in label, note or tag")] = "",
        tags: list[str] = [],  # noqa: B006
        params: Annotated[list[str], Field(description="like fast=10")] = [],  # noqa: B006
        where: Annotated[list[str], Field(description="like sharpe_ratio>1.5 or return>20%")] = [],  # noqa: B006
        since: Annotated[str, Field(description="day, month or year of the request")] = "",
        until: str = "",
        limit: Some = 20,
    ) -> dict[str, Any]:
        """Find jobs, the latest first. All terms must hold."""
        query = {
            "symbol": symbol, "strategy": strategy, "kind": kind, "text": text, "tag": tags, "param": params,
            "where": where, "since": since, "until": until, "limit": limit, "as": "decimal",
        }  # fmt: skip
        found: dict[str, Any] = await ask(self._caller, "GET", "backtests", query)
        return found

    async def result(self, job_id: JobId) -> dict[str, Any]:
        """Show a job: its state, request and result; of a sweep the best sets and the guards against luck."""
        return await job_of(self._caller, job_id)

    async def sets(
        self,
        job_id: JobId,
        sort: Annotated[str, Field(description="a figure's key")] = "sharpe_ratio",
        order: Literal["best", "worst"] = "best",
        limit: Some = 10,
    ) -> dict[str, Any]:
        """List a sweep's parameter sets by a figure. Each has a job id of its own."""
        query = {"sort": sort, "order": order, "limit": limit, "as": "decimal"}
        found: dict[str, Any] = await ask(self._caller, "GET", f"backtest/{job_id}/results", query)
        return found | {"items": [_short(one) for one in found["items"]]}

    async def trades(
        self,
        job_id: JobId,
        sort: Literal["exit", "pnl", "size"] = "exit",
        order: Literal["asc", "desc"] = "asc",
        limit: Some = 20,
    ) -> dict[str, Any]:
        """List closed trades of a run, by exit, profit, or size of profit or loss."""
        query = {"sort": sort, "order": order, "limit": limit, "as": "decimal"}
        found: dict[str, Any] = await ask(self._caller, "GET", f"backtest/{job_id}/trades", query)
        return found

    async def paper(
        self,
        run: Annotated[str, Field(pattern="^([0-9a-f]{6,32})?$", description="a run's id; empty for all runs")] = "",
        limit: Annotated[Some, Field(description="how many decisions of one run")] = 20,
    ) -> dict[str, Any]:
        """List paper runs with their last decision, or one run's decisions, the newest first. Exposures and targets are
        fractions of the account; of a minute (UTC ms) the decision with the highest attempt is valid. No order is
        real."""
        if run:
            found = await ask(self._caller, "GET", f"paper/{run}", {"limit": limit})
            return {"run": _readable(found["run"]), "decisions": [_decimals(one) for one in found["decisions"]]}
        found = await ask(self._caller, "GET", "paper")
        return {"runs": [_readable(one) for one in found["runs"]]}

    async def picture(
        self,
        job_id: JobId,
        metric: Annotated[str, Field(description="of a sweep's heat map")] = "sharpe_ratio",
    ) -> Image:
        """Draw a run's equity and drawdown beside buy and hold; of a sweep the heat map of a figure."""
        from candlemill.assistants import pictures

        job = await ask(self._caller, "GET", f"backtest/{job_id}")
        if job["kind"] == "sweep":
            cells = await ask(self._caller, "GET", f"backtest/{job_id}/heatmap", {"metric": metric})
            return Image(data=await asyncio.to_thread(pictures.heat_map, cells), format="png")
        curve = await ask(self._caller, "GET", f"backtest/{job_id}/equity", {"points": 1_000})
        return Image(data=await asyncio.to_thread(pictures.equity, curve, job), format="png")


class _Computing:
    """Tools that compute, and that write notes."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def tools(self) -> list[Callable[..., Awaitable[Any]]]:
        return [self.backtest, self.sweep, self.optimize, self.check, self.cancel, self.label]

    async def backtest(
        self,
        symbol: str,
        strategy: str,
        range: Range = "all",
        params: Params = {},  # noqa: B006
        options: Options = {},  # noqa: B006
        wait: Wait = 30,
    ) -> dict[str, Any]:
        """Run a strategy; several symbols ("BTCUSDT,ETHUSDT" or "*USDT") are a portfolio. What is stored is not run
        again. Returns the result, or the progress if it takes longer than `wait`: ask `result` then."""
        return await self._run(request_body(symbol, strategy, range, params, {}, options), wait)

    async def sweep(
        self,
        symbol: str,
        strategy: str,
        grid: Grid,
        range: Range = "all",
        params: Params = {},  # noqa: B006
        options: Options = {},  # noqa: B006
        wait: Wait = 30,
    ) -> dict[str, Any]:
        """Run a strategy for every combination of a grid. Returns the best sets, and how much of them may be luck."""
        return await self._run(request_body(symbol, strategy, range, params, grid, options), wait)

    async def optimize(
        self,
        symbol: str,
        strategy: str,
        space: Annotated[
            dict[str, Any],
            Field(description="what varies: {'fast': '5:50', 'stop_loss': '1%:5%:1%', 'timeframe': ['5m', '15m']}"),
        ],
        trials: Annotated[int, Field(ge=1, le=1_000)] = 50,
        range: Range = "all",
        params: Params = {},  # noqa: B006
        options: Options = {},  # noqa: B006
        sampler: Literal["tpe", "random", "cmaes", "grid"] = "tpe",
        score: Annotated[str, Field(description="a figure's key, see `figures`")] = "sharpe_ratio",
        seed: Annotated[int, Field(ge=0)] = 1,
        wait: Wait = 30,
    ) -> dict[str, Any]:
        """Search by trials, each chosen by the results of those before. Returns the best trial, and how much of it may
        be luck: every trial counts against it. The same request goes on with the same study."""
        own = {"space": space, "trials": trials, "sampler": sampler, "score": score, "seed": seed}
        if twice := own.keys() & options.keys():
            raise ToolError(f"{min(twice)} is an argument of its own, not one of the options")
        return await self._run(request_body(symbol, strategy, range, params, {}, options) | own, wait, "optimize")

    async def check(
        self,
        strategy: str,
        params: Params = {},  # noqa: B006
        seconds: Annotated[float, Field(gt=0, le=30)] = 3.0,
    ) -> dict[str, Any]:
        """Check a built-in strategy for look-ahead, hidden state and dependence on slicing, on synthetic markets."""
        from candlemill.assistants.checking import check_built_in

        return await asyncio.to_thread(check_built_in, strategy, params, seconds)

    async def cancel(self, job_id: JobId) -> dict[str, Any]:
        """Cancel a job that runs. What is done of it is kept."""
        found: dict[str, Any] = await ask(self._caller, "POST", f"backtest/{job_id}/cancel")
        return found

    async def label(
        self,
        job_id: JobId,
        label: str = "",
        note: str = "",
        tags: list[str] = [],  # noqa: B006
    ) -> dict[str, Any]:
        """Replace a job's label, note and tags."""
        body = {"label": label, "note": note, "tags": tags}
        found: dict[str, Any] = await ask(self._caller, "PUT", f"backtest/{job_id}/notes", body=body)
        return found

    async def _run(self, body: dict[str, Any], wait: int, path: str = "backtest") -> dict[str, Any]:
        accepted = await ask(self._caller, "POST", path, body=body)
        end = time.monotonic() + wait
        while True:
            job = await job_of(self._caller, accepted["job_id"])
            if job["state"] in ("done", "failed", "cancelled") or time.monotonic() >= end:
                return job
            await asyncio.sleep(POLL_SECONDS)


def request_body(
    symbol: str, strategy: str, range: str, params: dict[str, Any], grid: dict[str, Any], options: dict[str, Any]
) -> dict[str, Any]:
    """Return the body of a request. Raises ToolError for an option that is an argument of its own."""
    own = {"symbol": symbol, "strategy": strategy, "range": range, "params": params, "grid": grid}
    if twice := own.keys() & options.keys():
        raise ToolError(f"{min(twice)} is an argument of its own, not one of the options")
    return {**options, **own}


async def job_of(caller: Caller, job_id: str) -> dict[str, Any]:
    """Return a job without what is long and seldom read: its full spec, its links, and the parts beyond the first."""
    job: dict[str, Any] = await ask(caller, "GET", f"backtest/{job_id}", {"as": "decimal"})
    kept = {name: job[name] for name in ("job_id", "kind", "state", "reason", "progress", "request")}
    return kept | {"result": None if job["result"] is None else _short(job["result"])}


def _readable(run: dict[str, Any]) -> dict[str, Any]:
    """Return a paper run with decimal texts in its last decision."""
    return run | {"last": run["last"] and _decimals(run["last"])}


def _decimals(given: Any) -> Any:
    """Return a decision, or a part of one, with decimal texts of its prices, money and exposures."""
    if isinstance(given, list):
        return [_decimals(one) for one in given]
    if not isinstance(given, dict):
        return given
    scales = {**dict.fromkeys(SCALED, SCALE), **dict.fromkeys(SHARES, MILLION)}
    return {
        name: str(Decimal(value) / scales[name]) if name in scales and value is not None else _decimals(value)
        for name, value in given.items()
    }


def _short(result: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in result.items() if name not in ("spec", "sharpe_recipe", "part_digests")}
    if "trials" in found:  # a study: its best trial, and how many there were
        trials, best = found["trials"], found["best"]
        found |= {"trials": len(trials), "best": None if best is None else trials[best]}
    for name in ("parts", "best"):
        if isinstance(found.get(name), list):
            found[name] = [_short(one) for one in found[name][:PARTS_SHOWN]]
    return found
