"""Daily profits as one compact text, small enough to be stored with every parameter set of a sweep.

The text `19358:365,19730:10;AAAA…` has the UTC days with bars, counted from 1970, as runs of first day and count. After
the semicolon come their profits in money as base64 of little-endian int64; for a compound account, their returns in
10^-15.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import DAY_MS, Column
from candlemill.errors import TooLarge


def pack(days: Sequence[int] | Column, profits: Sequence[int]) -> str:
    """Pack ascending `days` and their figures. Raises TooLarge for a profit that does not fit 64 bits."""
    try:
        column = np.array(profits, dtype="<i8")
    except OverflowError:
        raise TooLarge("a day's profit (scaled) does not fit 64 bits: use a smaller quantity") from None
    return f"{pack_days(days)};{b64encode(column.tobytes()).decode()}"


def unpack(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the days' midnights in ms and their figures."""
    runs, _, _ = text.partition(";")
    return unpack_days(runs) * DAY_MS, figures(text)


def figures(text: str) -> NDArray[np.int64]:
    """Return the figures without the days."""
    return np.frombuffer(b64decode(text[text.index(";") + 1 :]), dtype="<i8").astype(np.int64)


def pack_days(days: Sequence[int] | Column) -> str:
    """Pack ascending days since 1970 as runs of first day and count."""
    return _runs(np.asarray(days, dtype=np.int64).tobytes())


@lru_cache(16)
def _runs(days: bytes) -> str:
    """Parse the runs of days. Cached, because all sets of a sweep have the same days."""
    numbers = np.frombuffer(days, dtype=np.int64)
    first = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
    counts = np.diff(first, append=len(numbers))
    return ",".join(f"{numbers[at]}:{count}" for at, count in zip(first, counts, strict=True))


def unpack_days(text: str) -> NDArray[np.int64]:
    runs = [run.split(":") for run in text.split(",") if run]
    days = [np.arange(int(first), int(first) + int(count)) for first, count in runs]
    return np.concatenate(days) if days else np.empty(0, dtype=np.int64)
