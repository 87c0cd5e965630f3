"""The trading semantics, written a second time: slow, plain, and independent of the engine.

It is the oracle of the engine's tests. It shares no code with the engine and follows the page "Trading semantics,
version 1" sentence by sentence; the numbers in the comments are that page's sections. Whatever looks naive here is
naive on purpose: Python integers and fractions only, every window is summed anew, every bar is a pass through the four
steps. Only sizing `fixed` (section 6) is covered.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from pathlib import Path

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


def tape(bars: list[Bar], start: int, end: int) -> list[Bar]:
    """2: every candle with start <= t < end, in time order, one per minute; of duplicates the last wins."""
    by_time = {bar.t: bar for bar in bars if start <= bar.t < end}
    return [by_time[t] for t in sorted(by_time)]


def decision_bars(bars: list[Bar], timeframe: int) -> list[tuple[Bar, int]]:
    """2: the k-minute bars, each with the index of the last minute present in it, where its decision is taken."""
    groups: dict[int, list[int]] = {}
    for i, bar in enumerate(bars):
        groups.setdefault(bar.t // (timeframe * MINUTE), []).append(i)
    out = []
    for key, members in groups.items():
        part = [bars[i] for i in members]
        high = max(bar.high for bar in part)
        low = min(bar.low for bar in part)
        volume = sum(bar.volume for bar in part)
        out.append((Bar(key * timeframe * MINUTE, part[0].open, high, low, part[-1].close, volume), members[-1]))
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


# --- 5 and 6: fills, costs, the account (per unit of base) ------------------------------------------------------------


@dataclass
class Account:
    fee: int
    slippage: int
    position: int = 0
    entry: int = 0  # the entry's fill price, after slippage
    entry_fee: int = 0
    entry_bar: int = -1  # index of the bar that the entry was filled on
    extreme: int = 0  # best price since entry
    over_gap: bool = False  # the open position has been held over a missing minute
    closed_profit: int = 0  # sum of (exit - entry, signed) over closed round trips
    fees: int = 0
    fills: int = 0
    trades: int = 0
    wins: int = 0
    gross_profit: int = 0
    gross_loss: int = 0

    def fill(self, side: int, raw: int) -> tuple[int, int]:
        """5: one fill, side +1 a buy and -1 a sell. Returns the price after slippage and the fee paid."""
        slip = raw * self.slippage // PPM
        price = raw + slip if side == 1 else raw - slip
        paid = price * self.fee // PPM
        self.fees += paid
        self.fills += 1
        return price, paid

    def open(self, side: int, raw: int, i: int) -> None:
        self.entry, self.entry_fee = self.fill(side, raw)
        self.position = side
        self.entry_bar = i
        self.extreme = raw  # 4.2: starts as the entry fill's raw price
        self.over_gap = False

    def close(self, raw: int) -> None:
        price, paid = self.fill(-self.position, raw)
        gain = (price - self.entry) * self.position
        profit = gain - self.entry_fee - paid  # 6: a trade's profit
        self.closed_profit += gain
        self.trades += 1
        if profit > 0:
            self.wins += 1
            self.gross_profit += profit
        else:
            self.gross_loss -= profit
        self.position = 0

    def trade_to(self, want: int, raw: int, i: int) -> None:
        """4.1: close the old position, then open the new one, both at the same price."""
        if self.position != 0:
            self.close(raw)
        if want != 0:
            self.open(want, raw, i)

    def equity(self, mark: int) -> int:
        """6: closed round trips, less all fees, plus the open position marked (position 0 adds nothing)."""
        return self.closed_profit - self.fees + self.position * (mark - self.entry)


def intrabar(
    account: Account, bar: Bar, i: int, stop_loss: int, take_profit: int, trailing_stop: int
) -> tuple[int | None, bool]:
    """4.2: the raw price at which stop or take leave on bar i, or None; and whether the bar touched both."""
    entry, extreme = account.entry, account.extreme
    on_entry_bar = account.entry_bar == i
    stop: int | None = None
    take: int | None = None
    if account.position == 1:
        if stop_loss:
            stop = entry - entry * stop_loss // PPM
        if trailing_stop:
            trail = extreme - extreme * trailing_stop // PPM
            stop = trail if stop is None else max(stop, trail)
        if take_profit:
            take = entry + entry * take_profit // PPM
        both = stop is not None and take is not None and bar.low <= stop and bar.high >= take
        if stop is not None and bar.low <= stop:
            return (stop if on_entry_bar else min(bar.open, stop)), both
        if take is not None and bar.high >= take:
            return (take if on_entry_bar else max(bar.open, take)), both
    else:  # a short is the mirror image
        if stop_loss:
            stop = entry + entry * stop_loss // PPM
        if trailing_stop:
            trail = extreme + extreme * trailing_stop // PPM
            stop = trail if stop is None else min(stop, trail)
        if take_profit:
            take = entry - entry * take_profit // PPM
        both = stop is not None and take is not None and bar.high >= stop and bar.low <= take
        if stop is not None and bar.high >= stop:
            return (stop if on_entry_bar else max(bar.open, stop)), both
        if take is not None and bar.low <= take:
            return (take if on_entry_bar else min(bar.open, take)), both
    return None, False


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


# --- 4: one bar after the other ---------------------------------------------------------------------------------------


def backtest(
    bars: list[Bar],
    *,
    start: int,
    end: int,
    strategy: str,
    params: dict[str, int],
    fee: int = 1000,
    slippage: int = 0,
    stop_loss: int = 0,
    take_profit: int = 0,
    trailing_stop: int = 0,
    fill: str = "next_open",
    timeframe: int = 1,
    quantity: int = SCALE,
) -> dict[str, int]:
    """The result row of one job. A rate of 0 for stop_loss, take_profit or trailing_stop means that it is off."""
    if fill not in ("next_open", "close") or timeframe < 1:
        raise ValueError(f"fill={fill!r} timeframe={timeframe!r}")
    bars = tape(bars, start, end)
    ends = decision_bars(bars, timeframe)
    decided = dict(zip([i for _, i in ends], desired(strategy, params, [bar for bar, _ in ends]), strict=True))

    account = Account(fee, slippage)
    locked: int | None = None
    previous = 0  # `desired` of the previous bar
    peak = max_drawdown = equity = 0
    exposure_bars = ambiguous_bars = trades_over_gaps = 0
    equity_of_day: dict[int, int] = {}  # UTC day -> equity at its last bar

    for i, bar in enumerate(bars):
        # 4.1 Open
        if locked is not None and locked != previous:
            locked = None
        want = 0 if locked == previous else previous
        if fill == "next_open" and want != account.position:
            account.trade_to(want, bar.open, i)

        # 4.2 Intrabar
        if account.position != 0:
            price, both = intrabar(account, bar, i, stop_loss, take_profit, trailing_stop)
            ambiguous_bars += both
            if price is not None:
                account.close(price)
                locked = want
            elif account.position == 1:
                account.extreme = max(account.extreme, bar.high)
            else:
                account.extreme = min(account.extreme, bar.low)

        # 4.3 Decide; between two decisions the last one stands
        now = decided.get(i, previous)
        if fill == "close":
            want = 0 if locked == now else now
            if want != account.position:
                account.trade_to(want, bar.close, i)
        previous = now

        # 4.4 Mark
        equity = account.equity(bar.close)
        peak = max(peak, equity)
        max_drawdown = max(max_drawdown, peak - equity)
        equity_of_day[bar.t // DAY] = equity
        exposure_bars += account.position != 0
        gap_follows = i + 1 < len(bars) and bars[i + 1].t - bar.t > MINUTE
        if account.position != 0 and gap_follows and not account.over_gap:
            account.over_gap = True
            trades_over_gaps += 1

    at_day_ends = list(equity_of_day.values())
    daily = [today - before for before, today in zip([0, *at_day_ends], at_day_ends, strict=False)]

    def money(per_unit: int) -> int:
        return per_unit * quantity // SCALE

    return {
        "bars": len(bars),
        "missing_minutes": (end - start) // MINUTE - len(bars),
        "total_pnl": money(equity),
        "sharpe_ratio": sharpe_ratio(daily),
        "sortino_ratio": sortino_ratio(daily),
        "max_drawdown": money(max_drawdown),
        "trades": account.trades,
        "wins": account.wins,
        "gross_profit": money(account.gross_profit),
        "gross_loss": money(account.gross_loss),
        "fees": money(account.fees),
        "fills": account.fills,
        "exposure_bars": exposure_bars,
        "open_position": account.position,
        "days": len(daily),
        "ambiguous_bars": ambiguous_bars,
        "trades_over_gaps": trades_over_gaps,
    }
