"""A slow account of one perpetual with margin, of the parts of tests/reference: what docs/margin.md says."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from reference.candles import PPM, SCALE, Bar
from reference.cash import Account, Event
from reference.costs import ceil_div
from reference.margin import (
    HIGHEST_PRICE,
    Tier,
    cross_is_liquidated,
    isolated_is_liquidated,
    liquidation_price,
    valid_at,
)
from reference.minute import Symbol, sign
from reference.options import Options
from reference.units import Fill
from reference.volume import NAME, VolumeRun, VolumeSymbol


@lru_cache(100_000)
def level_of(isolated: bool, cash: int, held: int, entry: int, margin: int, tiers: tuple[Tier, ...]) -> int | None:
    """The price of liquidation, by bisection."""
    if held == 0:
        return None
    if isolated:
        return liquidation_price(held, entry, margin, tiers)
    safe, liquidated = (HIGHEST_PRICE, 1) if held > 0 else (1, HIGHEST_PRICE)

    def ends_at(price: int) -> bool:
        return cross_is_liquidated(cash, {NAME: (held, price)}, {NAME: tiers})

    if not ends_at(liquidated):
        return None
    if ends_at(safe):
        return safe
    while abs(safe - liquidated) > 1:
        middle = (safe + liquidated) // 2
        safe, liquidated = (safe, middle) if ends_at(middle) else (middle, liquidated)
    return liquidated


class MarginSymbol(VolumeSymbol):
    """The symbol's decisions, with its money beside them."""

    def __init__(self, options: Options, money: Account, isolated: bool) -> None:
        super().__init__(options, money)
        self.isolated = isolated
        self.mean, self.margin = 0, 0
        self.tiers: tuple[Tier, ...] = ()
        self.mark: Bar | None = None
        self.market: int | None = None  # while an order fills
        self.leg_end = 0

    @property
    def held_now(self) -> int:
        return self.money.held.get(NAME, 0)

    def level(self) -> int | None:
        if not self.w:
            return None
        return level_of(self.isolated, self.money.cash, self.held_now, self.mean, self.margin, self.tiers)

    def is_liquidated(self, price: int) -> bool:
        """Suggestion of the reference's own test, not of the level."""
        if not self.w or not self.held_now:
            return False
        if self.isolated:
            return isolated_is_liquidated(self.held_now, self.mean, self.margin, price, self.tiers)
        return cross_is_liquidated(self.money.cash, {NAME: (self.held_now, price)}, {NAME: self.tiers})

    # fills

    def fill(self, stage: str, key: str, kind: str, raw: int, after: int, *rest: Any, **named: Any) -> list[Fill]:
        if kind == "liquidation":
            if stage == "range" and not self.isolated and self.market is None:
                raw = self.leg_end
            self.exited = True
            fills = Symbol.fill(self, stage, key, kind, raw, after)
            if self.isolated:
                fills = [dataclasses.replace(fills[0], price=raw, rate=0)]
                self.filled[-1] = (key, raw)
                self.lose(fills[0])
            else:
                self.money.settle({NAME: fills})
                self.money.counts["liquidations"] += 1
            self.mean, self.margin, self.alive = 0, 0, []
            self.tell_once()
            return fills
        fills = super().fill(stage, key, kind, raw, after, *rest, **named)
        if fills and self.market is not None and self.mark is None and self.is_liquidated(self.market):
            fills = fills + self.fill(stage, "liquidation", "liquidation", self.market, 0)
        return fills

    def settled(self, fills: list[Fill]) -> list[Fill]:
        for fill in fills:
            before = self.held_now
            super().settled([fill])
            self.moved(before, self.held_now, fill.price)
        return fills

    def moved(self, before: int, after: int, price: int) -> None:
        if after == 0:
            self.mean, self.margin = 0, 0
        elif abs(after) > abs(before):
            cost = abs(before) * self.mean + (abs(after) - abs(before)) * price
            self.mean = ceil_div(cost, abs(after)) if after > 0 else cost // abs(after)
            self.margin += ceil_div((abs(after) - abs(before)) * price * PPM, SCALE * self.options.leverage)
        elif after != before:
            self.margin = ceil_div(self.margin * abs(after), abs(before))

    def lose(self, fill: Fill) -> None:
        money, held = self.money, self.held_now
        flow = held * self.mean // SCALE - self.margin
        money.events.append(Event(NAME, fill, -held, flow))
        money.price[NAME] = fill.raw
        money.pay(NAME, flow)
        money.held[NAME] = 0
        money.stretch[NAME].ever = True
        money.counts["fills"] += 1
        money.counts["liquidations"] += 1
        money.turnover += abs(held) * fill.raw
        money.end_stretch(NAME)

    def fill_order(self, order: Any, stage: str, kind: str, raw: int, at: int) -> list[Fill]:
        self.market = at
        try:
            return super().fill_order(order, stage, kind, raw, at)
        finally:
            self.market = None

    def protect(self, stage: str, at: int) -> list[Fill]:
        market, self.market = self.market, None
        fills = super().protect(stage, at)
        self.market = market
        return fills

    # a minute

    def at_open(self, bar: Bar) -> list[Fill]:
        self.now = bar.t
        return [*self.open_test(bar), *super().at_open(bar), *self.open_test(bar)]

    def open_test(self, bar: Bar) -> list[Fill]:
        trigger = self.mark.open if self.mark else bar.open
        if not self.is_liquidated(trigger):
            return []
        if self.book.target is not None:
            self.acted = self.book.target
        return self.fill("open", "liquidation", "liquidation", trigger if self.isolated else bar.open, 0)

    def in_range(self, bar: Bar) -> list[Fill]:
        return [*self.mark_test(bar), *super().in_range(bar), *self.mark_test(bar)]

    def mark_test(self, bar: Bar) -> list[Fill]:
        if self.mark is None or not self.w:
            return []
        if not self.is_liquidated(self.mark.low if self.w > 0 else self.mark.high):
            return []
        self.leg_end = bar.low if self.w > 0 else bar.high
        return self.fill("range", "liquidation", "liquidation", self.level() or 0, 0)

    def next_met(self, start: int, end: int, direction: int) -> Any:
        met = super().next_met(start, end, direction)
        level = self.level()
        if level is None or self.mark is not None or direction != -sign(self.w) or not self.is_liquidated(end):
            return met
        if met is not None and (met[0] - level) * direction < 0:
            return met
        self.leg_end = end
        return level, "liquidation"


class MarginRun(VolumeRun):
    """One backtest of one perpetual, minute by minute."""

    def __init__(
        self,
        bars: list[Bar],
        strategy: Any,
        options: Mapping[str, Any],
        isolated: bool,
        tables: Mapping[int, Sequence[Tier]],
        marks: Sequence[Bar] = (),
    ) -> None:
        self.isolated = isolated
        super().__init__(bars, strategy, options)
        self.tables = tables
        self.marks = {bar.t: bar for bar in marks}

    def new_symbol(self) -> MarginSymbol:
        return MarginSymbol(self.options, self.account, self.isolated)

    def charge(self, symbol: str, t: int) -> None:
        last = self.last.get(symbol)
        if last is not None and last.t in self.marks and t in self.funding[symbol]:
            held = self.account.held.get(symbol, 0)
            if held:
                self.account.charge(symbol, "funding", self.marks[last.t].close, self.funding[symbol][t])
            if held < 0 and t in self.borrow[symbol]:
                self.account.charge(symbol, "borrow", last.close, self.borrow[symbol][t])
        else:
            super().charge(symbol, t)

    def minute(self, t: int) -> None:
        self.symbol.mark = self.marks.get(t)
        self.symbol.tiers = tuple(valid_at(self.tables, max(t, min(self.tables))))
        super().minute(t)


def run_margin(*given: Any, by_change: bool = False, **named: Any) -> dict[str, Any]:
    """As `reference.cash.run_cash`; and `liquidation_price` of the open position."""
    run = MarginRun(*given, **named)
    run.symbol.by_change = by_change
    for t in run.minutes:
        run.minute(t)
    return run.result() | {"liquidation_price": run.symbol.level() if run.symbol.held_now else None}
