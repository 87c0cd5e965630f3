"""Real Binance candles, through files, store and functions, against the reference."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from candlemill.backtests.resolve import resolve
from candlemill.ingest.candles import ingest
from candlemill.local.runner import JobRunner
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import SCALE, parse_range
from slow_engine import Bar, backtest, read_zip

SPOT = Path(__file__).parents[3] / "shared/data/spot"
FILES = ("BTCUSDT-1m-2021-04.zip", "BTCUSDT-1m-2021-05.zip", "ETHBTC-1m-2019-11.zip", "BTCUSDT-1m-2025-10.zip",
         "QLCBTC-1m-2019-11.zip")  # fmt: skip
# An outage of five hours lies in the first range, one of two hours in the third; the fourth file is in microseconds.
# A price of the fifth is some two hundred units of 10^-8.
RANGES = {
    "outage": ("BTCUSDT", "2021-04-24..2021-04-28"),
    "two months": ("BTCUSDT", "2021-04-29..2021-05-03T12:34"),
    "small prices": ("ETHBTC", "2019-11-24..2019-11-27"),
    "microseconds": ("BTCUSDT", "2025-10-29..2025-10-31"),
    "tiny prices": ("QLCBTC", "2019-11-02..2019-11-05"),
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "sma_cross": {"fast": 10, "slow": 50, "allow_short": True},
    "momentum_v1": {"lookback": 60, "threshold": 1_000, "allow_short": True},
    "donchian": {"entry": 48, "exit": 24},
    "buy_and_hold": {},
}
STOPS: dict[str, dict[str, int]] = {
    "no stops": {},
    "stops": {"stop_loss": 4_000, "take_profit": 8_000, "slippage": 50},
    "trailing": {"stop_loss": 10_000, "trailing_stop": 5_000},
}

if not SPOT.is_dir():
    pytest.skip(f"no real candles at {SPOT}", allow_module_level=True)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobRunner]:
    with ClickHouseStore(f"chdb://{tmp_path_factory.mktemp('real')}") as store:
        ingest(store, [SPOT / name for name in FILES])
        yield JobRunner(store)


@pytest.fixture(scope="module")
def bars() -> dict[str, list[Bar]]:
    found: dict[str, list[Bar]] = {}
    for name in FILES:
        found.setdefault(name.split("-")[0], []).extend(read_zip(SPOT / name))
    return found


@pytest.mark.parametrize("span", RANGES)
@pytest.mark.parametrize("timeframe", [1, 15, 240])
@pytest.mark.parametrize("fill", ["next_open", "close"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equals_the_reference(
    runner: JobRunner, bars: dict[str, list[Bar]], strategy: str, fill: str, timeframe: int, span: str
) -> None:
    symbol, text = RANGES[span]
    start, end = parse_range(text)
    inside = [bar for bar in bars[symbol] if start <= bar.t < end]
    for stops in STOPS.values():
        costs: dict[str, Any] = {"fill": fill, "timeframe": timeframe, **stops}
        params = STRATEGIES[strategy]
        spec = resolve(symbol=symbol, strategy=strategy, span=(start, end), params=params, account="units", **costs)
        wanted = backtest(inside, start=start, end=end, strategy=strategy, params=params, **costs)
        del wanted["daily"]  # their sums and squares are in the ratios
        found = runner.compute(runner.prepare(spec, slices=3), lambda done, known: None)
        assert {name: found[name] for name in wanted} == wanted
        assert found["slices"] == 3


def test_defaults_of_the_strategies_equal_the_reference(runner: JobRunner, bars: dict[str, list[Bar]]) -> None:
    start, end = parse_range("2021-05-03..2021-05-05")
    inside = [bar for bar in bars["BTCUSDT"] if start <= bar.t < end]
    full = {"sma_cross": {"fast": 10, "slow": 50}, "momentum_v1": {"lookback": 1440},
            "donchian": {"entry": 480, "exit": 240}}  # fmt: skip
    for strategy, params in full.items():
        spec = resolve(symbol="BTCUSDT", strategy=strategy, span=(start, end), params={}, account="units")
        found = runner.compute(runner.prepare(spec, None), lambda done, known: None)
        wanted = backtest(inside, start=start, end=end, strategy=strategy, params=params)
        del wanted["daily"]
        assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("fee", "quantity"), [(1_000, SCALE), (1_000, 10**6 * SCALE), (-1, SCALE), (-1, 10**6 * SCALE)]
)
def test_fees_of_tiny_prices_are_their_share_of_the_turnover(runner: JobRunner, fee: int, quantity: int) -> None:
    spec = resolve(
        symbol="QLCBTC", strategy="sma_cross", span=parse_range("2019-11"), params={}, fee=fee, quantity=quantity
    )
    found = runner.compute(runner.prepare(spec, None), lambda done, known: None)
    assert found["fills"] > 500
    assert found["turnover"] < 10**4 * quantity  # a fill is worth less than 0.00001 a coin
    assert found["fees"] == found["turnover"] * fee // 10**6
