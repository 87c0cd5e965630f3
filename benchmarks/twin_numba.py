"""The same plain loop for numba's just-in-time compiler."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from market import Market
from numpy.typing import NDArray

MILLION = 1_000_000
FIGURES = ("profit", "drawdown", "fees", "fills", "trades", "wins", "gross_profit", "gross_loss", "exposure")

Ints = NDArray[np.int64]


def cross(
    opens: Ints, closes: Ints, day_ends: Ints, fast: int, slow: int, fee: int, slippage: int, day_equity: Ints
) -> tuple[int, int, int, int, int, int, int, int, int]:
    """Trade the crossing of two averages, long or flat; the equity at each day's end goes into `day_equity`."""
    fast_sum = slow_sum = cash = entry_cash = equity = peak = drawdown = 0
    fees = fills = trades = wins = gross_profit = gross_loss = exposure = day = 0
    held = want = False
    for i in range(len(closes)):
        if want != held:
            raw = opens[i]
            if want:
                fill = raw + raw * slippage // MILLION
                paid = fill * fee // MILLION
                entry_cash = -fill - paid
                cash += entry_cash
            else:
                fill = raw - raw * slippage // MILLION
                paid = fill * fee // MILLION
                cash += fill - paid
                profit = entry_cash + fill - paid
                trades += 1
                if profit > 0:
                    wins += 1
                    gross_profit += profit
                else:
                    gross_loss -= profit
            fees += paid
            fills += 1
            held = want
        close = closes[i]
        fast_sum += close
        slow_sum += close
        if i >= fast:
            fast_sum -= closes[i - fast]
        if i >= slow:
            slow_sum -= closes[i - slow]
        want = i >= slow - 1 and fast_sum * slow > slow_sum * fast
        equity = cash + close if held else cash
        peak = max(peak, equity)
        drawdown = max(drawdown, peak - equity)
        if held:
            exposure += 1
        if day < len(day_ends) and i == day_ends[day]:
            day_equity[day] = equity
            day += 1
    return equity, drawdown, fees, fills, trades, wins, gross_profit, gross_loss, exposure


compiled: Any = numba.njit(cross)


def prepared(market: Market, fast: int, slow: int, fee: int) -> Callable[[], dict[str, int]]:
    """A call that runs the loop once. The squares need more than 64 bits, so they are added up outside of it."""
    opens, closes, day_ends = market.columns["open"], market.columns["close"], market.day_ends
    day_equity = np.zeros(len(day_ends), dtype=np.int64)

    def call() -> dict[str, int]:
        found: tuple[int, ...] = compiled(opens, closes, day_ends, fast, slow, fee, 0, day_equity)
        profits = np.diff(day_equity, prepend=0).tolist()
        sums = {"days": len(profits), "day_sum": sum(profits), "squares": sum(profit * profit for profit in profits)}
        return {**dict(zip(FIGURES, map(int, found), strict=True)), **sums}

    return call
