"""Positions that are wanted, traded by backtesting.py."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy
from candlemill.units import SCALE
from candles import times_of
from deals import Deals
from numpy.typing import NDArray

RICH = 1000  # times the first price in cash: no order is ever short of money

Wanted = NDArray[np.int8]


class Simulated(NamedTuple):
    stats: pd.Series
    deals: Deals
    equity: NDArray[np.float64]  # at each bar's close, the starting cash left out


class Follow(Strategy):
    """Trades the wanted positions; stops at levels from the fill that will come, which only a test can know."""

    wanted: Wanted
    filled: NDArray[np.float64]  # the price that an order of this bar will be filled at
    size: Callable[[float], float]
    stop_loss = take_profit = trailing_stop = 0.0
    spread = 0.0
    rounded = False  # distances of levels rounded up to 10^-8, as candlemill's are

    def init(self) -> None:
        self._best = 0.0

    def next(self) -> None:
        bar = len(self.data) - 1
        if self.trailing_stop and self.trades:
            self._trail(self.trades[0])
        want, before = int(self.wanted[bar]), int(self.wanted[bar - 1])
        if want == before:
            return
        if self.position:
            self.position.close()
        if want and bar + 1 < len(self.wanted):
            self._enter(want, float(self.filled[bar]))

    def _enter(self, side: int, raw: float) -> None:
        """The stops are put on the accepted order: one that is beyond the last close, which a gap may pass, would be
        refused."""
        price = raw * (1 + side * self.spread)
        stops = [self._level(price, -side, self.stop_loss), self._level(raw, -side, self.trailing_stop)]
        nearest = max((side * stop for stop in stops if stop is not None), default=None)
        order = (self.buy if side > 0 else self.sell)(size=self.size(price))
        order._replace(
            sl_price=None if nearest is None else side * nearest, tp_price=self._level(price, side, self.take_profit)
        )
        self._best = raw

    def _trail(self, trade: Any) -> None:
        side = 1 if trade.is_long else -1
        best = self.data.High[-1] if side > 0 else self.data.Low[-1]
        if side * best > side * self._best:
            self._best = best
            trade.sl = side * max(side * trade.sl, side * self._level(best, -side, self.trailing_stop))

    def _level(self, price: float, direction: int, rate: float) -> float | None:
        if not rate:
            return None
        if not self.rounded:
            return price * (1 + direction * rate)
        units = round(price * SCALE)
        return (units + direction * -(-units * round(rate * 1e6) // 10**6)) / SCALE


def follow(
    frame: pd.DataFrame,
    wanted: Wanted,
    fill: str = "next_open",
    fee: float = 0.0,
    spread: float = 0.0,
    size: Callable[[float], float] = lambda price: 1,
    kind: type[Backtest] = Backtest,
    unit: float = 1.0,
    rounded: bool = False,
    **levels: float,
) -> Simulated:
    """`wanted` is decided at closes. backtesting.py asks no strategy at its first bar, so one is put before."""
    begin = frame.iloc[:1].set_axis(frame.index[:1] - pd.Timedelta(minutes=1))
    data = pd.concat([begin, frame])
    filled = data["Close"] if fill == "close" else data["Open"].shift(-1)
    parameters = {
        "wanted": np.concatenate(([0], wanted)),
        "filled": filled.to_numpy() * unit,
        "size": staticmethod(size),
    }
    parameters |= levels | {"spread": spread, "rounded": rounded}
    strategy = type("Followed", (Follow,), parameters)
    cash = RICH * float(frame["Open"].iloc[0])
    options = {"cash": cash, "commission": fee, "spread": spread, "trade_on_close": fill == "close"}
    return simulate(data, strategy, kind, **options)


def simulate(
    data: pd.DataFrame, strategy: type[Strategy], kind: type[Backtest] = Backtest, **options: Any
) -> Simulated:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Some trades remain open|Some prices are larger")
        warnings.filterwarnings("ignore", category=FutureWarning)
        stats = kind(data, strategy, **options).run()
    equity = stats["_equity_curve"]["Equity"].to_numpy()
    return Simulated(stats, deals_of(stats), equity[1:] - options["cash"])


def deals_of(stats: pd.Series) -> Deals:
    trades = stats["_trades"]
    found = {
        "entry_t": times_of(pd.DatetimeIndex(trades["EntryTime"])),
        "exit_t": times_of(pd.DatetimeIndex(trades["ExitTime"])),
        "side": np.sign(trades["Size"]).astype(np.int64),
        "entry_price": trades["EntryPrice"],
        "exit_price": trades["ExitPrice"],
        "quantity": trades["Size"].abs(),
        "fees": trades["Commission"],
        "profit": trades["PnL"],
    }
    return pd.DataFrame(found).reset_index(drop=True)
