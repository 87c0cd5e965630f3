"""The peer of the sweep: vectorbt's portfolio simulation of the same crossings, in an interpreter of its own.

    python peer_vectorbt.py PRICES.npy

PRICES.npy holds opens and closes as two rows of floats. Each line on stdin is a JSON list of [fast, slow] pairs; the
answer is one JSON line with the nanoseconds that simulating them together took and the fills of each pair. Without
an argument, whether vectorbt can be imported here is the exit status.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

FEE = 0.001
CASH = 1e9  # more than one unit ever costs: every order is filled


def simulate(vbt: Any, opens: Any, closes: Any, pairs: list[list[int]]) -> dict[str, Any]:
    """Long while the fast average is above the slow one, filled at the next open: one column per pair."""
    begin = time.perf_counter_ns()
    fast = vbt.MA.run(closes, [pair[0] for pair in pairs], short_name="fast", run_unique=True)
    slow = vbt.MA.run(closes, [pair[1] for pair in pairs], short_name="slow", run_unique=True)
    above = fast.ma.to_numpy() > slow.ma.to_numpy()
    enter = above.copy()
    enter[1:] = above[:-1]
    enter[0] = False
    portfolio = vbt.Portfolio.from_signals(
        close=closes, entries=enter, exits=~enter, price=opens, size=1.0, fees=FEE, init_cash=CASH, freq="1min"
    )
    profit = portfolio.total_profit()
    drawdown = portfolio.max_drawdown()
    trades = portfolio.trades.count()
    fills = portfolio.orders.count()
    taken = time.perf_counter_ns() - begin
    return {
        "ns": taken,
        "fills": _numbers(fills, int),
        "trades": _numbers(trades, int),
        "profit": _numbers(profit, float),
        "drawdown": _numbers(drawdown, float),
    }


def _numbers(values: Any, kind: type) -> list[Any]:
    """A column per pair; a single pair comes as a scalar."""
    import numpy as np

    return [kind(value) for value in np.atleast_1d(np.asarray(values))]


def main() -> None:
    import numpy as np
    import pandas as pd
    import vectorbt as vbt

    if len(sys.argv) < 2:
        print(vbt.__version__)
        return
    prices = np.load(Path(sys.argv[1]))
    index = pd.date_range("2024-01-01", periods=prices.shape[1], freq="min")
    opens, closes = pd.Series(prices[0], index=index), pd.Series(prices[1], index=index)
    for line in sys.stdin:
        print(json.dumps(simulate(vbt, opens, closes, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
