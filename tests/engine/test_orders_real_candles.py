"""The built-in order strategies on real candles: as written bar by bar, and under a cut at every midnight."""

import csv
import io
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from candlemill.engine.candles import DAY_MS, MINUTE_MS, CandleColumns
from candlemill.engine.position import ExecutionRules
from candlemill.strategies import Strategy, build
from order_candles import candle_columns
from test_decide import SlowBreakout, SlowGrid, SlowPullback, cut_run

SPOT = Path(__file__).parents[3] / "shared/data/spot"
FILES = ("BTCUSDT-1m-2021-05", "BRDBTC-1m-2021-04", "ETHBTC-1m-2019-11", "BTTUSDT-1m-2021-05", "BNBBTC-1m-2019-11")
BARS = 6_000
LIMITS = {"lookback": 60, "depth": 1_500, "stop": 4_000, "take": 4_000, "hold": 120}
PAIRS: dict[str, tuple[Strategy, Strategy]] = {
    "pullback_limit": (build("pullback_limit", LIMITS), SlowPullback(60, 1_500, 4_000, 4_000, 120)),
    "breakout_stop": (build("breakout_stop", {"entry": 100, "risk": 3_000}), SlowBreakout(100, 3_000)),
    "grid": (build("grid", {"levels": 4, "spacing": 1_500}), SlowGrid(4, 1_500)),
}

if not SPOT.is_dir():
    pytest.skip(f"no real candles at {SPOT}", allow_module_level=True)


def read(name: str) -> CandleColumns:
    """The first candles of a file, prices times 10^8."""
    with zipfile.ZipFile(SPOT / f"{name}.zip") as archive:
        rows = list(csv.reader(io.StringIO(archive.read(f"{name}.csv").decode())))[:BARS]
    prices = [tuple(int(Decimal(text) * 10**8) for text in row[1:5]) for row in rows]
    return candle_columns(prices, [int(row[0]) // MINUTE_MS for row in rows])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("strategy", PAIRS)
def test_the_fills_are_those_of_the_strategy_bar_by_bar(name: str, strategy: str) -> None:
    candles = read(name)
    native, slow = PAIRS[strategy]
    days = candles.columns()["t"] // DAY_MS
    midnights = (np.flatnonzero(np.diff(days)) + 1).tolist()
    for rules in (
        ExecutionRules(slippage=50, best_path=True),
        ExecutionRules(at_close=True, trailing_stop=8_000, maker_fee=-50),
    ):
        whole = cut_run(candles, 1, native, rules, [])
        assert len(whole[0]) > 0
        assert cut_run(candles, 1, slow, rules, [])[:2] == whole[:2]
        assert cut_run(candles, 1, native, rules, midnights) == whole
