"""Clocks, rounding, and parsing of ranges, timeframes, decimals and rates."""

import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import minutes_of
from candlemill.errors import BadInput, one_line


def clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    """Milliseconds of a monotonic clock."""
    return time.monotonic_ns() // 1_000_000


Doubles = NDArray[np.float64]


def divide(numerator: int, denominator: int) -> int | None:
    """Quotient rounded half to even; None for a denominator of 0."""
    if denominator == 0:
        return None
    whole, rest = divmod(numerator, denominator)
    twice = abs(2 * rest)
    if twice > abs(denominator) or (twice == abs(denominator) and whole % 2 == 1):
        whole += 1
    return whole


def ratio(numerator: int, denominator: int) -> int | None:
    """Quotient times 10^8, rounded half to even once; None for a denominator of 0."""
    return divide(numerator * SCALE, denominator)


def scaled(value: float) -> int:
    return round(value * SCALE)


def ordered_sum(column: Doubles) -> float:
    """Sum in the order of the elements, which `accumulate` guarantees and `sum` does not."""
    return float(np.add.accumulate(column)[-1]) if len(column) else 0.0


SCALE = 100_000_000
TIMEFRAME_LIMIT = 10_080  # minutes: one week
FIRST_YEAR, LAST_YEAR = 2009, 2099
FIRST_MS = 1_230_768_000_000  # 2009-01-01
LAST_MS = 4_102_444_800_000  # 2100-01-01
_RANGE = re.compile(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?(?:[T ](\d{2}):(\d{2})(?::00)?Z?)?")


def parse_range(text: str) -> tuple[int, int]:
    """Parse `2023`, `2023-05`, `2023-05-07`, or `A..B` of these or of ISO minutes, where B is included.

    Returns start (included) and end (excluded) in ms. Raises BadInput.
    """
    first, dots, last = text.partition("..")
    start, stop = _span(first, text)
    if dots:
        stop = _span(last, text)[1]
    if stop <= start:
        raise BadInput(f"range {text!r} is empty or reversed: its end comes before its start; swap them")
    return start, stop


def _span(text: str, whole: str) -> tuple[int, int]:
    found = _RANGE.fullmatch(text.strip())
    if not found:
        raise BadInput(f"range {whole!r} is not like 2023, 2023-05, 2023-05-07, 2023-01-01..2023-06-30 or all")
    year, month, day, hour, minute = (int(x) if x else None for x in found.groups())
    if not FIRST_YEAR <= (year or 0) <= LAST_YEAR:
        raise BadInput(f"range {whole!r}: the year {year} is not between {FIRST_YEAR} and {LAST_YEAR}")
    try:
        begin = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, tzinfo=UTC)
    except ValueError as error:
        raise BadInput(f"range {whole!r}: {error}") from None
    if minute is not None and day is None:
        raise BadInput(f"range {whole!r}: a minute needs its full date, like 2023-05-07T12:30")
    if minute is not None:
        end = begin + timedelta(minutes=1)
    elif day is not None:
        end = begin + timedelta(days=1)
    elif month is not None:
        end = datetime(begin.year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    else:
        end = datetime(begin.year + 1, 1, 1, tzinfo=UTC)
    return to_ms(begin), to_ms(end)


def to_ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def iso(ms: int) -> str:
    """Format a time (ms) as ISO text with minutes."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


def parse_timeframe(text: str) -> int:
    """Parse `1m`, `15m`, `4h`, `1d` or `1w`; returns minutes. Raises BadInput."""
    try:
        return minutes_of(text)
    except ValueError as error:
        raise BadInput(str(error)) from None


_DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]*))?")


def parse_decimal(text: str, what: str) -> int:
    """Parse positive decimal text; returns it times 10^8. Raises BadInput for more than 8 decimals, or above 2^62."""
    limits = f"between 0.00000001 and {2**62 // SCALE}"
    found = _DECIMAL.fullmatch(text)
    if not found:
        raise BadInput(f"{what} {text!r} is not a decimal number {limits}, like 0.5")
    decimals = (found[2] or "").rstrip("0")
    if len(decimals) > 8:
        raise BadInput(f"{what} {text!r} has more than 8 decimals")
    scaled = int(found[1]) * SCALE + int(decimals.ljust(8, "0"))
    if not 1 <= scaled <= 2**62:
        raise BadInput(f"{what} {text!r} is not {limits}")
    return scaled


def amount(value: int | float | str | Decimal, what: str) -> str:
    """Format a number as plain decimal text, as input of `parse_decimal`. Raises BadInput."""
    if isinstance(value, str):
        return value
    try:
        return format(Decimal(repr(value) if isinstance(value, float) else str(value)), "f")
    except InvalidOperation:
        raise BadInput(one_line(f"{what}={value!r} is not a number")) from None


_RATE = re.compile(r"([+-]?[0-9]{1,15}(?:\.[0-9]{0,15})?)\s*(%|bps?|ppm)?")
_RATE_UNITS = {"%": 10_000, "bp": 100, "bps": 100, "ppm": 1}


def parse_rate(value: int | float | str | Decimal, what: str) -> int:
    """Parse a rate: `0.1%`, `10bp`, `1000ppm`, or an integer of ppm; returns parts per million.

    Raises BadInput for invalid text, a fraction of 1 ppm, or a fraction without a unit.
    """
    text = str(value) if isinstance(value, str | bool) else amount(value, what)
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise BadInput(one_line(f"{what}={value!r} is no rate: write it like 0.1%, 10bp or 1000 (ppm)"))
    number, unit = Decimal(found[1]), found[2]
    if unit is None and number != number.to_integral_value():
        share = number * 100 if abs(number) < 1 else number
        ppm = (share * 10_000).to_integral_value()
        # A fee of 0.1 is rather meant in percent than as a tenth.
        percent = f", or {number.normalize():f}% for percent" if abs(share) >= 1 and share != number else ""
        raise BadInput(f"{what}={value!r} has no unit: write {share.normalize():f}% or {ppm}{percent}")
    ppm = number * _RATE_UNITS[unit or "ppm"]
    if ppm != ppm.to_integral_value():
        raise BadInput(f"{what}={value!r} is finer than 1 part per million: write 0.0001% or a multiple of it")
    return int(ppm)
