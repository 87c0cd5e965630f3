"""A matrix of daily profits, sets x days, as integers so small that doubles add them exactly in any order."""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.errors import BadInput
from candlemill.rounding import Doubles, ordered_sum

Matrix = NDArray[np.int64]
SETS_LIMIT = 10_000  # of which more is not learnt, but paid
CHUNK = 500  # rows that are worked on at once: some megabytes


class Trials(msgspec.Struct, frozen=True):
    """What deflating needs of all sets: the variance of their daily Sharpe ratios, their mean correlation."""

    variance: float
    correlation: float

    def independent(self, trials: int) -> int:
        """How many independent trials so many correlated ones are worth: rho + (1 - rho) * trials, rounded.

        Bailey and Lopez de Prado 2014, appendix 3.
        """
        return round(self.correlation + (1 - self.correlation) * trials)


def thinned(count: int, best: int, limit: int = SETS_LIMIT) -> list[int]:
    """Which of `count` sets are looked at: all, or `limit` at even distances and the best one, ascending."""
    if count <= limit:
        return list(range(count))
    return sorted({k * count // limit for k in range(limit)} | {best})


def small(rows: Matrix) -> Doubles:
    """Each row times a power of two, rounded, so that a row's squares add up to at most 2^53: exact in doubles.

    Ratios such as Sharpe's do not change with the scale; the rounding is 2^-22 of the row's largest profit for a year
    and 2^-20 for ten. Rows that fit already only move by a power of two, so equal rows stay equal.
    """
    values = rows.astype(np.float64)
    bits = (53 - (rows.shape[1] - 1).bit_length()) // 2
    _, exponents = np.frexp(np.abs(values).max(axis=1, initial=0.0))
    np.ldexp(values, (bits - exponents)[:, None], out=values)
    np.rint(values, out=values)
    return values


def chunks(matrix: Matrix) -> Iterator[tuple[int, Doubles]]:
    """The matrix's rows made `small`, some at a time, each time with the first one's number."""
    if matrix.ndim != 2 or matrix.dtype != np.int64:
        raise BadInput(f"profits are {matrix.dtype} in {matrix.ndim} dimensions: give int64, sets x days")
    for lo in range(0, len(matrix), CHUNK):
        yield lo, small(matrix[lo : lo + CHUNK])


def trials_of(matrix: Matrix) -> Trials:
    """Of the sets whose profits vary: the others say nothing. Zero where there are fewer than two."""
    n = matrix.shape[1]
    ratios = []
    total = np.zeros(n, dtype=np.int64)
    for _, rows in chunks(matrix):
        sums, squares = rows.sum(axis=1), (rows * rows).sum(axis=1)
        means = sums / n
        moved = squares - means * sums  # n times the population's variance
        varied = moved > squares * 1e-12
        sums, means, moved, rows = sums[varied], means[varied], moved[varied], rows[varied]
        ratios.append(means / np.sqrt(moved / max(n - 1, 1)))
        # Rows of length 1 as integers, so that their sum does not depend on the order.
        unit = (rows - means[:, None]) / np.sqrt(moved)[:, None]
        total += np.rint(unit * 2.0**40).astype(np.int64).sum(axis=0)
    found = np.concatenate(ratios) if ratios else np.empty(0)
    m = len(found)
    if m < 2:
        return Trials(0.0, 0.0)
    away = found - ordered_sum(found) / m
    length = sum(x * x for x in total.tolist()) / 2**80  # of the sum of all rows, squared: m + all pairs, both ways
    correlation = (length - m) / (m * (m - 1))
    return Trials(ordered_sum(away * away) / (m - 1), min(max(correlation, 0.0), 1.0))
