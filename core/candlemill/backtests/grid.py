"""Parameter grids: parse their text, list the points of a grid, convert parameter values to their types."""

import itertools
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

import msgspec

from candlemill.backtests.spec import SPEC_BYTES_LIMIT, ParamValue, Spec
from candlemill.errors import BadInput, BadStrategy
from candlemill.strategies import REGISTERED, Strategy, build, parameter_fields
from candlemill.strategies.described import Described
from candlemill.strategies.panels import PanelStrategy
from candlemill.strategies.registry import check_finite
from candlemill.strategies.schedule import ScheduledPanel, scheduled

SETS_LIMIT = 1_000_000
_NUMBER = re.compile(r"(-?[0-9]{1,18}(?:\.[0-9]{1,18})?)(%|bp|ppm|[mhdw])?")


def grid_points(spec: Spec, first: int, count: int) -> Iterator[tuple[int, dict[str, ParamValue], Strategy]]:
    """Return the valid parameter sets among grid points `first` to `first + count - 1`, each with its index.

    A point that the strategy rejects (fast >= slow) is skipped. Points are numbered with the parameters in alphabetical
    order, because the keys of a JSON object have no defined order.
    """
    if spec.schedule:
        if first == 0:
            yield 0, {}, _scheduled(spec)
        return
    names = sorted(spec.grid)
    for index in range(first, min(first + count, spec.combinations)):
        values = _grid_point([spec.grid[name] for name in names], index)
        try:
            strategy = build(spec.strategy, {**spec.params, **dict(zip(names, values, strict=True))})
        except BadInput as error:
            if not names or isinstance(error, BadStrategy):
                raise
            continue
        yield index, parameters_of(strategy), strategy


def _scheduled(spec: Spec) -> Strategy:
    strategies = tuple(build(spec.strategy, dict(leg.params)) for leg in spec.schedule)
    starts = tuple(leg.start for leg in spec.schedule)
    panels = tuple(strategy for strategy in strategies if isinstance(strategy, PanelStrategy))
    return ScheduledPanel(starts, panels) if panels else scheduled(spec.timeframe, starts, strategies)


def _grid_point(axes: list[list[ParamValue]], index: int) -> list[ParamValue]:
    """Return the `index`-th combination; the last axis changes fastest."""
    values = []
    for axis in reversed(axes):
        index, k = divmod(index, len(axis))
        values.append(axis[k])
    return values[::-1]


def parameters_of(strategy: Strategy) -> dict[str, ParamValue]:
    """Return all parameters by their public names, with defaults."""
    if isinstance(strategy, Described):
        return dict(strategy.parameters)
    return {name: getattr(strategy, field) for name, field in parameter_fields(type(strategy)).items()}


def _typed_values(strategy: str, name: str, values: Sequence[object]) -> list[ParamValue]:
    """Convert the values of parameter `name` to its type. Each value is checked alone, without the other parameters.

    Raises UnknownName for the strategy and the parameter, BadInput for a value out of bounds.
    """
    if strategy not in REGISTERED:
        build(strategy, {})  # raises UnknownName with a suggestion
    hints = {f.encode_name: f.type for f in msgspec.structs.fields(REGISTERED[strategy])}
    if name not in hints:
        build(strategy, {name: values[0]})  # raises UnknownName with a suggestion
    typed = []
    for value in values:
        try:
            found = msgspec.convert(value, hints[name], strict=False)
        except msgspec.ValidationError as error:
            expected = str(error).removeprefix("Expected ").replace("`", "")
            raise BadInput(f"{strategy}: {name}={value!r}: expected {expected}") from None
        check_finite(strategy, name, found)
        typed.append(found)
    return typed


def _typed_fixed(
    strategy: str, params: dict[str, ParamValue], grid: dict[str, list[ParamValue]]
) -> dict[str, ParamValue]:
    """Convert the parameters outside the grid to their types, with the first valid grid point."""
    first_error: BadInput | None = None
    for values in itertools.islice(itertools.product(*grid.values()), 100_000):
        try:
            found = parameters_of(build(strategy, {**params, **dict(zip(grid, values, strict=True))}))
        except BadStrategy:
            raise
        except BadInput as error:
            first_error = first_error or error
            continue
        return {name: value for name, value in found.items() if name not in grid}
    raise first_error or BadInput("the grid is empty: give every --grid at least one value")


def parse_grid(texts: list[str]) -> dict[str, list[ParamValue]]:
    """Parse grid options: `fast=5:50:5` (end included) and `slow=20,50,100`. Raises BadInput."""
    return parse_axes(texts, "grid", "fast=5:50:5 or slow=20,50,100")


def parse_axes(texts: Sequence[str], what: str, example: str) -> dict[str, list[ParamValue]]:
    """Parse options `NAME=VALUES` with the values of `grid_values`; errors name `what` and the `example`."""
    axes: dict[str, list[ParamValue]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name or not values:
            raise BadInput(f"{what} {text!r} is not like {example}")
        if name in axes:
            raise BadInput(f"{what} of {name!r} is given twice: join its values with commas")
        axes[name] = grid_values(text, values)
    return axes


def grid_values(text: str, values: str) -> list[ParamValue]:
    """Parse `5:50:5`, `0.1:0.5:0.1`, `1%:5%:1%` (ends included) or `20,50,100`; errors name `text`. Raises BadInput.

    Values are whole numbers, floats where the span has decimals, or texts where it has a unit.
    """
    if ".." in values:
        raise BadInput(f"grid {text!r}: a span is START:END or START:END:STEP, with colons")
    if ":" not in values:
        parts = list(dict.fromkeys(part.strip() for part in values.split(",")))
        if "" in parts:
            raise BadInput(f"grid {text!r} has an empty value")
        return list(parts)
    found = [_NUMBER.fullmatch(part.strip()) for part in values.split(":")]
    numbers = [Decimal(one[1]) for one in found if one is not None]
    units = {one[2] or "" for one in found if one is not None}
    whole = all(number == int(number) for number in numbers)
    if len(numbers) == 2 and whole:
        numbers.append(Decimal(1))
    if len(numbers) != len(found) + (len(found) == 2 and whole) or len(numbers) != 3 or len(units) != 1:
        raise BadInput(f"grid {text!r}: a span is START:END or START:END:STEP, all in one unit; decimals need a STEP")
    begin, end, width = numbers
    if width <= 0 or end < begin:
        raise BadInput(f"grid {text!r}: a span has START <= END and a STEP above 0")
    count = int((end - begin) // width) + 1
    if count > SETS_LIMIT:
        raise BadInput(f"grid {text!r} has {count:,} values, the limit is {SETS_LIMIT:,}")
    if 2 * count > SPEC_BYTES_LIMIT:  # a digit and a comma each: rejects them before the work of `resolve`
        raise BadInput(f"grid {text!r} has {count:,} values, more than {SPEC_BYTES_LIMIT:,} bytes: use several sweeps")
    steps = [begin + k * width for k in range(count)]
    if unit := units.pop():
        return [f"{step.normalize():f}{unit}" for step in steps]
    return [int(step) if whole else float(step) for step in steps]
