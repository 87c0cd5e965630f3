"""The accounts beyond one unit, written a second time: sizing `notional`, limits to the volume, sizing `compound`.

They read what happened from `reference.walk_through`. Sized accounts are exact, in fractions. The compound account has
50 decimal digits and no rounding by the day: the engine's doubles and its integers of 10^-15 must come within 10^-9.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any

from slow_engine import (
    DAY,
    PPM,
    SCALE,
    Bar,
    Fill,
    Mark,
    OverGap,
    Settlement,
    counts,
    cut_candles,
    differences,
    sharpe_ratio,
    sortino_ratio,
    walk_through,
)

CAPITAL = 10_000 * SCALE
DIGITS = 50
RETURNS = 10**15  # a daily return is reported in these
STEPS = 10**30  # and for the ratios becomes an integer of these


# --- a quantity per trade: `notional`, and `fixed` with a limit to the volume -----------------------------------------


@dataclass
class Sized:
    """Money is a fraction of the scaled unit: quantity * price / 10^8."""

    fee: int
    maker_fee: int
    quantity: int | None  # of each trade, or None where the notional says it
    notional: int
    volume_share: int
    volume_scale: int
    position: int = 0
    size: int = 0  # of the open trade, scaled
    entry: int = 0
    profit: Fraction = Fraction(0)
    equity_closed: Fraction = Fraction(0)
    fees: Fraction = Fraction(0)
    funding: Fraction = Fraction(0)
    turnover: Fraction = Fraction(0)
    gross_profit: Fraction = Fraction(0)
    gross_loss: Fraction = Fraction(0)
    fills: int = 0
    unfilled: int = 0
    trades: int = 0
    wins: int = 0

    def sized(self, price: int, volume: int) -> int:
        size = self.notional * SCALE // max(1, price) if self.quantity is None else self.quantity
        if self.volume_share:
            size = min(size, volume * self.volume_share * SCALE // (PPM * self.volume_scale))
        return size

    def fill(self, fill: Fill, volume: int) -> None:
        if fill.entry:
            self.position, self.entry, self.size = fill.side, fill.price, self.sized(fill.price, volume)
            self.profit = Fraction(0)
            self.unfilled += self.size == 0
        value = Fraction(self.size * fill.price, SCALE)
        paid = value * (self.maker_fee if fill.maker else self.fee) / PPM
        self.fees += paid
        self.turnover += value
        self.fills += self.size > 0
        self.profit -= paid
        if not fill.entry:
            self.leave(Fraction(self.size * (fill.price - self.entry) * self.position, SCALE))

    def leave(self, gain: Fraction) -> None:
        self.profit += gain
        self.equity_closed += gain
        self.trades += self.size > 0
        if self.profit > 0:
            self.wins += 1
            self.gross_profit += self.profit
        else:
            self.gross_loss -= self.profit
        self.position = self.size = 0

    def settle(self, settlement: Settlement) -> None:
        paid = Fraction(settlement.side * self.size * settlement.close * settlement.rate, SCALE * SCALE)
        self.funding += paid
        self.profit -= paid

    def equity(self, mark: int) -> Fraction:
        held = Fraction(self.position * self.size * (mark - self.entry), SCALE)
        return self.equity_closed - self.fees - self.funding + held


def sized_backtest(
    bars: list[Bar],
    *,
    start: int,
    end: int,
    fee: int = 1000,
    maker_fee: int | None = None,
    quantity: int | None = None,
    notional: int | None = None,
    capital: int | None = None,
    volume_share: int = 0,
    volume_scale: int = SCALE,
    **what: Any,
) -> dict[str, Any]:
    """The result row of a job with a `quantity` (sizing fixed) or, without one, sizing notional."""
    bars = cut_candles(bars, start, end)
    walk = walk_through(bars, **what)
    if quantity is None:
        capital = capital or CAPITAL
        notional = notional or capital
    else:
        capital = capital or max(1, quantity * bars[0].open // SCALE)
    maker_fee = fee if maker_fee is None else maker_fee
    account = Sized(fee, maker_fee, quantity, notional or 0, volume_share, volume_scale)
    peak = max_drawdown = equity = Fraction(0)
    over_gaps = 0
    equity_of_day: dict[int, Fraction] = {}
    for event in walk.events:
        if isinstance(event, Fill):
            account.fill(event, bars[event.i].volume)
        elif isinstance(event, Settlement):
            account.settle(event)
        elif isinstance(event, OverGap):
            over_gaps += account.size > 0
        else:
            equity = account.equity(event.close)
            peak = max(peak, equity)
            max_drawdown = max(max_drawdown, peak - equity)
            equity_of_day[bars[event.i].t // DAY] = equity
    levels = list(equity_of_day.values())
    exact = differences([whole(level) for level in levels])
    return counts(walk, start, end) | {
        "capital": capital,
        "total_pnl": floor(equity),
        "sharpe_ratio": sharpe_ratio(exact),
        "sortino_ratio": sortino_ratio(exact),
        "max_drawdown": floor(max_drawdown),
        "trades": account.trades,
        "wins": account.wins,
        "gross_profit": floor(account.gross_profit),
        "gross_loss": floor(account.gross_loss),
        "fees": floor(account.fees),
        "funding": floor(account.funding),
        "turnover": floor(account.turnover),
        "fills": account.fills,
        "unfilled": account.unfilled,
        "trades_over_gaps": over_gaps,
        "days": len(levels),
        "daily": differences([floor(level) for level in levels]),
    }


def whole(money: Fraction) -> int:
    """Money in 10^-24, which carries every sum exactly."""
    exact = money * 10**16
    assert exact.denominator == 1
    return exact.numerator


# --- all of the equity: `compound` ------------------------------------------------------------------------------------


@dataclass
class Compound:
    fee: Decimal
    maker_fee: Decimal
    equity: Decimal = Decimal(1)  # at the last fill, settlement or mark
    position: int = 0
    entry: Decimal = Decimal(0)
    base: Decimal = Decimal(0)  # what the equity would be at the entry price: its size, in money
    before: Decimal = Decimal(0)  # the equity before the open trade's entry
    ruined: bool = False
    fees: Decimal = Decimal(0)  # these three are money, with a capital of 1
    funding: Decimal = Decimal(0)
    turnover: Decimal = Decimal(0)
    fills: int = 0
    trades: int = 0
    profits: list[Decimal] = field(default_factory=list)  # of the closed trades

    def at(self, price: int) -> Decimal:
        """The equity with the open position at a price."""
        if self.position == 1:
            return self.base * price / self.entry
        if self.position == -1:
            return self.base * (2 - price / self.entry) if self.entry else Decimal(0)
        return self.equity

    def becomes(self, equity: Decimal) -> None:
        self.ruined = self.ruined or equity <= 0
        self.equity = Decimal(0) if self.ruined else equity

    def fill(self, fill: Fill) -> None:
        self.fills += 1
        self.trades += not fill.entry
        rate = self.maker_fee if fill.maker else self.fee
        if self.ruined:
            if not fill.entry:
                self.profits.append(-self.before)
            self.before = Decimal(0)
            return
        if fill.entry:
            self.before = self.equity
        else:
            self.becomes(self.at(fill.price))
        self.fees += self.equity * rate
        self.turnover += self.equity
        self.becomes(self.equity * (1 - rate))
        if fill.entry:
            self.position, self.entry, self.base = fill.side, Decimal(fill.price), self.equity
        else:
            self.position = 0
            self.profits.append(self.equity - self.before)

    def settle(self, settlement: Settlement) -> None:
        if self.ruined:
            return
        close, rate = settlement.close, Decimal(settlement.rate) / SCALE
        value = self.base * close / self.entry  # units times close, for either side
        paid = settlement.side * value * rate
        before = self.at(close)
        self.funding += paid
        self.becomes(before - paid)
        self.base *= self.equity / before

    def mark(self, mark: Mark) -> None:
        if not self.ruined:
            self.becomes(self.at(mark.close))

    def end_of_day(self, before: Decimal) -> None:
        """An account is ruined, too, when a day's return comes to -1 in 10^-15."""
        if self.equity * 2 * RETURNS <= before:
            self.becomes(Decimal(0))


def compound_backtest(
    bars: list[Bar],
    *,
    start: int,
    end: int,
    fee: int = 1000,
    maker_fee: int | None = None,
    capital: int | None = None,
    **what: Any,
) -> dict[str, Any]:
    """The result row; money rounded down from 50 digits. What `disagreements` needs comes with it."""
    bars = cut_candles(bars, start, end)
    walk = walk_through(bars, **what)
    with localcontext() as context:
        context.prec = DIGITS
        return counts(walk, start, end) | _compounded(walk.events, bars, fee, maker_fee, capital or CAPITAL)


def _compounded(events: list[Any], bars: list[Bar], fee: int, maker_fee: int | None, capital: int) -> dict[str, Any]:
    maker_fee = fee if maker_fee is None else maker_fee
    account = Compound(Decimal(fee) / PPM, Decimal(maker_fee) / PPM)
    peak, max_drawdown = Decimal(1), Decimal(0)
    levels = [Decimal(1)]
    for event in events:
        if isinstance(event, Fill):
            account.fill(event)
        elif isinstance(event, Settlement):
            account.settle(event)
        elif isinstance(event, Mark):
            account.mark(event)
            if event.i + 1 == len(bars) or bars[event.i].t // DAY != bars[event.i + 1].t // DAY:
                account.end_of_day(levels[-1])
                levels.append(account.equity)
            peak = max(peak, account.equity)
            max_drawdown = max(max_drawdown, 1 - account.equity / peak)
    returns = [after / before - 1 if before else Decimal(0) for before, after in pairwise(levels)]
    steps = [int((r * STEPS).to_integral_value()) for r in returns]
    gains = [profit for profit in account.profits if profit > 0]
    losses = [profit for profit in account.profits if profit <= 0]
    return {
        "capital": capital,
        "total_pnl": rounded_down(capital * (account.equity - 1)),
        "sharpe_ratio": sharpe_ratio(steps),
        "sortino_ratio": sortino_ratio(steps),
        "max_drawdown": rounded_down(SCALE * max_drawdown),
        "trades": account.trades,
        "wins": len(gains),
        "gross_profit": rounded_down(capital * sum(gains, Decimal(0))),
        "gross_loss": rounded_down(-capital * sum(losses, Decimal(0))),
        "fees": rounded_down(capital * account.fees),
        "funding": rounded_down(capital * account.funding),
        "turnover": rounded_down(capital * account.turnover),
        "fills": account.fills,
        "unfilled": 0,
        "days": len(returns),
        "daily": [rounded_down(RETURNS * r) for r in returns],
        "exactly": Exactly(returns, account.profits, peak, account.ruined),
    }


def rounded_down(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_FLOOR))


# --- comparing --------------------------------------------------------------------------------------------------------

ERROR = Decimal("1e-12")  # of the equity: the page allows 1e-9


@dataclass(frozen=True)
class Exactly:
    """What a comparison with a compound result needs beside its figures."""

    returns: list[Decimal]  # by the day
    trade_profits: list[Decimal]  # with a capital of 1
    top: Decimal  # the highest equity
    ruined: bool


def disagreements(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Figures of a result that are not the reference's: found and wanted. Those of `compound` may be a little off."""
    wanted = dict(wanted)
    exactly: Exactly | None = wanted.pop("exactly", None)
    if exactly and exactly.ruined:  # whether a trade with nothing is won, the page does not tell
        del wanted["wins"]
    return {
        name: (found[name], right)
        for name, right in wanted.items()
        if found[name] != right and not (exactly and _near(name, found[name], right, wanted["capital"], exactly))
    }


def _near(name: str, found: Any, right: Any, capital: int, exactly: Exactly) -> bool:
    if name == "wins":
        unsure = sum(abs(profit) < ERROR for profit in exactly.trade_profits)
        return abs(found - right) <= unsure
    if name in ("total_pnl", "fees", "funding", "turnover", "gross_profit", "gross_loss"):
        return abs(found - right) <= 1 + ERROR * (capital * exactly.top + abs(right))
    if name == "daily":
        return all(abs(a - b) <= ERROR * (RETURNS + abs(b)) for a, b in zip(found, right, strict=True))
    if name == "max_drawdown":
        return abs(found - right) <= 1
    if name in ("sharpe_ratio", "sortino_ratio"):
        return abs(found - right) <= 1 + _ratio_error(exactly.returns, name == "sortino_ratio")
    return False


def _ratio_error(returns: list[Decimal], sortino: bool) -> Decimal:
    """How far a ratio of daily returns that are each off by the error may be, scaled."""
    n = len(returns)
    mean = sum(returns, Decimal(0)) / n
    below = sum((r * r for r in returns if r < 0), Decimal(0)) / n
    spread = sum(((r - mean) ** 2 for r in returns), Decimal(0)) / max(1, n - 1)
    deviation = (below if sortino else spread).sqrt()
    error = ERROR * (1 + max(abs(r) for r in returns))
    if deviation <= 10 * error:
        return Decimal("inf")
    return SCALE * 20 * 2 * error / deviation * (1 + abs(mean) / deviation)
