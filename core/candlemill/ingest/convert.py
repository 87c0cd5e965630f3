"""Conversion of numbers and times to the engine's integers.

A float stands for the shortest decimal that reads back as the same float, which is the decimal that Python prints.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import Column
from candlemill.errors import BadInput, one_line
from candlemill.units import FIRST_MS, LAST_MS, iso

SURE = float(1 << 51)  # below it, exactly one whole number of units gives this float
ZONE_STEP_MS = 900_000  # UTC offsets change at quarters of an hour only
UNITS_MS = (("s", 1000.0), ("ms", 1.0), ("us", 1e-3), ("ns", 1e-6))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EXACT = Context(prec=60, traps=[Inexact, InvalidOperation])


def scaled_column(values: Any, what: str, scale: int, decimals: int | None = None, scaled: bool = False) -> Column:
    """Return numbers times `scale` (a power of ten), exactly. `values` are floats, integers, Decimals or decimal text.

    `decimals` rounds first; without it nothing is rounded. `scaled`: integers are multiplied already. Raises BadInput
    with the first row (from 0) that is not a number, has too many decimals or does not fit 64 bits.
    """
    array = np.asarray(values)
    kind = array.dtype.kind
    if array.ndim != 1:
        raise BadInput(f"{what} has {array.ndim} dimensions, expected one")
    if kind in "iu" and (scaled or len(array) == 0 or int(abs(array).max()) < 2**62 // scale):
        if kind == "u" and len(array) and int(array.max()) >= 2**63:
            raise BadInput(f"{what} {array.max()} does not fit 64 bits")
        return array.astype(np.int64, copy=False) * (1 if scaled else scale)
    if scaled:
        raise BadInput(f"{what} has type {array.dtype}: what is scaled already comes as whole numbers")
    if kind == "f" and array.dtype.itemsize == 8:
        return _from_floats(array, what, scale, decimals)
    return _from_texts(array.astype(str) if kind == "f" else array, what, scale, decimals)


def _from_floats(array: NDArray[np.float64], what: str, scale: int, decimals: int | None) -> Column:
    if decimals is not None:
        array = np.round(array, decimals)
    units = np.rint(array * scale)
    sure = (np.abs(units) < SURE) & (units / scale == array)  # NaN compares false
    out = np.where(sure, units, 0.0).astype(np.int64)
    rest = np.flatnonzero(~sure)
    for row in rest.tolist():
        out[row] = _units(repr(float(array[row])), what, row, scale, None)
    return out


def _from_texts(array: NDArray[Any], what: str, scale: int, decimals: int | None) -> Column:
    return np.array([_units(x, what, k, scale, decimals) for k, x in enumerate(array.tolist())], dtype=np.int64)


def _units(value: Any, what: str, row: int, scale: int, decimals: int | None) -> int:
    """Return one number times `scale`."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    places = len(str(scale)) - 1
    whole, _, rest = text.partition(".")
    if decimals is None and len(rest) <= places and whole.isdecimal() and (whole + rest).isdecimal():
        units = int(whole + rest.ljust(places, "0"))
    else:
        units = _slowly(text, what, row, scale, decimals)
    if abs(units) >= 2**63:
        raise BadInput(f"{what} {text} of row {row:,} does not fit 64 bits when multiplied by {scale:,}")
    return units


def _slowly(text: str, what: str, row: int, scale: int, decimals: int | None) -> int:
    try:
        number = _EXACT.create_decimal(text.strip())
        if not number.is_finite():
            raise ValueError
        if decimals is not None:
            number = round(number, decimals)
        return int(_EXACT.to_integral_exact(_EXACT.multiply(number, Decimal(scale))))
    except Inexact:
        places = len(str(scale)) - 1
        raise BadInput(
            f"{what} {text} of row {row:,} has more than {places} decimals: decimals={places} rounds all numbers"
        ) from None
    except (InvalidOperation, ValueError):
        raise BadInput(one_line(f"{what} {text!r} of row {row:,} is not a number: fill it or drop the row")) from None


# -- times ---------------------------------------------------------------------------------------------------------


def utc_ms(values: Any, tz: str | None = None) -> Column:
    """Return times as UTC milliseconds. `values` are datetimes of NumPy or Python, ISO texts, or integers since 1970.

    The unit of integers (s, ms, us, ns) follows from their size. Times without a zone are in `tz`, else UTC. Raises
    BadInput with the first row (from 0) that is not a time, or is ambiguous or does not exist in `tz`.
    """
    array = np.asarray(values)
    kind = array.dtype.kind
    if kind == "M":
        return _local(_from_datetime64(array), tz)
    if kind == "f" and len(array) and bool(np.all(np.isfinite(array))) and bool(np.all(array == np.rint(array))):
        array, kind = array.astype(np.int64), "i"
    if kind in "iu":
        return _from_numbers(array.astype(np.int64, copy=False))
    return _from_objects(array.tolist(), tz)


def _from_datetime64(array: NDArray[Any]) -> Column:
    missing = np.flatnonzero(np.isnat(array))
    if len(missing):
        raise BadInput(f"time of row {missing[0]:,} is missing: fill it or drop the row")
    ms = array.astype("datetime64[ms]")
    finer = np.flatnonzero(ms.astype(array.dtype) != array)
    if len(finer):
        raise BadInput(f"time {array[finer[0]]} of row {finer[0]:,} is not on a whole minute")
    return ms.view(np.int64) if array.dtype != ms.dtype or not array.flags.writeable else ms.astype(np.int64)


def _from_numbers(array: Column) -> Column:
    if not len(array):
        return array
    first = int(array[0])
    for unit, ms in UNITS_MS:
        if FIRST_MS <= first * ms < LAST_MS:
            return _from_datetime64(array.view(f"datetime64[{unit}]"))
    raise BadInput(f"time {first} of row 0 is neither s, ms, us nor ns since 1970 in the years 2009 to 2099")


def _from_objects(values: Sequence[Any], tz: str | None) -> Column:
    """Return datetimes or ISO texts as UTC milliseconds; either all have a zone or none."""
    moments = [_moment(value, row) for row, value in enumerate(values)]
    zoned = [moment.tzinfo is not None for moment in moments]
    if any(zoned) and not all(zoned):
        raise BadInput(f"time of row {zoned.index(not zoned[0]):,} is {'un' * zoned[0]}zoned, that of row 0 is not")
    whole = _milliseconds(m if m.tzinfo else m.replace(tzinfo=UTC) for m in moments)
    return whole if zoned and zoned[0] else _local(whole, tz)


def _moment(value: Any, row: int) -> datetime:
    if isinstance(value, datetime) and value == value:  # pandas' NaT is a datetime that equals nothing
        return value
    try:
        return datetime.fromisoformat(value.strip())
    except (AttributeError, ValueError):
        raise BadInput(
            one_line(f"time {value!r:.80} of row {row:,} is not a moment like 2023-01-31T12:30:00Z")
        ) from None


def _milliseconds(moments: Iterable[datetime]) -> Column:
    return np.array([(moment - EPOCH) // timedelta(milliseconds=1) for moment in moments], dtype=np.int64)


def _local(ms: Column, tz: str | None) -> Column:
    """Convert local times of `tz`, in milliseconds, to UTC. Raises BadInput for ambiguous times and times that do not
    exist."""
    if tz is None or tz == "UTC" or not len(ms):
        return ms
    try:
        zone = ZoneInfo(tz)
    except (ZoneInfoNotFoundError, ValueError):
        raise BadInput(f"tz={tz!r} is no time zone: give its name, like Europe/Berlin") from None
    steps, row_of = np.unique(ms // ZONE_STEP_MS, return_inverse=True)
    offsets = np.empty(len(steps), dtype=np.int64)
    for k, step in enumerate(steps.tolist()):
        shown = datetime.fromtimestamp(step * ZONE_STEP_MS / 1000, UTC).replace(tzinfo=zone)
        first, second = (shown.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1))
        if first != second:
            row = int(np.flatnonzero(row_of == k)[0])
            times = "twice" if first > second else "never"
            raise BadInput(f"time {iso(int(ms[row]))[:16]} of row {row:,} comes {times} in {tz}: give the times in UTC")
        offsets[k] = first // timedelta(milliseconds=1)
    found: Column = ms - offsets[row_of]
    return found
