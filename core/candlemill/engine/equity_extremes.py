"""Peak, low and deepest fall of the equity of one run.

Most bars are marked by bounds. The extremes of whole blocks bound the equity of a stretch; its closes are read only
where these bounds allow a new peak, a new low or a deeper fall. Stretches that may hold the deepest fall from the same
peak wait until that peak is passed: the lowest of them is found first, and most of the others are then out of question.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import BLOCK, CandleColumns, doubled, zeros
from candlemill.engine.stretches import deepest_fall, extremes
from candlemill.engine.summary import FINE

SHIFT: Final = 5  # bits of BLOCK
LONG: Final = 2 * BLOCK  # bars from which the extremes of blocks are used
FIELDS: Final = 6  # numbers of a waiting stretch: begin, end, base, rest, what is held, and bound
ROOM: Final = 64  # waiting stretches at first


class EquityExtremes:
    """Peak, low and deepest fall of the equity so far, each an amount and its rest in 10^-8 of its unit.

    `waiting` stretches have not been read: their equity is below the peak, and at least `bound`. Only candles with
    blocks have any.
    """

    def __init__(self, candles: CandleColumns) -> None:
        self.candles: CandleColumns = candles
        self.has_blocks: bool = len(candles.block_top) != 0
        self.peak: i64 = 0
        self.peak_rest: i64 = 0
        self.low: i64 = 0
        self.low_rest: i64 = 0
        self.fall: i64 = 0
        self.fall_rest: i64 = 0
        self.waiting: i64 = 0
        self.waits: vec[i64] = zeros(ROOM * FIELDS if self.has_blocks else 0)

    def see(self, high: i64, low: i64, rest: i64) -> None:
        """Update with the highest and the lowest equity of a stretch, and the fall from the earlier peak."""
        self.see_low(low, rest)
        if high > self.peak or (high == self.peak and rest > self.peak_rest):
            if self.waiting != 0:
                self.read_waiting()
            self.peak, self.peak_rest = high, rest

    def see_low(self, low: i64, rest: i64) -> None:
        fall: i64 = self.peak - low
        fall_rest: i64 = self.peak_rest - rest
        if fall_rest < 0:
            fall -= 1
            fall_rest += FINE
        if fall > self.fall or (fall == self.fall and fall_rest > self.fall_rest):
            self.fall, self.fall_rest = fall, fall_rest
        if low < self.low or (low == self.low and rest < self.low_rest):
            self.low, self.low_rest = low, rest

    def see_held(self, begin: i64, end: i64, base: i64, rest: i64, held: i64) -> None:
        """Update with bars `begin` to `end - 1`, whose equity is `base + held * close` and the rest."""
        if self.has_blocks and end - begin >= LONG:
            tops, bottoms = self.candles.block_top, self.candles.block_bottom
            b: i64 = begin >> SHIFT
            last: i64 = min((end + BLOCK - 1) >> SHIFT, len(tops))
            if last << SHIFT >= end:
                top: i64 = tops[b]
                bottom: i64 = bottoms[b]
                b += 1
                while b < last:
                    top = max(top, tops[b])
                    bottom = min(bottom, bottoms[b])
                    b += 1
                most: i64 = base + held * top
                least: i64 = base + held * bottom
                if held < 0:
                    most, least = least, most
                if most < self.peak:
                    if self.may_matter(least):
                        self.wait(begin, end, base, rest, held, least)
                    return
        self.read(begin, end, base, rest, held)

    def may_matter(self, bound: i64) -> bool:
        """Return whether an equity of at least `bound` can be a new low or the deepest fall."""
        return self.peak - bound >= self.fall or bound <= self.low

    def wait(self, begin: i64, end: i64, base: i64, rest: i64, held: i64, bound: i64) -> None:
        waits = self.waits
        k: i64 = self.waiting * FIELDS
        if k == len(waits):
            waits = self.waits = doubled(waits)
        waits[k] = begin
        waits[k + 1] = end
        waits[k + 2] = base
        waits[k + 3] = rest
        waits[k + 4] = held
        waits[k + 5] = bound
        self.waiting += 1

    def read(self, begin: i64, end: i64, base: i64, rest: i64, held: i64) -> None:
        """Do the same as `see_held` from the closes; a deep fall from a new peak can lie between the two extremes."""
        highest, lowest = extremes(self.candles, begin, end)
        high: i64 = base + held * highest
        low: i64 = base + held * lowest
        if held < 0:
            high, low = low, high
        if high >= self.peak and high - low > self.fall:
            side: i64 = -1
            if held > 0:
                side = 1
            fall: i64 = side * held * deepest_fall(self.candles.close, side, begin, end)
            if fall > self.fall:
                self.fall, self.fall_rest = fall, 0
        self.see(high, low, rest)

    def read_waiting(self) -> None:
        """Read the stretches that can still matter, the last one first: a run that loses is lowest at its end."""
        waits = self.waits
        k: i64 = (self.waiting - 1) * FIELDS
        while k >= 0:
            if self.may_matter(waits[k + 5]):
                highest, lowest = extremes(self.candles, waits[k], waits[k + 1])
                held: i64 = waits[k + 4]
                self.see_low(waits[k + 2] + held * (lowest if held > 0 else highest), waits[k + 3])
            k -= FIELDS
        self.waiting = 0
