"""Position within one minute bar: fills, the orders they cancel, protective levels. SEMANTICS-2 sections 10 and 11.

Prices are scaled integers, exposures and rates ppm. The orders of a book are columns. One bit per order says whether it
stands or waits, so a minute can be walked twice from the same start.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.books import ORDER_LIMIT, Orders
from candlemill.engine.fill_tape import LIQUIDATION, ORDER, STOP, TAKE, TARGET
from candlemill.engine.levels import FAR, MILLION, ProtectedPosition
from candlemill.engine.margin import NOT_FILLED, MarginAccount, Wallet
from candlemill.engine.position import ExecutionRules
from candlemill.engine.wide import QUANTITY_LIMIT, part_of, size_of

ROWS: Final = (
    64  # of a book at most: 16 orders and the target, two rows each, and an exit after each of them and before
)
NO_ORDER: Final = -1


class Walk(ProtectedPosition):
    """Position, its standing orders, and the fills of the current stage of a minute.

    `alive` has one bit for each order
    that has neither filled nor been cancelled, `waiting` one for each part order that must wait for the next open.

    Where the volume limits fills, `volume` is the quantity that is left of the bar. An order that has filled in part
    has its rest (`size` or `part`) in `rest`; `spent` has one bit for each order that is through with the bar, and
    `triggered` one for each stop order that was met but has not filled whole: it goes on at the next open.
    """

    def __init__(self, rules: ExecutionRules) -> None:
        super().__init__(rules)
        zeros = [0] * ROWS
        self.orders: Orders = Orders()
        self.alive: i64 = 0
        self.waiting: i64 = 0
        # margin: the fills up to row `settled` are in the wallet
        self.account: MarginAccount | None = None
        self.wallet: Wallet = Wallet()
        self.settled: i64 = 0
        self.liquidation: i64 = 0  # the price of liquidation, out of reach if there is none
        self.is_limited: bool = False
        self.volume: int = 0  # what is left of the bar's
        self.spent: i64 = 0
        self.triggered: i64 = 0
        self.rest: vec[i64] = vec[i64]([0] * ORDER_LIMIT)  # 0: nothing has filled
        self.target_begun: bool = False  # the target has filled in part
        self.exited: bool = False  # a level or a liquidation has ended a position in this bar
        # fills
        self.rows: i64 = 0
        self.what: vec[i64] = vec[i64](zeros)
        self.order: vec[i64] = vec[i64](zeros)
        self.before: vec[i64] = vec[i64](zeros)
        self.after: vec[i64] = vec[i64](zeros)
        self.price: vec[i64] = vec[i64](zeros)
        self.raw: vec[i64] = vec[i64](zeros)
        self.rate: vec[i64] = vec[i64](zeros)
        self.part: vec[i64] = vec[i64](zeros)

    def begin_as(self, other: "Walk") -> None:
        """Copy the position of `other` without its fills."""
        self.orders = other.orders
        self.exposure = other.exposure
        self.entry = other.entry
        self.best = other.best
        self.held = other.held
        self.stop = other.stop
        self.take = other.take
        self.alive = other.alive
        self.waiting = other.waiting
        self.stop_level = other.stop_level
        self.take_level = other.take_level
        self.own_stop = other.own_stop
        self.own_take = other.own_take
        if self.account is not None:
            self.wallet.begin_as(other.wallet)
            self.liquidation = other.liquidation
        if self.is_limited:
            self.volume, self.spent, self.triggered = other.volume, other.spent, other.triggered
            self.exited = other.exited
            k: i64 = 0
            while k < other.orders.count:
                self.rest[k] = other.rest[k]
                k += 1
        self.clear_rows()

    def clear_rows(self) -> None:
        """Begin a new stage."""
        self.rows = 0
        self.settled = 0

    # -- exits -----------------------------------------------------------------------------------------------------

    def has_levels(self) -> bool:
        """Return whether there is a position with a stop or a target, or one that can be liquidated."""
        if self.account is not None and self.exposure != 0:
            return True
        if self.exposure > 0:
            return self.stop_level != 0 or self.take_level != FAR
        return self.exposure < 0 and (self.stop_level != FAR or self.take_level != 0)

    def protect(self, market: i64, entered: bool) -> None:
        """Exit if the market is already beyond a level.

        The price is the market's. On the bar that a target `entered` in, the price of one of the job's own levels is
        the level itself.
        """
        if self.exposure == 0:
            return
        side: i64 = 1
        if self.exposure < 0:
            side = -1
        if side * market <= side * self.stop_level:
            self.exit(STOP, self.stop_level if entered and self.own_stop else market)
        elif side * market >= side * self.take_level:
            self.exit(TAKE, self.take_level if entered and self.own_take else market)

    def exit(self, what: i64, raw: i64) -> None:
        rate: i64 = self.rules.fee
        if what == TAKE:
            rate = self.rules.maker_fee
        self.exited = True
        self.trade(what, NO_ORDER, -self.exposure, raw, self.slipped(raw, -self.exposure), rate, raw, 0, 0)

    # -- fills -----------------------------------------------------------------------------------------------------

    def trade(
        self,
        what: i64,
        order: i64,
        change: i64,
        raw: i64,
        price: i64,
        rate: i64,
        market: i64,
        stop: i64,
        take: i64,
    ) -> None:
        """Change the exposure: one row, or two if it crosses 0. `stop` and `take` protect the position that this opens.

        `market` is the current price. When a position opens, a part order that this price is beyond must wait. Where
        the volume limits fills, the exposure may change by less, or not at all.
        """
        before: i64 = self.exposure
        after: i64 = before + change
        if before != 0 and (before > 0) != (after > 0) and after != 0:
            if not self.row(what, order, before, 0, price, raw, rate) or self.exposure != 0:
                return
            self.flatten()
            before = 0
        if not self.row(what, order, before, after, price, raw, rate):
            return
        if self.exposure == 0:
            self.flatten()
        elif before == 0:
            self.entry = price
            self.best = raw
            self.held = 0
            self.stop = stop
            self.take = take
            self.set_levels()
            if self.orders.parts & self.alive != 0:
                self.set_waiting(market)

    def row(self, what: i64, order: i64, before: i64, after: i64, price: i64, raw: i64, rate: i64) -> bool:
        """Fill from exposure `before` to `after`, or as far as the bar's volume goes; return whether anything fills."""
        k: i64 = self.rows
        part: i64 = self.part_left(order) if what == ORDER else 0
        account = self.account
        if account is not None and self.is_limited and what <= ORDER:
            begun: bool = self.rest[order] != 0 if what == ORDER else self.target_begun
            left: i64 = min(self.volume, QUANTITY_LIMIT)
            after, part = account.portion(self.wallet, what, before, after, part, begun, left)
            if part == NOT_FILLED:
                return False
        self.part[k] = part
        self.what[k] = what
        self.order[k] = order
        self.before[k] = before
        self.after[k] = after
        self.price[k] = price
        self.raw[k] = raw
        self.rate[k] = rate
        self.rows = k + 1
        self.exposure = after
        if account is not None:
            held: i64 = self.wallet.held
            self.settle(account)
            if self.is_limited and what <= ORDER:
                self.volume = max(0, self.volume - int(size_of(self.wallet.held - held)))
        return True

    def part_left(self, k: i64) -> i64:
        """Return what order `k` still trades of the position, in ppm; 0 for orders of a size."""
        part: i64 = self.orders.part[k]
        return self.rest[k] if part != 0 and self.rest[k] != 0 else part

    def flatten(self) -> None:
        """Reset the position to flat: no entry and no levels; part orders are cancelled."""
        self.exposure = 0
        self.entry = 0
        self.best = 0
        self.held = 0
        self.stop = 0
        self.take = 0
        self.alive &= ~self.orders.parts

    def set_waiting(self, market: i64) -> None:
        """Mark the part orders that the market is already beyond when a position opens."""
        self.waiting = 0
        k: i64 = 0
        while k < self.orders.count:
            if self.orders.part[k] != 0 and self.is_beyond(k, market):
                self.waiting |= 1 << k
            k += 1

    def is_beyond(self, k: i64, market: i64) -> bool:
        """Return whether the market is beyond order `k`: past a limit, at or past a stop price."""
        orders = self.orders
        price: i64 = orders.price[k]
        if orders.limit[k] != 0:
            return market < price if orders.side[k] > 0 else market > price
        return market >= price if orders.side[k] > 0 else market <= price

    def is_ready(self, k: i64) -> bool:
        """Return whether order `k` can fill: it stands and, if it is a part order, it can reduce the position."""
        bit: i64 = 1 << k
        if self.alive & bit == 0 or self.spent & bit != 0:
            return False
        if self.orders.parts & bit == 0:
            return True
        side: i64 = self.orders.side[k]
        reduces: bool = self.exposure < 0 if side > 0 else self.exposure > 0
        return reduces and self.waiting & bit == 0

    def fill_order(self, k: i64, raw: i64, market: i64, taker: bool) -> None:
        """Fill order `k` at `raw` with the market at `market`; exit the opened position if a level is already passed.

        A limit order has no slippage. A `taker` order pays `fee`, any other `maker_fee`.
        """
        orders, rules = self.orders, self.rules
        side: i64 = orders.side[k]
        part: i64 = self.part_left(k)
        size: i64 = orders.size[k]
        if self.rest[k] != 0:
            size = self.rest[k]
        change: i64 = side * size
        if part != 0:
            change = -part_of(self.exposure, part) if side < 0 else part_of(-self.exposure, part)
        price: i64 = raw
        if orders.limit[k] == 0:
            price = self.slipped(raw, side)
        before: i64 = self.exposure
        rate: i64 = rules.maker_fee
        if taker:
            rate = rules.fee
        rows: i64 = self.rows
        self.trade(ORDER, k, change, raw, price, rate, market, orders.stop[k], orders.take[k])
        if self.is_limited and (self.rows == rows or self.exposure != before + change):
            self.keep_rest(k, rows, size_of(self.exposure - before))
        if self.rows == rows:
            return
        self.cancel_group(k)
        if self.account is not None and self.account.on_legs and self.is_liquidated(market):
            self.liquidate(market, market)
        if self.exposure != 0 and (before == 0 or (before > 0) != (self.exposure > 0)):
            self.protect(market, False)

    def cancel_group(self, k: i64) -> None:
        """Cancel the orders of order `k`'s group, and `k` itself unless a part of it is left."""
        orders = self.orders
        kept: i64 = self.spent & (1 << k) & self.alive
        self.alive &= ~(1 << k)
        group: i64 = orders.oco[k]
        if group != 0:
            j: i64 = 0
            while j < orders.count:
                if orders.oco[j] == group:
                    self.alive &= ~(1 << j)
                j += 1
        self.alive |= kept

    def keep_rest(self, k: i64, rows: i64, done: i64) -> None:
        """Keep what is left of order `k` for later bars: rows from `rows` on are its fills, `done` their exposure."""
        bit: i64 = 1 << k
        self.spent |= bit
        orders = self.orders
        if orders.limit[k] == 0:
            self.triggered |= bit
        if self.rows == rows:
            return
        if orders.part[k] != 0:
            sold: i64 = self.part[rows]
            self.rest[k] = (self.part_left(k) - sold) * MILLION // (MILLION - sold)
        else:
            self.rest[k] = (self.rest[k] if self.rest[k] != 0 else orders.size[k]) - done

    # -- margin ------------------------------------------------------------------------------------------------------

    def settle(self, account: MarginAccount) -> None:
        """Settle the fills that are new, and find the price of liquidation of the position after them."""
        while self.settled < self.rows:
            k: i64 = self.settled
            account.settle(
                self.wallet,
                self.what[k],
                self.before[k],
                self.after[k],
                self.part[k],
                self.price[k],
                self.raw[k],
                self.rate[k],
            )
            self.settled = k + 1
        self.liquidation = account.level(self.wallet, self.exposure)

    def is_liquidated(self, market: i64) -> bool:
        """Return whether the position is liquidated at the price `market`."""
        if self.exposure > 0:
            return market <= self.liquidation
        return self.exposure < 0 and market >= self.liquidation

    def liquidate(self, level: i64, extreme: i64) -> None:
        """End the position, and cancel all orders.

        A margin of its own is lost whole, so the price is only reported: the level. With cross margin the position is
        closed at the `extreme`, with costs.
        """
        account = self.account
        self.exited = True
        if account is None or account.isolated:
            self.trade(LIQUIDATION, NO_ORDER, -self.exposure, level, level, 0, level, 0, 0)
        else:
            price: i64 = self.slipped(extreme, -self.exposure)
            self.trade(LIQUIDATION, NO_ORDER, -self.exposure, extreme, price, self.rules.fee, extreme, 0, 0)
        self.alive = 0

    # -- legs ------------------------------------------------------------------------------------------------------

    def path(self, first: i64, second: i64, third: i64, last: i64) -> None:
        """Walk the three legs from `first` over `second` and `third` to `last`."""
        self.leg(first, second)
        self.leg(second, third)
        self.leg(third, last)

    def leg(self, begin: i64, end: i64) -> None:
        """Fill the orders and levels that the leg reaches, in order of their prices along the leg."""
        if end < begin:
            while self.step(-1, end):
                pass
        elif end > begin:
            while self.step(1, end):
                pass

    def step(self, way: i64, end: i64) -> bool:
        """Fill the next order or level on a leg that rises (`way` 1) or falls (-1) to `end`; return whether there was
        one.

        Prices times `way` rise along the leg: the lowest of those up to the end comes first. A limit order is against
        the leg (it sells into a rise) and needs the price to go beyond it, by `limit_through` where the job says so;
        then the market is that far beyond it when it fills. A stop order has the direction of the leg.
        """
        through: i64 = self.rules.limit_through
        orders = self.orders
        last: i64 = way * end
        nearest: i64 = last + 1
        found: i64 = NO_ORDER
        what: i64 = TARGET  # none found yet
        if self.exposure != 0:
            against: bool = (self.exposure > 0) == (way < 0)
            level: i64 = way * self.take_level
            if against:
                level = way * self.stop_level
            if level <= last:
                nearest = level
                what = STOP if against else TAKE
            if against and self.account is not None and self.account.on_legs:
                level = way * self.liquidation
                if level <= last and level <= nearest:
                    nearest = level
                    what = LIQUIDATION
        k: i64 = 0
        while k < orders.count:
            price: i64 = way * orders.price[k]
            if price < nearest:
                with_leg: bool = orders.side[k] == way
                if orders.limit[k] != 0:
                    meets: bool = not with_leg and price < last
                    if through != 0:
                        price += through
                        meets = not with_leg and price < nearest
                else:
                    meets = with_leg
                if meets and self.is_ready(k):
                    nearest = price
                    found = k
            k += 1
        if found != NO_ORDER:
            market: i64 = way * nearest
            self.fill_order(found, orders.price[found], market, orders.limit[found] == 0)
            return True
        if what == LIQUIDATION:
            self.liquidate(way * nearest, end)
            return True
        if what != TARGET:
            self.exit(what, way * nearest)
            return True
        return False

    def rough_value(self, close: i64) -> tuple[float, float]:
        """Return `value` as a float, and the sum of its terms' sizes: it is off by less than 10^-12 of that."""
        total: float = float(self.exposure) * float(close)
        size: float = abs(total)
        k: i64 = 0
        while k < self.rows:
            traded: float = float(self.after[k] - self.before[k]) * float(self.price[k])
            fee: float = abs(traded) * float(self.rate[k]) / 1e6
            total -= traded + fee
            size += abs(traded) + fee
            k += 1
        return total, size

    def value(self, close: i64) -> int:
        """Return the cash of the fills per exposure, with costs, plus the position at `close`; times 10^6, exact."""
        total: int = int(self.exposure) * int(close) * MILLION
        k: i64 = 0
        while k < self.rows:
            change = int(self.after[k] - self.before[k])
            price = int(self.price[k])
            total -= change * price * MILLION + abs(change) * price * int(self.rate[k])
            k += 1
        return total

    def same_fills(self, other: "Walk") -> bool:
        """Return whether `other` has the same list of fills: kind, order and price."""
        if self.rows != other.rows:
            return False
        k: i64 = 0
        while k < self.rows:
            if self.what[k] != other.what[k] or self.order[k] != other.order[k] or self.raw[k] != other.raw[k]:
                return False
            k += 1
        return True
