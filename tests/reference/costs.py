"""Costs of a fill and the levels of the job's own protection (SEMANTICS §5; corrections 1 and 2; SEMANTICS-2 §11)."""

from .candles import PPM


def ceil_div(a: int, b: int) -> int:
    """`a / b` rounded up, b > 0."""
    return -(-a // b)


def distance(price: int, rate: int) -> int:
    """A rate of a price, rounded away: a rate above 0 is never nothing (correction 2)."""
    return ceil_div(price * rate, PPM)


def slipped(raw: int, side: int, slippage: int) -> int:
    """The price after slippage of a buy (side +1) or a sell (−1); at least 1 (§5, SEMANTICS-2 §10.1)."""
    return max(1, raw + side * distance(raw, slippage))


def stop_levels(side: int, entry: int, best: int, stop_loss: int, trailing_stop: int) -> list[int]:
    """The job's own stop levels of a position (§4.2); rate 0 switches its rule off; a level is at least 1."""
    levels = []
    if stop_loss:
        levels.append(max(1, entry - side * distance(entry, stop_loss)))
    if trailing_stop:
        levels.append(max(1, best - side * distance(best, trailing_stop)))
    return levels


def take_levels(side: int, entry: int, take_profit: int) -> list[int]:
    """The job's own target level of a position (§4.2)."""
    return [max(1, entry + side * distance(entry, take_profit))] if take_profit else []


def nearest_stop(side: int, levels: list[int]) -> int | None:
    """Of several stops the one nearest to the market: a long's highest, a short's lowest (SEMANTICS-2 §9)."""
    return (max(levels) if side > 0 else min(levels)) if levels else None


def nearest_take(side: int, levels: list[int]) -> int | None:
    """Of several targets the one nearest to the market."""
    return (min(levels) if side > 0 else max(levels)) if levels else None
