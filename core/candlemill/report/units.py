"""Scaled integers as people read them. For the eye only: results keep the integers."""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import ArrayLike

from candlemill.model import SCALE

NO_VALUE = "–"


def places_for(largest: int) -> int:
    """Decimals that show amounts up to `largest` (scaled) with some four digits that tell."""
    size = abs(largest)
    if size >= 100_000 * SCALE:
        return 0
    if size >= SCALE or size == 0:
        return 2
    return min(8, 12 - len(str(size)))


def decimal(scaled: int | None, places: int) -> str:
    """With thousands separators, rounded half away from zero; a dash for None."""
    if scaled is None:
        return NO_VALUE
    unit = 10 ** (8 - places)
    rounded = (abs(scaled) + unit // 2) // unit
    whole, rest = divmod(rounded, 10**places)
    sign = "-" if scaled < 0 and rounded else ""
    return f"{sign}{whole:,}" + (f".{rest:0{places}d}" if places else "")


def money(scaled: int | None, largest: int | None = None) -> str:
    """`largest` decides on the decimals of a whole column."""
    return NO_VALUE if scaled is None else decimal(scaled, places_for(scaled if largest is None else largest))


def ratio(scaled: int | None) -> str:
    return decimal(scaled, 2 if scaled is not None and abs(scaled) >= 100 * SCALE else 3)


def percent(scaled: int | None, places: int = 1) -> str:
    """A share (1.0 is scaled to 10^8) in percent."""
    return NO_VALUE if scaled is None else decimal(scaled * 100, places) + "%"


def share(part: int, whole: int) -> int | None:
    """part / whole, scaled; None of nothing."""
    return part * SCALE // whole if whole > 0 else None


def count(value: int | None) -> str:
    return NO_VALUE if value is None else f"{value:,}"


def day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def minute(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def span(ms: int) -> str:
    """A duration in its two largest units."""
    minutes = ms // 60_000
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days:,} d {hours} h" if hours and days < 100 else f"{days:,} d"
    return f"{hours} h {rest:02d} min" if hours else f"{rest} min"


def floats(scaled: ArrayLike) -> list[float]:
    """Scaled integers as floats for a plot, with no more digits than it can show: the page stays small."""
    values = np.asarray(scaled) / SCALE
    top = float(np.abs(values).max()) if values.size else 0.0
    found: list[float] = np.round(values, 8 if top < 1 else max(2, 7 - len(str(int(top))))).tolist()
    return found
