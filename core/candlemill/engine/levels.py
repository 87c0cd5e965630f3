"""Position with its protective levels: those of the book or bracket, and the job's own. SEMANTICS-2 section 11."""

from typing import Final

from mypy_extensions import i64

from candlemill.engine.fill_tape import STOP, TAKE
from candlemill.engine.position import ExecutionRules

MILLION: Final = 1_000_000
FAR: Final = 1 << 61  # above every price; mypyc boxes constants from 2^62 on
NOTHING: Final = -1  # of the two levels
BOTH: Final = -2


def distance(price: i64, ppm: i64) -> i64:
    """Return `ceil(price * ppm / 10^6)`: a rate above 0 never gives 0. A result that no price reaches is FAR."""
    whole: i64 = price // MILLION
    if ppm > MILLION and whole > (FAR >> 2) // ppm:
        return FAR >> 1
    return whole * ppm + ((price - whole * MILLION) * ppm + MILLION - 1) // MILLION


class ProtectedPosition:
    """Position of one symbol, in ppm of exposure. `stop` and `take` (0: none) are those of the book or bracket."""

    def __init__(self, rules: ExecutionRules) -> None:
        self.rules: ExecutionRules = rules
        self.exposure: i64 = 0
        self.entry: i64 = 0
        self.best: i64 = 0
        self.held: i64 = 0
        self.stop: i64 = 0
        self.take: i64 = 0
        # the nearest levels, including the job's own; out of reach if there are none
        self.stop_level: i64 = 0
        self.take_level: i64 = FAR
        self.own_stop: bool = False  # whether the level is the job's own
        self.own_take: bool = False

    def set_levels(self) -> None:
        """Set the nearest stop and target of the current position: the book's or bracket's, and the job's own."""
        rules = self.rules
        side: i64 = 1
        if self.exposure < 0:
            side = -1
        stop: i64 = self.stop
        take: i64 = self.take
        self.own_stop = False
        self.own_take = False
        if rules.stop_loss != 0:
            self.near_stop(side, self.entry - side * distance(self.entry, rules.stop_loss))
        if rules.trailing_stop != 0:
            self.near_stop(side, self.best - side * distance(self.best, rules.trailing_stop))
        if rules.take_profit != 0:
            own: i64 = max(1, self.entry + side * distance(self.entry, rules.take_profit))
            if take == 0 or side * own < side * take:
                take = own
                self.own_take = True
        if self.own_stop:
            stop = self.stop_level
        if side > 0 and take == 0:
            take = FAR
        elif side < 0 and stop == 0:
            stop = FAR
        self.stop_level = stop
        self.take_level = take

    def near_stop(self, side: i64, level: i64) -> None:
        """Use one of the job's own stops if it is nearer to the market than the present stop."""
        own: i64 = max(1, level)
        before: i64 = self.stop
        if self.own_stop:
            before = self.stop_level
        if before == 0 or side * own > side * before:
            self.stop_level = own
            self.own_stop = True

    def met(self, low: i64, high: i64) -> i64:
        """Return which level of the position prices from `low` to `high` reach: STOP, TAKE, BOTH or NOTHING."""
        if self.exposure == 0:
            return NOTHING
        stop: bool = low <= self.stop_level if self.exposure > 0 else high >= self.stop_level
        take: bool = high >= self.take_level if self.exposure > 0 else low <= self.take_level
        if stop:
            return BOTH if take else STOP
        return TAKE if take else NOTHING

    def slipped(self, raw: i64, side: i64) -> i64:
        """Return the price after slippage of a buy (side > 0) or a sale, at least 1."""
        if self.rules.slippage == 0:
            return raw
        if side > 0:
            return raw + distance(raw, self.rules.slippage)
        return max(1, raw - distance(raw, self.rules.slippage))
