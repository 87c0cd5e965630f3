"""Responses with decimal texts: scaled integers become text like "53278.69", for clients without 64-bit integers."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from litestar.params import QueryParameter

from candlemill.backtests.metric_table import BY_KEY
from candlemill.backtests.spec import AMOUNTS
from candlemill.formatting import exact
from candlemill.units import SCALE

T = TypeVar("T")

Form = Annotated[
    Literal["scaled", "decimal"],
    QueryParameter(name="as", description="`decimal`: what is times 10^8 as decimal text, shares too"),
]

SCALED = frozenset({
    *(row.key for row in BY_KEY.values() if row.unit.scale == SCALE), *AMOUNTS, "pnl", "entry_price", "exit_price",
    "first_open", "last_close", "equity", "drawdown", "benchmark", "open", "high", "low", "close",
})  # fmt: skip
APART = frozenset({"params", "grid", "request", "plan", "x", "y"})  # names and values that the user chose
ENDS = ("actual", "low", "median", "high")


def shaped(found: T, form: str) -> T:
    """Return a response in the form that the request selects."""
    return found if form == "scaled" else cast(T, decimals(msgspec.to_builtins(found)))


def decimals(value: Any, key: str = "") -> Any:
    """Replace scaled integers in builtins by decimal texts."""
    if isinstance(value, Mapping):
        if key in APART or (key == "best" and "job_id" not in value):
            return value
        if key == "weights":
            return {name: exact(weight) for name, weight in value.items()}
        if value.keys() == set(ENDS):  # an interval of the figure `key`
            return {end: _number(key, x) for end, x in value.items()}
        if "z" in value:
            return {**value, "z": [[_number(value["metric"], x) for x in row] for row in value["z"]]}
        if "volume_scale" in value and "volume" in value:
            volumes = [exact(x * SCALE // value["volume_scale"]) for x in value["volume"]]
            return {name: decimals(x, name) for name, x in value.items()} | {"volume": volumes}
        return {name: decimals(x, name) for name, x in value.items()}
    if isinstance(value, list):
        if key == "table":  # of costs: pairs of a fee in ppm and the profit at that fee
            return [[fee, exact(profit)] for fee, profit in value]
        return [decimals(x, key) for x in value]
    return _number(key, value)


def _number(key: str, value: Any) -> Any:
    return exact(value) if key in SCALED and type(value) is int else value
