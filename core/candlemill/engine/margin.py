"""Account of one symbol beside its decisions: its money from fill to fill, and the price of liquidation.

Decisions do not depend on money, except for a liquidation, and for how much of an order the volume of a bar fills. So
with margin or a share of the volume the fills of one symbol are settled while they are decided, once for each of the
two walks of a minute. `settle` settles them again with the same code for the figures. SEMANTICS-2, section 15.

Maintenance of a value `v` is `v * rate - amount` of the tier in which `v` lies. The tiers are continuous and their
rates rise, so this is the largest of all tiers' `v * rate - amount`: a position is liquidated if one tier says so.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.account_events import BEFORE_OPEN, JUDGED, Events
from candlemill.engine.candles import CandleColumns, Column, native
from candlemill.engine.fill_tape import TARGET
from candlemill.engine.quotes import quotes_of, quotes_on
from candlemill.engine.settle import Settler
from candlemill.engine.settle_rules import ISOLATED, SettleRules
from candlemill.engine.wide import MILLION, SCALE, ratio_of, size_of

FAR: Final = 1 << 61  # above every price
NOT_FILLED: Final = -2  # `part` of a fill for which the bar has too little volume
ONE: Final = (
    *("minute", "stage", "turn", "symbol", "what", "before", "after", "part", "price", "raw", "rate"),
    *("instant", "made_price"),
)  # fmt: skip


def liquidation_price(own: int, quantity: int, tiers: list[tuple[int, int]]) -> int:
    """Return the price nearest to the market at which a position is liquidated.

    `own + quantity * price` (10^-16, the quantity signed) is what is left; it is liquidated at or below the
    maintenance of `tiers`, which are (rate in ppm, amount in 10^-8). A long's highest such price, 0 if there is none;
    a short's lowest, at least 1, FAR if no price below it does it.
    """
    nearest = 0 if quantity >= 0 else FAR
    for rate, amount in tiers:
        if quantity > 0:  # own + q p <= q p rate - amount
            nearest = max(nearest, (-own - amount * SCALE) * MILLION // (quantity * (MILLION - rate)))
        elif quantity < 0:
            nearest = min(nearest, -((own + amount * SCALE) * MILLION // (quantity * (MILLION + rate))))
    return min(nearest, FAR) if quantity >= 0 else max(1, nearest)


def own_money(isolated: bool, cash: int, quantity: int, entry: int, margin: int) -> int:
    """Return what a position has beside `quantity * price`, in 10^-16: its margin less its cost, or all cash."""
    return margin * SCALE - quantity * entry if isolated else cash * SCALE


class Wallet:
    """Money of a walk: cash, quantity, mean entry price and margin of the position."""

    def __init__(self) -> None:
        self.cash: i64 = 0
        self.held: i64 = 0
        self.entry: i64 = 0
        self.margin: i64 = 0

    def begin_as(self, other: "Wallet") -> None:
        self.cash = other.cash
        self.held = other.held
        self.entry = other.entry
        self.margin = other.margin


class MarginRules:
    """Maintenance tiers by time: from bar `since[k]` on those of `tables[k]`, each (rate in ppm, amount in 10^-8).

    `mark_open`, `mark_high` and `mark_low` are the mark prices of each bar, 0 for a bar without; empty without any.
    """

    def __init__(
        self,
        since: Column,
        tables: list[list[tuple[int, int]]],
        mark_open: Column | None = None,
        mark_high: Column | None = None,
        mark_low: Column | None = None,
    ) -> None:
        none = np.empty(0, dtype=np.int64)
        self.since: vec[i64] = native(since)
        self.tables: list[list[tuple[int, int]]] = tables
        self.mark_open: vec[i64] = native(none if mark_open is None else mark_open)
        self.mark_high: vec[i64] = native(none if mark_high is None else mark_high)
        self.mark_low: vec[i64] = native(none if mark_low is None else mark_low)


class VolumeLimit:
    """Share of a bar's volume that orders may take, in ppm; 0: no limit. Volumes are scaled by `scale`."""

    def __init__(self, share: i64 = 0, scale: i64 = 1) -> None:
        self.share: i64 = share
        self.scale: i64 = scale


class MarginAccount:
    """Account of one symbol while its fills are decided.

    `limit` says how much of a bar's volume orders and targets may take. `flows` are the bars, kinds and rates of its
    funding and borrow, in order; funding is paid on the prices `funded` of the bars before, if given. `wallet` has the
    state before bar `lo`; `made_price`, `made_whole` and `made_rest` are the close and the equity at which its last
    orders were made.
    """

    def __init__(
        self,
        candles: CandleColumns,
        rules: SettleRules,
        margin: MarginRules,
        flows: tuple[Column, Column, Column],
        funded: Column | None,
        wallet: Wallet,
        lo: int,
        made_price: int,
        made_whole: int,
        made_rest: int,
        limit: VolumeLimit,
    ) -> None:
        zero = np.zeros(1, dtype=np.int64)
        self.t: vec[i64] = candles.t
        self.close: vec[i64] = candles.close
        self.volume: vec[i64] = candles.volume
        self.limit: VolumeLimit = limit
        self.is_limited: bool = limit.share != 0
        self.margin: MarginRules = margin
        self.isolated: bool = rules.margin == ISOLATED
        self.settler: Settler = Settler(rules, [quotes_of(candles, lo)], 0, zero, zero)
        self.settler.prepare(1, 1)
        if funded is not None:
            self.settler.funded = [quotes_on(candles, funded, lo)]
        self.settler.equity_whole[0] = made_whole
        self.settler.equity_rest[0] = made_rest
        self.event: Events = Events(dict.fromkeys(ONE, zero), zero)
        self.made_price: i64 = made_price
        self.flow_bars: vec[i64] = native(flows[0])
        self.flow_what: vec[i64] = native(flows[1])
        self.flow_rates: vec[i64] = native(flows[2])
        self.flow: i64 = 0
        self.table: i64 = 0
        self.bar: i64 = lo
        self.stage: i64 = BEFORE_OPEN
        self.start: Wallet = wallet
        self.on_legs: bool = True  # whether traded prices trigger in the present minute

    def begin(self, wallet: Wallet, i: i64) -> None:
        """Go to bar `i`: settle funding and borrow up to its open, and take the tiers in force."""
        self.bar = i
        self.on_legs = len(self.margin.mark_open) == 0 or self.margin.mark_open[i] == 0
        since = self.margin.since
        while self.table + 1 < len(since) and since[self.table + 1] <= i:
            self.table += 1
        bars = self.flow_bars
        while self.flow < len(bars) and bars[self.flow] <= i:
            if wallet.held != 0:
                event = self.event
                event.minute[0] = self.t[bars[self.flow]]
                event.stage[0] = BEFORE_OPEN
                event.what[0] = self.flow_what[self.flow]
                event.rate[0] = self.flow_rates[self.flow]
                self.settle_event(wallet)
            self.flow += 1

    def next_stop(self) -> i64:
        """Return the first bar after the present one at which the price of liquidation may change without a fill."""
        stop: i64 = FAR
        if self.flow < len(self.flow_bars):
            stop = self.flow_bars[self.flow]
        since = self.margin.since
        if self.table + 1 < len(since) and since[self.table + 1] < stop:
            stop = since[self.table + 1]
        return stop

    def decide(self, wallet: Wallet, i: i64) -> None:
        """Record the equity at the close of bar `i`, where orders are made."""
        self.begin(wallet, i)
        settler = self.settler
        settler.cash = wallet.cash
        settler.held[0] = wallet.held
        settler.equity_whole[0], settler.equity_rest[0] = settler.equity(self.t[i])
        self.made_price = self.close[i]

    def settle(
        self,
        wallet: Wallet,
        what: i64,
        before: i64,
        after: i64,
        part: i64,
        price: i64,
        raw: i64,
        rate: i64,
    ) -> None:
        """Settle a fill of the present bar and stage."""
        event = self.event
        event.minute[0] = self.t[self.bar]
        event.stage[0] = self.stage
        event.what[0] = what
        event.before[0] = before
        event.after[0] = after
        event.part[0] = part
        event.price[0] = price
        event.raw[0] = raw
        event.rate[0] = rate
        event.made_price[0] = self.made_price
        self.settle_event(wallet)

    def quantity_of_bar(self, i: i64) -> int:
        """Return the quantity that the orders of bar `i` together may take of its volume: it may exceed 64 bits."""
        limit = self.limit
        return int(self.volume[i]) * int(limit.share) * SCALE // (MILLION * int(limit.scale))

    def portion(
        self, wallet: Wallet, what: i64, before: i64, after: i64, part: i64, begun: bool, left: i64
    ) -> tuple[i64, i64]:
        """Return how far a fill from `before` towards `after` (not through 0) goes with the quantity `left` of a bar.

        The result is an exposure and the fill's `part`; NOT_FILLED if nothing fills. `begun`: the order has filled in
        part before, so its minimums are judged already.
        """
        event, settler = self.event, self.settler
        settler.held[0] = wallet.held
        event.what[0] = what
        event.before[0] = before
        event.after[0] = after
        event.part[0] = part
        event.made_price[0] = self.made_price
        if settler.is_adding(event, 0):
            return self.portion_added(begun, left)
        held: i64 = size_of(wallet.held)
        less: i64 = settler.reduction(event, 0, 0) if held != 0 else 0
        if less <= left:
            return after, part
        done: i64 = ratio_of(size_of(after - before), left, less)
        event.part[0] = ratio_of(left, MILLION, held)
        event.after[0] = before + done if after > before else before - done
        if done == 0 or event.part[0] == 0 or settler.reduction(event, 0, 0) == 0:
            return before, NOT_FILLED
        return event.after[0], event.part[0]

    def portion_added(self, begun: bool, left: i64) -> tuple[i64, i64]:
        """Do the same for the present event, which adds."""
        event, settler = self.event, self.settler
        before: i64 = event.before[0]
        after: i64 = event.after[0]
        event.part[0] = JUDGED if begun else 0
        more: i64 = settler.wanted(event, 0, 0)
        if more <= left:
            return after, event.part[0]
        base: i64 = size_of(before)
        if event.what[0] == TARGET:  # its quantity is that of the whole exposure after it
            base = 0
            more += size_of(settler.held[0])
            left += size_of(settler.held[0])
        reach: i64 = base + ratio_of(size_of(after) - base, left, more)
        event.part[0] = JUDGED
        event.after[0] = reach if after > 0 else -reach
        if reach <= size_of(before) or settler.wanted(event, 0, 0) <= 0:
            return before, NOT_FILLED
        return event.after[0], JUDGED

    def settle_event(self, wallet: Wallet) -> None:
        settler = self.settler
        settler.cash = wallet.cash
        settler.held[0] = wallet.held
        settler.entry[0] = wallet.entry
        settler.margin[0] = wallet.margin
        settler.moved[0] = 0
        settler.trade_cash[0] = 0
        settler.settle_round(self.event, 0, 1)
        wallet.cash = settler.cash
        wallet.held = settler.held[0]
        wallet.entry = settler.entry[0]
        wallet.margin = settler.margin[0]

    def level(self, wallet: Wallet, exposure: i64) -> i64:
        """Return the price of liquidation of a wallet: 0 for a long or no position without one, FAR for a short."""
        if wallet.held == 0:
            return 0 if exposure >= 0 else FAR
        own = own_money(self.isolated, int(wallet.cash), int(wallet.held), int(wallet.entry), int(wallet.margin))
        return liquidation_price(own, int(wallet.held), self.margin.tables[self.table])
