"""Format scaled integers as text in their unit, rounded half to even.

`gateway/dashboard/format.js` is the same in JavaScript; a test compares their texts.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from candlemill.units import SCALE, divide

NO_VALUE = "–"
SIDES = {1: "long", -1: "short", 0: "none"}


class Unit(StrEnum):
    """Unit of a metric's integer."""

    MONEY = "money"  # times 10^8
    SHARE = "share"  # times 10^8; shown in percent
    RATIO = "ratio"  # times 10^8
    COUNT = "count"
    DAYS = "days"
    PPM = "ppm"  # a rate in parts per million; shown in percent
    SIDE = "side"  # of a position: 1 long, -1 short, 0 none

    @property
    def scale(self) -> int:
        """Integer that represents 1."""
        return SCALE if self in (Unit.MONEY, Unit.SHARE, Unit.RATIO) else 1


def text(value: Any, unit: Unit, largest: int | None = None) -> str:
    """Format a value with its unit. `largest`: largest absolute value of a column; it sets the number of decimals."""
    shown = number(value, unit, largest)
    if value is None:
        return shown
    if unit is Unit.SHARE:
        return f"{shown}%"
    return f"{shown} {'day' if value == 1 else 'days'}" if unit is Unit.DAYS else shown


def number(value: Any, unit: Unit, largest: int | None = None) -> str:
    """Format a value without the percent sign of shares, for tables with the unit elsewhere."""
    if value is None:
        return NO_VALUE
    match unit:
        case Unit.MONEY:
            return money(value, largest)
        case Unit.RATIO:
            return ratio(value, largest)
        case Unit.SHARE:
            return decimal(value * 100, 2)
        case Unit.PPM:
            return rate(value)
        case Unit.SIDE:
            return SIDES.get(value, str(value))
    return count(value)


def largest_of(values: Iterable[int | None]) -> int:
    """Largest absolute value in a column; 0 if there is none."""
    return max((abs(value) for value in values if value is not None), default=0)


def decimal(scaled: int | None, places: int) -> str:
    """Format a scaled integer with thousands separators, rounded half to even; a dash for None."""
    if scaled is None:
        return NO_VALUE
    rounded = divide(scaled, 10 ** (8 - places)) or 0
    whole, rest = divmod(abs(rounded), 10**places)
    return ("-" if rounded < 0 else "") + f"{whole:,}" + (f".{rest:0{places}d}" if places else "")


def places_for(largest: int) -> int:
    """Number of decimals that shows amounts up to `largest` (scaled) with at least four significant digits."""
    size = abs(largest)
    if size >= 100_000 * SCALE:
        return 0
    if size >= SCALE or size == 0:
        return 2
    return min(8, 12 - len(str(size)))


def money(scaled: int | None, largest: int | None = None) -> str:
    return NO_VALUE if scaled is None else decimal(scaled, places_for(scaled if largest is None else largest))


def ratio(scaled: int | None, largest: int | None = None) -> str:
    size = abs((scaled or 0) if largest is None else largest)
    return decimal(scaled, 2 if size >= 100 * SCALE else 3)


def percent(scaled: int | None, places: int = 2) -> str:
    """Format a share (10^8 is 1.0) in percent."""
    return NO_VALUE if scaled is None else decimal(scaled * 100, places) + "%"


def share(part: int, whole: int) -> int | None:
    """part / whole, times 10^8; None if `whole` is not positive."""
    return divide(part * SCALE, whole) if whole > 0 else None


def count(value: int | None) -> str:
    return NO_VALUE if value is None else f"{value:,}"


def rate(ppm: int | None) -> str:
    """Format parts per million in percent, with all decimals: 1000 is 0.1%."""
    if ppm is None:
        return NO_VALUE
    whole, rest = divmod(abs(ppm), 10_000)
    return ("-" if ppm < 0 else "") + f"{whole:,}.{rest:04d}".rstrip("0").rstrip(".") + "%"


def exact(scaled: int) -> str:
    """Format a scaled integer with all decimals, without separators, as input of `units.parse_decimal`."""
    whole, rest = divmod(abs(scaled), SCALE)
    return ("-" if scaled < 0 else "") + f"{whole}.{rest:08d}".rstrip("0").rstrip(".")


def table(rows: Sequence[Sequence[object]], headers: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    """Rows as aligned lines of text; `right` are the columns of numbers."""
    import tabulate  # imported late: executors make no tables

    tabulate.MIN_PADDING = 0  # two spaces between columns are enough: more would not fit 80 columns
    aligned = ["right" if k in right else "left" for k in range(len(headers) or 2)]
    return str(
        tabulate.tabulate(
            rows, headers=headers, tablefmt="simple" if headers else "plain", colalign=aligned, disable_numparse=True
        )
    )
