"""Strategies of version 1: what to hold after each decision bar, from that bar and earlier ones (SEMANTICS §3)."""

from typing import Any

from .candles import PPM, Bar


def sma_cross(bars: list[Bar], fast: int = 10, slow: int = 50, allow_short: bool = False) -> list[int]:
    """+1 where the mean of the last `fast` closes is above that of the last `slow`."""
    close = [bar.close for bar in bars]
    out = []
    for i in range(len(bars)):
        if i < slow - 1:
            out.append(0)
            continue
        fast_sum = sum(close[i - fast + 1 : i + 1])
        slow_sum = sum(close[i - slow + 1 : i + 1])
        if fast_sum * slow > slow_sum * fast:
            out.append(1)
        elif allow_short and fast_sum * slow < slow_sum * fast:
            out.append(-1)
        else:
            out.append(0)
    return out


def momentum_v1(bars: list[Bar], lookback: int = 1440, threshold: int = 0, allow_short: bool = False) -> list[int]:
    """+1 where the close rose by more than `threshold` ppm over `lookback` bars."""
    out = []
    for i in range(len(bars)):
        if i < lookback:
            out.append(0)
            continue
        before = bars[i - lookback].close
        move = bars[i].close - before
        limit = before * threshold // PPM
        out.append(1 if move > limit else -1 if allow_short and -move > limit else 0)
    return out


def donchian(bars: list[Bar], entry: int = 480, exit: int = 240) -> list[int]:
    """+1 from a close above the highest high of `entry` bars before, to one below the lowest low of `exit` bars."""
    out: list[int] = []
    held = 0
    for i in range(len(bars)):
        if i >= max(entry, exit):
            if held == 0 and bars[i].close > max(bar.high for bar in bars[i - entry : i]):
                held = 1
            elif held == 1 and bars[i].close < min(bar.low for bar in bars[i - exit : i]):
                held = 0
        out.append(held)
    return out


def buy_and_hold(bars: list[Bar]) -> list[int]:
    """+1 on every bar."""
    return [1] * len(bars)


STRATEGIES: dict[str, Any] = {
    "sma_cross": sma_cross,
    "momentum_v1": momentum_v1,
    "donchian": donchian,
    "buy_and_hold": buy_and_hold,
}


def desired(bars: list[Bar], name: str, params: dict[str, Any]) -> list[int]:
    """Desired position per decision bar. A schedule is the name `schedule` with `parts`: [(from, name, params), ...].

    In a schedule each part decides on the bars that open at its time or later; its strategy has seen all bars of the
    job before them (docs/jobs.md, walk-forward). Before the first part: 0.
    """
    if name == "schedule":
        out = [0] * len(bars)
        for since, part, part_params in params["parts"]:
            values = desired(bars, part, part_params)
            out = [value if bar.t >= since else old for bar, value, old in zip(bars, values, out, strict=True)]
        return out
    result: list[int] = STRATEGIES[name](bars, **params)
    return result
