"""Fills of one symbol as decided, before any money is computed. SEMANTICS-2, "decide, settle, mark"."""

from typing import Final

from librt.vecs import append, extend, vec
from mypy_extensions import i64

from candlemill.engine.candles import Column, view

# `stage`: the part of its minute in which a fill happens.
AT_OPEN: Final = 0
IN_RANGE: Final = 1
AT_CLOSE: Final = 2

# `what`: the kind of order that filled.
TARGET: Final = 0
ORDER: Final = 1
STOP: Final = 2
TAKE: Final = 3
LIQUIDATION: Final = 4

NO_KEY: Final = -1
FIRST_ROWS: Final = 16
NOT_MADE: Final = -1  # `made` of protective exits and liquidations

COLUMNS: Final = (
    "minute",
    "stage",
    "made",
    "what",
    "key",
    "before",
    "after",
    "size",
    "part",
    "price",
    "raw",
    "rate",
    "entry",
)


class FillTape:
    """Columns of fills in order of time, one row per fill. A reversal is two rows: the close and the opening.

    `minute` is the open time (ms) of the fill's bar, `stage` one of AT_OPEN, IN_RANGE, AT_CLOSE. `made` is the open
    time (ms) of the minute at whose close the order was last stated, NOT_MADE for protective exits and liquidations.
    `what` is one of TARGET to LIQUIDATION, `key` an index into `keys`, or NO_KEY. `before` and `after` are the signed
    exposure (ppm) before and after the fill. `size` is the stated size (ppm): the target of a target, the size of an
    order, 0 for part orders and protective exits. `part` (ppm) is 0 except for part orders. `price` is the fill price
    after slippage, `raw` before it, `rate` the applicable fee (ppm). `entry` is 1 if the fill opens a position from
    flat.

    Ambiguous minutes: `ambiguous_minute[k]` is the open time (ms) of one; its fills in the range are rows
    `ambiguous_first[k]` to `ambiguous_end[k] - 1`.
    """

    def __init__(self) -> None:
        self.n: i64 = 0  # rows; the columns have room for more
        self.minute: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.stage: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.made: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.what: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.key: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.before: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.after: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.size: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.part: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.price: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.raw: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.rate: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.entry: vec[i64] = vec[i64]([0] * FIRST_ROWS)
        self.ambiguous_minute: vec[i64] = vec[i64]()
        self.ambiguous_first: vec[i64] = vec[i64]()
        self.ambiguous_end: vec[i64] = vec[i64]()
        self.keys: list[str] = []
        self._indices: dict[str, int] = {}

    def key_index(self, key: str) -> int:
        """Return the index of `key` in the table; a new key is added."""
        index = self._indices.get(key)
        if index is None:
            index = len(self.keys)
            self._indices[key] = index
            self.keys.append(key)
        return index

    def add(
        self,
        minute: i64,
        stage: i64,
        made: i64,
        what: i64,
        key: i64,
        before: i64,
        after: i64,
        size: i64,
        part: i64,
        price: i64,
        raw: i64,
        rate: i64,
        entry: i64,
    ) -> None:
        n: i64 = self.n
        if n == len(self.minute):
            self.grow()
        self.n = n + 1
        self.minute[n] = minute
        self.stage[n] = stage
        self.made[n] = made
        self.what[n] = what
        self.key[n] = key
        self.before[n] = before
        self.after[n] = after
        self.size[n] = size
        self.part[n] = part
        self.price[n] = price
        self.raw[n] = raw
        self.rate[n] = rate
        self.entry[n] = entry

    def exposure(self, before: i64) -> i64:
        """Return the exposure after the fills; it was `before` at first."""
        return self.after[self.n - 1] if self.n != 0 else before

    def grow(self) -> None:
        """Double the room of the columns."""
        self.minute = doubled(self.minute)
        self.stage = doubled(self.stage)
        self.made = doubled(self.made)
        self.what = doubled(self.what)
        self.key = doubled(self.key)
        self.before = doubled(self.before)
        self.after = doubled(self.after)
        self.size = doubled(self.size)
        self.part = doubled(self.part)
        self.price = doubled(self.price)
        self.raw = doubled(self.raw)
        self.rate = doubled(self.rate)
        self.entry = doubled(self.entry)

    def add_ambiguous(self, minute: i64, first: i64) -> None:
        """Record an ambiguous minute whose fills in the range are the rows from `first` on."""
        self.ambiguous_minute = append(self.ambiguous_minute, minute)
        self.ambiguous_first = append(self.ambiguous_first, first)
        self.ambiguous_end = append(self.ambiguous_end, self.n)

    def columns(self) -> dict[str, Column]:
        """Return the columns of fills as arrays without copying; see `CandleColumns.columns`."""
        n = int(self.n)
        return {
            "minute": view(self.minute)[:n],
            "stage": view(self.stage)[:n],
            "made": view(self.made)[:n],
            "what": view(self.what)[:n],
            "key": view(self.key)[:n],
            "before": view(self.before)[:n],
            "after": view(self.after)[:n],
            "size": view(self.size)[:n],
            "part": view(self.part)[:n],
            "price": view(self.price)[:n],
            "raw": view(self.raw)[:n],
            "rate": view(self.rate)[:n],
            "entry": view(self.entry)[:n],
        }

    def ambiguous(self) -> dict[str, Column]:
        """Return the columns of ambiguous minutes as arrays without copying."""
        return {
            "minute": view(self.ambiguous_minute),
            "first": view(self.ambiguous_first),
            "end": view(self.ambiguous_end),
        }


def doubled(column: vec[i64]) -> vec[i64]:
    """Return `column` with as many zeros after it."""
    return extend(column, vec[i64]([0] * len(column)))
