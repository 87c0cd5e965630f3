"""Sums of the daily profits of a sweep's sets: all that its guards need. Those of parts of a sweep can be joined."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.guards.matrix import Matrix, unit_sums
from candlemill.guards.overfitting import block_sums
from candlemill.units import Doubles


class RowSums(msgspec.Struct, frozen=True):
    """Of sets with profits on the same `days` days: see `overfitting.block_sums` and `matrix.unit_sums`."""

    days: int
    blocks: Doubles  # blocks of days x sets
    squares: Doubles
    ratios: Doubles
    total: NDArray[np.int64]


def row_sums(matrix: Matrix) -> RowSums:
    """Sum daily profits, int64 sets x days."""
    return RowSums(matrix.shape[1], *block_sums(matrix), *unit_sums(matrix))


def joined(parts: Sequence[RowSums], order: NDArray[np.int64]) -> RowSums:
    """Return the sums of all sets of the parts, sorted by `order`: the same as of one matrix, since all that is added
    are integers."""
    total = np.zeros_like(parts[0].total)
    for part in parts:
        total += part.total
    return RowSums(
        parts[0].days,
        np.concatenate([part.blocks for part in parts], axis=1)[:, order],
        np.concatenate([part.squares for part in parts], axis=1)[:, order],
        np.concatenate([part.ratios for part in parts])[order],
        total,
    )
