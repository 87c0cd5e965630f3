"""Candles of one symbol in memory, in time order; new ones come at the end, late and corrected ones anywhere."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from candlemill.engine.candles import DAY_MS, CandleColumns, Column

Row = tuple[int, int, int, int, int, int]  # open time (ms), open, high, low, close (times 10^8), volume (scaled)
Change = Literal["", "new", "late", "corrected"]
Following = Literal["next", "open", "nothing"]
NAMES = ("t", "open", "high", "low", "close", "volume")
ROOM = 1_440


class CandleBuffer:
    """Columns of candles. `whole` says that the first one is the first that the run may read; slices have the columns
    `names` alone."""

    def __init__(self, columns: dict[str, Column], whole: bool, names: Sequence[str]) -> None:
        self.whole = whole
        self._read = [name in names for name in NAMES]
        self.n = len(columns["t"])
        self._table = np.empty((len(NAMES), self.n + ROOM), dtype=np.int64)
        for k, name in enumerate(NAMES):
            self._table[k, : self.n] = columns[name]

    def put(self, row: Row) -> Change:
        """Store a candle; return what that was: nothing for one that is stored already with the same values."""
        at = self.index(row[0])
        if at == self.n:
            change: Change = "new"
        elif self._table[0, at] != row[0]:
            change = "late"
        elif tuple(self._table[:, at].tolist()) == row:
            return ""
        else:
            change = "corrected"
        if change != "corrected":
            self._open(at)
        self._table[:, at] = row
        return change

    def _open(self, at: int) -> None:
        """Make room for one candle at position `at`."""
        if self.n == self._table.shape[1]:
            self._table = np.concatenate((self._table, np.empty_like(self._table)), axis=1)
        if at < self.n:
            self._table[:, at + 1 : self.n + 1] = self._table[:, at : self.n].copy()
        self.n += 1

    def index(self, t: int) -> int:
        """Return the number of candles before `t` (ms)."""
        if self.n == 0 or t > self._table[0, self.n - 1]:
            return self.n
        return int(np.searchsorted(self._table[0, : self.n], t))

    def time(self, at: int) -> int:
        return int(self._table[0, at])

    def row(self, at: int) -> Row:
        found: Row = tuple(self._table[:, at].tolist())
        return found

    def columns(self, first: int, end: int) -> dict[str, Column]:
        """Return copies of the columns of candles `first` to `end - 1`."""
        return {name: self._table[k, first:end].copy() for k, name in enumerate(NAMES)}

    def drop_before(self, t: int, context: int) -> None:
        """Forget candles before `t` (ms), apart from the `context` ones directly before it."""
        first = self.index(t) - context
        if first > ROOM:
            self._table = np.ascontiguousarray(self._table[:, first:])
            self.n -= first
            self.whole = False

    def bars(self, first: int, hi: int, following: Following, at: int = 0) -> CandleColumns:
        """Return candles `first` to `hi - 1` as slices read them, and what follows them: the next candle, nothing, or
        one that opens at `at` (ms) and is still open, so that nothing is taken for the end of a bar or of a day before
        it has ended."""
        parts = [self._table[k, first : min(hi + (following == "next"), self.n)] for k in range(len(NAMES))]
        if following == "open":
            close = int(self._table[4, hi - 1])
            added = (at, close, close, close, close, 0)
            parts = [np.append(part, x) for part, x in zip(parts, added, strict=True)]
        return CandleColumns(*([part] if read else [] for part, read in zip(parts, self._read, strict=True)))


def day_of(t: int) -> int:
    """Return the midnight before `t`, in ms."""
    return t // DAY_MS * DAY_MS
