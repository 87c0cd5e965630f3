"""Weights over many symbols with shared cash, as users of backtrader trade them: `order_target_percent` at closes."""

from typing import Any

import backtrader as bt
import numpy as np
from panel_runs import CAPITAL, FEE, Floats, PanelRun, Simulated, frame


class Fractions(bt.CommissionInfo):  # type: ignore[misc]
    """Fractional sizes, as backtrader's documentation has them."""

    params = (
        ("commission", FEE / 1e6),
        ("commtype", bt.CommInfoBase.COMM_PERC),
        ("percabs", True),
        ("stocklike", True),
    )

    def getsize(self, price: float, cash: float) -> float:
        return cash / price


class Weights(bt.Strategy):  # type: ignore[misc]
    params = (("weights", None), ("raise_only_adds", False))

    def __init__(self) -> None:
        self.row = -1
        self.fills: list[tuple[int, int, float, float]] = []
        self.left: list[tuple[int, int]] = []  # fills that the weight's direction speaks against: hour and symbol
        self.margin = 0
        self.equity: list[float] = []
        self.before: Floats = np.zeros(len(self.datas))

    def next(self) -> None:
        self.row += 1
        self.equity.append(self.broker.getvalue())
        orders = []
        for k, data in enumerate(self.datas):
            weight = self.p.weights[self.row, k]
            if np.isnan(weight):
                continue
            size = weight * self.equity[-1] / data.close[0] - self.getposition(data).size
            step, self.before[k] = weight - self.before[k], weight
            if weight != 0 and step * size < 0:  # candlemill trades nothing here
                self.left.append((self.row + 1, k))
                if self.p.raise_only_adds:
                    continue
            orders.append((size, data, weight))
        for _, data, weight in sorted(orders, key=lambda one: one[0]):  # sales first
            self.order_target_percent(data, target=weight)

    def notify_order(self, order: Any) -> None:
        if order.status == order.Completed:
            k = self.datas.index(order.data)
            self.fills.append((self.row + 1, k, order.executed.size, order.executed.price))
        elif order.status in (order.Margin, order.Rejected):
            self.margin += 1


def simulated(run: PanelRun, raise_only_adds: bool) -> tuple[Simulated, list[tuple[int, int]], int]:
    """Fills at the next hour's open; the fills that candlemill's rule of targets would leave; orders without margin."""
    cerebro = bt.Cerebro(stdstats=False)
    opens, closes = frame(run.opens), frame(run.closes)
    for name in opens.columns:
        prices = opens[[name]].set_axis(["open"], axis=1).assign(close=closes[name], volume=1.0)
        prices["high"], prices["low"] = prices[["open", "close"]].max(axis=1), prices[["open", "close"]].min(axis=1)
        cerebro.adddata(bt.feeds.PandasData(dataname=prices), name=name)
    cerebro.addstrategy(Weights, weights=run.weights, raise_only_adds=raise_only_adds)
    cerebro.broker.setcash(CAPITAL)
    cerebro.broker.addcommissioninfo(Fractions())
    (ran,) = cerebro.run()
    bought, price = np.zeros(run.opens.shape), np.zeros(run.opens.shape)
    for row, k, size, at in ran.fills:
        bought[row, k] += size
        price[row, k] = at
    return Simulated(bought, price, np.array(ran.equity)), ran.left, ran.margin
