"""Maintenance tiers of perpetuals: what a position must be worth beside its unrealised profit, by its value, by date.

Values and amounts are scaled by 10^8, rates are ppm, times UTC milliseconds.
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

MILLION = 1_000_000


class Tier(msgspec.Struct, frozen=True, array_like=True):
    """From a position's value of `floor` on, its maintenance is `value * rate - amount`."""

    floor: int
    rate: int
    amount: int


class TierTable(msgspec.Struct, frozen=True, array_like=True):
    """Tiers of a symbol that are in force from `valid_from` on."""

    valid_from: int
    tiers: list[Tier]


def check_tiers(tiers: Sequence[Tier]) -> None:
    """Check that tiers begin at 0, rise and do not jump. Raises ValueError."""
    if not tiers or tiers[0].floor != 0 or tiers[0].amount != 0:
        raise ValueError("the first tier has a floor of 0 and an amount of 0")
    if not all(0 <= tier.rate < MILLION for tier in tiers):
        raise ValueError("a rate is at least 0 and below 1")
    for lower, upper in pairwise(tiers):
        if upper.floor <= lower.floor or upper.rate <= lower.rate:
            raise ValueError(f"floors and rates rise from tier to tier: {lower} is followed by {upper}")
        if upper.floor * (upper.rate - lower.rate) != (upper.amount - lower.amount) * MILLION:
            due = lower.amount + upper.floor * (upper.rate - lower.rate) // MILLION
            raise ValueError(f"maintenance jumps at a floor of {upper.floor}: the amount is {upper.amount}, not {due}")


def check_tables(tables: Sequence[TierTable]) -> None:
    """Check the tables of a symbol, which are in order of their dates. Raises ValueError."""
    if any(after.valid_from <= before.valid_from for before, after in pairwise(tables)):
        raise ValueError("tables of maintenance tiers are not in order of their dates")
    for table in tables:
        check_tiers(table.tiers)


_tiers = msgspec.json.Decoder(list[Tier])


def tiers_of(text: str | bytes) -> list[Tier]:
    """Return stored tiers."""
    return _tiers.decode(text)


def in_force(tables: Sequence[TierTable], start: int, end: int) -> list[TierTable]:
    """Return the tables of a range: the latest one at or before `start`, and those that begin within the range."""
    early = [table for table in tables if table.valid_from <= start]
    return early[-1:] + [table for table in tables if start < table.valid_from < end]
