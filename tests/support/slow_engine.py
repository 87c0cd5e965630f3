"""The trading semantics, written a second time: slow, plain, and independent of the engine.

It is the oracle of the engine's tests. It shares no code with the engine and follows the page "Trading semantics,
version 1" with its three corrections sentence by sentence; the numbers in the comments are that page's sections.
Whatever looks naive here is naive on purpose: Python integers and fractions only, every window is summed anew, every
bar is a pass through the four steps. This module has the decisions, the fills, and sizing `fixed`;
`reference_accounts.py` has the other accounts.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

SCALE = 10**8  # 1: every decimal is an integer times 10^8
PPM = 10**6  # 1: rates are parts per million
MINUTE = 60_000  # 1: time is UTC milliseconds
DAY = 86_400_000


@dataclass(frozen=True)
class Bar:
    t: int  # open time, milliseconds UTC
    open: int
    high: int
    low: int
    close: int
    volume: int


# --- the data ---------------------------------------------------------------------------------------------------------


def away(price: int, rate: int) -> int:
    """Slippage and the distances of stops and targets are rounded up: a rate above 0 is never nothing."""
    return -(-price * rate // PPM)


def scaled(text: str) -> int:
    """1: decimal text is parsed exactly; more than 8 decimals is an error, not a rounding."""
    value = Fraction(text) * SCALE
    if value.denominator != 1:
        raise ValueError(f"{text!r} has more than 8 decimals")
    return value.numerator


def read_zip(path: str | Path) -> list[Bar]:
    """All rows of one archive, in file order, duplicates included. Open times are in ms, or in us from 2025 on."""
    bars = []
    with zipfile.ZipFile(path) as archive:
        (name,) = archive.namelist()
        for row in csv.reader(io.StringIO(archive.read(name).decode("ascii"))):
            t = int(row[0])
            if t >= 10**14:  # as milliseconds that would be after the year 5000
                t //= 1000
            bars.append(Bar(t, scaled(row[1]), scaled(row[2]), scaled(row[3]), scaled(row[4]), scaled(row[5])))
    return bars


def cut_candles(bars: list[Bar], start: int, end: int) -> list[Bar]:
    """2: every candle with start <= t < end, in time order, one per minute; of duplicates the last wins."""
    by_time = {bar.t: bar for bar in bars if start <= bar.t < end}
    return [by_time[t] for t in sorted(by_time)]


def origin_of(timeframe: int) -> int:
    """A time at which a k-minute bar begins: 1970-01-05 was a Monday, Binance's 3-day bars count from 2017-08-17."""
    if timeframe == 7 * 1440:
        return 4 * DAY
    return 17_395 * DAY if timeframe == 3 * 1440 else 0


def ends_whole(bar: Bar, timeframe: int) -> bool:
    """Whether the bar is the last minute that its k-minute bar can have: then it is known to be over at its close."""
    return (bar.t + MINUTE - origin_of(timeframe)) % (timeframe * MINUTE) == 0


def decision_bars(bars: list[Bar], timeframe: int) -> list[tuple[Bar, int]]:
    """2: the k-minute bars, each with the index of the last minute present in it, where its decision is taken."""
    groups: dict[int, list[int]] = {}
    origin = origin_of(timeframe)
    for i, bar in enumerate(bars):
        groups.setdefault((bar.t - origin) // (timeframe * MINUTE), []).append(i)
    out = []
    for key, members in groups.items():
        part = [bars[i] for i in members]
        high = max(bar.high for bar in part)
        low = min(bar.low for bar in part)
        volume = sum(bar.volume for bar in part)
        out.append(
            (Bar(key * timeframe * MINUTE + origin, part[0].open, high, low, part[-1].close, volume), members[-1])
        )
    return out


# --- 3: decisions -----------------------------------------------------------------------------------------------------


def sma_cross(bars: list[Bar], fast: int = 10, slow: int = 50, allow_short: bool = False) -> list[int]:
    out = []
    for i in range(len(bars)):
        value = 0
        if i >= max(fast, slow) - 1:  # the page's `slow - 1` whenever fast <= slow
            f = sum(bar.close for bar in bars[i + 1 - fast : i + 1])
            s = sum(bar.close for bar in bars[i + 1 - slow : i + 1])
            if f * slow > s * fast:
                value = 1
            elif allow_short and f * slow < s * fast:
                value = -1
        out.append(value)
    return out


def momentum_v1(bars: list[Bar], lookback: int = 1440, threshold: int = 0, allow_short: bool = False) -> list[int]:
    out = []
    for i in range(len(bars)):
        value = 0
        if i >= lookback:
            c0 = bars[i - lookback].close
            move = bars[i].close - c0
            if move > c0 * threshold // PPM:
                value = 1
            elif allow_short and -move > c0 * threshold // PPM:
                value = -1
        out.append(value)
    return out


def donchian(bars: list[Bar], entry: int = 480, exit: int = 240) -> list[int]:
    out = []
    value = 0  # carried from bar to bar
    for i in range(len(bars)):
        if i >= max(entry, exit):
            highest = max(bar.high for bar in bars[i - entry : i])
            lowest = min(bar.low for bar in bars[i - exit : i])
            if bars[i].close > highest:
                value = 1
            elif value == 1 and bars[i].close < lowest:
                value = 0
        out.append(value)
    return out


def buy_and_hold(bars: list[Bar]) -> list[int]:
    return [1] * len(bars)


STRATEGIES: dict[str, Callable[..., list[int]]] = {
    "sma_cross": sma_cross,
    "momentum_v1": momentum_v1,
    "donchian": donchian,
    "buy_and_hold": buy_and_hold,
}


def desired(strategy: str, params: dict[str, int], bars: list[Bar]) -> list[int]:
    """What the strategy wants at the close of each decision bar: -1, 0 or +1. Unknown names are errors."""
    return STRATEGIES[strategy](bars, **params)


# --- 4 and 5: what happens, bar after bar: the same for every account -------------------------------------------------


@dataclass(frozen=True)
class Fill:
    i: int  # its bar
    side: int  # +1 a buy, -1 a sell
    price: int  # after slippage
    entry: bool  # opens a position, or closes one
    maker: bool = False  # an exit at the take profit, which waited in the book


@dataclass(frozen=True)
class Settlement:
    """Funding of one bar, before its open, of a position that is held then."""

    i: int
    side: int  # of the position
    close: int  # of the bar before
    rate: int  # times 10^8, all the instants of the bar together


@dataclass(frozen=True)
class Mark:
    i: int
    close: int


@dataclass(frozen=True)
class OverGap:
    """The open position is held from bar i to the next over missing minutes, for the first time."""

    i: int


Event = Fill | Settlement | Mark | OverGap


@dataclass
class Walk:
    """What happened, in order, and what is counted whatever the account is."""

    bars: list[Bar]
    events: list[Event] = field(default_factory=list)
    position: int = 0
    entry: int = 0  # the entry's fill price, after slippage
    entry_bar: int = -1  # index of the bar that the entry was filled on
    extreme: int = 0  # best price since entry
    over_gap: bool = False  # the open position has been held over a missing minute
    exposure_bars: int = 0
    ambiguous_bars: int = 0

    def fill(self, i: int, side: int, raw: int, slippage: int, entry: bool, maker: bool = False) -> int:
        """5: one fill, against the trader by the slippage. Returns its price."""
        price = max(1, raw + side * away(raw, slippage))
        self.events.append(Fill(i, side, price, entry, maker))
        return price

    def open(self, side: int, raw: int, i: int, slippage: int) -> None:
        self.entry = self.fill(i, side, raw, slippage, entry=True)
        self.position = side
        self.entry_bar = i
        self.extreme = raw  # 4.2: starts as the entry fill's raw price
        self.over_gap = False

    def close(self, raw: int, i: int, slippage: int, maker: bool = False) -> None:
        self.fill(i, -self.position, raw, slippage, entry=False, maker=maker)
        self.position = 0

    def trade_to(self, want: int, raw: int, i: int, slippage: int) -> None:
        """4.1: close the old position, then open the new one, both at the same price."""
        if self.position != 0:
            self.close(raw, i, slippage)
        if want != 0:
            self.open(want, raw, i, slippage)


def intrabar(
    walk: Walk, bar: Bar, i: int, stop_loss: int, take_profit: int, trailing_stop: int
) -> tuple[int | None, bool, bool]:
    """4.2: the raw price at which stop or take leave on bar i, or None; whether it is the take; and whether the bar
    touched both after an open between them. The open comes first; then the stop. A level is at least 1."""
    entry, extreme = walk.entry, walk.extreme
    later_bar = walk.entry_bar != i
    stop: int | None = None
    take: int | None = None
    if walk.position == 1:
        if stop_loss:
            stop = max(1, entry - away(entry, stop_loss))
        if trailing_stop:
            trail = max(1, extreme - away(extreme, trailing_stop))
            stop = trail if stop is None else max(stop, trail)
        if take_profit:
            take = entry + away(entry, take_profit)
        if stop is not None and bar.open <= stop:
            return bar.open if later_bar else stop, False, False
        if take is not None and bar.open >= take:
            return bar.open if later_bar else take, True, False
        stopped, taken = stop is not None and bar.low <= stop, take is not None and bar.high >= take
    else:  # a short is the mirror image
        if stop_loss:
            stop = entry + away(entry, stop_loss)
        if trailing_stop:
            trail = extreme + away(extreme, trailing_stop)
            stop = trail if stop is None else min(stop, trail)
        if take_profit:
            take = max(1, entry - away(entry, take_profit))
        if stop is not None and bar.open >= stop:
            return bar.open if later_bar else stop, False, False
        if take is not None and bar.open <= take:
            return bar.open if later_bar else take, True, False
        stopped, taken = stop is not None and bar.high >= stop, take is not None and bar.low <= take
    if stopped:
        return stop, False, taken
    return (take, True, False) if taken else (None, False, False)


def rates_of_bars(bars: list[Bar], funding: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Funding instants (ms) and rates to bars: each belongs to the first bar that opens at it or later."""
    rates: dict[int, int] = {}
    for instant, rate in funding:
        later = [i for i, bar in enumerate(bars) if bar.t >= instant]
        if later:
            rates[later[0]] = rates.get(later[0], 0) + rate
    return rates


def walk_through(
    bars: list[Bar],
    *,
    strategy: str,
    params: dict[str, int],
    slippage: int = 0,
    stop_loss: int = 0,
    take_profit: int = 0,
    trailing_stop: int = 0,
    fill: str = "next_open",
    timeframe: int = 1,
    funding: Sequence[tuple[int, int]] = (),
) -> Walk:
    """All fills, settlements and marks. A rate of 0 for a stop or the take means that it is off."""
    if fill not in ("next_open", "close") or timeframe < 1:
        raise ValueError(f"fill={fill!r} timeframe={timeframe!r}")
    ends = decision_bars(bars, timeframe)
    decided = dict(zip([i for _, i in ends], desired(strategy, params, [bar for bar, _ in ends]), strict=True))
    rates = rates_of_bars(bars, funding)

    walk = Walk(bars)
    locked: int | None = None
    previous = 0  # `desired` of the previous bar
    late = False  # whether it was decided at the end of a bar that missing candles have cut
    for i, bar in enumerate(bars):
        # Funding, before the open
        if i in rates and walk.position != 0:
            walk.events.append(Settlement(i, walk.position, bars[i - 1].close, rates[i]))

        # 4.1 Open
        if locked is not None and locked != previous:
            locked = None
        want = 0 if locked == previous else previous
        if (fill == "next_open" or late) and want != walk.position:
            walk.trade_to(want, bar.open, i, slippage)

        # 4.2 Intrabar
        if walk.position != 0:
            price, is_take, both = intrabar(walk, bar, i, stop_loss, take_profit, trailing_stop)
            walk.ambiguous_bars += both
            if price is not None:
                walk.close(price, i, slippage, maker=is_take)
                locked = want
            elif walk.position == 1:
                walk.extreme = max(walk.extreme, bar.high)
            else:
                walk.extreme = min(walk.extreme, bar.low)

        # 4.3 Decide; between two decisions the last one stands
        now = decided.get(i, previous)
        late = i in decided and timeframe > 1 and not ends_whole(bar, timeframe)
        if fill == "close" and not late:
            want = 0 if locked == now else now
            if want != walk.position:
                walk.trade_to(want, bar.close, i, slippage)
        previous = now

        # 4.4 Mark
        walk.events.append(Mark(i, bar.close))
        walk.exposure_bars += walk.position != 0
        gap_follows = i + 1 < len(bars) and bars[i + 1].t - bar.t > MINUTE
        if walk.position != 0 and gap_follows and not walk.over_gap:
            walk.over_gap = True
            walk.events.append(OverGap(i))
    return walk


# --- 6: the ratios ----------------------------------------------------------------------------------------------------


def round_root(sign: int, num: int, den: int) -> int:
    """sign * sqrt(num / den), rounded half to even: floor first, then compare with floor + 1/2 exactly, squared."""
    root = isqrt(num // den)
    twice_squared = (2 * root + 1) ** 2 * den  # (root + 1/2)^2 * 4 * den
    if 4 * num > twice_squared or (4 * num == twice_squared and root % 2 == 1):
        root += 1
    return -root if sign < 0 else root


def sharpe_ratio(daily: list[int]) -> int:
    n, s, q = len(daily), sum(daily), sum(x * x for x in daily)
    spread = n * q - s * s  # the sample variance is spread / (n (n - 1))
    if n < 2 or spread == 0:
        return 0
    # (s/n)^2 / variance * 365 * SCALE^2
    return round_root(s, s * s * (n - 1) * 365 * SCALE**2, n * spread)


def sortino_ratio(daily: list[int]) -> int:
    n, s, q = len(daily), sum(daily), sum(x * x for x in daily if x < 0)
    if n < 2 or q == 0:
        return 0
    # (s/n)^2 / (q/n) * 365 * SCALE^2
    return round_root(s, s * s * 365 * SCALE**2, n * q)


# --- 6: the account of sizing `fixed`, per unit of base ---------------------------------------------------------------

PART = SCALE * SCALE  # money per unit is in parts of 10^-16, so that neither a fee (ppm) nor funding is ever rounded


@dataclass
class Account:
    """Prices are times 10^8, all sums of money times 10^16."""

    fee: int
    maker_fee: int
    position: int = 0
    entry: int = 0
    profit: int = 0  # of the open trade, so far: less its entry's fee and its funding
    gains: int = 0  # sum of (exit - entry, signed) over closed round trips
    fees: int = 0
    funding: int = 0
    turnover: int = 0
    fills: int = 0
    trades: int = 0
    wins: int = 0
    gross_profit: int = 0
    gross_loss: int = 0

    def fill(self, fill: Fill) -> None:
        paid = fill.price * (self.maker_fee if fill.maker else self.fee) * (SCALE // PPM)
        self.fees += paid
        self.turnover += fill.price * SCALE
        self.fills += 1
        if fill.entry:
            self.position, self.entry, self.profit = fill.side, fill.price, -paid
            return
        gain = (fill.price - self.entry) * self.position * SCALE
        self.gains += gain
        self.profit += gain - paid
        self.trades += 1
        if self.profit > 0:
            self.wins += 1
            self.gross_profit += self.profit
        else:
            self.gross_loss -= self.profit
        self.position = 0

    def settle(self, settlement: Settlement) -> None:
        paid = settlement.side * settlement.close * settlement.rate
        self.funding += paid
        self.profit -= paid

    def equity(self, mark: int) -> int:
        """6: closed round trips, less fees and funding, plus the open position marked (position 0 adds nothing)."""
        return self.gains - self.fees - self.funding + self.position * (mark - self.entry) * SCALE


def backtest(
    bars: list[Bar],
    *,
    start: int,
    end: int,
    fee: int = 1000,
    maker_fee: int | None = None,
    quantity: int = SCALE,
    capital: int | None = None,
    **what: Any,
) -> dict[str, Any]:
    """The result row of one job, and `daily`, its daily profits in money. `what` is for `walk_through`."""
    bars = cut_candles(bars, start, end)
    walk = walk_through(bars, **what)
    account = Account(fee, fee if maker_fee is None else maker_fee)
    peak = max_drawdown = equity = 0
    equity_of_day: dict[int, int] = {}  # UTC day -> equity at its last bar
    for event in walk.events:
        if isinstance(event, Fill):
            account.fill(event)
        elif isinstance(event, Settlement):
            account.settle(event)
        elif isinstance(event, Mark):
            equity = account.equity(event.close)
            peak = max(peak, equity)
            max_drawdown = max(max_drawdown, peak - equity)
            equity_of_day[bars[event.i].t // DAY] = equity
    daily = differences(list(equity_of_day.values()))

    def money(per_unit: int) -> int:
        """Rounded down once, after the quantity."""
        return per_unit * quantity // PART

    return counts(walk, start, end) | {
        "capital": capital or max(1, quantity * bars[0].open // SCALE),
        "total_pnl": money(equity),
        "sharpe_ratio": sharpe_ratio(daily),
        "sortino_ratio": sortino_ratio(daily),
        "max_drawdown": money(max_drawdown),
        "trades": account.trades,
        "wins": account.wins,
        "gross_profit": money(account.gross_profit),
        "gross_loss": money(account.gross_loss),
        "fees": money(account.fees),
        "funding": money(account.funding),
        "turnover": money(account.turnover),
        "fills": account.fills,
        "unfilled": 0,
        "days": len(daily),
        "daily": differences([money(at_end) for at_end in equity_of_day.values()]),
    }


def differences(levels: list[int]) -> list[int]:
    """What each level adds to the one before it, the first to 0."""
    return [after - before for before, after in zip([0, *levels], levels, strict=False)]


def counts(walk: Walk, start: int, end: int) -> dict[str, Any]:
    """The figures that no account has a part in."""
    return {
        "bars": len(walk.bars),
        "missing_minutes": (end - start) // MINUTE - len(walk.bars),
        "exposure_bars": walk.exposure_bars,
        "open_position": walk.position,
        "ambiguous_bars": walk.ambiguous_bars,
        "trades_over_gaps": sum(isinstance(event, OverGap) for event in walk.events),
        "first_open": walk.bars[0].open,
        "last_close": walk.bars[-1].close,
    }
