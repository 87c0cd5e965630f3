"""The built-in strategies that place orders, as their users would write them for backtesting.py."""

from typing import Any

import numpy as np
import pandas as pd
from backtesting import Strategy
from candlemill.units import SCALE
from with_backtesting import RICH, Simulated, simulate


def d(price: int, rate: int) -> int:
    return price * rate // 10**6


class Orders(Strategy):
    """Prices are whole units of 10^-8 until an order is placed."""

    def init(self) -> None:
        self._traded, self._opened = 0, 0
        self._close = np.rint(np.array(self.data.Close) * SCALE).astype(np.int64)
        self._high = np.rint(np.array(self.data.High) * SCALE).astype(np.int64)
        self._low = np.rint(np.array(self.data.Low) * SCALE).astype(np.int64)

    def next(self) -> None:
        i = len(self.data) - 1
        known = (len(self.closed_trades), len(self.trades))
        filled, self._traded = known != self._traded, known
        if self.trades:
            self.held(i, self.trades[0])
        for order in list(self.orders):
            if not order.is_contingent:
                order.cancel()
        if not self.trades:
            self.flat(i, filled)
        elif self.wants_out(i, self.trades[0]):
            self.position.close()

    def protect(self, trade: Any, stop: int, take: int) -> None:
        if trade.entry_bar != self._opened:
            self._opened = trade.entry_bar
            trade.sl, trade.tp = stop / SCALE, take / SCALE

    def wants_out(self, i: int, trade: Any) -> bool:
        return False


class PullbackLimit(Orders):
    lookback, depth, stop, take, hold = 240, 3000, 10_000, 10_000, 1440

    def flat(self, i: int, filled: bool) -> None:
        close = self._close
        if i - 1 >= self.lookback and not filled and close[i] > close[i - self.lookback]:  # a bar was put before
            price = int(close[i]) - d(int(close[i]), self.depth)
            levels = price - d(price, self.stop), price + d(price, self.take)
            self.buy(size=1, limit=price / SCALE, sl=levels[0] / SCALE, tp=levels[1] / SCALE)

    def held(self, i: int, trade: Any) -> None:
        entry = round(trade.entry_price * SCALE)
        self.protect(trade, entry - d(entry, self.stop), entry + d(entry, self.take))

    def wants_out(self, i: int, trade: Any) -> bool:
        return bool(i - trade.entry_bar + 1 >= self.hold)


class BreakoutStop(Orders):
    entry, risk = 480, 10_000

    def flat(self, i: int, filled: bool) -> None:
        if i - 1 < self.entry:
            return
        up, down = int(self._high[i - self.entry + 1 : i + 1].max()), int(self._low[i - self.entry + 1 : i + 1].min())
        risk = d(up, self.risk)
        self.buy(size=1, stop=up / SCALE, sl=(up - risk) / SCALE, tp=(up + 2 * risk) / SCALE)
        risk = d(down, self.risk)
        self.sell(size=1, stop=down / SCALE, sl=(down + risk) / SCALE, tp=(down - 2 * risk) / SCALE)

    def held(self, i: int, trade: Any) -> None:
        side, entry = 1 if trade.is_long else -1, round(trade.entry_price * SCALE)
        risk = d(entry, self.risk)
        self.protect(trade, entry - side * risk, entry + 2 * side * risk)


STRATEGIES = {"pullback_limit": PullbackLimit, "breakout_stop": BreakoutStop}


def ordered(frame: pd.DataFrame, name: str, fee: float, **params: int) -> Simulated:
    """backtesting.py asks no strategy at its first bar, so one is put before."""
    begin = frame.iloc[:1].set_axis(frame.index[:1] - pd.Timedelta(minutes=1))
    strategy = type(name, (STRATEGIES[name],), params)
    cash = RICH * float(frame["Open"].iloc[0])
    return simulate(pd.concat([begin, frame]), strategy, cash=cash, commission=fee)
