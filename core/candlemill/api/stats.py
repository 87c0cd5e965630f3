"""A result's figures by their standard names, in their own units."""

from collections.abc import Mapping
from datetime import UTC, datetime
from math import nan
from typing import Any

from candlemill.backtests.metric_table import METRICS
from candlemill.errors import UnknownName
from candlemill.formatting import Unit, number
from candlemill.tables.runs import divisor_of
from candlemill.units import SCALE

# Titles of the range and the account, which come first; the other figures follow in the order of the metrics' table.
FIRST = ("bars", "missing_minutes", "days", "capital", "total_pnl")


class Stats(dict[str, Any]):
    """Figures by name, in reading order; `texts` has each as text. Undefined figures are NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}

    def put(self, name: str, value: Any, text: str) -> None:
        self[name], self.texts[name] = value, text

    def __missing__(self, name: str) -> Any:
        raise UnknownFigure("figure", name, list(self), f"known are {', '.join(self)}")

    def __repr__(self) -> str:
        width = max(map(len, self))
        return "\n".join(f"{name:<{width}}  {text}" for name, text in self.texts.items())


class UnknownFigure(UnknownName, KeyError):
    """Unknown name of a figure."""


def stats_of(result: Mapping[str, Any]) -> Stats:
    """Return the figures of `result`, which `backtest.result.result_of` makes, or of a portfolio's result."""
    found = Stats()
    for name, ms in (("Start", result["start"]), ("End", result["end"])):
        moment = datetime.fromtimestamp(ms / 1000, UTC)
        found.put(name, moment, moment.strftime("%Y-%m-%d %H:%M"))
    for name, key in (("Bars", "bars"), ("Missing Minutes", "missing_minutes"), ("Days", "days")):
        found.put(name, result[key], number(result[key], Unit.COUNT))
    end = result["capital"] + result["total_pnl"]
    for name, money in (("Start Value", result["capital"]), ("End Value", end), ("Profit", result["total_pnl"])):
        found.put(name, money / SCALE, number(money, Unit.MONEY))
    for row in METRICS:
        place = result.get("metrics") or {} if row.place == "metrics" else result
        if row.place == "guards" or row.key in FIRST or row.key not in place:
            continue
        unit = row.unit_of(result["spec"]["sizing"], "parts" in result)
        value = place[row.key]
        found.put(row.title(unit), in_unit(value, unit), number(value, unit))
    return found


def in_unit(value: int | None, unit: Unit) -> Any:
    """Convert an integer of a result to its own unit: shares in percent, sides as text, NaN if undefined."""
    if unit is Unit.SIDE:
        return number(value, unit)
    if value is None:
        return nan
    return value if unit.scale == 1 else value / divisor_of(unit)
