"""The probability of backtest overfitting, by combinatorially symmetric cross-validation.

D. H. Bailey, J. M. Borwein, M. Lopez de Prado and Q. J. Zhu, "The probability of backtest overfitting", Journal of
Computational Finance 20(4), 2017 (SSRN 2326253, 2015). The days are cut into 16 blocks; each of the 12,870 ways to take
half of them is used once in sample, to choose the best set, and the other half out of sample, to score that set.

A half's sum s and sum of squares q of daily profits are sums over blocks, so the matrix product of splits and blocks
gives them for all sets. Its terms are integers whose sums stay below 2^53 (see `matrix.small`), so every order of
addition, and every BLAS, gives the same bits. Within a half all sets have equally many days, so the Sharpe ratio rises
with s / sqrt(q): sets are ranked by s * |s| / q.
"""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from functools import cache, partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.guards.matrix import Matrix, chunks
from candlemill.units import Doubles, ordered_sum, ratio, scaled

BLOCKS = 16
FEWEST_BLOCKS = 8
BLOCK_DAYS = 4  # minimum number of days in a block
CELLS = 16_384  # splits x sets of one product: fits a core's cache; OpenBLAS would start threads for a larger one
SPLITS = 4  # at least, at once, so that the sums of many sets are read less often
PARTS = 8  # number of portions of the splits
FOUND = 5  # figures of each choice
BINS = 24  # of the histogram of logits, from -6 to 6; the outer bins also count values beyond

Integers = NDArray[np.int64]
Spread = Callable[[Callable[[Doubles], Doubles], Sequence[Doubles]], Iterable[Doubles]]  # as `map`


class Overfitting(msgspec.Struct, frozen=True):
    """Result of choosing the best of `sets` in sample in each of `splits` splits. Ratios are scaled by 10^8.

    `probability`: share of splits whose chosen set ranks below the median out of sample; exactly at the median counts
    half. `logits`: number of splits per bin of the logit of the chosen set's relative rank, 24 bins of 1/2 from -6 on.
    `slope` and `intercept`: least-squares regression of the chosen set's annual Sharpe ratio out of sample on that in
    sample. `loss_probability`: share of splits whose chosen set had a loss out of sample.
    """

    sets: int
    days: int
    blocks: int
    splits: int
    probability: int
    logits: list[int]
    slope: int | None
    intercept: int | None
    loss_probability: int
    in_sample: int  # means over the splits
    out_of_sample: int


def overfitting(matrix: Matrix, spread: Spread = map) -> Overfitting | None:
    """Compute the probability of backtest overfitting of daily profits, int64 sets x days, by their sums."""
    return overfitting_of_sums(matrix.shape[1], *block_sums(matrix), spread)


def overfitting_of_sums(days: int, sums: Doubles, squares: Doubles, spread: Spread = map) -> Overfitting | None:
    """Compute the probability of backtest overfitting from what `block_sums` returns.

    None for fewer than 2 sets or 32 days. `spread` is used as `map` and may run the portions in parallel. Of equally
    good sets in sample the first is chosen; out of sample equal sets share their mean rank. A set without profits or
    losses in a half has a ratio of 0 there; a set that gains the same each day has the highest.
    """
    blocks, sets = sums.shape
    if sets < 2 or blocks < FEWEST_BLOCKS:
        return None
    lengths = np.diff(np.append(_edges(days), days)).astype(np.float64)
    halves = _halves(blocks)
    choose = partial(_choices, sums, squares)
    found = np.concatenate(list(spread(choose, np.array_split(halves, PARTS)))).reshape(-1, FOUND).T
    in_half = halves @ lengths
    inside = np.stack((in_half, days - in_half), axis=1).ravel()
    ranks, lost = found[0], found[3] < 0
    inner, outer = _sharpe(found[1], found[2], inside), _sharpe(found[3], found[4], days - inside)
    splits = len(ranks)
    below, at = int(np.count_nonzero(ranks < sets + 1)), int(np.count_nonzero(ranks == sets + 1))
    slope, intercept = _line(inner, outer)
    return Overfitting(
        sets=sets,
        days=days,
        blocks=blocks,
        splits=splits,
        probability=ratio(2 * below + at, 2 * splits) or 0,
        logits=_histogram(ranks, sets),
        slope=slope,
        intercept=intercept,
        loss_probability=ratio(int(np.count_nonzero(lost)), splits) or 0,
        in_sample=scaled(ordered_sum(inner) / splits),
        out_of_sample=scaled(ordered_sum(outer) / splits),
    )


def _edges(days: int) -> Integers:
    """Return the first day of each block."""
    blocks = min(BLOCKS, days // BLOCK_DAYS // 2 * 2)
    return np.array([k * days // blocks for k in range(blocks)], dtype=np.int64)


def block_sums(matrix: Matrix) -> tuple[Doubles, Doubles]:
    """Return the sums of each set's profits and of their squares: two arrays, blocks x sets."""
    edges = _edges(matrix.shape[1])
    sums = np.empty((len(edges), len(matrix)))
    squares = np.empty_like(sums)
    for lo, rows in chunks(matrix) if len(edges) else ():
        columns = slice(lo, lo + len(rows))
        sums[:, columns] = np.add.reduceat(rows, edges, axis=1).T
        rows *= rows
        squares[:, columns] = np.add.reduceat(rows, edges, axis=1).T
    return sums, squares


@cache
def _halves(blocks: int) -> Doubles:
    """Return one half of each complementary pair, the one with the last block: splits / 2 x blocks of 0 and 1."""
    numbers = np.arange(2 ** (blocks - 1), 2**blocks)
    numbers = numbers[np.bitwise_count(numbers) == blocks // 2]
    bits: Integers = (numbers[:, None] >> np.arange(blocks)) & 1
    return bits.astype(np.float64)


def _choices(sums: Doubles, squares: Doubles, halves: Doubles) -> Doubles:
    """Choose the best set in each of `halves` and in each complement; return five figures of it: halves x 2 x 5.

    The figures are twice its mean rank out of sample, from 2 to 2 * sets; its sum and sum of squares in sample; and
    the same two out of sample. `sums` and `squares` are blocks x sets.
    """
    count, sets = len(halves), sums.shape[1]
    all_sums, all_squares = sums.sum(axis=0), squares.sum(axis=0)
    moved = bool((squares >= 1.0).all())  # then those of each half are, too
    found = np.empty((count, 2, FOUND))
    step = max(SPLITS, CELLS // sets)
    width = CELLS // step
    parts = [slice(at, at + width) for at in range(0, sets, width)]
    room = np.empty((4, 2, min(step, count), sets))
    for lo in range(0, count, step):
        half = halves[lo : lo + step]
        rows = np.arange(len(half))
        s, q, scores, least = room[:, :, : len(half)]
        for of_halves, of_blocks, of_all in ((s, sums, all_sums), (q, squares, all_squares)):
            for part in parts:
                np.matmul(half, of_blocks[:, part], out=of_halves[0][:, part])
            np.subtract(of_all, of_halves[0], out=of_halves[1])
        # s * |s| / q, in the order of the Sharpe ratios; 0 without profits or losses.
        np.abs(s, out=scores)
        scores *= s
        scores /= q if moved else np.maximum(q, 1.0, out=least)
        for inner, outer in ((0, 1), (1, 0)):
            chosen = rows, scores[inner].argmax(axis=1)
            its = scores[outer][chosen][:, None]
            out = found[lo : lo + step, inner].T
            out[0] = _count(scores[outer] < its) + _count(scores[outer] <= its) + 1
            out[1], out[2], out[3], out[4] = s[inner][chosen], q[inner][chosen], s[outer][chosen], q[outer][chosen]
    return found


def _count(which: NDArray[np.bool_]) -> Integers:
    """Count the True values of each row. Faster than NumPy's sum, which widens each element first."""
    counts: Integers = which.view(np.int8).sum(axis=1, dtype=np.int64)
    return counts


def _sharpe(sums: Doubles, squares: Doubles, days: Doubles) -> Doubles:
    """Return annual Sharpe ratios, with the sample standard deviation; 0 where the profits do not vary."""
    spread = days * squares - sums * sums
    varied = spread > 0
    return np.where(varied, sums * np.sqrt(365 * (days - 1) / (days * np.where(varied, spread, 1.0))), 0.0)


def _histogram(ranks: Integers, sets: int) -> list[int]:
    """Count logits ln(w / (1 - w)) of w = rank / (sets + 1) per bin, by comparing ranks with the bins' edges."""
    logits = [Decimal(k) / 2 for k in range(1 - BINS // 2, BINS // 2)]
    edges = [int((2 * (sets + 1) / (1 + (-x).exp())).to_integral_value("ROUND_CEILING")) for x in logits]
    counts: list[int] = np.bincount(np.searchsorted(edges, ranks, side="right"), minlength=BINS).tolist()
    return counts


def _line(x: Doubles, y: Doubles) -> tuple[int | None, int | None]:
    """Return slope and intercept of the least-squares line; None where x does not vary."""
    n = len(x)
    x_mean, y_mean = ordered_sum(x) / n, ordered_sum(y) / n
    spread = ordered_sum((x - x_mean) * (x - x_mean))
    if spread <= n * 1e-20:
        return None, None
    slope = ordered_sum((x - x_mean) * (y - y_mean)) / spread
    return scaled(slope), scaled(y_mean - slope * x_mean)
