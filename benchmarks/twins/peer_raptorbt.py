"""Another peer of the run and the sweep: raptorbt, an engine in Rust, in an interpreter of its own.

    python peer_raptorbt.py PRICES.npy

PRICES.npy holds opens, closes, highs and lows as rows of floats; lines on stdin and stdout are those of
`peer_vectorbt.py`. raptorbt invests all of its capital in each trade, so profits are those of a unit: of a trade over
its size. Without an argument, whether raptorbt can be imported here is the exit status.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

FEE = 0.001
CASH = 1e9


def simulate(raptorbt: Any, prices: Any, pairs: list[list[int]]) -> dict[str, Any]:
    """Long while the fast average is above the slow one, filled at the next open. Pairs run one after the other in one
    call, which converts the prices once."""
    begin = time.perf_counter_ns()
    t, opens, closes, highs, lows, volume = prices
    config = raptorbt.BacktestConfig(initial_capital=CASH, fees=FEE, fill_timing="next_bar_open")
    averages = {width: raptorbt.sma(closes, width) for width in {width for pair in pairs for width in pair}}
    items = []
    for k, (fast, slow) in enumerate(pairs):
        above = averages[fast] > averages[slow]  # False where one is NaN
        items.append(raptorbt.BatchSingleItem(str(k), above, ~above, 1, 1.0, "X"))
    found = raptorbt.batch_single_backtest(t, opens, highs, lows, closes, volume, items, config)
    metrics = [one.metrics for _, one in found]
    taken = time.perf_counter_ns() - begin
    return {
        "ns": taken,
        "fills": [2 * one.total_closed_trades + one.total_open_trades for one in metrics],
        "profit": [sum(trade.pnl / trade.size for trade in one.trades()) for _, one in found],
    }


def main() -> None:
    import numpy as np
    import raptorbt

    if len(sys.argv) < 2:
        print(raptorbt.__version__)
        return
    opens, closes, highs, lows = np.load(Path(sys.argv[1]))
    t = np.arange(len(opens), dtype=np.int64) * 60_000_000_000
    prices = t, opens, closes, highs, lows, np.ones(len(opens))
    for line in sys.stdin:
        print(json.dumps(simulate(raptorbt, prices, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
