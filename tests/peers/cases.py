"""What both peers are requested."""

from itertools import product
from typing import Any

import pytest
from candlemill.strategies.registry import BUILT_IN, ORDER_STRATEGIES, PANEL_STRATEGIES
from candles import NO_CANDLES, SETS, SPOT

FEE, SLIPPAGE = 1000, 50  # ppm
FILLS = ("next_open", "close")
STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "sma_cross": ("sma_cross", {}),
    "sma_cross, short too": ("sma_cross", {"allow_short": True}),
    "momentum_v1, short too": ("momentum_v1", {"lookback": 60, "threshold": 1000, "allow_short": True}),
    "donchian": ("donchian", {"entry": 240, "exit": 120}),
    "buy_and_hold": ("buy_and_hold", {}),
}
OTHERS = {
    name: (name, {})
    for name in sorted(BUILT_IN - ORDER_STRATEGIES - PANEL_STRATEGIES - {name for name, _ in STRATEGIES.values()})
}
STOPS: dict[str, dict[str, int]] = {
    "none": {},
    "stop": {"stop_loss": 4_000},
    "stop and target": {"stop_loss": 4_000, "take_profit": 8_000},
    "trailing": {"trailing_stop": 5_000},
}
COARSE = "BRDBTC"  # a price is some 800 units of 10^-8: how distances are rounded decides what touches

real_candles = pytest.mark.skipif(not SPOT.is_dir(), reason=NO_CANDLES)
every_set = pytest.mark.parametrize("name", SETS)
every_strategy = pytest.mark.parametrize("label", STRATEGIES)


def fills_and_stops() -> list[tuple[str, str]]:
    return list(product(FILLS, STOPS))
