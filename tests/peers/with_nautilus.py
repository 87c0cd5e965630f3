"""The built-in strategies that place orders, as their users would write them for NautilusTrader."""

from decimal import Decimal
from typing import Any

import pandas as pd
from candlemill.units import SCALE
from candles import times_of
from deals import Deals
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide, OrderType
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CurrencyPair
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.trading.strategy import Strategy

MINUTE_MS = 60_000
ID = InstrumentId(Symbol("X"), Venue("SIM"))
BARS = BarType.from_str("X.SIM-1-MINUTE-LAST-EXTERNAL")
ONE = Quantity.from_int(1)
PLENTY = Quantity.from_int(10**6)  # a quarter of it is there at each of a bar's four prices


def d(price: int, rate: int) -> int:
    return price * rate // 10**6


def price_of(units: int) -> Price:
    return Price.from_str(f"{Decimal(units) / SCALE:.8f}")


def units_of(price: Price) -> int:
    return int(price.as_decimal() * SCALE)


class Orders(Strategy):  # type: ignore[misc]
    """Prices are whole units of 10^-8 until an order is placed. `params` are those of the built-in strategy."""

    def __init__(self, params: dict[str, int]) -> None:
        super().__init__()
        self.params = params
        self.high: list[int] = []
        self.low: list[int] = []
        self.close: list[int] = []
        self.filled = False  # since the last bar
        self.side = 0
        self.opened = 0  # the bar of entry
        self.fills: list[tuple[int, int, float]] = []  # time in ms, side, price

    def on_start(self) -> None:
        self.subscribe_bars(BARS)

    def on_bar(self, bar: Bar) -> None:
        self.high.append(units_of(bar.high))
        self.low.append(units_of(bar.low))
        self.close.append(units_of(bar.close))
        filled, self.filled = self.filled, False
        if self.side:
            self.held()
        else:
            self.cancel_all_orders(ID)
            self.flat(filled)

    def on_order_filled(self, event: Any) -> None:
        side = 1 if event.order_side == OrderSide.BUY else -1
        self.fills.append((event.ts_event // 10**6, side, float(event.last_px)))
        self.filled = True
        self.side += side
        filled = self.cache.order(event.client_order_id)
        kept = filled.order_list_id if self.side else None
        for order in [*self.cache.orders_open(instrument_id=ID), *self.cache.orders_inflight(instrument_id=ID)]:
            if kept is None or order.order_list_id != kept:
                self.cancel_order(order)
        if self.side:
            self.opened = len(self.close)
            if kept is None:
                self.protect(units_of(event.last_px))

    def protect(self, entry: int) -> None:
        """Place the exits of a position after its fill: brackets have no entry by a stop-market order."""
        stop, take = self.levels(self.side, entry)
        back = OrderSide.SELL if self.side > 0 else OrderSide.BUY
        self.submit_order(self.order_factory.stop_market(ID, back, ONE, price_of(stop), reduce_only=True))
        self.submit_order(self.order_factory.limit(ID, back, ONE, price_of(take), reduce_only=True))

    def bracket(self, price: int) -> None:
        """Place a limit buy with the stop and the target that belong to its price."""
        stop, take = self.levels(1, price)
        levels = {"sl_trigger_price": price_of(stop), "tp_price": price_of(take), "tp_post_only": False}
        self.submit_order_list(
            self.order_factory.bracket(
                ID, OrderSide.BUY, ONE, entry_order_type=OrderType.LIMIT, entry_price=price_of(price), **levels
            )
        )

    def levels(self, side: int, entry: int) -> tuple[int, int]:
        raise NotImplementedError

    def flat(self, filled: bool) -> None:
        raise NotImplementedError

    def held(self) -> None:
        """Do nothing until a level is reached."""


class PullbackLimit(Orders):
    def levels(self, side: int, entry: int) -> tuple[int, int]:
        return entry - d(entry, self.params["stop"]), entry + d(entry, self.params["take"])

    def flat(self, filled: bool) -> None:
        close, back = self.close, self.params["lookback"]
        if len(close) > back and not filled and close[-1] > close[-1 - back]:
            self.bracket(close[-1] - d(close[-1], self.params["depth"]))

    def held(self) -> None:
        if len(self.close) - self.opened >= self.params["hold"]:
            self.cancel_all_orders(ID)
            self.submit_order(self.order_factory.market(ID, OrderSide.SELL, ONE, reduce_only=True))


class BreakoutStop(Orders):
    def levels(self, side: int, entry: int) -> tuple[int, int]:
        risk = d(entry, self.params["risk"])
        return entry - side * risk, entry + 2 * side * risk

    def flat(self, filled: bool) -> None:
        n = self.params["entry"]
        if len(self.close) > n:
            for side, price in ((OrderSide.BUY, max(self.high[-n:])), (OrderSide.SELL, min(self.low[-n:]))):
                self.submit_order(self.order_factory.stop_market(ID, side, ONE, price_of(price)))


STRATEGIES = {"pullback_limit": PullbackLimit, "breakout_stop": BreakoutStop}


def ordered(frame: pd.DataFrame, name: str, **params: int) -> Deals:
    """Return the closed trades, with NautilusTrader's defaults: of a bar the high comes before the low."""
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        ID.venue, OmsType.NETTING, AccountType.MARGIN, [Money(10**9, USDT), Money(10**6, BTC)],
        default_leverage=Decimal(1), reject_stop_orders=False,
    )  # fmt: skip
    free = dict.fromkeys(("margin_init", "margin_maint", "maker_fee", "taker_fee"), Decimal(0))
    engine.add_instrument(CurrencyPair(ID, ID.symbol, BTC, USDT, 8, 0, Price.from_str("0.00000001"), ONE, 0, 0, **free))
    closed = ((times_of(frame.index) + MINUTE_MS) * 10**6).tolist()
    rows = zip(*(frame[column].tolist() for column in ("Open", "High", "Low", "Close")), strict=True)
    bars = [Bar(BARS, *(Price(value, 8) for value in row), PLENTY, t, t) for t, row in zip(closed, rows, strict=True)]
    engine.add_data(bars)
    strategy = STRATEGIES[name](params)
    engine.add_strategy(strategy)
    engine.run()
    fills = strategy.fills
    engine.dispose()
    pairs = list(zip(fills[0::2], fills[1::2], strict=False))
    return pd.DataFrame(
        {
            "entry_t": [one[0] - MINUTE_MS for one, _ in pairs],
            "exit_t": [two[0] - MINUTE_MS for _, two in pairs],
            "side": [one[1] for one, _ in pairs],
            "entry_price": [one[2] for one, _ in pairs],
            "exit_price": [two[2] for _, two in pairs],
            "quantity": [1.0 for _ in pairs],
            "fees": [0.0 for _ in pairs],
            "profit": [one[1] * (two[2] - one[2]) for one, two in pairs],
        }
    )
