"""Account of one symbol that is flat before each entry, as positions of -1, 0 and 1 are. SEMANTICS-2, section 12.

The figures are those of `settle.Settler`, which knows all other accounts; this one is fast enough for sweeps. Orders
are settled one by one, so nothing is recorded of each.
"""

from typing import Final

from mypy_extensions import i64

from candlemill.engine.mark import Marks
from candlemill.engine.position import MILLION, SCALE
from candlemill.engine.settle import due
from candlemill.engine.settle_rules import NOTIONAL, UNITS, SettleRules
from candlemill.engine.summary import Summary
from candlemill.engine.wide import below_limit, part_over_price, ppm_up, product, ratio_of, value_down

HALF: Final = 1 << 61  # a sum of amounts below 2^60 is moved to a Python integer from here on


class Total:
    """Sum of amounts below 2^60, which itself may exceed 64 bits."""

    def __init__(self) -> None:
        self.part: i64 = 0
        self.whole: int = 0

    def add(self, amount: i64) -> None:
        self.part += amount
        if self.part >= HALF or self.part <= -HALF:
            self.whole += int(self.part)
            self.part = 0

    def sum(self) -> int:
        return self.whole + int(self.part)


class SingleAccount:
    """Account of `capital`: its cash, the signed quantity held, and sums of all that happened.

    `equity` is noted by `note` as whole (10^-8) and rest (10^-16) before the orders that were made then are filled.
    """

    def __init__(self, rules: SettleRules, capital: i64) -> None:
        self.size: i64 = rules.size
        self.quantity: i64 = rules.quantity
        self.notional: i64 = rules.notional
        self.leverage: i64 = rules.leverage
        self.step: i64 = rules.step[0]
        self.min_quantity: i64 = rules.min_quantity[0]
        self.min_notional: i64 = rules.min_notional[0]
        self.capital: i64 = capital
        self.cash: i64 = capital
        self.held: i64 = 0
        self.trade_cash: i64 = 0
        self.is_filled: bool = False  # the present trade has had a quantity
        self.over_gap: bool = False  # the present trade has been held over missing minutes
        self.equity: i64 = capital
        self.equity_rest: i64 = 0
        self.trades: i64 = 0
        self.wins: i64 = 0
        self.gross_profit: i64 = 0
        self.gross_loss: i64 = 0
        self.fills: i64 = 0
        self.cut_orders: i64 = 0
        self.rejected_orders: i64 = 0
        self.over_gaps: i64 = 0
        self.fees: Total = Total()
        self.funding: Total = Total()
        self.borrow: Total = Total()
        self.turnover: Total = Total()
        self.turnover_rest: Total = Total()
        self.gap_profit: int = 0

    def note(self, price: i64) -> None:
        """Note the equity with the position at `price`, for orders made now."""
        self.equity, self.equity_rest = self.cash, 0
        if self.held != 0:
            one, fine = product(self.held, price)
            self.equity, self.equity_rest = below_limit(self.cash + one), fine

    def enter(self, side: i64, price: i64, rate: i64, made_price: i64) -> None:
        """Buy (1) or sell short (-1) what the noted equity pays for; less if the room is too small."""
        self.trade_cash = 0
        self.is_filled = False
        self.over_gap = False
        more: i64 = self.wanted(made_price)
        if more == 0:
            self.rejected_orders += 1
            return
        value, rest = product(more, price)
        paid: i64 = value
        if side > 0 and rest != 0:
            paid += 1
        fee: i64 = ppm_up(paid, rate)
        need: i64 = below_limit(paid + fee)
        room: i64 = self.room()
        if need > room:
            left: i64 = self.to_steps(ratio_of(more, room, need))
            if more - left > more // 100:
                self.cut_orders += 1
            if left == 0:
                self.rejected_orders += 1
                return
            more = left
            value, rest = product(more, price)
            paid = value
            if side > 0 and rest != 0:
                paid += 1
            fee = ppm_up(paid, rate)
        self.held = more if side > 0 else -more
        self.is_filled = True
        self.trade(value, rest, fee, -paid - fee if side > 0 else paid - fee)

    def leave(self, price: i64, rate: i64) -> None:
        """Close the position; the trade ends, with or without one."""
        held: i64 = self.held
        if held != 0:
            value, rest = product(held if held > 0 else -held, price)
            paid: i64 = value
            if held < 0 and rest != 0:
                paid += 1
            fee: i64 = ppm_up(paid, rate)
            self.held = 0
            self.trade(value, rest, fee, paid - fee if held > 0 else -paid - fee)
        self.end_trade()

    def end_at(self, price: i64) -> None:
        """Close the position at `price` without costs: a mark has ruined the account."""
        if self.held != 0:
            self.flow(value_down(self.held, price))
            self.held = 0
        self.end_trade()

    def trade(self, value: i64, rest: i64, fee: i64, flow: i64) -> None:
        self.fills += 1
        self.fees.add(fee)
        self.turnover.add(value)
        self.turnover_rest.add(rest)
        self.flow(flow)

    def flow(self, amount: i64) -> None:
        self.cash = below_limit(self.cash + amount)
        self.trade_cash = below_limit(self.trade_cash + amount)

    def pay_funding(self, price: i64, rate: i64) -> None:
        """Pay a funding rate (times 10^8) on the position at `price`; a long pays a positive rate."""
        if self.held != 0:
            paid: i64 = due(self.held, price, rate)
            self.funding.add(paid)
            self.flow(-paid)

    def pay_borrow(self, price: i64, rate: i64) -> None:
        """Pay a borrow rate (times 10^8) on a short at `price`."""
        if self.held < 0:
            paid: i64 = due(-self.held, price, rate)
            self.borrow.add(paid)
            self.flow(-paid)

    def cross_gap(self, before: i64, after: i64) -> None:
        """Hold the position over missing minutes, from the close before them to the open after them."""
        self.over_gap = self.is_filled
        if self.held != 0:
            self.gap_profit += int(self.held) * int(after - before)

    def end_trade(self) -> None:
        """Finish the trade. It counts only if it ever had a quantity."""
        if self.is_filled:
            profit: i64 = self.trade_cash
            self.trades += 1
            if self.over_gap:
                self.over_gaps += 1
            if profit > 0:
                self.wins += 1
                self.gross_profit = below_limit(self.gross_profit + profit)
            else:
                self.gross_loss = below_limit(self.gross_loss - profit)
        self.is_filled = False
        self.trade_cash = 0

    def wanted(self, price: i64) -> i64:
        """Return the quantity of an order made at `price` before any cut; 0 if it is rejected."""
        if self.equity < 0 or (self.equity == 0 and self.equity_rest == 0):
            return 0
        if self.size == UNITS:
            more: i64 = self.quantity
        elif self.size == NOTIONAL:
            more = part_over_price(MILLION, self.notional, 0, max(1, price))
        else:
            more = part_over_price(MILLION, self.equity, self.equity_rest, max(1, price))
        more = self.to_steps(more)
        if more < self.min_quantity or (self.min_notional != 0 and value_down(more, price) < self.min_notional):
            return 0
        return more

    def to_steps(self, quantity: i64) -> i64:
        if self.step <= 1:
            return quantity
        return quantity // self.step * self.step

    def room(self) -> i64:
        """Return `leverage * cash / 10^6`, rounded down, at least 0: there is no position."""
        if self.leverage == MILLION:
            return max(0, self.cash)
        high: i64 = self.cash // MILLION
        if abs(float(high)) * float(self.leverage) >= 1.15e18:
            raise OverflowError(f"an equity of {self.cash} (scaled) times the leverage is above the limit of 2^60")
        return max(0, high * self.leverage + (self.cash - high * MILLION) * self.leverage // MILLION)

    def summary(self, marks: Marks, bars: int) -> tuple[Summary, list[int]]:
        """Return the Summary of `bars` bars and the daily profits. A trade that is open is left to the merge."""
        begin = int(self.capital) * SCALE
        totals = marks.totals()
        out = Summary()
        out.bars = bars
        out.profit, out.peak, out.low = totals["last"] - begin, totals["peak"] - begin, totals["low"] - begin
        out.drawdown, out.exposure = totals["fall"], totals["exposure"]
        out.fees, out.funding, out.borrow = (
            self.fees.sum() * SCALE,
            self.funding.sum() * SCALE,
            self.borrow.sum() * SCALE,
        )
        out.turnover = self.turnover.sum() * SCALE + self.turnover_rest.sum()
        out.fills, out.cut, out.rejected = int(self.fills), int(self.cut_orders), int(self.rejected_orders)
        out.trades, out.wins, out.over_gaps = int(self.trades), int(self.wins), int(self.over_gaps)
        out.gross_profit, out.gross_loss = int(self.gross_profit) * SCALE, int(self.gross_loss) * SCALE
        out.gap_profit = self.gap_profit
        if self.is_filled:
            out.tail, out.tail_gap, out.tail_cash = 1, int(self.over_gap), int(self.trade_cash) * SCALE
        daily = marks.profits(self.capital, 0)
        out.count_days(daily)
        return out, daily
