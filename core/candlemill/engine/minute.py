"""Minute bars of one symbol in order: the open, two walks of the range, the close. SEMANTICS-2 section 10."""

from typing import Any, Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.books import EXPOSURE_LIMIT, ORDER_LIMIT, Orders, PositionView, within
from candlemill.engine.candles import PRICE_LIMIT, CandleColumns, is_cut
from candlemill.engine.fill_tape import (
    AT_CLOSE,
    AT_OPEN,
    IN_RANGE,
    LIQUIDATION,
    NO_KEY,
    NOT_MADE,
    ORDER,
    STOP,
    TAKE,
    TARGET,
    FillTape,
)
from candlemill.engine.margin import MarginAccount
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import Ranges
from candlemill.engine.walk import BOTH, FAR, NO_ORDER, NOTHING, ROWS, Walk

FLAT: Final = PositionView()
NAMES: Final = {TARGET: "target", STOP: "stop", TAKE: "take", LIQUIDATION: "liquidation"}


class MinuteEngine:
    """Position and book of one symbol from bar to bar. Fills are written to `fills`.

    `target`, `keep`, `stop` and `take` are the book's. `acted` is the target that was last traded (`has_acted`: whether
    there is one), `made` the open time of the minute at whose close the book was stated. `resting` has one bit for each
    order that has stood through a whole minute bar.
    """

    def __init__(self, candles: CandleColumns, rules: ExecutionRules, ranges: Ranges, fills: FillTape) -> None:
        self.candles: CandleColumns = candles
        self.ranges: Ranges = ranges
        self.rules: ExecutionRules = rules
        self.fills: FillTape = fills
        self.now: Walk = Walk(rules)
        self.low_first: Walk = Walk(rules)
        self.high_first: Walk = Walk(rules)
        self.other_orders: Orders = Orders()
        self.keep: bool = True
        self.target: i64 = 0
        self.acted: i64 = 0
        self.has_acted: bool = False
        self.stop: i64 = 0
        self.take: i64 = 0
        self.made: i64 = 0
        self.resting: i64 = 0
        self.filled: i64 = 0  # one bit for each order of the book that has filled
        self.late: i64 = -1  # whether the bar of the book that is stated now is cut (1) or not (0); -1: see the candles
        self.follows_best: bool = rules.trailing_stop != 0
        self.plain: object = None  # the strategy's book in force, if it has no orders: it need not be read again
        # what a strategy sees of the fills since the book was stated
        self.keeps_seen: bool = False
        self.seen_count: i64 = 0
        self.seen_what: vec[i64] = vec[i64]([0] * ROWS)
        self.seen_order: vec[i64] = vec[i64]([0] * ROWS)
        self.seen_price: vec[i64] = vec[i64]([0] * ROWS)
        # strictly between these prices, nothing in the book can happen
        self.lower: i64 = 0
        self.upper: i64 = FAR
        self.account: MarginAccount | None = None
        self.volume_bar: i64 = -1  # the bar whose volume is left
        self.mark_ranges: Ranges | None = None

    def add_margin(self, account: MarginAccount) -> None:
        """Settle fills in `account` as they are decided: it liquidates positions, and limits fills to a share of the
        volume. The position must be that at its start.
        """
        self.account = account
        self.now.account = account
        self.low_first.account = account
        self.high_first.account = account
        for walk in (self.now, self.low_first, self.high_first):
            walk.is_limited = account.is_limited
        self.now.wallet.begin_as(account.start)
        if len(account.margin.mark_open) != 0:
            self.mark_ranges = Ranges(account.margin.mark_high, account.margin.mark_low)

    # -- one bar ---------------------------------------------------------------------------------------------------

    def minute(self, i: i64) -> None:
        """Process bar `i` without the decision at its close."""
        now, account = self.now, self.account
        open: i64 = self.candles.open[i]
        now.clear_rows()
        now.waiting = 0
        if now.exposure != 0:
            now.set_levels()
        if account is not None:
            self.begin_margin(account, i)
            self.begin_volume(account, i)
            self.liquidate_at_open(account, i)
        entered: bool = False
        if not self.keep:  # with `at_close` it is traded already, unless the decision bar was cut
            entered = self.trade_target(open)
        now.protect(open, entered)
        if now.alive != 0:
            self.orders_at_open(open)
        if account is not None:
            self.liquidate_at_open(account, i)
        if now.rows != 0:
            self.log(now, i, AT_OPEN)
        if account is None:
            self.range(i)
        else:
            self.margin_range(account, i)
        self.end(i)

    def begin_margin(self, account: MarginAccount, i: i64) -> None:
        """Go to bar `i`: funding, borrow and new tiers may change the price of liquidation."""
        account.begin(self.now.wallet, i)
        account.stage = AT_OPEN
        self.now.liquidation = account.level(self.now.wallet, self.now.exposure)

    def begin_volume(self, account: MarginAccount, i: i64) -> None:
        """Make the volume of bar `i` available to orders."""
        now = self.now
        now.exited = False
        if now.is_limited:
            now.volume = account.quantity_of_bar(i)
            self.volume_bar = i

    def liquidate_at_open(self, account: MarginAccount, i: i64) -> None:
        """Liquidate a position that the open, of the mark price where there is one, is beyond."""
        now = self.now
        open: i64 = self.candles.open[i]
        trigger: i64 = open if account.on_legs else account.margin.mark_open[i]
        if now.exposure != 0 and now.is_liquidated(trigger):
            now.liquidate(trigger, open)
            self.forget_target()

    def margin_range(self, account: MarginAccount, i: i64) -> None:
        """Process the range of bar `i` of an account with margin.

        Mark prices have no order in common with traded ones: a position that the mark's extreme liquidates is
        liquidated before the orders of the range, one that these have changed after them.
        """
        account.stage = IN_RANGE
        if account.on_legs:
            self.range(i)
        else:
            self.liquidate_by_mark(account, i)
            self.range(i)
            self.liquidate_by_mark(account, i)

    def liquidate_by_mark(self, account: MarginAccount, i: i64) -> None:
        now, margin = self.now, account.margin
        long: bool = now.exposure > 0
        if now.exposure == 0 or not now.is_liquidated(margin.mark_low[i] if long else margin.mark_high[i]):
            return
        now.clear_rows()
        now.liquidate(now.liquidation, self.candles.low[i] if long else self.candles.high[i])
        self.log(now, i, IN_RANGE)

    def forget_target(self) -> None:
        """Count a target as traded."""
        if not self.keep:
            self.acted = self.target
            self.has_acted = True
            self.now.target_begun = False

    def trade_target(self, raw: i64) -> bool:
        """Trade the book's target if it differs from the last traded one; return whether that opened a position.

        Where the bar's volume is too small for it, the target stays to be traded.
        """
        if self.has_acted and self.acted == self.target:
            return False
        now = self.now
        before: i64 = now.exposure
        change: i64 = self.target - before
        rows: i64 = now.rows
        if change == 0:
            self.forget_target()
            return False
        now.trade(TARGET, NO_ORDER, change, raw, now.slipped(raw, change), self.rules.fee, raw, self.stop, self.take)
        if now.exposure == self.target:
            self.forget_target()
        elif now.rows != rows:  # any other target is one to be traded now
            now.target_begun = True
            self.has_acted = False
            self.acted = 0
        return now.exposure != 0 and (before == 0 or (before > 0) != (now.exposure > 0))

    def orders_at_open(self, open: i64) -> None:
        """Fill orders that the open is already beyond: a resting limit at its price, all others at the open.

        A resting limit that the open is not far enough beyond for `limit_through` goes on resting. The rest of a stop
        order that an earlier bar has triggered fills at the open.
        """
        now = self.now
        orders = now.orders
        k: i64 = 0
        while k < orders.count:
            if ((now.triggered >> k) & 1 != 0 or now.is_beyond(k, open)) and now.is_ready(k):
                rests: bool = orders.limit[k] != 0 and (self.resting >> k) & 1 != 0
                if not rests or orders.side[k] * (orders.price[k] - open) >= self.rules.limit_through:
                    now.fill_order(k, orders.price[k] if rests else open, open, not rests)
            k += 1

    def range(self, i: i64) -> None:
        """Process the range of bar `i`, low first and high first; of two outcomes, the job's path selects one."""
        if self.now.alive == 0 and not self.levels_meet(i):
            return
        candles, low, high = self.candles, self.low_first, self.high_first
        low.begin_as(self.now)
        low.path(candles.open[i], candles.low[i], candles.high[i], candles.close[i])
        if low.rows == 0:
            if low.is_limited:  # what has too little volume is spent
                self.now.begin_as(low)
            return  # both walks cover the same prices: if no order is reached, nothing fills
        high.begin_as(self.now)
        high.path(candles.open[i], candles.high[i], candles.low[i], candles.close[i])
        if low.same_fills(high):
            self.choose(low, i)
            return
        best: bool = self.rules.best_path
        if self.now.alive == 0:  # of a stop and a target alone the target is the better one, whatever their fees
            high_wins: bool = (high.what[high.rows - 1] == TAKE) == best
        else:
            high_wins = (
                self.is_better(high, low, candles.close[i]) if best else self.is_better(low, high, candles.close[i])
            )
        first: i64 = self.fills.n
        self.choose(high if high_wins else low, i)
        self.fills.add_ambiguous(candles.t[i], first)

    def is_better(self, one: Walk, other: Walk, close: i64) -> bool:
        """Return whether the value of `one` at the close is higher; in whole numbers where floats might not know."""
        a, size = one.rough_value(close)
        b, other_size = other.rough_value(close)
        if abs(a - b) > (size + other_size) * 1e-12:
            return a > b
        return one.value(close) > other.value(close)

    def levels_meet(self, i: i64) -> bool:
        """Return whether bar `i` has to be walked while only levels stand; exit where only one of two levels is met."""
        now = self.now
        if self.account is not None or not now.has_levels():
            return now.has_levels()
        met: i64 = now.met(self.candles.low[i], self.candles.high[i])
        if met in (NOTHING, BOTH):
            return met == BOTH
        now.clear_rows()
        now.exit(met, now.stop_level if met == STOP else now.take_level)
        self.log(now, i, IN_RANGE)
        return False

    def choose(self, walk: Walk, i: i64) -> None:
        """Continue with the outcome of `walk`."""
        self.now.begin_as(walk)
        self.log(walk, i, IN_RANGE)

    def end(self, i: i64) -> None:
        """Finish the bar: count it as held; the orders that remain are resting now."""
        now = self.now
        if now.exposure != 0:
            now.held += 1
            if self.follows_best:
                now.best = (
                    max(now.best, self.candles.high[i]) if now.exposure > 0 else min(now.best, self.candles.low[i])
                )
        now.waiting = 0
        self.resting = now.alive
        if now.is_limited:
            now.spent = 0
            now.triggered &= now.alive
            if now.exited:
                self.forget_target()

    def log(self, walk: Walk, i: i64, stage: i64) -> None:
        """Write the fills of `walk` to the tape of fills."""
        fills, orders = self.fills, walk.orders
        k: i64 = 0
        while k < walk.rows:
            what: i64 = walk.what[k]
            order: i64 = walk.order[k]
            made: i64 = self.made
            size: i64 = 0
            key: i64 = NO_KEY
            if what == ORDER:
                key = fills.key_index(orders.keys[order])
                size = orders.size[order]
                self.filled |= 1 << order
            elif what == TARGET:
                size = self.target
            else:
                made = NOT_MADE
            before: i64 = walk.before[k]
            entry: i64 = 1 if before == 0 else 0
            fills.add(
                self.candles.t[i],
                stage,
                made,
                what,
                key,
                before,
                walk.after[k],
                size,
                walk.part[k],
                walk.price[k],
                walk.raw[k],
                walk.rate[k],
                entry,
            )
            if self.keeps_seen:
                self.see(what, order, walk.price[k])
            k += 1

    def see(self, what: i64, order: i64, price: i64) -> None:
        """Note a fill for the strategy. Where orders may fill in parts, the first fill of each of them is noted."""
        k: i64 = self.seen_count
        if self.now.is_limited:
            j: i64 = 0
            while j < k:
                if self.seen_what[j] == what and self.seen_order[j] == order:
                    return
                j += 1
        self.seen_what[k] = what
        self.seen_order[k] = order
        self.seen_price[k] = price
        self.seen_count = k + 1

    # -- bars on which nothing happens -----------------------------------------------------------------------------

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

    # -- decisions -------------------------------------------------------------------------------------------------

    def seen(self) -> PositionView:
        """Return the position as a strategy sees it."""
        now = self.now
        count: i64 = self.seen_count
        if count == 0:
            if now.exposure == 0:
                return FLAT
            return PositionView(now.exposure, now.entry, now.held, now.best)
        found: list[tuple[str, int]] = []
        k: i64 = 0
        while k < count:
            what: i64 = self.seen_what[k]
            name: str = now.orders.keys[self.seen_order[k]] if what == ORDER else NAMES[what]
            found.append((name, int(self.seen_price[k])))
            k += 1
        return PositionView(now.exposure, now.entry, now.held, now.best, tuple(found))

    def has_no_fills(self) -> bool:
        """Return whether nothing has filled since the book was stated."""
        return self.seen_count == 0

    def clear_fills(self) -> None:
        """Clear the fills since the book was stated."""
        self.filled = 0
        self.seen_count = 0

    def new_orders(self) -> Orders:
        """Return empty columns for the orders of the next book; `replace` puts them in force."""
        self.other_orders.clear()
        return self.other_orders

    def replace(self, orders: Orders, i: i64, keep: bool, target: i64, stop: i64, take: i64) -> None:
        """Put the book stated at the close of bar `i` in force, with `orders` from `new_orders`.

        Under `fill = close` its target is traded now, unless bar `i` ends a cut decision bar.
        """
        now = self.now
        self.plain = None
        if self.account is not None:
            self.account.decide(now.wallet, i)
        self.resting = orders.standing_in(now.orders, now.alive)
        self.other_orders = now.orders
        now.orders = orders
        now.alive = (1 << orders.count) - 1
        now.triggered = 0
        now.target_begun = False
        if now.is_limited:
            self.clear_rests(i)
        self.clear_fills()
        self.made = self.candles.t[i]
        self.keep = keep
        self.target = target
        self.stop = stop
        self.take = take
        if now.exposure != 0:
            now.stop = stop
            now.take = take
        if keep:
            self.has_acted = False
            self.acted = 0
        elif self.rules.at_close and not self.is_late(i):
            now.clear_rows()
            if self.account is not None:
                self.account.stage = AT_CLOSE
            self.trade_target(self.candles.close[i])
            now.waiting = 0
            if now.rows != 0:
                self.log(now, i, AT_CLOSE)

    def clear_rests(self, i: i64) -> None:
        """Begin the orders of a new book whole. What is left of bar `i`'s volume is for a target at its close."""
        k: i64 = 0
        while k < ORDER_LIMIT:
            self.now.rest[k] = 0
            k += 1
        if self.account is not None and self.volume_bar != i:
            self.begin_volume(self.account, i)

    def is_late(self, i: i64) -> bool:
        """Return whether a target stated at the close of bar `i` waits for the next open under `fill = close`."""
        if self.late >= 0:
            return self.late != 0
        return is_cut(int(self.candles.t[i]), int(self.rules.timeframe))

    def state_book(self, book: Any, i: i64) -> None:
        """Put a strategy's `Book` in force at the close of bar `i`. Raises ValueError for one that is none."""
        orders = self.new_orders()
        if book is self.plain:
            self.replace(orders, i, self.keep, self.target, self.stop, self.take)
            self.plain = book
            return
        stated = tuple(book.orders)
        orders.put_orders(stated)
        target: object = book.target
        keep: bool = target is None
        exposure: i64 = 0 if keep else within("", "target", target, -EXPOSURE_LIMIT, EXPOSURE_LIMIT)
        stop: i64 = within("", "stop", book.stop, 0, PRICE_LIMIT)
        self.replace(orders, i, keep, exposure, stop, within("", "take", book.take, 0, PRICE_LIMIT))
        if len(stated) == 0 and isinstance(book.orders, tuple):
            self.plain = book
