"""Bars on which nothing in a book can happen are passed without a look at its orders. SEMANTICS-2 section 10."""

from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns
from candlemill.engine.fill_tape import AT_OPEN
from candlemill.engine.levels import FAR
from candlemill.engine.margin import MarginAccount
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import Ranges
from candlemill.engine.walk import Walk


class QuietBars:
    """Position and standing orders of one symbol between two bars on which something may happen.

    `target` and `keep` are the book's. `acted` is the target that was last traded (`has_acted`: whether there is one).
    `resting` has one bit for each order that has stood through a whole minute bar.
    """

    def __init__(self, candles: CandleColumns, rules: ExecutionRules, ranges: Ranges) -> None:
        self.candles: CandleColumns = candles
        self.ranges: Ranges = ranges
        self.rules: ExecutionRules = rules
        self.now: Walk = Walk(rules)
        self.keep: bool = True
        self.target: i64 = 0
        self.acted: i64 = 0
        self.has_acted: bool = False
        self.resting: i64 = 0
        self.follows_best: bool = rules.trailing_stop != 0
        # strictly between these prices, nothing in the book can happen
        self.lower: i64 = 0
        self.upper: i64 = FAR
        self.account: MarginAccount | None = None
        self.mark_ranges: Ranges | None = None

    def set_bounds(self) -> None:
        """Compute the highest price at or below which, and the lowest at or above which, something may happen."""
        now = self.now
        self.lower = 0
        self.upper = FAR
        if now.exposure != 0:
            now.set_levels()
            if now.exposure > 0:
                self.lower = now.stop_level
                self.upper = now.take_level
            else:
                self.lower = now.take_level
                self.upper = now.stop_level
            if self.account is not None:
                if now.exposure > 0:
                    self.lower = max(self.lower, now.liquidation)
                else:
                    self.upper = min(self.upper, now.liquidation)
        if now.alive == 0:
            return
        orders = now.orders
        k: i64 = 0
        while k < orders.count:
            if (now.alive >> k) & 1 != 0 and (orders.part[k] == 0 or orders.side[k] * now.exposure < 0):
                price: i64 = orders.price[k]
                falling: bool = (orders.side[k] > 0) == (orders.limit[k] != 0)
                if falling:
                    self.lower = max(self.lower, price - orders.limit[k])
                else:
                    self.upper = min(self.upper, price + orders.limit[k])
            k += 1

    def has_pending_target(self) -> bool:
        """Return whether the next open trades the target or marks it as traded."""
        if self.keep:
            return False
        return not self.has_acted or self.acted != self.target

    def quiet_until(self, begin: i64, end: i64) -> i64:
        """Return the first of bars `begin` to `end - 1` on which something may happen, or `end`; earlier bars are
        passed.
        """
        if begin >= end or self.has_pending_target() or self.now.triggered != 0:
            return begin
        now = self.now
        if self.account is not None and now.exposure != 0:
            end = self.margin_until(self.account, begin, end)
        self.set_bounds()
        at: i64 = end
        if self.rules.trailing_stop != 0 and now.exposure != 0:
            at = self.trail_until(begin, end)
        elif self.lower > 0 or self.upper < FAR:
            at = self.ranges.first_touch(begin, end, self.lower, self.upper)
        if at > begin:
            self.pass_bars(begin, at)
        return at

    def margin_until(self, account: MarginAccount, begin: i64, end: i64) -> i64:
        """Return the first of bars `begin` to `end - 1` that may change the price of liquidation without a fill, or on
        which the mark price reaches it, or `end`."""
        self.begin_margin(account, begin)
        end = min(end, account.next_stop())
        if self.mark_ranges is None:
            return end
        long: bool = self.now.exposure > 0
        level: i64 = self.now.liquidation
        return self.mark_ranges.first_touch(begin, end, level if long else 0, FAR if long else level)

    def is_quiet(self, i: i64) -> bool:
        """Return whether nothing can happen on bar `i`. The bar is not passed."""
        if self.account is not None and self.now.exposure != 0:
            return False
        if self.has_pending_target() or self.now.triggered != 0:
            return False
        self.set_bounds()
        return self.candles.low[i] > self.lower and self.candles.high[i] < self.upper

    def first_touch(self, begin: i64, end: i64) -> i64:
        """Return the first of bars `begin` to `end - 1` that reaches a level or order of the present book, or `end`.

        With a trailing stop the result is `begin`, because the stop moves with each bar; with margin, too.
        """
        if self.rules.trailing_stop != 0 or self.account is not None:
            return begin
        self.set_bounds()
        return self.ranges.first_touch(begin, end, self.lower, self.upper)

    def trail_until(self, begin: i64, end: i64) -> i64:
        """Do the same as `quiet_until` while the stop trails the best price."""
        candles, now = self.candles, self.now
        i: i64 = begin
        while i < end and candles.low[i] > self.lower and candles.high[i] < self.upper:
            if now.exposure > 0 and candles.high[i] > now.best:
                now.best = candles.high[i]
                self.set_bounds()
            elif now.exposure < 0 and candles.low[i] < now.best:
                now.best = candles.low[i]
                self.set_bounds()
            i += 1
        return i

    def pass_bars(self, begin: i64, end: i64) -> None:
        """Pass bars `begin` to `end - 1`, on which nothing fills."""
        now = self.now
        now.waiting = 0
        self.resting = now.alive
        if now.exposure == 0:
            return
        now.held += end - begin
        if self.follows_best:
            column = self.candles.high if now.exposure > 0 else self.candles.low
            best: i64 = now.best
            i: i64 = begin
            while i < end:
                best = max(best, column[i]) if now.exposure > 0 else min(best, column[i])
                i += 1
            now.best = best

    def begin_margin(self, account: MarginAccount, i: i64) -> None:
        """Go to bar `i`: funding, borrow and new tiers may change the price of liquidation."""
        account.begin(self.now.wallet, i)
        account.stage = AT_OPEN
        self.now.liquidation = account.level(self.now.wallet, self.now.exposure)
