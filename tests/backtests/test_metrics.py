"""Figures against empyrical and SciPy on the daily returns, and against slow exact ways."""

from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import empyrical
import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.backtests.metrics import Drawdown, Month, drawdowns, metrics, metrics_of_sets, monthly
from candlemill.units import SCALE
from hypothesis import example, given, settings
from scipy import stats
from slow_engine import read_zip

SPOT = Path(__file__).parents[3] / "shared/data/spot"
DAY_MS = 86_400_000
FIRST = int(datetime(2024, 1, 30, tzinfo=UTC).timestamp()) * 1000
CAPITAL = 1_000 * SCALE
RESULT = {
    "trades": 5,
    "wins": 2,
    "gross_profit": 900 * SCALE,
    "gross_loss": 600 * SCALE,
    "exposure_bars": 360,
    "bars": 1440,
    "turnover": 25_000 * SCALE,
    "first_open": 40_000 * SCALE,
    "last_close": 50_000 * SCALE,
}
# Profits in cents that never bring the account to zero: 60 days of at most 15 each.
PROFITS = st.lists(st.integers(-1_500, 1_500).map(lambda cents: cents * SCALE // 100), min_size=2, max_size=60)


def figures(profits: list[int], capital: int = CAPITAL, days: np.ndarray | None = None, **more: int) -> dict[str, Any]:
    days = FIRST + np.arange(len(profits)) * DAY_MS if days is None else days
    return metrics(days, np.array(profits, dtype=np.int64), capital, {**RESULT, **more})


def check_against_libraries(profits: list[int], capital: int) -> None:
    """Their conventions that differ: empyrical's drawdowns are negative; SciPy's moments are the population's."""
    values = list(accumulate(profits, initial=capital))
    returns = np.diff(values) / np.array(values[:-1], dtype=float)
    found = figures(profits, capital)
    expected = {
        "return": empyrical.cum_returns_final(returns),
        "cagr": empyrical.cagr(returns, annualization=365),
        "volatility": empyrical.annual_volatility(returns, annualization=365),
        "calmar_ratio": empyrical.calmar_ratio(returns, annualization=365),
        "omega_ratio": empyrical.omega_ratio(returns, annualization=1),
        "value_at_risk": empyrical.value_at_risk(returns),
        "expected_shortfall": empyrical.conditional_value_at_risk(returns),
        "max_drawdown_share": -empyrical.max_drawdown(returns),
        "best_day": returns.max(),
        "worst_day": returns.min(),
    }
    if returns.std() > 1e-12:
        expected |= {"skew": stats.skew(returns), "kurtosis": stats.kurtosis(returns)}
    for name, value in expected.items():
        if np.isfinite(value) and found[name] is not None:
            assert found[name] / SCALE == pytest.approx(value, rel=1e-9, abs=2e-8), name
        else:
            assert found[name] is None, name
            assert not np.isfinite(value) or value == 0, name


@given(PROFITS)
def test_daily_figures_equal_empyrical_and_scipy(profits: list[int]) -> None:
    check_against_libraries(profits, CAPITAL)


def test_daily_figures_of_real_candles_equal_empyrical_and_scipy() -> None:
    if not SPOT.is_dir():
        pytest.skip(f"no real candles at {SPOT}")
    bars = [bar for month in ("04", "05") for bar in read_zip(SPOT / f"BTCUSDT-1m-2021-{month}.zip")]
    closes = list({bar.t // DAY_MS: bar.close for bar in bars}.values())
    check_against_libraries([b - a for a, b in pairwise(closes)], closes[0])


@given(st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=60), st.data())
@example([-CAPITAL], None)
def test_path_figures_equal_fractions(profits: list[int], data: Any) -> None:
    steps = [1] * len(profits) if data is None else [data.draw(st.integers(1, 3)) for _ in profits]
    days = np.array(list(accumulate(steps)), dtype=np.int64) * DAY_MS
    found = figures(profits, days=days)
    values = list(accumulate(profits, initial=CAPITAL))
    peaks = list(accumulate(values, max))
    depth = max(Fraction(p - v, p) for p, v in zip(peaks, values, strict=True))
    assert found["max_drawdown_share"] == round(depth * SCALE)
    assert found["return"] == round(Fraction(values[-1] - CAPITAL, CAPITAL) * SCALE)
    assert found["positive_days"] == round(Fraction(sum(p > 0 for p in profits), len(profits)) * SCALE)
    deepest = max(p - v for p, v in zip(peaks, values, strict=True))
    gain = values[-1] - CAPITAL
    assert found["recovery_factor"] == (round(Fraction(gain, deepest) * SCALE) if deepest else None)
    times = [int(days[0]) // DAY_MS - 1, *(days // DAY_MS).tolist()]
    longest = peak = 0
    for k in range(1, len(values)):
        back = values[k] >= values[peak]
        if not back or any(values[j] < values[peak] for j in range(peak, k)):
            longest = max(longest, times[k] - times[peak])
        peak = k if back else peak
    assert found["longest_drawdown_days"] == longest
    if min(values) <= 0:
        ruined = ("cagr", "calmar_ratio", "volatility", "omega_ratio", "value_at_risk", "best_day", "skew")
        assert all(found[name] is None for name in ruined)
    fallen = drawdowns(days, profits, CAPITAL, 100)
    assert (fallen[0].depth if fallen else 0) == found["max_drawdown_share"]
    ends = [(d.end or int(days[-1])) - d.start for d in fallen]
    assert max(ends, default=0) // DAY_MS == longest


@given(st.integers(1, 10**13), st.integers(1, 10**13), st.integers(1, 4_000))
def test_growth_has_thirteen_digits(first: int, last: int, span: int) -> None:
    days = np.array([0, span - 1] if span > 1 else [0]) * DAY_MS
    profits = [last - first, 0][: len(days)]
    found = figures(profits, first, days)["cagr"]
    with localcontext() as context:
        context.prec = 40
        power = (Decimal(last) / first).ln() * 365 / span
        if found is None:
            assert power > 25
        else:
            assert abs(power.exp() - 1 - Decimal(found) / SCALE) <= Decimal("0.6e-8") + power.exp() / 10**13


def test_figures_of_trades() -> None:
    found = figures([5, -3])
    assert found["win_rate"] == 40_000_000
    assert found["profit_factor"] == 150_000_000
    assert found["average_trade"] == 60 * SCALE
    assert found["average_win"] == 450 * SCALE
    assert found["average_loss"] == 200 * SCALE
    assert found["payoff_ratio"] == 225_000_000
    assert found["expectancy_ratio"] == 30_000_000
    assert found["exposure"] == 25_000_000
    assert found["turnover_ratio"] == 25 * SCALE
    assert found["buy_and_hold"] == 25_000_000
    without = figures([5, -3], trades=0, wins=0, gross_profit=0, gross_loss=0)
    names = ("win_rate", "profit_factor", "average_trade", "average_win", "average_loss", "payoff_ratio")
    assert [without[name] for name in names] == [None] * len(names)
    assert figures([5], trades=2, gross_loss=0)["profit_factor"] is None


def test_no_day_and_one_day() -> None:
    assert set(figures([])) == set(figures([1, 2]))
    assert figures([])["return"] is None
    one = figures([10 * SCALE])
    assert (one["return"], one["best_day"], one["volatility"], one["skew"]) == (1_000_000, 1_000_000, None, None)


@given(PROFITS)
def test_more_than_64_bits_give_the_same_figures(profits: list[int]) -> None:
    """A power of two changes no double's digits, so even the last bit is the same."""
    days = FIRST + np.arange(len(profits)) * DAY_MS
    money = ("average_trade", "average_win", "average_loss", "turnover_ratio")
    wide = metrics(days, [p << 40 for p in profits], CAPITAL << 40, RESULT)
    narrow = figures(profits)
    assert metrics(days, profits, CAPITAL, RESULT) == narrow
    assert {**wide, **dict.fromkeys(money)} == {**narrow, **dict.fromkeys(money)}


def test_months_and_drawdowns() -> None:
    profits = [100 * SCALE, -220 * SCALE, 44 * SCALE, 176 * SCALE, -55 * SCALE]
    days = FIRST + np.arange(5) * DAY_MS  # 30 and 31 January, then February
    assert monthly(days, profits, CAPITAL) == [
        Month(2024, 1, -120 * SCALE, -12_000_000),
        Month(2024, 2, 165 * SCALE, 18_750_000),
    ]
    first = Drawdown(FIRST, FIRST + DAY_MS, FIRST + 3 * DAY_MS, 20_000_000, 220 * SCALE)
    last = Drawdown(FIRST + 3 * DAY_MS, FIRST + 4 * DAY_MS, None, 5_000_000, 55 * SCALE)
    assert drawdowns(days, profits, CAPITAL, 5) == [first, last]
    assert drawdowns(days, profits, CAPITAL, 1) == [first]
    assert monthly(days, [-2 * CAPITAL, 0, 5, 0, 0], CAPITAL)[1] == Month(2024, 2, 5, None)
    assert monthly(days[:0], [], CAPITAL) == [] == drawdowns(days[:0], [], CAPITAL, 3)


@settings(max_examples=60)
@given(
    st.integers(0, 45),
    st.lists(st.sampled_from([0, 1, 10**6, 10**12, 2**61, 2**70]), min_size=1, max_size=6),
    st.data(),
)
def test_sets_together_have_the_figures_that_each_has_alone(length: int, sizes: list[int], data: st.DataObject) -> None:
    """Also where the values of some of them do not fit 64 bits, and where an account is lost."""
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 20)))
    days = np.cumsum(random.integers(1, 4, length)) * DAY_MS
    profits = [[int(x * size) for x in random.uniform(-1, 1, length)] for size in sizes]
    capitals = [data.draw(st.sampled_from([1, CAPITAL, 2**62])) for _ in sizes]
    alone = [metrics(days, one, capital, RESULT) for one, capital in zip(profits, capitals, strict=True)]
    assert metrics_of_sets(days, profits, capitals, [RESULT] * len(sizes)) == alone
