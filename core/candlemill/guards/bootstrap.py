"""Confidence intervals of a run's figures: the stationary bootstrap of days, and random orders of the trades.

D. N. Politis and J. P. Romano, "The stationary bootstrap", Journal of the American Statistical Association 89, 1994.

Random draws are raw 64-bit numbers of the counter-based generator Philox, keyed with the seed and mapped to days here:
NumPy guarantees that these never change (NEP 19), while its distributions may. The same seed gives the same bits on
every machine.
"""

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.errors import BadInput
from candlemill.guards.daily_sums import SCORES, Matrix, Stretches, summable
from candlemill.units import ratio, scaled

REPLICATES = 999  # 999 + 1 is a multiple of the usual shares, so that ranks are whole numbers
REPLICATES_LIMIT = 100_000
LEVEL = 950_000  # ppm
CELLS = 1 << 18  # replicates x days computed at once
HALF = np.uint64(32)
LOW = np.uint64(2**32 - 1)

Column = NDArray[np.int64]


class Interval(msgspec.Struct, frozen=True):
    """The actual value of a figure, the central interval of its replicates at `level`, and their median."""

    actual: int
    low: int
    median: int
    high: int


class Bootstrap(msgspec.Struct, frozen=True):
    """Intervals of figures of daily profits; `loss` is the share of replicates with a loss, scaled by 10^8."""

    seed: int
    replicates: int
    block_days: int
    level: int
    loss: int
    figures: dict[str, Interval]


class Shuffle(msgspec.Struct, frozen=True):
    """Intervals of the figures that depend on the order of trades.

    `deeper` is the share of orders, scaled by 10^8, whose drawdown is larger than the actual one.
    """

    seed: int
    replicates: int
    level: int
    deeper: int
    figures: dict[str, Interval]


def bootstrap(
    profits: Column,
    capital: int,
    seed: int,
    replicates: int = REPLICATES,
    block_days: int | None = None,
    level: int = LEVEL,
) -> Bootstrap | None:
    """Compute the stationary bootstrap of daily profits; None for fewer than two days.

    Days are drawn in blocks of random length, which keeps the dependence between neighbouring days. The mean length is
    `block_days`, by default the cube root of the number of days, rounded up.

    Figures as in the result, money scaled by 10^8; drawdowns at daily marks, `max_drawdown_share` of a peak that starts
    at `capital`.
    """
    n = len(profits)
    _check(seed, replicates, level)
    if n < 2:
        return None
    block = block_days or next(k for k in range(1, n + 1) if k**3 >= n)
    if not 1 <= block <= n:
        raise BadInput(f"block_days={block}: give 1 to {n}, the number of days")
    found: dict[str, list[int]] = {}
    generator = np.random.Philox(key=seed)
    for count in _portions(replicates, n):
        days = _stationary(generator.random_raw((count, n)), block)
        for name, values in _figures(profits[days], capital).items():
            found.setdefault(name, []).extend(values)
    actual = _figures(profits[None, :], capital)
    figures = {name: _interval(actual[name][0], values, level) for name, values in found.items()}
    loss = ratio(sum(x < 0 for x in found["total_pnl"]), replicates) or 0
    return Bootstrap(seed, replicates, block, level, loss, figures)


def shuffle_trades(profits: Column, seed: int, replicates: int = REPLICATES, level: int = LEVEL) -> Shuffle | None:
    """Compute figures of the same trades in random orders; None for fewer than two trades.

    The figures are `max_drawdown` of the running sum (trade by trade, from 0) and the longest series of trades without
    a profit.
    """
    n = len(profits)
    _check(seed, replicates, level)
    if n < 2:
        return None
    found: dict[str, list[int]] = {"max_drawdown": [], "longest_losing_streak": []}
    generator = np.random.Philox(key=seed)
    for count in _portions(replicates, n):
        orders = np.argsort(generator.random_raw((count, n)), axis=1, kind="stable")
        rows = profits[orders]
        found["max_drawdown"] += _falls(rows)
        found["longest_losing_streak"] += _streaks(rows)
    row = profits[None, :]
    actual = {"max_drawdown": _falls(row)[0], "longest_losing_streak": _streaks(row)[0]}
    figures = {name: _interval(actual[name], values, level) for name, values in found.items()}
    deeper = ratio(sum(x > actual["max_drawdown"] for x in found["max_drawdown"]), replicates) or 0
    return Shuffle(seed, replicates, level, deeper, figures)


def _check(seed: int, replicates: int, level: int) -> None:
    if not 0 <= seed < 2**64:
        raise BadInput(f"seed={seed}: give 0 to 2^64 - 1")
    if not 1 <= replicates <= REPLICATES_LIMIT:
        raise BadInput(f"replicates={replicates}: give 1 to {REPLICATES_LIMIT:,}")
    if not 0 < level < 1_000_000:
        raise BadInput(f"level={level}: give parts per million between 0 and 1,000,000, as 950000 for 95 %")


def _portions(replicates: int, width: int) -> Iterator[int]:
    """Split the replicates into portions whose size depends only on `width`."""
    step = max(1, CELLS // width)
    for done in range(0, replicates, step):
        yield min(step, replicates - done)


def _stationary(raw: NDArray[np.uint64], block: int) -> NDArray[np.int64]:
    """Return indices of days, replicates x days, from raw 64-bit draws.

    The upper half of a draw decides whether a new block begins (probability 1 / `block`), the lower half gives its
    first day. Otherwise the next day follows; the first day follows the last.
    """
    width = raw.shape[1]
    begins = (raw >> HALF) * np.uint64(block) <= LOW
    begins[:, 0] = True
    places = np.arange(width)
    last = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
    starts = ((raw & LOW) * np.uint64(width) >> HALF).astype(np.int64)
    days: NDArray[np.int64] = (np.take_along_axis(starts, last, axis=1) + places - last) % width
    return days


def _figures(rows: Matrix, capital: int) -> dict[str, list[int]]:
    sums = Stretches(rows, [0, rows.shape[1]])
    out = {name: sums.scores([(0, rows.shape[1])], score) for name, score in SCORES.items()}
    out["max_drawdown"] = _falls(rows)
    marks = np.add.accumulate(summable(rows, capital), axis=1) + capital
    peaks = np.maximum(np.maximum.accumulate(marks, axis=1), capital)
    shares = ((peaks - marks).astype(np.float64) / peaks.astype(np.float64)).max(axis=1)
    out["max_drawdown_share"] = [scaled(x) for x in shares.tolist()]
    return out


def _falls(rows: Matrix) -> list[int]:
    """The largest fall of each row's running sum from its peak, which starts at 0."""
    marks = np.add.accumulate(summable(rows), axis=1)
    peaks = np.maximum(np.maximum.accumulate(marks, axis=1), 0)
    falls: list[int] = (peaks - marks).max(axis=1).tolist()
    return falls


def _streaks(rows: Matrix) -> list[int]:
    """The longest run without a profit in each row."""
    places = np.arange(1, rows.shape[1] + 1)
    last_win = np.maximum.accumulate(np.where(rows > 0, places, 0), axis=1)
    streaks: list[int] = (places - last_win).max(axis=1).tolist()
    return streaks


def _interval(actual: int, values: list[int], level: int) -> Interval:
    """Return the interval by ranks: for 999 replicates and 95 % the 25th, the 500th and the 975th value."""
    ranked = sorted(values)
    k = max((len(ranked) + 1) * (1_000_000 - level) // 2_000_000 - 1, 0)
    return Interval(actual, ranked[k], ranked[len(ranked) // 2], ranked[len(ranked) - 1 - k])
