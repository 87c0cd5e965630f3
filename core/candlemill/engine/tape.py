"""Tapes of decided fills of one symbol, and the settlement of an account from them.

Fills and their prices do not depend on money. So slices are decided apart from each other, and the account is settled
from their tapes, in order: another capital, fee or step costs the settling alone. Between two fills the equity follows
the close, so of each such piece of a day its highest and lowest close, its deepest fall and its last close tell all
marks.
"""

from typing import Final

import numpy as np
from librt.vecs import append, vec
from mypy_extensions import i64

from candlemill.engine.bit_columns import ColumnReader, ColumnWriter
from candlemill.engine.candles import MINUTE_MS, Column, native, view
from candlemill.engine.position import distance

# Bits of a fill's `code`.
AT_ITS_CLOSE: Final = 1  # filled at the close of its bar, for which it was decided
TAKEN: Final = 2  # a take profit, which pays the maker's fee
AMBIGUOUS: Final = 4  # the bar touched stop and target


class Tape:
    """Tape of a slice of `bars` bars, by bar numbers from its first on.

    `before` is the close before the first bar (0 if there is none), `held` the side of the position that it begins
    with, `slippage` that of the fills (ppm). Of each fill there are its `bar`, the `side` of the position after it, its
    `code`, and its price before (`raw`) and after slippage. Pieces are stretches of bars with one position on one day:
    they `begin` with a bar that opens at `minute` (ms), and have a `last` close. Of the closes of those pieces alone in
    which a position is held there are the highest (`top`), the lowest (`bottom`) and the deepest `fall` of the
    position's worth. Where `funded` is 1 the funding `rate` is due before the piece. `gap` are the bars before which
    minutes are missing while a position is held, with the close before and the open after them.
    """

    def __init__(self, bars: i64, held: i64, before: i64, slippage: i64, columns: dict[str, Column]) -> None:
        self.bars: i64 = bars
        self.held: i64 = held
        self.before: i64 = before
        self.slippage: i64 = slippage
        none = np.empty(0, dtype=np.int64)
        self.bar: vec[i64] = native(columns.get("bar", none))
        self.side: vec[i64] = native(columns.get("side", none))
        self.code: vec[i64] = native(columns.get("code", none))
        self.raw: vec[i64] = native(columns.get("raw", none))
        self.price: vec[i64] = native(columns.get("price", none))
        self.begin: vec[i64] = native(columns.get("begin", none))
        self.minute: vec[i64] = native(columns.get("minute", none))
        self.last: vec[i64] = native(columns.get("last", none))
        self.top: vec[i64] = native(columns.get("top", none))
        self.bottom: vec[i64] = native(columns.get("bottom", none))
        self.fall: vec[i64] = native(columns.get("fall", none))
        self.funded: vec[i64] = native(columns.get("funded", none))
        self.rate: vec[i64] = native(columns.get("rate", none))
        self.gap: vec[i64] = native(columns.get("gap", none))
        self.gap_close: vec[i64] = native(columns.get("gap_close", none))
        self.gap_open: vec[i64] = native(columns.get("gap_open", none))

    def columns(self) -> dict[str, Column]:
        """Return all columns as arrays without copying; see `CandleColumns.columns`."""
        return {
            "bar": view(self.bar),
            "side": view(self.side),
            "code": view(self.code),
            "raw": view(self.raw),
            "price": view(self.price),
            "begin": view(self.begin),
            "minute": view(self.minute),
            "last": view(self.last),
            "top": view(self.top),
            "bottom": view(self.bottom),
            "fall": view(self.fall),
            "funded": view(self.funded),
            "rate": view(self.rate),
            "gap": view(self.gap),
            "gap_close": view(self.gap_close),
            "gap_open": view(self.gap_open),
        }

    def to_bytes(self) -> bytes:
        out = ColumnWriter()
        for number in (self.bars, self.held + 1, self.before, self.slippage):
            out.number(number)
        self.write_bars(out)
        out.column(steps_of(self.last, self.before))
        self.write_fills(out)
        self.write_pieces(out)
        out.column(self.gap)
        out.column(self.gap_close)
        out.column(less(self.gap_open, self.gap_close))
        return out.to_bytes()

    def write_bars(self, out: ColumnWriter) -> None:
        """Write the bars of the fills, and those of the pieces that begin at none of them."""
        own = vec[i64]()
        k: i64 = 0
        p: i64 = 0
        while p < len(self.begin):
            while k < len(self.bar) and self.bar[k] < self.begin[p]:
                k += 1
            if k == len(self.bar) or self.bar[k] != self.begin[p]:
                own = append(own, self.begin[p])
            p += 1
        out.column(steps_of(self.bar, 0))
        out.column(steps_of(own, 0))

    def write_fills(self, out: ColumnWriter) -> None:
        """Write fills by what is expected of them: after an exit the side before, a price near the last close."""
        n: i64 = len(self.bar)
        sides, raws, prices = zeros(n), zeros(n), zeros(n)
        held: i64 = self.held
        opened: i64 = 1
        near: i64 = self.before
        p: i64 = 0
        k: i64 = 0
        while k < n:
            while p < len(self.begin) and self.begin[p] < self.bar[k]:
                near = self.last[p]
                p += 1
            if k > 0 and self.bar[k] == self.bar[k - 1]:
                near = self.raw[k - 1]
            side: i64 = self.side[k]
            sides[k] = side - (opened if held == 0 else 0)
            raws[k] = self.raw[k] - near
            prices[k] = self.price[k] - slipped(self.raw[k], side - held, self.slippage)
            if side != 0:
                opened = side
            held = side
            k += 1
        for column in (self.code, sides, raws, prices):
            out.column(column)

    def write_pieces(self, out: ColumnWriter) -> None:
        """Write the minutes by their bars, and the closes of pieces with a position by what they lie between."""
        n: i64 = len(self.begin)
        shapes: i64 = len(self.top)
        minutes, tops, bottoms, falls = zeros(n), zeros(shapes), zeros(shapes), zeros(shapes)
        held: i64 = self.held
        near: i64 = self.before
        count: i64 = 0
        k: i64 = 0
        p: i64 = 0
        while p < n:
            while k < len(self.bar) and self.bar[k] <= self.begin[p]:
                held = self.side[k]
                k += 1
            minutes[p] = self.minute[p] // MINUTE_MS - self.begin[p]
            if held != 0:
                tops[count] = self.top[count] - max(near, self.last[p])
                bottoms[count] = self.bottom[count] - min(near, self.last[p])
                falls[count] = self.top[count] - self.bottom[count] - self.fall[count]
                count += 1
            near = self.last[p]
            p += 1
        out.column(steps_of(minutes, 0))
        for column in (tops, bottoms, falls):
            out.column(column)
        out.column(self.funded)
        out.column(self.rate)


def tape_from(data: bytes) -> Tape:
    """Return the tape of bytes that `to_bytes` has made."""
    source = ColumnReader(data)
    bars: i64 = source.number()
    held: i64 = source.number() - 1
    before: i64 = source.number()
    slippage: i64 = source.number()
    tape = Tape(bars, held, before, slippage, {})
    tape.bar = sums_of(source.column(), 0)
    tape.begin = merged(tape.bar, sums_of(source.column(), 0))
    tape.last = sums_of(source.column(), before)
    read_fills(tape, source)
    read_pieces(tape, source)
    tape.gap, tape.gap_close, tape.gap_open = source.column(), source.column(), source.column()
    k: i64 = 0
    while k < len(tape.gap):
        tape.gap_open[k] += tape.gap_close[k]
        k += 1
    return tape


def read_fills(tape: Tape, source: ColumnReader) -> None:
    """Do the reverse of `write_fills`."""
    tape.code = source.column()
    sides, raws, prices = source.column(), source.column(), source.column()
    bars, begins, last = tape.bar, tape.begin, tape.last
    held: i64 = tape.held
    opened: i64 = 1
    near: i64 = tape.before
    p: i64 = 0
    k: i64 = 0
    n: i64 = len(bars)
    while k < n:
        while p < len(begins) and begins[p] < bars[k]:
            near = last[p]
            p += 1
        if k > 0 and bars[k] == bars[k - 1]:
            near = raws[k - 1]
        side: i64 = sides[k] + (opened if held == 0 else 0)
        sides[k] = side
        raws[k] += near
        prices[k] += slipped(raws[k], side - held, tape.slippage)
        if side != 0:
            opened = side
        held = side
        k += 1
    tape.side, tape.raw, tape.price = sides, raws, prices


def read_pieces(tape: Tape, source: ColumnReader) -> None:
    """Do the reverse of `write_pieces`."""
    minutes = sums_of(source.column(), 0)
    tops, bottoms, falls = source.column(), source.column(), source.column()
    bars, begins, last = tape.bar, tape.begin, tape.last
    n: i64 = len(begins)
    held: i64 = tape.held
    near: i64 = tape.before
    count: i64 = 0
    k: i64 = 0
    p: i64 = 0
    while p < n:
        while k < len(bars) and bars[k] <= begins[p]:
            held = tape.side[k]
            k += 1
        minutes[p] = (minutes[p] + begins[p]) * MINUTE_MS
        if held != 0:
            tops[count] += max(near, last[p])
            bottoms[count] += min(near, last[p])
            falls[count] = tops[count] - bottoms[count] - falls[count]
            count += 1
        near = last[p]
        p += 1
    tape.minute, tape.top, tape.bottom, tape.fall = minutes, tops, bottoms, falls
    tape.funded, tape.rate = source.column(), source.column()


def zeros(n: i64) -> vec[i64]:
    return native(np.zeros(int(n), dtype=np.int64))


def slipped(raw: i64, direction: i64, slippage: i64) -> i64:
    """Return the price after slippage of a purchase (`direction` above 0) or a sale, at least 1."""
    if slippage == 0:
        return raw
    if direction > 0:
        return raw + distance(raw, slippage)
    return max(1, raw - distance(raw, slippage))


def less(values: vec[i64], others: vec[i64]) -> vec[i64]:
    out = zeros(len(values))
    k: i64 = 0
    while k < len(values):
        out[k] = values[k] - others[k]
        k += 1
    return out


def steps_of(values: vec[i64], before: i64) -> vec[i64]:
    """Return how much each value is above the one before it."""
    out = zeros(len(values))
    k: i64 = 0
    while k < len(values):
        out[k] = values[k] - before
        before = values[k]
        k += 1
    return out


def sums_of(steps: vec[i64], before: i64) -> vec[i64]:
    """Do the reverse of `steps_of`, in place."""
    n: i64 = len(steps)
    k: i64 = 0
    while k < n:
        before += steps[k]
        steps[k] = before
        k += 1
    return steps


def merged(bars: vec[i64], own: vec[i64]) -> vec[i64]:
    """Return ascending numbers of both, each once; `own` are all different, and none of the `bars`."""
    n: i64 = len(bars)
    more: i64 = len(own)
    size: i64 = more
    k: i64 = 0
    while k < n:
        if k == 0 or bars[k] != bars[k - 1]:
            size += 1
        k += 1
    out = zeros(size)
    j: i64 = 0
    k = 0
    p: i64 = 0
    while p < size:
        if j < more and (k == n or own[j] < bars[k]):
            out[p] = own[j]
            j += 1
        else:
            out[p] = bars[k]
            k += 1
            while k < n and bars[k] == out[p]:
                k += 1
        p += 1
    return out
