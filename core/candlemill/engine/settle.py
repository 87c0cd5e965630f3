"""Settlement of fills in money, in integers and in order of time. SEMANTICS-2, section 12.

Fills are already decided from prices alone. Settlement applies them to one account: quantities from equity, lots and
minimums, shared cash, fees, funding and borrow. It processes events only, not bars.
"""

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.account_events import (
    BORROW,
    CUT,
    ENDING,
    FUNDING,
    JUDGED,
    REJECTED,
    Events,
    moment_of,
    zeros,
)
from candlemill.engine.candles import Column, native, view
from candlemill.engine.fill_tape import AT_CLOSE, LIQUIDATION, ORDER, TARGET
from candlemill.engine.quotes import Quotes
from candlemill.engine.settle_rules import ISOLATED, NO_MARGIN, NOTIONAL, UNITS, SettleRules
from candlemill.engine.wide import (
    MILLION,
    SCALE,
    below_limit,
    fitting,
    part_over_price,
    ppm_up,
    product,
    ratio_of,
    size_of,
    value_down,
    value_up,
)


class Settler:
    """State of one account during the settlement of its events.

    `cash` is in 10^-8, `held` the signed quantity of each symbol. For each event it records `moved` (the signed
    quantity traded), `flow` (the cash received), `value` and `rest` (of the fill), `paid` (its fee, funding or borrow)
    and `status`.
    """

    def __init__(self, rules: SettleRules, quotes: list[Quotes], cash: i64, held: Column, trade_cash: Column) -> None:
        n: i64 = len(quotes)
        self.rules: SettleRules = rules
        self.quotes: list[Quotes] = quotes
        self.funded: list[Quotes] = quotes  # prices on which funding is paid
        self.n: i64 = n
        self.cash: i64 = cash
        self.held: vec[i64] = native(held)
        self.trade_cash: vec[i64] = native(trade_cash)  # cash of the present trade of each symbol
        self.filled: vec[i64] = zeros(n)  # 1: the present trade has had a quantity
        self.entry: vec[i64] = zeros(n)  # mean price of the position and its margin; 0 without margin rules
        self.margin: vec[i64] = zeros(n)
        self.pending_whole: vec[i64] = zeros(n)  # equity when an earlier slice's orders were made
        self.pending_rest: vec[i64] = zeros(n)
        self.seen_at: vec[i64] = native(np.full(int(n), -1, dtype=np.int64))  # `moment_of` the latest fill
        self.seen_price: vec[i64] = zeros(n)
        self.trades: vec[i64] = zeros(n)
        self.wins: vec[i64] = zeros(n)
        self.gross_profit: vec[i64] = zeros(n)
        self.gross_loss: vec[i64] = zeros(n)
        self.moved: vec[i64] = vec[i64]()
        self.flow: vec[i64] = vec[i64]()
        self.value: vec[i64] = vec[i64]()
        self.rest: vec[i64] = vec[i64]()
        self.paid: vec[i64] = vec[i64]()
        self.status: vec[i64] = vec[i64]()
        self.equity_whole: vec[i64] = vec[i64]()  # by instant
        self.equity_rest: vec[i64] = vec[i64]()
        self.noted: i64 = 0  # number of instants whose equity is known

    def carry(self, filled: Column, pending_whole: Column, pending_rest: Column, entry: Column, margin: Column) -> None:
        """Restore the remaining state of an earlier slice."""
        self.filled = native(filled)
        self.entry = native(entry)
        self.margin = native(margin)
        self.pending_whole = native(pending_whole)
        self.pending_rest = native(pending_rest)

    def run(self, events: Events) -> None:
        """Settle all events, one round at a time. Raises OverflowError for amounts from 2^60 on."""
        n: i64 = len(events.minute)
        count: i64 = len(events.instants)
        self.prepare(n, count)
        minute, stage, turn = events.minute, events.stage, events.turn
        i: i64 = 0
        while i < n:
            j: i64 = i + 1
            while j < n and minute[j] == minute[i] and stage[j] == stage[i] and turn[j] == turn[i]:
                j += 1
            before: i64 = minute[i]
            if stage[i] >= AT_CLOSE:
                before += 1
            self.note_instants(events.instants, before)
            self.settle_round(events, i, j)
            i = j
        if count:
            self.note_instants(events.instants, events.instants[count - 1] + 1)

    def prepare(self, events: i64, instants: i64) -> None:
        """Make room for the records of so many events, and for the equity at so many instants."""
        self.moved, self.flow, self.value = zeros(events), zeros(events), zeros(events)
        self.rest, self.paid, self.status = zeros(events), zeros(events), zeros(events)
        self.equity_whole, self.equity_rest = zeros(instants), zeros(instants)
        self.noted = 0

    def note_instants(self, instants: vec[i64], before: i64) -> None:
        """Record the equity at the instants before time `before`."""
        k: i64 = self.noted
        n: i64 = len(instants)
        while k < n and instants[k] < before:
            self.equity_whole[k], self.equity_rest[k] = self.equity(instants[k])
            k += 1
        self.noted = k

    def equity(self, time: i64) -> tuple[i64, i64]:
        """Return the equity with every position at its last close at `time` or before it."""
        whole: i64 = self.cash
        rest: i64 = 0
        k: i64 = 0
        while k < self.n:
            if self.held[k] != 0:
                one, fine = product(self.held[k], self.quotes[k].at(time))
                whole = below_limit(whole + one)
                rest += fine
            k += 1
        carry: i64 = rest // SCALE
        return whole + carry, rest - carry * SCALE

    def settle_round(self, events: Events, first: i64, end: i64) -> None:
        """Settle at most one event of each symbol: first all that reduce, then those that add."""
        adding = False
        i: i64 = first
        while i < end:
            what: i64 = events.what[i]
            if what >= FUNDING:
                self.pay_or_end(events, i)
            else:
                k: i64 = events.symbol[i]
                self.seen_at[k] = moment_of(events.minute[i], events.stage[i])
                self.seen_price[k] = events.raw[i]
                if events.before[i] == 0:
                    self.trade_cash[k] = 0
                    self.filled[k] = 0
                if self.is_adding(events, i):
                    adding = True
                else:
                    self.reduce(events, i, k)
            i += 1
        if adding:
            self.add_round(events, first, end)

    def reduce(self, events: Events, i: i64, k: i64) -> None:
        """Trade an event that lowers the exposure; an exposure of 0 closes the whole position."""
        held: i64 = self.held[k]
        if held != 0 and events.what[i] == LIQUIDATION and self.rules.margin == ISOLATED:
            self.lose_margin(events, i, k)
        elif held != 0:
            less: i64 = self.reduction(events, i, k)
            if less > 0:
                self.trade(events, i, k, -less if held > 0 else less)
        if events.after[i] == 0:
            self.end_trade(k)

    def reduction(self, events: Events, i: i64, k: i64) -> i64:
        """Return how much of a position an event ends."""
        size: i64 = size_of(self.held[k])
        after: i64 = events.after[i]
        if after == 0 or events.what[i] > ORDER:
            return size
        if events.part[i] != 0:
            return self.to_steps(ratio_of(size, events.part[i], MILLION), k)
        if events.what[i] == TARGET:
            return max(0, size - self.quantity(events, i, k, size_of(after)))
        return min(size, self.quantity(events, i, k, size_of(events.before[i] - after)))

    def end_trade(self, k: i64) -> None:
        """Finish the trade of a symbol that is flat now. It counts only if it ever had a quantity."""
        if self.filled[k] != 0:
            profit: i64 = self.trade_cash[k]
            self.trades[k] += 1
            if profit > 0:
                self.wins[k] += 1
                self.gross_profit[k] = below_limit(self.gross_profit[k] + profit)
            else:
                self.gross_loss[k] = below_limit(self.gross_loss[k] - profit)
        self.filled[k] = 0
        self.trade_cash[k] = 0

    def to_steps(self, quantity: i64, k: i64) -> i64:
        step: i64 = self.rules.step[k]
        if step <= 1:
            return quantity
        return quantity // step * step

    def quantity(self, events: Events, i: i64, k: i64, exposure: i64) -> i64:
        """Return the quantity of an exposure (ppm, above 0) at the instant of event `i`'s order; 0 without equity."""
        instant: i64 = events.instant[i]
        if instant >= 0:
            whole: i64 = self.equity_whole[instant]
            rest: i64 = self.equity_rest[instant]
        else:
            whole, rest = self.pending_whole[k], self.pending_rest[k]
        if whole < 0 or (whole == 0 and rest == 0):
            return 0
        rules = self.rules
        if rules.size == UNITS:
            return self.to_steps(ratio_of(rules.quantity, exposure, MILLION), k)
        price: i64 = max(1, events.made_price[i])
        if rules.size == NOTIONAL:
            return self.to_steps(part_over_price(exposure, rules.notional, 0, price), k)
        return self.to_steps(part_over_price(exposure, whole, rest, price), k)

    def wanted(self, events: Events, i: i64, k: i64) -> i64:
        """Return the quantity that an event adds before any cut; 0 if it is rejected, -1 if there is nothing to add."""
        if events.what[i] == TARGET:
            more: i64 = self.quantity(events, i, k, size_of(events.after[i])) - size_of(self.held[k])
            if more < 0:
                return -1
        else:
            more = self.quantity(events, i, k, size_of(events.after[i] - events.before[i]))
        if events.part[i] == JUDGED:
            return more if more > 0 else -1
        if more == 0 or more < self.rules.min_quantity[k]:
            return 0
        if self.rules.min_notional[k] != 0 and value_down(more, events.made_price[i]) < self.rules.min_notional[k]:
            return 0
        return more

    def add_round(self, events: Events, first: i64, end: i64) -> None:
        """Trade the additions of a round; if they need more than the room, each is cut to the same share."""
        need: i64 = 0
        adds: i64 = 0
        i: i64 = first
        while i < end:
            if self.is_adding(events, i):
                more: i64 = self.wanted(events, i, events.symbol[i])
                if more > 0:
                    value: i64 = value_up(more, events.price[i])
                    if events.after[i] < 0:
                        value = value_down(more, events.price[i])
                        more = -more
                    need = below_limit(need + value + ppm_up(value, events.rate[i]))
                    self.moved[i] = more
                    adds += 1
                elif more == 0:
                    self.status[i] = REJECTED
            i += 1
        if adds == 0:
            return
        room: i64 = self.room(events.minute[first], events.stage[first])
        i = first
        while i < end:
            more = self.moved[i]
            if more != 0 and self.is_adding(events, i):
                if need > room:
                    more = self.cut(i, events.symbol[i], more, room, need)
                if more != 0:
                    self.trade(events, i, events.symbol[i], more)
            i += 1

    def is_adding(self, events: Events, i: i64) -> bool:
        before: i64 = events.before[i]
        after: i64 = events.after[i]
        return events.what[i] < FUNDING and ((after > before and before >= 0) or (after < before and before <= 0))

    def cut(self, i: i64, k: i64, more: i64, room: i64, need: i64) -> i64:
        """Return the addition `more` (signed) after the cut, in whole steps."""
        size: i64 = size_of(more)
        left: i64 = self.to_steps(ratio_of(size, room, need), k)
        if size - left > size // 100:
            self.status[i] = CUT
        if left == 0:
            self.status[i] = self.status[i] | REJECTED
            self.moved[i] = 0
        return left if more > 0 else -left

    def room(self, minute: i64, stage: i64) -> i64:
        """Return the room for additions: `leverage * equity / 10^6` less the value of all positions, rounded down, at
        least 0.

        Prices are those of the latest fills of the minute, otherwise the last close before the minute; at the close of
        the minute they are its closes.
        """
        moment: i64 = moment_of(minute, stage)
        time: i64 = minute if stage == AT_CLOSE else minute - 1
        whole: i64 = self.cash
        rest: i64 = 0
        gross: i64 = 0
        gross_rest: i64 = 0
        k: i64 = 0
        while k < self.n:
            held: i64 = self.held[k]
            if held != 0:
                price: i64 = self.seen_price[k]
                if self.seen_at[k] != moment:
                    price = self.quotes[k].at(time)
                one, fine = product(size_of(held), price)
                gross = below_limit(gross + one)
                gross_rest += fine
                if held > 0:
                    whole = below_limit(whole + one)
                    rest += fine
                else:
                    whole = below_limit(whole - one)
                    rest -= fine
            k += 1
        carry: i64 = rest // SCALE
        whole += carry
        rest -= carry * SCALE
        leverage: i64 = self.rules.leverage
        high: i64 = whole // MILLION
        if abs(float(high)) * float(leverage) >= 1.15e18:
            raise OverflowError(f"an equity of {whole} (scaled) times the leverage is above the limit of 2^60")
        low: i64 = (whole - high * MILLION) * leverage
        parts: i64 = low // MILLION
        fine = (low - parts * MILLION) * SCALE + leverage * rest - MILLION * gross_rest
        return max(0, high * leverage + parts - gross + fine // (MILLION * SCALE))

    def trade(self, events: Events, i: i64, k: i64, more: i64) -> None:
        """Buy (`more` above 0) or sell at the event's fill price; the fee is paid in addition."""
        value, rest = product(size_of(more), events.price[i])
        self.value[i] = value
        self.rest[i] = rest
        flow: i64 = value
        if more > 0:
            if rest != 0:
                value += 1
            flow = -value
        fee: i64 = ppm_up(value, events.rate[i])
        flow -= fee
        self.cash = below_limit(self.cash + flow)
        self.trade_cash[k] = below_limit(self.trade_cash[k] + flow)
        if self.rules.margin != NO_MARGIN:
            self.move_margin(k, int(more), int(events.price[i]))
        self.held[k] += more
        self.filled[k] = 1
        self.moved[i] = more
        self.flow[i] = flow
        self.paid[i] = fee

    def move_margin(self, k: i64, more: int, price: int) -> None:
        """Update entry price and margin for a trade of `more` (signed): what is added brings its value divided by the
        leverage, what is sold takes its share.

        All is rounded against the account: the mean entry of a long up, of a short down, margins up.
        """
        held = int(self.held[k])
        after = held + more
        if after == 0:
            self.entry[k] = 0
            self.margin[k] = 0
        elif held == 0 or (held > 0) == (more > 0):
            cost = held * int(self.entry[k]) + more * price
            self.entry[k] = -(-cost // after) if after > 0 else cost // after
            added = -(-abs(more) * price * MILLION // (SCALE * int(self.rules.leverage)))
            self.margin[k] = fitting(int(self.margin[k]) + added)
        else:
            self.margin[k] = -(-int(self.margin[k]) * after // held)

    def lose_margin(self, events: Events, i: i64, k: i64) -> None:
        """End an isolated position whose margin is lost whole: what is left of its cost flows back, without a fee."""
        held: i64 = self.held[k]
        self.value[i], self.rest[i] = product(size_of(held), events.price[i])
        flow: i64 = below_limit(value_down(held, self.entry[k]) - self.margin[k])
        self.cash = below_limit(self.cash + flow)
        self.trade_cash[k] = below_limit(self.trade_cash[k] + flow)
        self.held[k] = 0
        self.entry[k] = 0
        self.margin[k] = 0
        self.filled[k] = 1
        self.moved[i] = -held
        self.flow[i] = flow

    def pay_or_end(self, events: Events, i: i64) -> None:
        """Settle funding, borrow or the end of a position.

        The price is the last close before the minute, for an ending the close of the minute.
        """
        k: i64 = events.symbol[i]
        held: i64 = self.held[k]
        what: i64 = events.what[i]
        if held == 0 or (what == BORROW and held > 0):
            if what == ENDING:
                self.end_trade(k)
            return
        if what == FUNDING:
            price: i64 = self.funded[k].at(events.minute[i] - 1)
        else:
            price = self.quotes[k].at(events.minute[i] if what == ENDING else events.minute[i] - 1)
        if what == ENDING:
            flow: i64 = value_down(held, price)
            self.held[k] = 0
            self.entry[k] = 0
            self.margin[k] = 0
            self.moved[i] = -held
        elif what == FUNDING:  # a long pays a positive rate
            flow = -due(held, price, events.rate[i])
        else:
            flow = -due(-held, price, events.rate[i])
        self.cash = below_limit(self.cash + flow)
        self.trade_cash[k] = below_limit(self.trade_cash[k] + flow)
        self.flow[i] = flow
        if what == ENDING:
            self.end_trade(k)
        else:
            self.paid[i] = -flow

    def columns(self) -> dict[str, Column]:
        """Return the records of all events as arrays without copying; see `CandleColumns.columns`."""
        return {
            "moved": view(self.moved),
            "flow": view(self.flow),
            "value": view(self.value),
            "rest": view(self.rest),
            "paid": view(self.paid),
            "status": view(self.status),
        }

    def of_symbols(self) -> dict[str, Column]:
        """Return the state of each symbol."""
        return {
            "held": view(self.held),
            "trade_cash": view(self.trade_cash),
            "filled": view(self.filled),
            "trades": view(self.trades),
            "wins": view(self.wins),
            "gross_profit": view(self.gross_profit),
            "gross_loss": view(self.gross_loss),
            "entry": view(self.entry),
            "margin": view(self.margin),
        }

    def equities(self) -> tuple[Column, Column]:
        """Return the equity at each instant: whole and rest."""
        return view(self.equity_whole), view(self.equity_rest)


def due(quantity: i64, price: i64, rate: i64) -> i64:
    """Return `quantity * price * rate / 10^16` (a rate times 10^8) rounded up: payments become larger, receipts
    smaller.
    """
    return below_limit(fitting(-(-int(quantity) * int(price) * int(rate) // (SCALE * SCALE))))
