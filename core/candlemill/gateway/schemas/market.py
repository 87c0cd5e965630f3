"""Responses about stored candles, and the strategies that can trade them."""

from typing import Any

import msgspec

from candlemill.gateway.schemas.units import Moment, Price, Volume


class SymbolDetails(msgspec.Struct, frozen=True):
    symbol: str
    first_ms: Moment
    last_ms: Moment
    bars: int
    missing_minutes: int
    days: int


class Symbols(msgspec.Struct, frozen=True):
    symbols: list[SymbolDetails]


class CalendarDay(msgspec.Struct, frozen=True):
    """`day` is its midnight; `missing` minutes are counted from the symbol's first candle to its last."""

    day: int
    rows: int
    missing: int


class SymbolDays(msgspec.Struct, frozen=True):
    symbol: SymbolDetails
    calendar: list[CalendarDay]


class Candles(msgspec.Struct, frozen=True):
    """Columns of candles of `minutes` each; volumes are scaled by `volume_scale`."""

    minutes: int
    volume_scale: int
    t: list[Moment]
    open: list[Price]
    high: list[Price]
    low: list[Price]
    close: list[Price]
    volume: list[Volume]


class StrategyDetails(msgspec.Struct, frozen=True):
    name: str
    summary: str
    schema: dict[str, Any]


class Strategies(msgspec.Struct, frozen=True):
    strategies: list[StrategyDetails]
