"""Closed trades of any program side by side: which are the same, and how far their prices and money are apart."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from candlemill.backtests.replay import Replay, replay_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.engine.candles import k_minute_bars
from candlemill.strategies import build
from candlemill.units import SCALE
from candles import world_of
from numpy.typing import NDArray

KEY = ["entry_t", "exit_t", "side"]
PRICES = ["entry_price", "exit_price"]
MONEY = ["fees", "profit"]

# candlemill rounds slippage and the distance of a level up to 10^-8 each, and a trade's money down, once; its peers
# count in floats. A price has up to three such roundings; the profit of a unit those of both prices and its own.
PRICE_UNITS = 3
MONEY_UNITS = 7
FLOAT = 1e-11  # of the price: what adding and multiplying a few doubles can have lost

Deals = pd.DataFrame  # columns: KEY (times in ms), PRICES, quantity, MONEY; a row per closed trade in order of exits


class Run(NamedTuple):
    """candlemill's run of one job: what it stored, the same in full, its decisions, its trades as floats."""

    spec: Spec
    result: dict[str, Any]
    trace: Replay
    desired: NDArray[np.int8]  # at the close of each decision bar
    deals: Deals


class Agreement(NamedTuple):
    """How many trades are the same, those that are not, and of the same ones the largest differences in 10^-8, money
    for one unit."""

    same: int
    only_ours: Deals
    only_theirs: Deals
    prices: float
    money: float


def run_of(name: str, strategy: str, params: dict[str, Any] | None = None, **costs: Any) -> Run:
    """The whole of a set of candles, through the functions that every job goes through."""
    world = world_of(name)
    t = world.columns["t"]
    span = (int(t[0]), int(t[-1]) + 60_000)
    spec = resolve(symbol="X", strategy=strategy, span=span, params=params or {}, **{"account": "units"} | costs)
    for kept in (world.jobs, world.rows, world.results, world.result_rows):
        kept.clear()
    (result,) = world.run(spec)
    one = build(spec.strategy, dict(spec.params))
    candles = world.runtime.candles.window(spec, spec.start, spec.end, 0, COLUMNS).candles
    bars = k_minute_bars(candles, spec.timeframe, skip_first=False)
    desired, _ = one.decide(bars, 0, bars.n, b"")
    trace = replay_of(spec, candles, one, result)
    return Run(spec, result, trace, np.array(desired), deals_of(trace))


def deals_of(trace: Replay) -> Deals:
    trades = trace.trades
    found = {name: getattr(trades, name) for name in KEY}
    found |= {name: getattr(trades, name) / SCALE for name in [*PRICES, "quantity", *MONEY]}
    return pd.DataFrame(found)


def compare(ours: Deals, theirs: Deals) -> Agreement:
    """Trades with the same times and side, and the same prices but for rounding, are the same."""
    joined = ours.merge(theirs, on=KEY, how="inner", suffixes=("", "_theirs"))
    apart = {name: (joined[name] - joined[f"{name}_theirs"]).abs() for name in [*PRICES, *MONEY]}
    same = np.logical_and.reduce([apart[name] < PRICE_UNITS / SCALE + FLOAT * joined[name] for name in PRICES])
    known = pd.MultiIndex.from_frame(joined.loc[same, KEY])
    left, right = (side[~pd.MultiIndex.from_frame(side[KEY]).isin(known)] for side in (ours, theirs))
    prices = max((apart[name][same].max() for name in PRICES), default=0.0) if same.any() else 0.0
    money = max((apart[name] / joined["quantity"])[same].max() for name in MONEY) if same.any() else 0.0
    return Agreement(int(same.sum()), left, right, prices * SCALE, money * SCALE)


def assert_near(found: Agreement, price: float) -> None:
    """Money is as near as rounding lets it be; `price` is the highest."""
    assert found.money <= MONEY_UNITS + 4 * FLOAT * price * SCALE
