"""Guards in their own units: probabilities and ratios as floats, money in the quote currency, counts unchanged."""

from collections.abc import Iterator, Mapping
from typing import Any

from candlemill.backtests.metric_table import label, shown, unit_of
from candlemill.formatting import rate
from candlemill.units import SCALE

UNTOUCHED = frozenset({"best", "warnings", "logits"})  # parameters, texts, counts


class Guards(dict[str, Any]):
    """Guards by name, see docs/guards.md; `exact` has the stored integers. Undefined guards are None."""

    def __init__(self, exact: Mapping[str, Any]) -> None:
        super().__init__({key: _plain(key, value) for key, value in exact.items()})
        self.exact = dict(exact)

    def __repr__(self) -> str:
        rows = list(_rows(self.exact))
        width = max((len(name) for name, _ in rows), default=0)
        lines = [f"{name:<{width}}  {text}" for name, text in rows]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.exact.get("warnings", ()))])


def _plain(key: str, value: Any) -> Any:
    if key in UNTOUCHED or value is None:
        return value
    if key == "table":  # of costs: pairs of a fee in ppm and the profit at that fee
        return [(fee, profit / SCALE) for fee, profit in value]
    if key == "figures":  # intervals of figures: each interval has the unit of its figure
        return {name: {end: _number(name, x) for end, x in ends.items()} for name, ends in value.items()}
    if isinstance(value, Mapping):
        return {name: _plain(name, one) for name, one in value.items()}
    return _number(key, value)


def _number(key: str, value: int) -> int | float:
    unit = unit_of(key)
    return value if unit.scale == 1 else value / unit.scale


def _rows(exact: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, str]]:
    for key, value in exact.items():
        name = f"{group}{label(key)}"
        if key == "best":
            yield name, ", ".join(f"{parameter}={x}" for parameter, x in value.items())
        elif key == "table":
            yield from ((f"{group}profit at a fee of {rate(fee)}", shown("total_pnl", money)) for fee, money in value)
        elif key == "figures":
            for figure, ends in value.items():
                low, high = shown(figure, ends["low"]), shown(figure, ends["high"])
                yield f"{group}{label(figure)}", f"{low} to {high} ({shown(figure, ends['actual'])} as it was)"
        elif isinstance(value, Mapping):
            yield from _rows(value, f"{name}: ")
        elif key not in UNTOUCHED:
            yield name, shown(key, value)
