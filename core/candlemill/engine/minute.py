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
from candlemill.engine.levels import BOTH, NOTHING
from candlemill.engine.margin import MarginAccount
from candlemill.engine.position import ExecutionRules
from candlemill.engine.quiet import QuietBars
from candlemill.engine.ranges import Ranges
from candlemill.engine.walk import NO_ORDER, ROWS, Walk

FLAT: Final = PositionView()
NAMES: Final = {TARGET: "target", STOP: "stop", TAKE: "take", LIQUIDATION: "liquidation"}


class MinuteEngine(QuietBars):
    """Position and book of one symbol from bar to bar. Fills are written to `fills`.

    `target`, `keep`, `stop` and `take` are the book's, `made` is the open time of the minute at whose close it was
    stated.
    """

    def __init__(self, candles: CandleColumns, rules: ExecutionRules, ranges: Ranges, fills: FillTape) -> None:
        super().__init__(candles, rules, ranges)
        self.fills: FillTape = fills
        self.low_first: Walk = Walk(rules)
        self.high_first: Walk = Walk(rules)
        self.other_orders: Orders = Orders()
        self.stop: i64 = 0
        self.take: i64 = 0
        self.made: i64 = 0
        self.filled: i64 = 0  # one bit for each order of the book that has filled
        self.late: i64 = -1  # whether the bar of the book that is stated now is cut (1) or not (0); -1: see the candles
        self.plain: object = None  # the strategy's book in force, if it has no orders: it need not be read again
        # what a strategy sees of the fills since the book was stated
        self.keeps_seen: bool = False
        self.seen_count: i64 = 0
        self.seen_what: vec[i64] = vec[i64]([0] * ROWS)
        self.seen_order: vec[i64] = vec[i64]([0] * ROWS)
        self.seen_price: vec[i64] = vec[i64]([0] * ROWS)
        self.volume_bar: i64 = -1  # the bar whose volume is left

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
