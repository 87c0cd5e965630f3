"""The peer of panels: vectorbt's portfolio with shared cash and target percentages, in an interpreter of its own.

    python peer_vectorbt_panel.py PRICES.npy LOOKBACK TOP

PRICES.npy holds hourly opens and closes of all symbols as floats [2, T, K]. Each line on stdin asks for one run; the
answer is one JSON line with its nanoseconds, fills and profit.
"""

import json
import sys
import time

FEE = 0.001
CASH = 10_000.0


def main() -> None:
    import numpy as np
    import pandas as pd
    import vectorbt as vbt

    opens, closes = np.load(sys.argv[1])
    lookback, top = int(sys.argv[2]), int(sys.argv[3])
    frame, price = pd.DataFrame(closes), pd.DataFrame(np.vstack((opens[1:], closes[-1:])))
    for _ in sys.stdin:
        begin = time.process_time_ns()
        ratio = np.full(closes.shape, -np.inf)
        ratio[lookback:] = closes[lookback:] / closes[:-lookback]
        ranked = np.argsort(-ratio, axis=1, kind="stable")[:, :top]
        weights = np.zeros(closes.shape)
        np.put_along_axis(weights, ranked, 1.0 / top, axis=1)
        weights[ratio <= 1.0] = 0.0
        changed = np.vstack((weights[:1] != 0, weights[1:] != weights[:-1]))
        portfolio = vbt.Portfolio.from_orders(
            frame, pd.DataFrame(np.where(changed, weights, np.nan)), size_type="targetpercent", price=price, fees=FEE,
            init_cash=CASH, cash_sharing=True, group_by=True, call_seq="auto", freq="1h",
        )  # fmt: skip
        profit, _, fills = portfolio.total_profit(), portfolio.max_drawdown(), portfolio.orders.count()
        taken = time.process_time_ns() - begin
        print(json.dumps({"ns": taken, "fills": int(fills), "profit": float(profit)}), flush=True)


if __name__ == "__main__":
    main()
