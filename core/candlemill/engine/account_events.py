"""Events of an account: fills as decided, funding, borrow and endings, in the order of settlement."""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import Column, native, view
from candlemill.engine.fill_tape import AT_CLOSE, ORDER, FillTape
from candlemill.engine.quotes import Quotes

# `what` of events that a FillTape does not have.
FUNDING: Final = 5
BORROW: Final = 6
ENDING: Final = 7  # closes at the last close, without costs

BEFORE_OPEN: Final = -1  # the stage of funding and borrow
AFTER_CLOSE: Final = 3  # the stage of an ending

# `part` of an event that adds: a part of an order whose minimums were judged when its first part filled.
JUDGED: Final = -1

# `status` of an event.
CUT: Final = 1
REJECTED: Final = 2


class Events:
    """Events to settle, in order: columns of a FillTape, the number of the symbol, `turn` and `instant`.

    `turn` is the round within its stage. `instant` is the index into `instants` of when the order was made: -1 for an
    order of an earlier slice, without meaning for events that have no order. Rates of FUNDING and BORROW are times
    10^8.
    """

    def __init__(self, columns: dict[str, Column], instants: Column) -> None:
        none = np.empty(0, dtype=np.int64)
        self.minute: vec[i64] = native(columns.get("minute", none))
        self.stage: vec[i64] = native(columns.get("stage", none))
        self.turn: vec[i64] = native(columns.get("turn", none))
        self.symbol: vec[i64] = native(columns.get("symbol", none))
        self.what: vec[i64] = native(columns.get("what", none))
        self.before: vec[i64] = native(columns.get("before", none))
        self.after: vec[i64] = native(columns.get("after", none))
        self.part: vec[i64] = native(columns.get("part", none))
        self.price: vec[i64] = native(columns.get("price", none))
        self.raw: vec[i64] = native(columns.get("raw", none))
        self.rate: vec[i64] = native(columns.get("rate", none))
        self.instant: vec[i64] = native(columns.get("instant", none))
        self.made_price: vec[i64] = native(columns.get("made_price", none))
        self.instants: vec[i64] = native(instants)


def moment_of(minute: i64, stage: i64) -> i64:
    """Return a number that distinguishes minutes, and the close of a minute from the rest of it."""
    return 2 * minute + (1 if stage == AT_CLOSE else 0)


def zeros(n: i64) -> vec[i64]:
    return native(np.zeros(int(n), dtype=np.int64))


class FillEvents:
    """Fills of several symbols as events, symbol by symbol: columns of Events, and `made`, the time of their orders.

    `instant` is 0 where the equity at `made` is needed, else -1. There is room for `n` events.
    """

    def __init__(self, n: i64) -> None:
        self.n: i64 = 0
        self.minute: vec[i64] = zeros(n)
        self.stage: vec[i64] = zeros(n)
        self.turn: vec[i64] = zeros(n)
        self.symbol: vec[i64] = zeros(n)
        self.what: vec[i64] = zeros(n)
        self.before: vec[i64] = zeros(n)
        self.after: vec[i64] = zeros(n)
        self.part: vec[i64] = zeros(n)
        self.price: vec[i64] = zeros(n)
        self.raw: vec[i64] = zeros(n)
        self.rate: vec[i64] = zeros(n)
        self.made: vec[i64] = zeros(n)
        self.instant: vec[i64] = zeros(n)
        self.made_price: vec[i64] = zeros(n)

    def add(self, symbol: i64, fills: FillTape, quotes: Quotes, before: i64, made: i64, made_price: i64) -> None:
        """Add the fills of a symbol. `quotes` are its closes in the slice.

        `before` is the last minute of the slices before, `made` and `made_price` say when an order of them was made.
        Raises ValueError for an order of the slices before that is another.
        """
        first: i64 = self.n
        k: i64 = 0
        while k < fills.n:
            n: i64 = self.n
            self.minute[n], self.stage[n] = fills.minute[k], fills.stage[k]
            self.symbol[n], self.what[n] = symbol, fills.what[k]
            self.before[n], self.after[n], self.part[n] = fills.before[k], fills.after[k], fills.part[k]
            self.price[n], self.raw[n], self.rate[n] = fills.price[k], fills.raw[k], fills.rate[k]
            self.made[n] = fills.made[k]
            self.instant[n] = -1
            if n > first and self.minute[n] == self.minute[n - 1] and self.stage[n] == self.stage[n - 1]:
                self.turn[n] = self.turn[n - 1] + 1
            if fills.what[k] <= ORDER and fills.after[k] != 0:
                if fills.made[k] > before:
                    self.instant[n] = 0
                    self.made_price[n] = quotes.at(fills.made[k])
                elif fills.made[k] == made:
                    self.made_price[n] = made_price
                else:
                    raise ValueError(f"an order made at {fills.made[k]} is none of the last that was carried")
            self.n = n + 1
            k += 1

    def columns(self) -> dict[str, Column]:
        """Return all columns as arrays without copying; see `CandleColumns.columns`."""
        return {
            "minute": view(self.minute),
            "stage": view(self.stage),
            "turn": view(self.turn),
            "symbol": view(self.symbol),
            "what": view(self.what),
            "before": view(self.before),
            "after": view(self.after),
            "part": view(self.part),
            "price": view(self.price),
            "raw": view(self.raw),
            "rate": view(self.rate),
            "made": view(self.made),
            "instant": view(self.instant),
            "made_price": view(self.made_price),
        }
