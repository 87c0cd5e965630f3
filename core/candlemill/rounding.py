"""How figures become integers, and sums of doubles that are the same everywhere."""

import numpy as np
from numpy.typing import NDArray

from candlemill.model import SCALE

Doubles = NDArray[np.float64]


def divide(numerator: int, denominator: int) -> int | None:
    """The quotient rounded half to even; None for a denominator of 0."""
    if denominator == 0:
        return None
    whole, rest = divmod(numerator, denominator)
    twice = abs(2 * rest)
    if twice > abs(denominator) or (twice == abs(denominator) and whole % 2 == 1):
        whole += 1
    return whole


def ratio(numerator: int, denominator: int) -> int | None:
    """The quotient scaled by 10^8, exact before rounding; None for a denominator of 0."""
    return divide(numerator * SCALE, denominator)


def scaled(value: float) -> int:
    return round(value * SCALE)


def ordered_sum(column: Doubles) -> float:
    """The sum from the first element to the last, an order that `accumulate` promises and `sum` does not."""
    return float(np.add.accumulate(column)[-1]) if len(column) else 0.0
