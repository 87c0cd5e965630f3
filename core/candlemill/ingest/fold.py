"""Candles shorter than a minute, put together to candles of minutes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import MINUTE_MS, Column
from candlemill.errors import BadInput
from candlemill.ingest.own_columns import PRICES
from candlemill.units import iso

SECOND_MS = 1000
VOLUMES_LIMIT = 2**63 // 60  # above it the sum of a minute might not fit 64 bits

Columns = dict[str, Column]


class Folder:
    """Puts candles of whole seconds together, part by part: first open, highest high, lowest low, last close, sum of
    volumes.

    The first and the last minute may be incomplete where a file begins or ends. They are left out unless their first
    (or last) second has a candle, and counted in `left_out`.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._kept: Columns = {}  # of the last minute, which the next part may continue
        self._is_first = True
        self._last = -1

    def add(self, part: Mapping[str, Column]) -> Columns:
        """Return the minutes that are complete with this part. Raises BadInput for times out of order."""
        self._check(part["t"])
        whole = {name: np.concatenate([self._kept[name], part[name]]) if self._kept else part[name] for name in part}
        minute = whole["t"] // MINUTE_MS
        cut = int(np.searchsorted(minute, minute[-1]))
        self._kept = {name: column[cut:] for name, column in whole.items()}
        return self._folded({name: column[:cut] for name, column in whole.items()})

    def finish(self) -> Columns:
        """Return the last minute, or no rows if it is incomplete."""
        kept = self._kept
        if not kept:
            return {}
        if (int(kept["t"][-1]) + SECOND_MS) % MINUTE_MS:
            self.left_out += 1
            kept = {name: column[:0] for name, column in kept.items()}
        return self._folded(kept)

    def _check(self, t: Column) -> None:
        odd = np.flatnonzero(t % SECOND_MS)
        if len(odd):
            raise BadInput(f"time {iso(int(t[odd[0]]))} is not on a whole second: a candle's time is when it opens")
        steps = np.diff(t, prepend=self._last)
        if len(back := np.flatnonzero(steps <= 0)):
            raise BadInput(f"a candle of {iso(int(t[back[0]]))} comes twice or too late: sort by time")
        self._last = int(t[-1])

    def _folded(self, rows: Columns) -> Columns:
        if not len(rows["t"]):
            return rows
        minute = rows["t"] // MINUTE_MS
        first = np.flatnonzero(np.diff(minute, prepend=minute[0] - 1))
        if self._is_first:
            self._is_first = False
            if int(rows["t"][0]) % MINUTE_MS:
                self.left_out += 1
                return self._folded({name: column[_end(first, len(minute)) :] for name, column in rows.items()})
        return _together(rows, minute, first)


def _end(first: NDArray[np.intp], rows: int) -> int:
    """Return the number of rows of the first minute."""
    return int(first[1]) if len(first) > 1 else rows


def _together(rows: Columns, minute: Column, first: NDArray[np.intp]) -> Columns:
    last = np.append(first[1:], len(minute)) - 1
    found = {
        "t": minute[first] * MINUTE_MS,
        "open": rows["open"][first],
        "high": np.maximum.reduceat(rows["high"], first),
        "low": np.minimum.reduceat(rows["low"], first),
        "close": rows["close"][last],
    }
    if "volume" in rows:
        if int(rows["volume"].max()) >= VOLUMES_LIMIT:
            raise BadInput("the volume of a minute might not fit 64 bits: give a smaller volume scale, such as 100")
        found["volume"] = np.add.reduceat(rows["volume"], first)
    return {name: found[name] for name in ("t", *PRICES, *(["volume"] if "volume" in found else []))}
