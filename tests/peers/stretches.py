"""Stretches of bars over which two programs hold other positions, and why: for trades of strategies with orders."""

from collections import Counter
from collections.abc import Callable

import numpy as np
from deals import Agreement, Deals, Run
from numpy.typing import NDArray

AFTER = "what came of another difference"
Cause = Callable[[Run, Deals, int], str | None]


def positions(t: NDArray[np.int64], deals: Deals) -> NDArray[np.int64]:
    """The position of closed trades at each close."""
    found = np.zeros(len(t) + 1, dtype=np.int64)
    for trade in deals.itertuples():
        a, b = np.searchsorted(t, [trade.entry_t, trade.exit_t])
        found[a:b] += int(trade.side)
    return found[:-1]


def reasons_of(run: Run, theirs: Deals, found: Agreement, cause: Cause) -> Counter[str]:
    """One reason for each trade that is in one program only: that of the stretch of other positions it belongs to."""
    t = run.trace.t
    differs = np.append(False, positions(t, run.deals) != positions(t, theirs))
    edges = np.flatnonzero(differs[1:] != differs[:-1]).tolist()
    stretches: list[tuple[int, int, str]] = []
    for a, b in zip(edges[0::2], [*edges[1::2], len(t)][: len(edges[0::2])], strict=True):
        why = cause(run, theirs, a)
        if why is None and stretches and a - stretches[-1][1] <= 2:
            why = AFTER  # nothing is placed at the decision after a fill, and both have not filled at once
        stretches.append((a, b, why or "none"))
    reasons: Counter[str] = Counter()
    for trade in [*found.only_ours.itertuples(), *found.only_theirs.itertuples()]:
        first, last = np.searchsorted(t, [trade.entry_t, trade.exit_t]).tolist()
        over = [why for a, b, why in stretches if a <= last and first <= b]
        if not over and any(0 <= first - b <= 2 for _, b, _ in stretches):
            over = [AFTER]
        reasons[over[0] if over else "none"] += 1
    return reasons
