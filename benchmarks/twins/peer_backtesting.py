"""The peer of orders: `pullback_limit` as users of backtesting.py write it, in an interpreter of its own.

    python peer_backtesting.py PRICES.npy LOOKBACK DEPTH STOP TAKE HOLD

PRICES.npy holds open, high, low and close as rows of floats. Distances are in ppm. Prints one JSON line: the seconds of
processor time, and the closed trades.
"""

import json
import sys
import time
import warnings

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy

CASH = 1e9  # more than one unit ever costs: every order is filled


class Pullback(Strategy):  # type: ignore[misc]
    lookback = depth = stop = take = hold = 0

    def init(self) -> None:
        self._known = 0

    def next(self) -> None:
        i = len(self.data) - 1
        known = len(self.closed_trades) + len(self.trades)
        filled, self._known = known != self._known, known
        for order in list(self.orders):
            if not order.is_contingent:
                order.cancel()
        if self.trades:
            if i - self.trades[0].entry_bar + 1 >= self.hold:
                self.position.close()
            return
        close = self.data.Close
        if i >= self.lookback and not filled and close[-1] > close[-1 - self.lookback]:
            price = close[-1] * (1 - self.depth / 1e6)
            self.buy(size=1, limit=price, sl=price * (1 - self.stop / 1e6), tp=price * (1 + self.take / 1e6))


def main() -> None:
    prices = np.load(sys.argv[1])
    Pullback.lookback, Pullback.depth, Pullback.stop, Pullback.take, Pullback.hold = map(int, sys.argv[2:7])
    index = pd.date_range("2024-01-01", periods=prices.shape[1], freq="min")
    frame = pd.DataFrame(dict(zip(("Open", "High", "Low", "Close"), prices, strict=True)), index)
    warnings.simplefilter("ignore")
    begin = time.process_time()
    found = Backtest(frame, Pullback, cash=CASH, commission=0.001).run()
    print(json.dumps({"seconds": time.process_time() - begin, "trades": int(found["# Trades"])}))


if __name__ == "__main__":
    main()
