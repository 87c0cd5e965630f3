"""Perpetual margin as far as the page defines it (SEMANTICS-2 §15): maintenance tiers, the test, a liquidation price.

How a liquidation enters the walk and the rounds of cash is left to the project's page, so `cash.py` has none of it.
All comparisons are exact. Money and quantities are times 10^8, rates ppm.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from .candles import PPM, SCALE

HIGHEST_PRICE = 10**20


class Tier(NamedTuple):
    """From a notional value of `floor` on: maintenance is `value · rate − amount`."""

    floor: int
    rate: int
    amount: int


def check(tiers: Sequence[Tier]) -> None:
    """Refuse tiers that do not begin at 0, do not ascend, or jump at a floor: ValueError."""
    if not tiers or tiers[0].floor != 0 or tiers[0].amount != 0:
        raise ValueError("the first tier begins at 0 with an amount of 0")
    for lower, upper in pairwise(tiers):
        if upper.floor <= lower.floor:
            raise ValueError(f"floor {upper.floor} does not follow {lower.floor}")
        if upper.floor * (upper.rate - lower.rate) != (upper.amount - lower.amount) * PPM:
            raise ValueError(f"maintenance jumps at {upper.floor}")


def valid_at(dated: Mapping[int, Sequence[Tier]], t: int) -> Sequence[Tier]:
    """The tiers in force at a time: those of the latest `valid_from` at or before it."""
    return dated[max(since for since in dated if since <= t)]


def maintenance(value: Fraction, tiers: Sequence[Tier]) -> Fraction:
    """The maintenance margin of a position's value, both in 10^-8."""
    tier = [tier for tier in tiers if tier.floor <= value][-1]
    return value * tier.rate / PPM - tier.amount


def isolated_is_liquidated(quantity: int, entry: int, margin: int, price: int, tiers: Sequence[Tier]) -> bool:
    """Whether margin and unrealised profit of a position (short: quantity below 0) are at or below maintenance."""
    left = margin + Fraction(quantity * (price - entry), SCALE)
    return left <= maintenance(Fraction(abs(quantity) * price, SCALE), tiers)


def cross_is_liquidated(
    cash: int, positions: Mapping[str, tuple[int, int]], tiers: Mapping[str, Sequence[Tier]]
) -> bool:
    """Whether the equity of an account is at or below the maintenance of all positions, {symbol: (quantity, price)}."""
    equity = cash + sum(Fraction(quantity * price, SCALE) for quantity, price in positions.values())
    needed = sum(
        maintenance(Fraction(abs(quantity) * price, SCALE), tiers[symbol])
        for symbol, (quantity, price) in positions.items()
    )
    return any(quantity for quantity, _ in positions.values()) and equity <= needed


def liquidation_price(quantity: int, entry: int, margin: int, tiers: Sequence[Tier]) -> int | None:
    """The price nearest to the market at which an isolated position is liquidated; None if no price does it.

    A long's highest such price, a short's lowest, by bisection (what is left above maintenance is monotone).
    """
    safe, liquidated = (HIGHEST_PRICE, 1) if quantity > 0 else (1, HIGHEST_PRICE)
    if not isolated_is_liquidated(quantity, entry, margin, liquidated, tiers):
        return None
    while abs(safe - liquidated) > 1:
        middle = (safe + liquidated) // 2
        if isolated_is_liquidated(quantity, entry, margin, middle, tiers):
            liquidated = middle
        else:
            safe = middle
    return liquidated
