"""Why a trade is in one program only. A trade without a reason is a failure."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from candlemill.backtests.trades import Reason
from deals import KEY, Agreement, Deals, Run
from numpy.typing import NDArray

ENTRY_BAR = "stop or target within the bar of entry"
BOTH = "order and stop in one bar"
HIGH = "the entry bar's high"
TIE = "tie"
BEGINNING = "beginning"


def one_row_per_bar(run: Run, closed: Deals, left_open: Deals, found: Agreement) -> Counter[str]:
    """vectorbt looks at a bar's stop before its order, and takes one of them; it looks at none in the bar of entry."""
    entries = dict(zip(_entries(closed), closed["exit_t"].tolist(), strict=True))
    entries |= dict.fromkeys(_entries(left_open))
    exits = set(closed["exit_t"])
    ended = dict(zip(_entries(run.deals), run.trace.trades.reason.tolist(), strict=True))
    reasons: Counter[str] = Counter()
    paired = set()
    for trade in found.only_ours.itertuples():
        key = (trade.entry_t, trade.side)
        if key in entries:
            paired.add(key)
            if trade.exit_t == trade.entry_t:
                reasons[ENTRY_BAR] += 1
            elif trade.exit_t == entries[key] and ended[key] == Reason.SIGNAL:
                reasons[BOTH] += 1
            else:
                assert run.spec.trailing_stop and run.spec.fill == "next_open", trade
                reasons[HIGH] += 1
        else:
            assert trade.entry_t in exits, trade
            reasons[BOTH] += 1
    for trade in found.only_theirs.itertuples():
        assert (trade.entry_t, trade.side) in paired, trade
        reasons[_reason_of_pair(run, trade)] += 1
    return reasons


def _entries(deals: Deals) -> list[tuple[int, int]]:
    return list(zip(deals["entry_t"].tolist(), deals["side"].tolist(), strict=True))


def _reason_of_pair(run: Run, theirs: Any) -> str:
    ours = run.deals[(run.deals["entry_t"] == theirs.entry_t) & (run.deals["side"] == theirs.side)].iloc[0]
    if ours.exit_t == ours.entry_t:
        return ENTRY_BAR
    return BOTH if ours.exit_t == theirs.exit_t else HIGH


def other_positions(run: Run, wanted: NDArray[np.int8], ties: NDArray[np.bool_], beginning: int) -> NDArray[np.bool_]:
    """The bars at which a user's floats want something else: each stretch of them begins with a tie of the exact
    comparison, or all of it lies in the first `beginning` bars, where recursive averages still differ."""
    other = wanted != run.desired
    begins = np.flatnonzero(other & ~np.concatenate(([False], other[:-1])))
    bad = [bar for bar in begins.tolist() if not ties[bar] and bar >= beginning]
    assert not bad, bad
    return other


def by_other_positions(run: Run, found: Agreement, other: NDArray[np.bool_], beginning: int) -> Counter[str]:
    """A trade differs only where a wanted position does, from before the change that opened it to its exit."""
    t = run.trace.t
    reasons: Counter[str] = Counter()
    for trade in pd.concat([found.only_ours, found.only_theirs])[KEY].itertuples():
        first, last = np.searchsorted(t, [trade.entry_t, trade.exit_t])
        bars = np.flatnonzero(other[max(first - 2, 0) : last + 1]) + max(first - 2, 0)
        assert len(bars), trade
        reasons[BEGINNING if bars[0] < beginning else TIE] += 1
    return reasons


def exact_ties(run: Run) -> NDArray[np.bool_]:
    """Where a strategy's integers are equal, so that floats answer by noise."""
    close = run.trace.close.astype(object)
    found = np.zeros(len(close), dtype=bool)
    params = dict(run.spec.params)
    if run.spec.strategy == "sma_cross":
        fast, slow = int(params["fast"]), int(params["slow"])
        found[slow - 1 :] = (_sums(close, fast)[slow - fast :] * slow) == (_sums(close, slow) * fast)
    if run.spec.strategy in ("bollinger", "zscore_reversion"):
        n = int(params["length"])
        sums, squares = _sums(close, n), _sums(close * close, n)
        above = close[n - 1 :] * n - sums  # the distance from the mean, times n
        spread = squares * n - sums * sums  # the variance, times n^2
        widths = {int(params[name]) for name in ("width", "entry", "exit") if name in params} | {0}
        equal = [above * above * 100**2 == spread * width**2 for width in widths]
        found[n - 1 :] = np.logical_or.reduce(equal)
    return found


def _sums(values: NDArray[Any], length: int) -> NDArray[Any]:
    total = np.concatenate(([0], np.cumsum(values)))
    return total[length:] - total[:-length]


def after_ties(run: Run, ties: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Ties, and what is decided until the next change of sign: who waits for a crossing holds on until then."""
    found = ties.copy()
    missed = False
    for bar in range(1, len(found)):
        if run.desired[bar] != run.desired[bar - 1] and not ties[bar] and not ties[bar - 1]:
            missed = False
        missed = missed or bool(ties[bar])
        found[bar] = missed
    return found
