"""What each built-in strategy makes of a synthetic fortnight, kept in golden.json and computed twice.

This writes the file anew, from the slow reference alone:
PYTHONPATH=core:tests/support:tests/invariants:benchmarks python tests/strategies/test_strategies_golden.py
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import slow_strategies  # noqa: F401 - teaches the reference the strategies
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.strategies import REGISTERED, build
from candlemill.strategies.registry import ORDER_STRATEGIES, PANEL_STRATEGIES
from data import synthetic
from slow_engine import Bar, backtest
from slow_engine import desired as slow_decisions
from world import World

GOLDEN = Path(__file__).parent / "golden.json"
BARS = 3_000
PARAMS: dict[str, dict[str, object]] = {
    "sma_cross": {"allow_short": True},
    "momentum_v1": {"lookback": 120, "threshold": 500},
    "donchian": {"entry": 60, "exit": 30},
    "ema_cross": {"fast": 30, "slow": 90},
    "macd": {},
    "rsi_reversion": {"allow_short": True},
    "bollinger": {"allow_short": True},
    "zscore_reversion": {},
    "keltner": {"allow_short": True},
    "supertrend": {},
    "atr_stop": {"allow_short": True},
    "dual_momentum": {"fast": 60, "slow": 480},
}
FIGURES = ("total_pnl", "max_drawdown", "sharpe_ratio", "trades", "wins", "fees", "exposure_bars", "open_position")


@cache
def bars() -> tuple[Bar, ...]:
    columns = synthetic.year(3, 2024, 40_000.0)
    rows = zip(
        *(columns[name][:BARS].tolist() for name in ("t", "open", "high", "low", "close", "volume")), strict=True
    )
    return tuple(Bar(*row) for row in rows)


def parameters(name: str) -> dict[str, Any]:
    return parameters_of(build(name, PARAMS.get(name, {})))


def slow_figures(name: str) -> dict[str, int]:
    """By the reference alone: the decisions counted, and the account's figures at a fee of 0.1 % and 2 bp slippage."""
    candles, params = list(bars()), parameters(name)
    wanted = slow_decisions(name, params, candles)
    turns = sum(a != b for a, b in zip([0, *wanted], wanted, strict=False))
    start, end = candles[0].t, candles[-1].t + 60_000
    found = backtest(candles, start=start, end=end, strategy=name, params=params, fee=1000, slippage=200)
    counted = {"longs": wanted.count(1), "shorts": wanted.count(-1), "turns": turns}
    return counted | {figure: int(found[figure]) for figure in FIGURES}


@pytest.mark.parametrize("name", sorted(set(REGISTERED) - ORDER_STRATEGIES - PANEL_STRATEGIES))
def test_golden(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())[name]
    assert slow_figures(name) == golden
    candles = list(bars())
    spec = Spec(
        symbol="X",
        strategy=name,
        params=parameters(name),
        start=candles[0].t,
        end=candles[-1].t + 60_000,
        slippage=200,
        account="units",
    )
    (found,) = World(candles).run(spec, slices=4)
    assert {figure: found[figure] for figure in FIGURES} == {figure: golden[figure] for figure in FIGURES}


if __name__ == "__main__":
    names = sorted(set(REGISTERED) - ORDER_STRATEGIES - PANEL_STRATEGIES)
    GOLDEN.write_text(json.dumps({name: slow_figures(name) for name in names}, indent=1) + "\n")
