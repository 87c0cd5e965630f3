"""The day index of an embedded database that stays open, kept between jobs: no other process can write to it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from candlemill.engine.candles import DAY_MS
from candlemill.stored_days import Day

_writes: Counter[Path] = Counter()  # to the index of each folder, by any connection of this process


def count_write(folder: Path) -> None:
    """Note that rows were written to the index of a folder. Call it after the write."""
    _writes[folder.resolve()] += 1


class KeptDays:
    """The days of symbols, read again after each write to the index. They stay the same object until then."""

    def __init__(self, folder: Path, read: Callable[[str], Sequence[Day]]) -> None:
        self._folder = folder.resolve()
        self._read = read
        self._known: dict[str, tuple[int, Sequence[Day]]] = {}

    def days(self, symbol: str, start: int | None, end: int | None) -> Sequence[Day]:
        """Return the days that overlap `start <= t < end` (ms), or all."""
        writes = _writes[self._folder]  # before reading, so that a write meanwhile is not missed
        known = self._known.get(symbol)
        if known is None or known[0] != writes:
            known = self._known[symbol] = writes, self._read(symbol)
        days = known[1]
        if start is None and end is None:
            return days
        first = 0 if start is None else bisect_left(days, start - DAY_MS + 1, key=_start)
        return days[first : len(days) if end is None else bisect_left(days, end, key=_start)]


def _start(day: Day) -> int:
    return day.start
