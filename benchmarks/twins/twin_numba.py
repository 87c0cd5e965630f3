"""The same plain loop for numba's just-in-time compiler."""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from candlemill.engine.summary import FINE
from data.market import Market
from numpy.typing import NDArray
from twins.twin import day_sums

MILLION = 1_000_000
COUNTED = ("fills", "trades", "wins", "exposure")
MONEY = ("profit", "drawdown", "fees", "gross_profit", "gross_loss")

Ints = NDArray[np.int64]


def cross(
    opens: Ints,
    closes: Ints,
    day_ends: Ints,
    fast: int,
    slow: int,
    fee: int,
    slippage: int,
    day_equity: Ints,
    day_rest: Ints,
) -> tuple[int, ...]:
    """Trade the crossing of two averages, long or flat; the equity at each day's end goes into `day_equity`. Beside an
    amount that is rounded down stands its rest in millionths."""
    fast_sum = slow_sum = cash = rest = cash_before = rest_before = equity = peak = peak_rest = 0
    drawdown = drawdown_rest = fees = fees_rest = won = won_rest = lost = lost_rest = 0
    fills = trades = wins = exposure = day = 0
    held = want = False
    for i in range(len(closes)):
        if want != held:
            raw = opens[i]
            slip = (raw * slippage + MILLION - 1) // MILLION
            fill = raw + slip if want else raw - slip
            paid = fill * fee // MILLION
            paid_rest = fill * fee - paid * MILLION
            if want:
                cash_before, rest_before = cash, rest
                cash -= fill
            else:
                cash += fill
            cash -= paid
            rest -= paid_rest
            if rest < 0:
                cash -= 1
                rest += MILLION
            if not want:
                trades += 1
                profit = cash - cash_before
                profit_rest = rest - rest_before
                if profit > 0 or (profit == 0 and profit_rest > 0):
                    wins += 1
                    won += profit
                    won_rest += profit_rest
                else:
                    lost -= profit
                    lost_rest -= profit_rest
            fees += paid
            fees_rest += paid_rest
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
        if equity > peak or (equity == peak and rest > peak_rest):
            peak, peak_rest = equity, rest
        fall = peak - equity
        if fall >= drawdown:
            fall_rest = peak_rest - rest
            if fall_rest < 0:
                fall -= 1
                fall_rest += MILLION
            if fall > drawdown or (fall == drawdown and fall_rest > drawdown_rest):
                drawdown, drawdown_rest = fall, fall_rest
        if held:
            exposure += 1
        if day < len(day_ends) and i == day_ends[day]:
            day_equity[day], day_rest[day] = equity, rest
            day += 1
    money = equity, rest, drawdown, drawdown_rest, fees, fees_rest, won, won_rest, lost, lost_rest
    return fills, trades, wins, exposure, *money


compiled: Any = numba.njit(cross)


def prepared(market: Market, fast: int, slow: int, fee: int) -> Callable[[], dict[str, int]]:
    """A call that runs the loop once. The squares need more than 64 bits, so they are added up outside of it."""
    opens, closes, day_ends = market.columns["open"], market.columns["close"], market.day_ends
    day_equity, day_rest = np.zeros(len(day_ends), dtype=np.int64), np.zeros(len(day_ends), dtype=np.int64)

    def call() -> dict[str, int]:
        found: tuple[int, ...] = compiled(opens, closes, day_ends, fast, slow, fee, 0, day_equity, day_rest)
        numbers = [int(x) for x in found]
        counts, money = numbers[: len(COUNTED)], numbers[len(COUNTED) :]
        exact = [fine(whole, rest) for whole, rest in zip(money[0::2], money[1::2], strict=True)]
        days = [fine(whole, rest) for whole, rest in zip(day_equity.tolist(), day_rest.tolist(), strict=True)]
        return dict(zip(COUNTED, counts, strict=True)) | dict(zip(MONEY, exact, strict=True)) | day_sums(days)

    return call


def fine(whole: int, rest: int) -> int:
    """In the engine's unit."""
    return (whole * MILLION + rest) * (FINE // MILLION)
