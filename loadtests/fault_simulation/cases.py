"""Small jobs of all kinds, on small markets."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec
import numpy as np
from candlemill.backtests import merge, plan, spec_rules
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import WalkForward
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.guards import matrix
from candlemill.pipeline import reuse, tasks, waves
from candlemill.pipeline.events import Requested
from candlemill.store.candle_writer import count_days
from candlemill.stored_days import Day, Funding
from candlemill.units import SCALE
from numpy.typing import NDArray

DAY_MS, MINUTE_MS = 86_400_000, 60_000
FIRST_DAY = 1_609_459_200_000  # 2021-01-01
DAYS = 6
BARS_A_DAY = 24
SYMBOLS = ("AAA", "BBB", "CCC")
CORRECTED_DAY = 2

# Limits so low that a few bars and sets reach them.
SMALL = [
    (spec_rules, "WARM_UP_BARS", 3),
    (spec_rules, "WARM_UP_LIMIT", 3),
    (reuse, "WARM_UP_BARS", 3),
    (plan, "BATCH_SETS", 3),
    (plan, "PANEL_BATCH_SETS", 2),
    (plan, "PANEL_SLICE_CANDLES", 150),
    (matrix, "SETS_LIMIT", 4),
    (tasks, "REPAIR_EVENT_POINTS", 2),
    (tasks, "REPAIR_EVENT_SLICES", 3),
    (merge, "REPAIR_LIMIT", 3),
    (waves, "EVENTS_AT_ONCE", 2),
    (waves, "TURNS", 2),
    (waves, "RANGES_KEPT", 2),
]

Columns = dict[str, NDArray[Any]]


class Candles(msgspec.Struct, frozen=True):
    """A symbol's candles as they are at one time, with their index."""

    columns: Columns
    days: list[Day]


class Market(msgspec.Struct, frozen=True):
    """A symbol's candles before, between and after a correction; `funding` stays."""

    stages: list[Candles]
    funding: Funding


@contextmanager
def small_limits() -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module, name, _ in SMALL]
    for module, name, value in SMALL:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, old in before:
            setattr(module, name, old)


TIERS = [
    TierTable(0, [Tier(0, 4_000, 0), Tier(4_000 * SCALE, 5_000, 4 * SCALE)]),
    TierTable(FIRST_DAY + 3 * DAY_MS, [Tier(0, 6_000, 0)]),
]


@cache
def market(symbol: str) -> Market:
    first = _columns(SYMBOLS.index(symbol))
    later = {name: column.copy() for name, column in first.items()}
    k = CORRECTED_DAY * BARS_A_DAY + 5
    later["close"][k] = later["high"][k]
    later["volume"][k] += 10**8
    days, new_days = count_days(first), count_days(later)
    unsure = [msgspec.structs.replace(d, digest="") if k == CORRECTED_DAY else d for k, d in enumerate(days)]
    # A writer marks the day, writes, and the day is counted.
    stages = [Candles(first, days), Candles(first, unsure), Candles(later, unsure), Candles(later, new_days)]
    instants = np.arange(FIRST_DAY, FIRST_DAY + DAYS * DAY_MS, DAY_MS // 3)
    rates = np.array([7_777 * (-1) ** k for k in range(len(instants))])
    return Market(stages, Funding(instants, rates))


def _columns(seed: int) -> Columns:
    """A walk with a bar an hour or so, and a hole."""
    rng = random.Random(seed)
    rows, price = [], 10**10
    for k in range(DAYS * BARS_A_DAY):
        opened = price + rng.randint(-(10**7), 10**7)
        price = max(10**9, opened + rng.randint(-(10**8), 10**8))
        high, low = max(opened, price) + rng.randint(0, 10**7), min(opened, price) - rng.randint(0, 10**7)
        if k % 50 != 7:
            t = FIRST_DAY + k * (1440 // BARS_A_DAY) * MINUTE_MS
            rows.append((t, opened, high, low, price, rng.randint(0, 10**10)))
    table = np.array(rows, dtype=np.int64)
    columns = {name: table[:, k].copy() for k, name in enumerate(COLUMNS)}
    return columns | {"volume": columns["volume"].astype(np.uint64)}


# -- jobs ----------------------------------------------------------------------------------------------------------


def _ask(
    symbol: str,
    strategy: str,
    params: dict[str, Any],
    grid: dict[str, Any] | None = None,
    weights: dict[str, int] | None = None,
    walk_forward: WalkForward | None = None,
    **rest: Any,
) -> Requested:
    span = (rest.pop("start", FIRST_DAY), rest.pop("end", FIRST_DAY + DAYS * DAY_MS))
    spec = resolve(symbol=symbol, strategy=strategy, span=span, params=params, grid=grid, **{"account": "units"} | rest)
    return Requested(spec, weights=weights or {}, walk_forward=walk_forward)


@cache
def families() -> dict[str, list[Requested]]:
    """Windowed and stateful strategies, with and without stops, single ones, sweeps of several batches, workflows.
    Those of a family have something in common: a set of one is another one's, or their ranges overlap."""
    cross = {"fast": 2, "slow": 5, "allow_short": True}
    grid = {"fast": [2, 3, 4], "slow": [3, 5, 9], "allow_short": [True]}
    ema = {"sizing": "compound", "funding": True}
    schedule = [{"start": FIRST_DAY + k * 2 * DAY_MS, "params": {"fast": 2 + k, "slow": 6}} for k in range(3)]
    four, five = ({"end": FIRST_DAY + days * DAY_MS} for days in (4, 5))
    margin = {
        "account": "cash", "size": "notional", "notional": 5_000 * SCALE, "capital": 10_000 * SCALE,
        "leverage": 90_000_000, "margin": "isolated", "funding": True,
    }  # fmt: skip
    weights = {"AAA": SCALE, "BBB": SCALE // 2, "CCC": 2 * SCALE}
    two = {"AAA": SCALE, "BBB": 2 * SCALE}
    cash = {"account": "cash", "capital": 10_000 * SCALE}
    pullback = {"lookback": 3, "depth": 4_000, "stop": 30_000, "take": 30_000, "hold": 300}
    momentum = {"lookback": 4, "every": 120, "top": 1}
    walk = WalkForward("2d", "1d", score="total_pnl")
    return {
        "stops": [
            _ask("AAA", "sma_cross", {}, grid, stop_loss=20_000),
            _ask("AAA", "sma_cross", {"slow": 5, "allow_short": True}, {"fast": [2, 3, 4]}, stop_loss=20_000, **five),
            _ask("AAA", "sma_cross", cross, stop_loss=20_000),
            _ask("AAA", "sma_cross", cross, stop_loss=20_000, **four),
            _ask("AAA", "sma_cross", {}, grid, stop_loss=20_000, walk_forward=walk),
        ],
        "trailing-stops": [
            _ask("BBB", "donchian", {"exit": 5}, {"entry": [4, 8, 12, 20]}, trailing_stop=20_000),
            _ask("BBB", "donchian", {"entry": 8, "exit": 5}, trailing_stop=20_000),
            _ask("BBB", "donchian", {"entry": 8, "exit": 5}, trailing_stop=20_000, **five),
            _ask("BBB", "donchian", {"entry": 20, "exit": 15}, take_profit=30_000, fill="close"),
            _ask("AAA", "donchian", {"entry": 8, "exit": 5}, trailing_stop=20_000, weights=weights),
        ],
        "wrong-guesses": [  # every guess is wrong
            _ask("CCC", "buy_and_hold", {}, stop_loss=150_000),
            _ask("CCC", "buy_and_hold", {}, stop_loss=150_000, **four),
            _ask("CCC", "buy_and_hold", {}, trailing_stop=200_000, sizing="compound"),
        ],
        "funding": [
            _ask("CCC", "ema_cross", {"slow": 9}, {"fast": [2, 3, 5, 7]}, **ema),
            _ask("CCC", "ema_cross", {"fast": 3, "slow": 9}, **ema),
            _ask("CCC", "ema_cross", {"fast": 3, "slow": 9}, **ema, **four),
            _ask("BBB", "ema_cross", {"fast": 3, "slow": 9}, **ema, weights={"BBB": SCALE, "CCC": SCALE}),
            _ask("CCC", "ema_cross", {"slow": 9}, {"fast": [2, 3, 5, 7]}, **ema, walk_forward=walk),
        ],
        "others": [
            _ask("AAA", "sma_cross", {}, schedule=schedule, trailing_stop=15_000),
            _ask("BBB", "macd", {"fast": 3, "slow": 8, "signal": 4, "allow_short": True}, slippage=500),
            _ask("BBB", "supertrend", {"length": 5, "multiple": 200}, sizing="notional", volume_share=10_000),
            _ask("CCC", "momentum_v1", {"lookback": 6}, timeframe=120, start=FIRST_DAY + DAY_MS),
            _ask("CCC", "rsi_reversion", {"length": 5, "low": 30, "exit": 50, "high": 70}, funding=True),
        ],
        "liquidations": [  # accounts that are liquidated
            _ask("AAA", "sma_cross", {}, grid, **margin),
            _ask("AAA", "sma_cross", cross, **margin),
            _ask("AAA", "sma_cross", cross, **margin, **four),
            _ask(
                "BBB",
                "breakout_stop",
                {"entry": 4, "risk": 30_000},
                **{**margin, "margin": "cross", "notional": 500_000 * SCALE},
            ),
            _ask("CCC", "momentum_v1", {"lookback": 4, "allow_short": True}, **{**margin, "path": "both"}),
        ],
        "cash": [  # accounts of real money: no guess of a state is right
            _ask("AAA", "sma_cross", cross, **cash),
            _ask("AAA", "sma_cross", {"slow": 5}, {"fast": [2, 3]}, **cash),
            _ask("AAA", "sma_cross", {}, grid, **cash),
            _ask("AAA", "sma_cross", cross, **cash, **five),
            _ask(
                "BBB", "donchian", {"entry": 8, "exit": 5}, trailing_stop=20_000, leverage=2_000_000, borrow=300, **cash
            ),
        ],
        "orders": [  # orders that stand over cuts
            _ask("BBB", "pullback_limit", pullback),
            _ask(
                "BBB", "pullback_limit", {"lookback": 3, "stop": 30_000}, {"depth": [2_000, 4_000], "hold": [60, 300]}
            ),
            _ask("BBB", "pullback_limit", pullback, **cash),
            _ask("BBB", "grid", {"levels": 3, "spacing": 8_000, "size": 300_000}, limit_through=SCALE // 100, **four),
            _ask("BBB", "atr_bracket", {"entry": 4}, {"atr": [3, 5], "take": [100, 300]}, **cash),
            _ask("BBB", "dca", {"every": 120, "size": 200_000, "steps": 4, "take": 20_000}, weights=two),
        ],
        "panels": [  # panels: one account of several symbols, slices in order
            _ask("AAA,BBB,CCC", "xs_momentum", momentum, **cash),
            _ask("AAA,BBB,CCC", "xs_momentum", momentum, **cash, **four),
            _ask("AAA,BBB,CCC", "xs_momentum", {"every": 120}, {"lookback": [2, 4, 6], "top": [1, 2]}, **cash),
            _ask("AAA,BBB", "pair_reversion", {"length": 6, "entry": 100, "exit": 20}, funding=True, **cash),
            _ask("AAA,CCC", "inverse_volatility", {"length": 6, "every": 60}, **cash),
        ],
        "symbols": [  # a sweep, or a walk-forward, of each of several symbols
            _ask("AAA", "sma_cross", {}, grid, stop_loss=20_000, weights=dict.fromkeys(two, SCALE)),
            _ask("AAA", "sma_cross", {}, grid, stop_loss=20_000),
            _ask("AAA", "sma_cross", {}, grid, stop_loss=20_000, weights=dict.fromkeys(two, SCALE), walk_forward=walk),
            _ask("AAA", "sma_cross", {"slow": 5}, {"fast": [2, 3]}, **cash, weights=dict.fromkeys(two, SCALE)),
        ],
    }


def read(candles: Candles, start: int, end: int, names: Sequence[str]) -> Columns:
    """Rows of `start <= t < end`, as a store gives them."""
    rows = slice(*np.searchsorted(candles.columns["t"], [start, end]).tolist())
    return {name: candles.columns[name][rows] for name in ("t", *names)}
