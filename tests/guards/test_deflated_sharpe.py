"""The published examples, SciPy, and what luck looks like."""

from decimal import Decimal
from math import sqrt

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.guards import matrix as matrix_module
from candlemill.guards import normal_distribution
from candlemill.guards.deflated_sharpe import (
    Track,
    deflated_sharpe,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe,
    track_of,
)
from candlemill.guards.matrix import thinned, trials_of
from candlemill.units import SCALE
from hypothesis import given
from scipy import stats


@given(st.floats(-8, 8))
def test_normal_distribution_equals_scipy(x: float) -> None:
    assert float(normal_distribution.cdf(Decimal(x))) == pytest.approx(stats.norm.cdf(x), rel=1e-12)


@given(st.floats(1e-7, 1 - 1e-7))
def test_normal_quantile_inverts(p: float) -> None:
    assert abs(normal_distribution.cdf(normal_distribution.quantile(Decimal(p))) - Decimal(p)) < Decimal("1e-20")


def test_deflated_sharpe_of_the_paper() -> None:
    """Bailey and Lopez de Prado 2014, the numerical example: 1,250 days, 250 a year, a Sharpe ratio of 2.5."""
    track = Track(days=1250, sharpe=2.5 / sqrt(250), skew=-3, kurtosis=10)
    variance = 0.5 / 250
    assert expected_maximum(100, variance) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(track, 100, variance) / SCALE == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(track, 46, variance) / SCALE == pytest.approx(0.9505, abs=5e-5)
    normal_track = Track(days=1250, sharpe=2.5 / sqrt(250), skew=0, kurtosis=3)
    assert deflated_sharpe(normal_track, 88, variance) / SCALE == pytest.approx(0.9505, abs=5e-5)


def test_probabilistic_sharpe_of_the_paper() -> None:
    """Bailey and Lopez de Prado 2012: two years of months; and how long a ratio of 2 takes to pass for above 1."""
    assert probabilistic_sharpe(Track(24, 0.458, 0, 3)) / SCALE == pytest.approx(0.982, abs=1e-3)
    assert probabilistic_sharpe(Track(24, 0.458, -2.448, 10.164)) / SCALE == pytest.approx(0.913, abs=1e-3)
    for per_year, years in ((250, 2.73), (52, 2.83), (12, 3.24)):
        needed = minimum_track_record(Track(100, 2 / sqrt(per_year), 0, 3), 1 / sqrt(per_year))
        assert needed is not None
        assert needed / per_year == pytest.approx(years, abs=1 / per_year + 5e-3)
    assert minimum_track_record(Track(100, -0.1, 0, 3)) is None


@given(st.lists(st.integers(-(10**14), 10**14), min_size=2, max_size=60).filter(lambda x: len(set(x)) > 1))
def test_track_equals_scipy(profits: list[int]) -> None:
    track = track_of(np.array(profits))
    values = np.array(profits, dtype=float)
    assert track is not None
    assert track.sharpe == pytest.approx(values.mean() / values.std(ddof=1), rel=1e-9, abs=1e-12)
    assert track.skew == pytest.approx(stats.skew(values), rel=1e-6, abs=1e-6)
    assert track.kurtosis == pytest.approx(stats.kurtosis(values) + 3, rel=1e-6, abs=1e-6)


def test_no_track() -> None:
    assert track_of(np.array([5])) is None
    assert track_of(np.array([5, 5, 5])) is None


def test_the_best_of_noise_deflates() -> None:
    noise = np.random.default_rng(1).integers(-(10**12), 10**12, (200, 365))
    found = trials_of(noise)
    ratios = noise.mean(axis=1) / noise.std(axis=1, ddof=1)
    assert found.variance == pytest.approx(ratios.var(ddof=1), rel=1e-6)
    best = track_of(noise[ratios.argmax()])
    assert best is not None
    assert probabilistic_sharpe(best) > SCALE * 95 // 100
    assert deflated_sharpe(best, 200, found.variance) < SCALE * 8 // 10


def test_correlated_trials_count_less() -> None:
    random = np.random.default_rng(2)
    common, own = random.integers(-(10**12), 10**12, 365), random.integers(-(10**12), 10**12, (50, 365))
    matrix = np.concatenate((common + own, np.zeros((1, 365), dtype=np.int64)))
    pairs = np.corrcoef(matrix[:50])[np.triu_indices(50, 1)]
    found = trials_of(matrix)
    assert found.correlation == pytest.approx(pairs.mean(), rel=1e-5)
    assert found.independent(50) == round(pairs.mean() + (1 - pairs.mean()) * 50)
    assert trials_of(matrix[:0]) == trials_of(matrix[50:])  # no set that varies
    assert trials_of(np.stack([common, common])).independent(2) == 1


@given(st.integers(1, 400), st.integers(1, 20), st.data())
def test_thinning_keeps_the_best_and_points_at_even_distances(count: int, limit: int, data: st.DataObject) -> None:
    ran = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    best = data.draw(st.integers(0, len(ran) - 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_module, "SETS_LIMIT", limit)
        found = thinned(ran, count, best)
    even = set(range(count)) if count <= limit else {k * count // limit for k in range(limit)}
    assert found == [k for k, point in enumerate(ran.tolist()) if point in even or k == best]
