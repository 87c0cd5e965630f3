"""Days and months of stored candles, and their missing minutes."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.units import to_ms


class Day(msgspec.Struct, frozen=True):
    """UTC day of a symbol in the metadata index: `start`, `first` and `last` minute in ms, number of rows, digest."""

    start: int
    rows: int
    first: int
    last: int
    digest: str


class Month(msgspec.Struct, frozen=True):
    """Month of a symbol in the index: `start` to `end` in ms, number of rows, and digest of its days."""

    start: int
    end: int
    rows: int
    digest: str


def months_of(days: Sequence[Day], empty: bool = False) -> list[Month]:
    """Months that have candles, ascending, from ascending days; with `empty` also those between that have none, whose
    digest is empty."""
    months = []
    starts = [day.start for day in days]
    for start, end in pairwise(_month_starts(days, 1)):
        members = days[bisect_left(starts, start) : bisect_left(starts, end)]
        if members:
            months.append(Month(start, end, sum(day.rows for day in members), digest_of_days(members)))
        elif empty:
            months.append(Month(start, end, 0, ""))
    return months


def _month_starts(days: Sequence[Day], step: int) -> Iterator[int]:
    """Yield the start (ms) of every `step`-th month, counted from January: from the one of the first day to the first
    one after the last day."""
    if not days:
        return
    first = datetime.fromtimestamp(days[0].start / 1000, UTC)
    number = (first.year * 12 + first.month - 1) // step * step
    at = to_ms(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC))
    while at <= days[-1].start:
        yield at
        number += step
        at = to_ms(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC))
    yield at


def digest_of_days(days: Sequence[Day]) -> str:
    """SHA-256 over the days' starts and digests, in order."""
    text = "".join(f"{day.start}:{day.digest}\n" for day in days)
    return hashlib.sha256(text.encode()).hexdigest()


class Funding(msgspec.Struct, frozen=True):
    """Funding rates of a symbol (times 10^8) and their times in ms, ascending."""

    t: NDArray[np.int64]
    rate: NDArray[np.int64]


NO_FUNDING = Funding(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


def missing_in(month: Month, first: int, last: int) -> int:
    """Number of missing minutes of the month, between the symbol's first and last candle (ms)."""
    a, b = max(month.start, first), min(month.end, last + 60_000)
    return max(0, (b - a) // 60_000 - month.rows)


def missing_of(days: Sequence[Day]) -> int:
    """Number of missing minutes between a symbol's first and last candle, including months without candles."""
    return (days[-1].last - days[0].first) // 60_000 + 1 - sum(day.rows for day in days) if days else 0
