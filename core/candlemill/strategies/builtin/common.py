"""What several built-in strategies are made of."""

from collections.abc import Iterator

import numpy as np

from candlemill.engine.indicators import Floats
from candlemill.engine.signals import Desired

TILE = 1 << 13  # bars worked on at a time: long enough for a call to pay, short enough for the cache and the heap

# Bars, per bar of length, after which recursive means that began differently have become the same bits, nearly always.
EXPONENTIAL_WARM_UP = 20
WILDER_WARM_UP = 50


def tiles(first: int, end: int, length: int = TILE) -> Iterator[tuple[int, int]]:
    """`first` to `end` in stretches of `length`."""
    for a in range(first, end, length):
        yield a, min(a + length, end)


def signs(values: Floats, short: bool, out: Desired) -> None:
    """1 where a value is above 0, with `short` -1 where it is below; 0 for NaN."""
    np.greater(values, 0, out=out.view(np.bool_))
    if short:
        out -= (values < 0).view(np.int8)


def sides(turned: Desired, short: bool, out: Desired) -> None:
    """1, 0 and -1 as they are; without `short`, 0 for -1."""
    if short:
        out[:] = turned
    else:
        np.greater(turned, 0, out=out.view(np.bool_))
