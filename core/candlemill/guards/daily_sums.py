"""Exact sums of daily profits over ranges of days, for many sets at once, and the scores computed from them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.result import sharpe, sortino
from candlemill.errors import UnknownName

Matrix = NDArray[np.int64]
LIMB = 24  # bits: the sum of products of two limbs stays below 2^63 for 2^14 days
CHUNK = 1_000  # rows computed at once
INT64 = 2**63

# Arguments: number of days, sum of the profits, of their squares, of the squares of the losses. Higher is better.
Score = Callable[[int, int, int, int], int]
Span = tuple[int, int]  # columns [first, second)

SCORES: dict[str, Score] = {
    "sharpe_ratio": lambda days, total, squares, loss_squares: sharpe(total, squares, days),
    "sortino_ratio": lambda days, total, squares, loss_squares: sortino(total, loss_squares, days),
    "total_pnl": lambda days, total, squares, loss_squares: total,
}


def score_of(name: str) -> Score:
    if name not in SCORES:
        raise UnknownName("score", name, sorted(SCORES), f"choose one of {', '.join(sorted(SCORES))}")
    return SCORES[name]


class Stretches:
    """Sums of each row of daily profits (int64, sets x days) over any union of ranges between the given `cuts`."""

    def __init__(self, matrix: Matrix, cuts: Sequence[int]) -> None:
        self._place = {cut: k for k, cut in enumerate(sorted(cuts))}
        pieces = [_pieces(matrix[lo : lo + CHUNK], sorted(cuts)) for lo in range(0, len(matrix), CHUNK)]
        # Three sums x pieces x rows, as Python ints: squares of money exceed 64 bits.
        self._sums = np.concatenate(pieces, axis=2)

    def scores(self, spans: Sequence[Span], score: Score) -> list[int]:
        """Return the score of each row over the days of all `spans` together."""
        days = sum(b - a for a, b in spans)
        columns = [k for a, b in spans for k in range(self._place[a], self._place[b])]
        sums = self._sums[:, columns].sum(axis=1).tolist()
        return [score(days, *row) for row in zip(*sums, strict=True)]


def summable(rows: Matrix, more: int = 0) -> NDArray[np.int64] | NDArray[np.object_]:
    """Convert rows to Python ints where a running sum that starts at `more` might exceed 64 bits."""
    fits = _largest(rows) * rows.shape[1] + more < INT64
    return rows if fits else rows.astype(object)


def _pieces(rows: Matrix, cuts: Sequence[int]) -> NDArray[np.object_]:
    return np.stack([_between(summable(rows), cuts), _squares(rows, cuts), _squares(np.minimum(rows, 0), cuts)])


def _between(columns: NDArray[np.int64] | NDArray[np.object_], cuts: Sequence[int]) -> NDArray[np.object_]:
    """Return sums between neighbouring cuts, pieces x rows. (`reduceat` does not return 0 for an empty piece.)"""
    out = np.zeros((len(cuts) - 1, len(columns)), dtype=object)
    for k, (a, b) in enumerate(pairwise(cuts)):
        out[k] = columns[:, a:b].sum(axis=1)
    return out


def _squares(rows: Matrix, cuts: Sequence[int]) -> NDArray[np.object_]:
    """Return sums of squares as `_between`: by limbs of 24 bits where two can hold a profit, else by Python ints."""
    if _largest(rows) >= 2 ** (2 * LIMB) or rows.shape[1] > 2**14:
        wide = rows.astype(object)
        return _between(wide * wide, cuts)
    high, low = rows >> LIMB, rows & (2**LIMB - 1)
    a, b, c = (_between(x, cuts) for x in (high * high, high * low, low * low))
    joined: NDArray[np.object_] = a * 2 ** (2 * LIMB) + b * 2 ** (LIMB + 1) + c
    return joined


def _largest(rows: Matrix) -> int:
    return max(int(rows.max()), -int(rows.min())) if rows.size else 0
