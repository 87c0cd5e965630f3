"""Positions without stops and funding that fill at the open: the figures of `position.Position`, computed faster."""

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, zeros
from candlemill.engine.position import MILLION, ExecutionRules, distance, fee_of
from candlemill.engine.signals import PositionChanges
from candlemill.engine.summary import FINE, CarriedState, Summary, count_equity
from candlemill.engine.unit_run import UnitRun


class UnstoppedRun(UnitRun):
    """One run over bars `lo` to `hi - 1`: `position.Position` without what stops, funding and logs need."""

    def __init__(self, candles: CandleColumns, rules: ExecutionRules, start: CarriedState, lo: i64, hi: i64) -> None:
        # before the base's `__init__`: mypyc then knows that they are always defined, and does not check each read
        self.rules: ExecutionRules = rules
        self.side: i64 = start.side
        self.wanted: i64 = start.desired
        self.entry: i64 = start.entry
        super().__init__(candles, lo, hi, start.side, start.side != 0)

    def walk(self, changes: PositionChanges) -> None:
        """Process all bars: a stretch up to the fill of each change, and one after the last."""
        at, value, lo, hi = changes.at, changes.value, self.lo, self.hi
        opens = opens_after(self.candles.open, at)
        count: i64 = len(at)
        if self.wanted != self.side:
            self.trade(self.candles.open[lo], self.wanted)
        begin: i64 = lo
        k: i64 = 0
        while k < count:
            end: i64 = at[k] + 1
            self.wanted = value[k]
            if end < hi and self.wanted != self.side:
                self.mark_bars(begin, end, self.side, self.side != 0)
                self.trade(opens[k], self.wanted)
                begin = end
            k += 1
        self.mark_bars(begin, hi, self.side, self.side != 0)

    def trade(self, raw: i64, side: i64) -> None:
        """Close the open position and open `side`, both at the raw price."""
        rules = self.rules
        was: i64 = self.side
        direction: i64 = -1
        if side > was:
            direction = 1
        fill: i64 = raw
        if rules.slippage != 0:
            fill = max(1, raw + direction * distance(raw, rules.slippage))
        fee, rest = fee_of(fill, rules.fee)
        amount: i64 = direction * fill + fee
        if was != 0:
            self.pay(fill, amount, rest)
            self.end_trade()
        if side != 0:
            self.begin_trade()
            self.pay(fill, amount, rest)
        self.side = side
        self.entry = fill

    def pay(self, fill: i64, amount: i64, rest: i64) -> None:
        self.turnover += fill
        self.fills += 1
        self.spend(amount, rest)

    def summary(self) -> Summary:
        out = self.totals(self.side, self.side != 0)
        out.fees = int(self.turnover) * int(self.rules.fee) * (FINE // MILLION)
        return out

    def state(self) -> CarriedState:
        keeps_entry = self.rules.short_entries and self.side < 0
        return CarriedState(self.side, self.wanted, False, self.entry if keeps_entry else 0)


def opens_after(opens: vec[i64], at: vec[i64]) -> vec[i64]:
    """Return the open of the bar after each of bars `at`; of the last bar, its own.

    They are collected beforehand, because a single read in the loop would wait for memory.
    """
    out = zeros(len(at))
    last: i64 = len(opens) - 1
    count: i64 = len(at)
    k: i64 = 0
    while k < count:
        out[k] = opens[min(at[k] + 1, last)]
        k += 1
    return out


def is_unstopped(candles: CandleColumns, rules: ExecutionRules, start: CarriedState) -> bool:
    """Return whether `run_unstopped` gives the figures of these rules from this state."""
    simple = not rules.has_stops and not rules.at_close and rules.marked
    return simple and not start.locked and len(candles.funding_bars) == 0


def run_unstopped(
    candles: CandleColumns, changes: PositionChanges, rules: ExecutionRules, start: CarriedState, lo: int, hi: int
) -> tuple[Summary, CarriedState, list[int]]:
    """Do the same as `simulate.run` in one pass, for `lo < hi` and where `is_unstopped`. Sums must fit 64 bits."""
    one = UnstoppedRun(candles, rules, start, lo, hi)
    one.walk(changes)
    total = one.summary()
    return total, one.state(), count_equity(total, one.day_equity, one.day_rest)


def state_after(changes: PositionChanges, hi: int) -> CarriedState:
    """Return the state before bar `hi` of a run that began flat and where `is_unstopped`, without its figures.

    The position at bar `hi - 1` is the last decision made before that bar.
    """
    at, value = changes.at, changes.value
    count: i64 = len(at)
    if count == 0:
        return CarriedState()
    wanted: i64 = value[count - 1]
    held: i64 = wanted
    if at[count - 1] == hi - 1:
        held = value[count - 2] if count > 1 else 0
    return CarriedState(held, wanted)
