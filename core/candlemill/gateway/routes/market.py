"""Routes of the inputs of jobs: symbols with their candles, strategies with their parameters."""

import asyncio
from typing import Annotated

import numpy as np
from litestar import get
from litestar.di import NamedDependency
from litestar.params import PathParameter

from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput, UnknownName
from candlemill.gateway.decimals import Form, shaped
from candlemill.gateway.job_service import JobService
from candlemill.gateway.problems import problem_responses
from candlemill.gateway.routes.results import From, Points, To
from candlemill.gateway.schemas.market import (
    CalendarDay,
    Candles,
    Strategies,
    StrategyDetails,
    SymbolDays,
    SymbolDetails,
    Symbols,
)
from candlemill.report.thin import candle_rows, step_for
from candlemill.store.integrity import read_checked
from candlemill.stored_days import Day, missing_of
from candlemill.strategies import REGISTERED
from candlemill.strategies.registry import properties_of, summary_of
from candlemill.units import LAST_MS

SymbolName = Annotated[str, PathParameter(min_length=1, max_length=64, description="like BTCUSDT")]
ROWS_LIMIT = 6_000_000


@get("/api/v1/symbols", summary="Symbols with stored candles", responses=problem_responses())
async def symbols(world: NamedDependency[JobService]) -> Symbols:
    def found() -> list[SymbolDetails]:
        return [_details(name, days) for name in world.index.symbols() if (days := list(world.index.days(name)))]

    return Symbols(await asyncio.to_thread(found))


def _details(name: str, days: list[Day]) -> SymbolDetails:
    rows = sum(day.rows for day in days)
    return SymbolDetails(name, days[0].first, days[-1].last, rows, missing_of(days), len(days))


@get("/api/v1/symbols/{symbol:str}", summary="A symbol's candles day by day", responses=problem_responses(404))
async def symbol_days(symbol: SymbolName, world: NamedDependency[JobService]) -> SymbolDays:
    days = await asyncio.to_thread(known_days, world, symbol)
    first, last = days[0].first, days[-1].last

    def missing(day: Day) -> int:
        start, end = max(day.start, first), min(day.start + DAY_MS, last + MINUTE_MS)
        return (end - start) // MINUTE_MS - day.rows

    return SymbolDays(_details(symbol, days), [CalendarDay(day.start, day.rows, missing(day)) for day in days])


def known_days(world: JobService, symbol: str) -> list[Day]:
    days = list(world.index.days(symbol))
    if not days:
        raise UnknownName("symbol", symbol, world.index.symbols(), "GET /api/v1/symbols lists what is stored")
    return days


@get(
    "/api/v1/symbols/{symbol:str}/candles",
    summary="Candles, merged to few enough for a chart",
    responses=problem_responses(404, 422),
)
async def candles(
    symbol: SymbolName,
    world: NamedDependency[JobService],
    points: Points = 1_000,
    first: From = 0,
    last: To = LAST_MS,
    form: Form = "scaled",
) -> Candles:
    """Return candles of `minutes` each, aligned to UTC, without those that have no minute stored."""
    return shaped(await asyncio.to_thread(_candles, world, symbol, points, first, last), form)


def _candles(world: JobService, symbol: str, points: int, first: int, last: int) -> Candles:
    days, scale = known_days(world, symbol), world.index.volume_scale(symbol)
    start = max(days[0].first, first)
    end = min(days[-1].last, last) + MINUTE_MS
    if start >= end:
        return Candles(1, scale, [], [], [], [], [], [])
    if (end - start) // MINUTE_MS > ROWS_LIMIT:
        raise BadInput(f"{(end - start) // MINUTE_MS:,} minutes are more than {ROWS_LIMIT:,}: ask for a shorter range")
    names = ("open", "high", "low", "close", "volume")
    columns = read_checked(world.store, symbol, start, end, names)
    if not len(columns["t"]):
        return Candles(1, scale, [], [], [], [], [], [])
    step = step_for(columns["t"], points)
    t, *prices = candle_rows(step, columns["t"], *(columns[name] for name in names[:4]))
    volume = np.add.reduceat(columns["volume"], np.searchsorted(columns["t"], t))
    open_, high, low, close = (price.tolist() for price in prices)
    return Candles(step, scale, t.tolist(), open_, high, low, close, volume.tolist())


@get("/api/v1/strategies", summary="Strategies and the JSON Schema of their parameters", responses=problem_responses())
async def strategies() -> Strategies:
    found = []
    for name in sorted(REGISTERED):
        kind = REGISTERED[name]
        schema = {"type": "object", "properties": properties_of(kind), "additionalProperties": False}
        found.append(StrategyDetails(name, summary_of(kind), schema))
    return Strategies(found)


MARKET = [symbols, symbol_days, candles, strategies]
