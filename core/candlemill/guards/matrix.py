"""A matrix of daily profits, sets x days, scaled to small integers that doubles add exactly in any order."""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.errors import BadInput
from candlemill.units import Doubles, ordered_sum

Matrix = NDArray[np.int64]
SETS_LIMIT = 10_000  # more sets cost time and do not improve the estimate
CHUNK = 500  # rows computed at once: some megabytes


class Trials(msgspec.Struct, frozen=True):
    """Inputs of the deflated Sharpe ratio: the variance of the sets' daily Sharpe ratios, their mean correlation."""

    variance: float
    correlation: float

    def independent(self, trials: int) -> int:
        """Return the effective number of independent trials: rho + (1 - rho) * trials, rounded.

        Bailey and Lopez de Prado 2014, appendix 3.
        """
        return round(self.correlation + (1 - self.correlation) * trials)


def at_even_distances(points: NDArray[np.int64], combinations: int) -> NDArray[np.bool_]:
    """Return which points of a grid are used: all of at most SETS_LIMIT `combinations`, else so many at even
    distances."""
    if combinations <= SETS_LIMIT:
        return np.ones(len(points), dtype=np.bool_)
    after = -(-points * SETS_LIMIT // combinations)  # the first number whose point is not below this one
    return np.equal(after * combinations // SETS_LIMIT, points)


def thinned(points: NDArray[np.int64], combinations: int, best: int) -> list[int]:
    """Choose the sets to use, ascending: those of `points` at even distances in the grid, and the best one."""
    return sorted({*np.flatnonzero(at_even_distances(points, combinations)).tolist(), best})


def small(rows: Matrix) -> Doubles:
    """Scale each row by a power of two and round it, so that its squares sum to at most 2^53: exact in doubles.

    Ratios such as Sharpe's do not depend on the scale. The rounding is 2^-22 of the row's largest profit for one year
    and 2^-20 for ten years. Rows that fit already are not rounded, so equal rows stay equal.
    """
    values = rows.astype(np.float64)
    bits = (53 - (rows.shape[1] - 1).bit_length()) // 2
    _, exponents = np.frexp(np.abs(values).max(axis=1, initial=0.0))
    np.ldexp(values, (bits - exponents)[:, None], out=values)
    np.rint(values, out=values)
    return values


def chunks(matrix: Matrix) -> Iterator[tuple[int, Doubles]]:
    """Yield portions of the rows, scaled by `small`, each with the index of its first row."""
    if matrix.ndim != 2 or matrix.dtype != np.int64:
        raise BadInput(f"profits are {matrix.dtype} in {matrix.ndim} dimensions: give int64, sets x days")
    for lo in range(0, len(matrix), CHUNK):
        yield lo, small(matrix[lo : lo + CHUNK])


def trials_of(matrix: Matrix) -> Trials:
    """Compute `Trials` from the sets whose profits vary, without the others. Zeros for fewer than two such sets."""
    return trials_of_sums(*unit_sums(matrix))


def unit_sums(matrix: Matrix) -> tuple[Doubles, NDArray[np.int64]]:
    """Return each set's daily Sharpe ratio (NaN if its profits do not vary), and the sum of the sets' unit vectors,
    times 2^40: integers, so that sums of parts of the sets add up exactly."""
    n = matrix.shape[1]
    ratios = []
    total = np.zeros(n, dtype=np.int64)
    for _, rows in chunks(matrix):
        sums, squares = rows.sum(axis=1), (rows * rows).sum(axis=1)
        means = sums / n
        moved = squares - means * sums  # n times the population's variance
        varied = moved > squares * 1e-12
        sums, means, moved, rows = sums[varied], means[varied], moved[varied], rows[varied]
        ratios.append(np.full(len(varied), np.nan))
        ratios[-1][varied] = means / np.sqrt(moved / max(n - 1, 1))
        unit = (rows - means[:, None]) / np.sqrt(moved)[:, None]
        total += np.rint(unit * 2.0**40).astype(np.int64).sum(axis=0)
    return np.concatenate(ratios) if ratios else np.empty(0), total


def trials_of_sums(ratios: Doubles, total: NDArray[np.int64]) -> Trials:
    """Compute `Trials` from what `unit_sums` returns."""
    found = ratios[~np.isnan(ratios)]
    m = len(found)
    if m < 2:
        return Trials(0.0, 0.0)
    away = found - ordered_sum(found) / m
    length = sum(x * x for x in total.tolist()) / 2**80  # squared norm of the rows' sum: m + 2 * sum over pairs
    correlation = (length - m) / (m * (m - 1))
    return Trials(ordered_sum(away * away) / (m - 1), min(max(correlation, 0.0), 1.0))
