"""What jobs can be asked for: symbols with their candles, strategies with their parameters."""

import asyncio
from typing import Annotated

import numpy as np
from litestar import get
from litestar.params import PathParameter

from candlemill.engine.tape import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput, UnknownName
from candlemill.io.gateway.answers import (
    CalendarDay,
    Candles,
    Strategies,
    StrategyTold,
    SymbolDays,
    Symbols,
    SymbolTold,
)
from candlemill.io.gateway.explore import From, Points, To
from candlemill.io.gateway.problems import told
from candlemill.io.gateway.world import World
from candlemill.model import LAST_MS
from candlemill.plan import Day
from candlemill.report.thin import candle_rows, step_for
from candlemill.show import missing_of, summary_of
from candlemill.strategies import REGISTERED
from candlemill.strategies.registry import properties_of

SymbolName = Annotated[str, PathParameter(min_length=1, max_length=64, description="like BTCUSDT")]
ROWS_LIMIT = 6_000_000


@get("/api/v1/symbols", summary="Which candles are stored", responses=told())
async def symbols(world: World) -> Symbols:
    def told() -> list[SymbolTold]:
        return [_told(name, days) for name in world.index.symbols() if (days := list(world.index.days(name)))]

    return Symbols(await asyncio.to_thread(told))


def _told(name: str, days: list[Day]) -> SymbolTold:
    rows = sum(day.rows for day in days)
    return SymbolTold(name, days[0].first, days[-1].last, rows, missing_of(days), len(days))


@get("/api/v1/symbols/{symbol:str}", summary="A symbol's candles day by day", responses=told(404))
async def symbol_days(symbol: SymbolName, world: World) -> SymbolDays:
    days = await asyncio.to_thread(known_days, world, symbol)
    first, last = days[0].first, days[-1].last

    def missing(day: Day) -> int:
        start, end = max(day.start, first), min(day.start + DAY_MS, last + MINUTE_MS)
        return (end - start) // MINUTE_MS - day.rows

    return SymbolDays(_told(symbol, days), [CalendarDay(day.start, day.rows, missing(day)) for day in days])


def known_days(world: World, symbol: str) -> list[Day]:
    days = list(world.index.days(symbol))
    if not days:
        raise UnknownName("symbol", symbol, world.index.symbols(), "GET /api/v1/symbols lists what is stored")
    return days


@get(
    "/api/v1/symbols/{symbol:str}/candles",
    summary="Candles, put together until they are few enough to draw",
    responses=told(404, 422),
)
async def candles(
    symbol: SymbolName, world: World, points: Points = 1_000, first: From = 0, last: To = LAST_MS
) -> Candles:
    """Of `minutes` each, aligned to UTC; only those that have a trade."""
    return await asyncio.to_thread(_candles, world, symbol, points, first, last)


def _candles(world: World, symbol: str, points: int, first: int, last: int) -> Candles:
    days, scale = known_days(world, symbol), world.index.volume_scale(symbol)
    start = max(days[0].first, first)
    end = min(days[-1].last, last) + MINUTE_MS
    if start >= end:
        return Candles(1, scale, [], [], [], [], [], [])
    if (end - start) // MINUTE_MS > ROWS_LIMIT:
        raise BadInput(f"{(end - start) // MINUTE_MS:,} minutes are more than {ROWS_LIMIT:,}: ask for a shorter range")
    names = ("open", "high", "low", "close", "volume")
    columns = world.store.read_columns(symbol, start, end, names)
    if not len(columns["t"]):
        return Candles(1, scale, [], [], [], [], [], [])
    step = step_for(columns["t"], points)
    t, *prices = candle_rows(step, columns["t"], *(columns[name] for name in names[:4]))
    volume = np.add.reduceat(columns["volume"], np.searchsorted(columns["t"], t))
    open_, high, low, close = (price.tolist() for price in prices)
    return Candles(step, scale, t.tolist(), open_, high, low, close, volume.tolist())


@get("/api/v1/strategies", summary="Strategies and the JSON Schema of their parameters", responses=told())
async def strategies() -> Strategies:
    found = []
    for name in sorted(REGISTERED):
        kind = REGISTERED[name]
        schema = {"type": "object", "properties": properties_of(kind), "additionalProperties": False}
        found.append(StrategyTold(name, summary_of(kind), schema))
    return Strategies(found)


MARKET = [symbols, symbol_days, candles, strategies]
