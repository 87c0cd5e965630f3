"""Margin on real candles against the slow account: liquidations of strategies that want more than they have."""

from pathlib import Path
from typing import Any

import pytest
from candlemill.backtests.resolve import resolve
from candlemill.backtests.tiers import Tier, TierTable
from slow_engine import read_zip
from test_margin import FIGURES, expected, result_of
from world import Market

SPOT = Path(__file__).parents[3] / "shared/data/spot"
FILES = ("BTCUSDT-1m-2021-05", "BRDBTC-1m-2021-04", "BTTUSDT-1m-2021-05")
SCALE = 10**8
TIERS = [
    TierTable(
        0, [Tier(0, 4_000, 0), Tier(50_000 * SCALE, 5_000, 50 * SCALE), Tier(250_000 * SCALE, 10_000, 1_300 * SCALE)]
    )
]
JOBS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sma_cross", {"fast": 20, "slow": 60, "allow_short": True}, {"timeframe": 5}),
    ("momentum_v1", {"lookback": 240, "allow_short": True}, {"fill": "close", "stop_loss": 12_000}),
    ("breakout_stop", {"entry": 60, "risk": 20_000}, {"slippage": 50}),
    ("grid", {"levels": 4, "spacing": 3_000, "size": 1_000_000}, {"path": "best"}),
    ("dca", {"every": 60, "size": 1_000_000, "steps": 5, "take": 3_000}, {}),
]
# Positions of five times the capital with a leverage of 40: liquidated some 2 % from their entry.
LARGE = {
    "account": "cash",
    "capital": 10_000 * SCALE,
    "size": "notional",
    "notional": 50_000 * SCALE,
    "leverage": 40_000_000,
}

if not SPOT.is_dir():
    pytest.skip(f"no real candles at {SPOT}", allow_module_level=True)


@pytest.mark.parametrize("margin", ["isolated", "cross"])
@pytest.mark.parametrize("file", FILES)
def test_equals_the_slow_account(file: str, margin: str) -> None:
    market = Market(read_zip(SPOT / f"{file}.zip")[5_000:9_000])
    span = market.bars[0].t, market.bars[-1].t + 60_000
    liquidated = 0
    for strategy, params, more in JOBS:
        spec = resolve(symbol="X", strategy=strategy, span=span, params=params, margin=margin, **LARGE, **more)
        found = result_of(market, spec, TIERS, 3)
        assert found is not None
        wanted = expected(market, spec, TIERS)
        assert {name: found[name] for name in FIGURES} == {name: wanted[name] for name in FIGURES}
        assert found["liquidation_price"] == wanted["liquidation_price"]
        liquidated += found["liquidations"]
    assert liquidated > 0
