"""Jobs of strategies that place orders or say weights, for tests of accounts, and the same in the reference's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.engine.books import PositionView
from candlemill.pipeline import prepare
from candlemill.strategies import REGISTERED, Bar, Weighted, build
from order_candles import RandomBooks
from reference import candles
from reference.books import Book, Order, View
from slow_orders import SLOW
from world import Market, jobs

WEIGHTS = (-700_000, 0, 333_333, 1_000_000, 1_500_000)


class Weights(Weighted, frozen=True):
    """A weight for each remainder of the bar's volume and close; the same ones for some bars."""

    def lookback(self) -> int:
        return 0

    def weights(self, bars: Any) -> Any:
        return np.array(WEIGHTS)[weight_numbers(bars.close, bars.t)]


def weight_numbers(close: Any, t: Any) -> Any:
    """Which of the weights."""
    return (close // 3 + t // 240_000) % len(WEIGHTS)


@contextmanager
def known() -> Iterator[None]:
    """Have the tests' own strategies registered."""
    own = {"random_books": RandomBooks, "weights": Weights}
    REGISTERED.update(own)
    try:
        yield
    finally:
        for name in own:
            del REGISTERED[name]


class SlowBooks:
    """`RandomBooks` as the reference takes it."""

    def __init__(self, **params: int) -> None:
        self.strategy = RandomBooks(**params)
        self.state = self.strategy.start()

    def decide(self, view: View) -> Book:
        position = PositionView(view.exposure, view.entry, view.held, view.best, tuple(view.filled))
        book, self.state = self.strategy.step(self.state, Bar(*view.bars[-1]), position)
        return ordered(book)


def ordered(book: Any) -> Book:
    """A strategy's book as the reference takes it."""
    orders = [
        Order(o.key, int(o.side), o.kind, int(o.price), int(o.size), int(o.part), int(o.oco) or None, int(o.stop),
              int(o.take))
        for o in book.orders
    ]  # fmt: skip
    return Book(None if book.target is None else int(book.target), tuple(orders), int(book.stop), int(book.take))


class SlowWeights:
    """`Weights` as the reference takes it."""

    def decide(self, view: View) -> Book:
        bar = view.bars[-1]
        return Book(WEIGHTS[int(weight_numbers(bar.close, bar.t))])


def reference_of(spec: Spec) -> Any:
    """The reference's strategy."""
    own: dict[str, Any] = {"random_books": SlowBooks, "weights": SlowWeights, **SLOW}
    return own.get(spec.strategy, spec.strategy), dict(spec.params)


OPTIONS = ("start", "end", "fee", "maker_fee", "slippage", "stop_loss", "take_profit", "trailing_stop", "fill",
           "timeframe", "quantity", "path", "capital", "size", "notional", "step", "min_quantity", "min_notional",
           "leverage", "borrow", "limit_through")  # fmt: skip


def reference_options(market: Market, spec: Spec) -> dict[str, Any]:
    """The job's options for the reference."""
    options = {name: getattr(spec, name) for name in OPTIONS}
    rates = [pair for pair in market.funding if spec.start <= pair[0] < spec.end] if spec.funding else []
    return options | {"funding": {"X": rates} if spec.account == "cash" else rates}


def reference_bars(market: Market) -> list[candles.Bar]:
    return [candles.Bar(bar.t, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in market.bars]


PARAMS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "pullback_limit": st.fixed_dictionaries(
        {
            "lookback": st.integers(1, 8),
            "depth": st.sampled_from([1, 20_000, 100_000]),
            "stop": st.sampled_from([1, 30_000, 300_000]),
            "take": st.sampled_from([1, 30_000, 300_000]),
            "hold": st.integers(1, 40),
        }
    ),
    "breakout_stop": st.fixed_dictionaries(
        {"entry": st.integers(1, 12), "risk": st.sampled_from([1, 30_000, 200_000])}
    ),
    "grid": st.fixed_dictionaries(
        {
            "levels": st.integers(1, 6),
            "spacing": st.sampled_from([1, 20_000, 100_000]),
            "size": st.sampled_from([1, 250_000, 1_000_000]),
        }
    ),
    "atr_bracket": st.fixed_dictionaries(
        {
            "entry": st.integers(1, 12),
            "atr": st.integers(1, 12),
            "stop": st.sampled_from([1, 100, 1000]),
            "take": st.sampled_from([1, 150, 3000]),
        }
    ),
    "break_even": st.fixed_dictionaries(
        {
            "lookback": st.integers(1, 8),
            "rise": st.sampled_from([0, 5000, 50_000]),
            "stop": st.sampled_from([1, 30_000, 300_000]),
            "arm": st.sampled_from([10_000, 50_000]),
            "lock": st.sampled_from([0, 10_000]),
            "hold": st.integers(1, 40),
        }
    ),
    "dca": st.fixed_dictionaries(
        {
            "every": st.integers(1, 40),
            "size": st.sampled_from([1, 250_000, 1_000_000]),
            "steps": st.integers(1, 6),
            "take": st.sampled_from([1, 20_000, 200_000]),
        }
    ),
    "weights": st.just({}),
    "random_books": st.fixed_dictionaries({"seed": st.integers(0, 10**6)}),
}


@st.composite
def order_jobs(draw: Any, names: tuple[str, ...] = tuple(PARAMS)) -> tuple[Market, Spec]:
    """A job of the tests of exactness, of a strategy that places orders or says weights."""
    market, spec = draw(jobs())
    name = draw(st.sampled_from(names))
    params = draw(PARAMS[name])
    if name == "random_books":
        tick = max(1, min(abs(bar.close) for bar in market.bars) // 50)
        params["shrink"] = draw(st.sampled_from([1, tick, tick * 5]))
    path = draw(st.sampled_from(["worst", "best"]))
    changed = {"strategy": name, "params": parameters_of(build(name, params)), "path": path}
    if name != "weights":
        changed["limit_through"] = draw(st.sampled_from([0, 0, 1, max(1, market.bars[0].close // 100)]))
    plain = {"sizing": "fixed", "quantity": 10**8, "capital": None, "notional": None, "volume_share": 0}
    return market, msgspec.structs.replace(spec, **plain, **changed, volume_scale=0)


@st.composite
def cash_order_jobs(draw: Any) -> tuple[Market, Spec]:
    """The same in an account of real money."""
    market, spec = draw(order_jobs())
    size = draw(st.sampled_from(["equity", "equity", "notional", "units"]))
    capital = draw(st.sampled_from([10**6, 10**10, 10**12]))
    changed = {
        "account": "cash",
        "size": size,
        "quantity": draw(st.integers(1, 10**9)) if size == "units" else 10**8,
        "capital": capital,
        "notional": draw(st.integers(1, 2 * capital)) if size == "notional" else None,
        "step": draw(st.sampled_from([1, 1, 10**5, 10**8])),
        "min_quantity": draw(st.sampled_from([0, 10**6])),
        "min_notional": draw(st.sampled_from([0, 10**9])),
        "leverage": draw(st.sampled_from([10**6, 400_000, 3 * 10**6])),
        "borrow": draw(st.sampled_from([0, 300, 50_000])),
    }
    return market, prepare.validated(msgspec.structs.replace(spec, **changed))
