"""The search space of a study: the values of parameters and of a job's options that its trials choose from."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import product
from typing import Any

import msgspec

from candlemill.backtests.grid import parse_axes
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import OPTIONS, ParamValue, Spec
from candlemill.errors import BadInput, UnknownName
from candlemill.pipeline.prepare import validated
from candlemill.strategies import REGISTERED, parameter_fields

DIMENSIONS_LIMIT = 32
# What a trial may choose besides parameters: options that change what is traded, or at what costs.
SEARCHED = (
    "symbol",
    "fee",
    "maker_fee",
    "slippage",
    "stop_loss",
    "take_profit",
    "trailing_stop",
    "fill",
    "timeframe",
    "borrow",
)

Point = dict[str, ParamValue]


class Dimension(msgspec.Struct, frozen=True):
    """Values of a parameter or an option. `ordered`: neighbouring values are alike, as numbers are."""

    name: str
    values: list[ParamValue]
    ordered: bool


def space_of(strategy: str, given: Mapping[str, Sequence[ParamValue]]) -> list[Dimension]:
    """Return the dimensions in alphabetical order. Raises BadInput, and UnknownName for what is neither a parameter of
    the strategy nor one of SEARCHED."""
    fields = list(parameter_fields(REGISTERED[strategy]))
    if not given:
        raise BadInput("a study needs something to vary: give a space, as in --space fast=5:50")
    if len(given) > DIMENSIONS_LIMIT:
        raise BadInput(f"{len(given)} dimensions, the limit is {DIMENSIONS_LIMIT}: vary fewer at a time")
    for name, values in given.items():
        if name not in fields and name not in SEARCHED:
            takes = ", ".join([*fields, *SEARCHED])
            raise UnknownName(
                "parameter or option", name, [*fields, *SEARCHED], f"a study of {strategy} varies {takes}"
            )
        if not len(values):
            raise BadInput(f"{name} has no value: give one or more, like {name}=5:50:5 or {name}=5,10,20")
    return [Dimension(name, list(given[name]), _ordered(given[name])) for name in sorted(given)]


def _ordered(values: Sequence[ParamValue]) -> bool:
    """Return whether values are numbers, or texts of numbers with one unit, in ascending order."""
    numbers = []
    for value in values:
        text = str(value).rstrip("%bpmhdw")
        try:
            numbers.append(Decimal(text))
        except ArithmeticError:
            return False
    units = {str(value)[len(str(value).rstrip("%bpmhdw")) :] for value in values}
    return len(units) == 1 and not any(isinstance(value, bool) for value in values) and numbers == sorted(numbers)


def parse_space(texts: Sequence[str]) -> dict[str, list[ParamValue]]:
    """Parse options like `fast=5:50:5`, `threshold=0.1:0.5:0.1`, `stop_loss=1%:5%:1%` and `timeframe=5m,15m,1h`."""
    return parse_axes(texts, "space", "fast=5:50:5 or stop_loss=1%,2%")


def spec_at(base: Spec, point: Mapping[str, ParamValue]) -> Spec:
    """Return the spec of a point. Raises BadInput where the strategy or the job does not accept it."""
    rest = msgspec.structs.asdict(base)
    span = (rest.pop("start"), rest.pop("end"))
    symbol = str(point.get("symbol", rest.pop("symbol")))
    fields = parameter_fields(REGISTERED[base.strategy])
    params = {**rest.pop("params"), **{name: value for name, value in point.items() if name in fields}}
    options = {
        name: OPTIONS[name].parse(value) for name, value in point.items() if name in OPTIONS and name not in fields
    }
    if "fee" in options and "maker_fee" not in options and base.maker_fee is None:
        options["maker_fee"] = None
    return resolve(symbol=symbol, strategy=rest.pop("strategy"), span=span, params=params, **rest | options)


def checked_points(base: Spec, space: Sequence[Dimension]) -> None:
    """Raise BadInput if a value of the space is refused with every combination of the first others."""
    first = {dimension.name: dimension.values[0] for dimension in space}
    for dimension in space:
        others = [one for one in space if one is not dimension]
        for value in (dimension.values[0], dimension.values[-1]):
            error: BadInput | None = None
            for values in product(*([one.values[0], one.values[-1]] for one in others[:6])):
                point = (
                    first | dict(zip([one.name for one in others[:6]], values, strict=True)) | {dimension.name: value}
                )
                try:
                    validated(spec_at(base, point))
                    break
                except BadInput as refused:
                    error = error or refused
            else:
                raise error or BadInput(f"{dimension.name}={value!r} is refused")


def every_point(space: Mapping[str, Sequence[ParamValue]], limit: int) -> list[Point]:
    """Return all combinations, the last name in alphabetical order changing fastest. Raises BadInput for too many."""
    names = sorted(space)
    count = math.prod(len(space[name]) for name in names)
    if count > limit:
        raise BadInput(f"the grid has {count:,} points with options among them, the limit is {limit:,}: use optimize")
    return [dict(zip(names, values, strict=True)) for values in product(*(space[name] for name in names))]


def points_of(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[ParamValue]], list[Point]]:
    """Return the values of each name in a list of points, and the points. Raises BadInput."""
    if not rows:
        raise BadInput("the list of points is empty: give a row for each, with a column for each parameter")
    names = list(rows[0])
    for k, row in enumerate(rows):
        if set(row) != set(names) or any(value is None or value != value for value in row.values()):
            raise BadInput(f"point {k + 1} has not a value for each of {', '.join(names)}")
    points = [{str(name): row[name] for name in names} for row in rows]
    return {str(name): list(dict.fromkeys(row[name] for row in rows)) for name in names}, points
