"""The reference of margin against examples computed by hand (SEMANTICS-2 §15)."""

from fractions import Fraction

import pytest

from reference.candles import SCALE, scaled
from reference.margin import (
    Tier,
    check,
    cross_is_liquidated,
    isolated_is_liquidated,
    liquidation_price,
    maintenance,
    valid_at,
)

#: 0.4 % up to 50,000, then 0.5 %: the amount that keeps it continuous is 50,000 · 0.1 % = 50.
TIERS = [Tier(0, 4000, 0), Tier(50_000 * SCALE, 5000, 50 * SCALE)]


def test_tiers_are_continuous() -> None:
    check(TIERS)
    assert maintenance(Fraction(50_000 * SCALE), TIERS) == 200 * SCALE
    assert maintenance(Fraction(100_000 * SCALE), TIERS) == 450 * SCALE
    with pytest.raises(ValueError, match="jumps"):
        check([TIERS[0], TIERS[1]._replace(amount=49 * SCALE)])


def test_tiers_in_force() -> None:
    assert valid_at({0: TIERS[:1], 10: TIERS}, 9) == TIERS[:1]
    assert valid_at({0: TIERS[:1], 10: TIERS}, 10) == TIERS


def test_liquidation_price_of_a_long() -> None:
    """One unit at 50,000 with a margin of 5,000: 5,000 + p − 50,000 = 0.004 p at p = 45,180.72289156…"""
    price = liquidation_price(SCALE, 50_000 * SCALE, 5_000 * SCALE, TIERS)
    assert price == scaled("45180.72289156")
    assert isolated_is_liquidated(SCALE, 50_000 * SCALE, 5_000 * SCALE, price, TIERS)
    assert not isolated_is_liquidated(SCALE, 50_000 * SCALE, 5_000 * SCALE, price + 1, TIERS)


def test_liquidation_price_of_a_short() -> None:
    """In the second tier: 5,000 + 50,000 − p = 0.005 p − 50 at p = 54,776.11940298…"""
    price = liquidation_price(-SCALE, 50_000 * SCALE, 5_000 * SCALE, TIERS)
    assert price == scaled("54776.11940299")


def test_unlevered_long_has_a_liquidation_price_of_nothing() -> None:
    assert liquidation_price(SCALE, 50_000 * SCALE, 60_000 * SCALE, TIERS) is None


def test_cross_adds_all_positions() -> None:
    """Short 1 at 40,000 and long 1 at 40,000 need 160 each."""
    positions = {"A": (SCALE, 40_000 * SCALE), "B": (-SCALE, 40_000 * SCALE)}
    tiers = {"A": TIERS, "B": TIERS}
    assert cross_is_liquidated(320 * SCALE, positions, tiers)
    assert not cross_is_liquidated(320 * SCALE + 1, positions, tiers)
    assert not cross_is_liquidated(0, {}, tiers)
