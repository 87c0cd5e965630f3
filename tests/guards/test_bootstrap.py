"""The bootstrap and the shuffle: the same bits for the same seed, and the statistics they promise."""

from itertools import accumulate
from math import sqrt

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.errors import BadInput
from candlemill.guards.bootstrap import (
    Interval,
    _falls,
    _figures,
    _interval,
    _stationary,
    _streaks,
    bootstrap,
    shuffle_trades,
)
from candlemill.units import SCALE
from hypothesis import given
from slow_engine import sharpe_ratio, sortino_ratio

CAPITAL = 10_000 * SCALE
PROFITS = np.array([(k * k * 7919 % 1009 - 480) * SCALE for k in range(100)])


def test_the_seed_gives_the_bits() -> None:
    found = bootstrap(PROFITS, CAPITAL, seed=42, replicates=199)
    assert found is not None
    assert found == bootstrap(PROFITS, CAPITAL, seed=42, replicates=199)
    assert found != bootstrap(PROFITS, CAPITAL, seed=43, replicates=199)
    assert found.block_days == 5
    assert found.figures["total_pnl"] == Interval(992 * SCALE, -2957 * SCALE, 933 * SCALE, 5657 * SCALE)
    shuffled = shuffle_trades(PROFITS, seed=42, replicates=199)
    assert shuffled is not None
    assert shuffled.figures["longest_losing_streak"] == Interval(5, 4, 5, 10)


def test_portions_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(PROFITS, CAPITAL, 1, 50), shuffle_trades(PROFITS, 1, 50)
    monkeypatch.setattr("candlemill.guards.bootstrap.CELLS", 700)
    assert whole == (bootstrap(PROFITS, CAPITAL, 1, 50), shuffle_trades(PROFITS, 1, 50))


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=7, max_size=7), min_size=1, max_size=4), st.integers(1, 7))
def test_stationary_bootstrap_equals_the_slow_way(raw: list[list[int]], block: int) -> None:
    found = _stationary(np.array(raw, dtype=np.uint64), block).tolist()
    for draws, days in zip(raw, found, strict=True):
        day = -1
        for k, draw in enumerate(draws):
            begins = k == 0 or (draw >> 32) / 2**32 < 1 / block
            day = (draw % 2**32) * 7 >> 32 if begins else (day + 1) % 7
            assert days[k] == day


def test_blocks_have_their_length_and_days_their_chance() -> None:
    days = _stationary(np.random.Philox(key=5).random_raw((400, 500)), 10)
    follows = (np.diff(days, axis=1) % 500 == 1).mean()
    assert follows == pytest.approx(0.9, abs=0.005)
    counts = np.bincount(days.ravel(), minlength=500)
    assert counts.mean() == 400 and counts.min() > 200 and counts.max() < 700


def test_interval_of_independent_days_is_as_wide_as_it_should_be() -> None:
    profits = np.random.default_rng(3).integers(-(10**12), 10**12, 1000)
    found = bootstrap(profits, 10**15, 1, block_days=1)
    assert found is not None
    total = found.figures["total_pnl"]
    expected = 2 * 1.96 * float(profits.std()) * sqrt(1000)
    assert total.high - total.low == pytest.approx(expected, rel=0.1)
    assert total.low < total.actual < total.high


@given(st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=5, max_size=5), min_size=1, max_size=4))
def test_figures_equal_the_slow_way(rows: list[list[int]]) -> None:
    found = _figures(np.array(rows), CAPITAL)
    assert found["total_pnl"] == [sum(row) for row in rows]
    assert found["sharpe_ratio"] == [sharpe_ratio(row) for row in rows]
    assert found["sortino_ratio"] == [sortino_ratio(row) for row in rows]
    for k, row in enumerate(rows):
        marks = list(accumulate(row, initial=0))
        falls = [peak - mark for peak, mark in zip(accumulate(marks, max), marks, strict=True)]
        assert found["max_drawdown"][k] == max(falls) == _falls(np.array([row]))[0]
        shares = [fall / (CAPITAL + peak) for fall, peak in zip(falls, accumulate(marks, max), strict=True)]
        assert found["max_drawdown_share"][k] / SCALE == pytest.approx(max(shares), rel=1e-12, abs=1e-8)
        streaks = "".join("w" if p > 0 else "l" for p in row).split("w")
        assert _streaks(np.array([row]))[0] == max(map(len, streaks))


def test_shuffles_keep_the_trades() -> None:
    gains = shuffle_trades(np.arange(1, 50), 1)
    assert gains is not None
    assert gains.figures["max_drawdown"] == gains.figures["longest_losing_streak"] == Interval(0, 0, 0, 0)
    worst = np.sort(PROFITS)  # all losses first: no other order falls deeper
    found = shuffle_trades(worst, 1)
    assert found is not None
    assert found.deeper == 0
    assert found.figures["max_drawdown"].actual == -int(worst[worst < 0].sum())
    assert found.figures["max_drawdown"].high < found.figures["max_drawdown"].actual


def test_ranks_and_refusals() -> None:
    assert _interval(7, list(range(999, 0, -1)), 950_000) == Interval(7, 25, 500, 975)
    assert _interval(7, [3], 950_000) == Interval(7, 3, 3, 3)
    assert bootstrap(PROFITS[:1], CAPITAL, 1) is None
    assert shuffle_trades(PROFITS[:1], 1) is None
    for given_, word in (
        ({"seed": -1}, "seed"),
        ({"seed": 1, "replicates": 0}, "replicates"),
        ({"seed": 1, "level": 95 * 10**6}, "level"),
    ):
        with pytest.raises(BadInput, match=word):
            bootstrap(PROFITS, CAPITAL, **given_)
    with pytest.raises(BadInput, match="block_days"):
        bootstrap(PROFITS, CAPITAL, 1, block_days=101)
