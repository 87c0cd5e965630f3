"""The built-in order strategies in accounts, on real candles of five symbols, against the reference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from candlemill.backtests.resolve import resolve
from order_jobs import reference_bars, reference_of, reference_options
from reference.cash import run_cash
from reference.units import run_units
from slow_engine import Bar, read_zip
from test_order_accounts import FIGURES, UNIT_FIGURES
from world import Market

SPOT = Path(__file__).parents[3] / "shared/data/spot"
FILES = ("BTCUSDT-1m-2021-05", "BRDBTC-1m-2021-04", "ETHBTC-1m-2019-11", "BTTUSDT-1m-2021-05", "BNBBTC-1m-2019-11")
BARS = 2_900
JOBS: dict[str, dict[str, Any]] = {
    "pullback_limit": {"lookback": 30, "depth": 1_500, "stop": 4_000, "take": 4_000, "hold": 120},
    "breakout_stop": {"entry": 60, "risk": 3_000},
    "grid": {"levels": 4, "spacing": 1_500},
    "atr_bracket": {"entry": 60, "atr": 30, "stop": 300, "take": 500},
    "break_even": {"lookback": 30, "rise": 1_000, "stop": 4_000, "arm": 3_000, "lock": 500, "hold": 240},
    "dca": {"every": 60, "size": 200_000, "steps": 5, "take": 3_000},
}
CASH: dict[str, Any] = {"account": "cash", "capital": 10**12, "step": 10**3, "min_notional": 10**9, "borrow": 300}
UNITS: dict[str, Any] = {"quantity": 123_456_789}
BEST: dict[str, Any] = {"slippage": 50, "maker_fee": -50, "path": "best"}
AT_CLOSE: dict[str, Any] = {"fill": "close", "trailing_stop": 8_000, "timeframe": 5}

if not SPOT.is_dir():
    pytest.skip(f"no real candles at {SPOT}", allow_module_level=True)


@pytest.fixture(scope="module", params=FILES)
def market(request: pytest.FixtureRequest) -> Iterator[Market]:
    bars: list[Bar] = read_zip(SPOT / f"{request.param}.zip")[:BARS]
    yield Market(bars)


@pytest.mark.parametrize("strategy", JOBS)
def test_equals_the_reference(market: Market, strategy: str) -> None:
    span = market.bars[0].t, market.bars[-1].t + 60_000
    bars = reference_bars(market)
    for account, more in ((CASH, BEST), (CASH, AT_CLOSE), (UNITS, BEST)):
        spec = resolve(symbol="X", strategy=strategy, span=span, params=JOBS[strategy], **account, **more)
        options = reference_options(market, spec)
        names = FIGURES if account is CASH else UNIT_FIGURES
        if account is CASH:
            found = run_cash({"X": bars}, reference_of(spec), options)
        else:
            found = run_units(bars, reference_of(spec), options)
        (result,) = market.world().run(spec, 3)
        assert {name: result[name] for name in names} == {name: found[name] for name in names}
        assert result["ambiguous_bars"] == len(found["ambiguous"]["X"] if account is CASH else found["ambiguous"])
        assert result["fills"] > 0
        assert result["slices"] == 3
