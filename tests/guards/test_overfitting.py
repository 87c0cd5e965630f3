"""CSCV against a slow way by fractions, and on matrices whose answer is known."""

from fractions import Fraction
from itertools import combinations
from math import floor, log, sqrt

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.errors import BadInput
from candlemill.guards.matrix import small
from candlemill.guards.overfitting import _edges, _halves, block_sums, overfitting
from candlemill.units import SCALE
from hypothesis import given, settings

Rows = list[list[int]]


def slow(rows: Rows, blocks: int) -> tuple[Fraction, list[int], Fraction, list[tuple[float, float]]]:
    """Probability, histogram of logits, probability of loss and the chosen sets' ratios, from the definitions."""
    n, sets = len(rows[0]), len(rows)
    cut = [range(k * n // blocks, (k + 1) * n // blocks) for k in range(blocks)]
    splits = list(combinations(range(blocks), blocks // 2))
    worse, lost, logits, points = Fraction(0), 0, [0] * 24, []
    for inner in splits:
        halves = [[d for k in range(blocks) if (k in inner) == side for d in cut[k]] for side in (True, False)]
        scores = [[squared_sharpe([row[d] for d in days]) for row in rows] for days in halves]
        best = scores[0].index(max(scores[0]))
        below = sum(x < scores[1][best] for x in scores[1])
        equal = scores[1].count(scores[1][best])
        rank = below + Fraction(equal + 1, 2)
        share = rank / (sets + 1)
        worse += Fraction(1, 2) if share == Fraction(1, 2) else Fraction(int(share < Fraction(1, 2)))
        logits[min(max(floor(2 * log(share / (1 - share)) + 1e-12) + 12, 0), 23)] += 1
        lost += sum(rows[best][d] for d in halves[1]) < 0
        points.append(tuple(plain_sharpe([rows[best][d] for d in days]) for days in halves))
    return worse / len(splits), logits, Fraction(lost, len(splits)), points


def squared_sharpe(profits: list[int]) -> Fraction:
    """A figure in the order of the Sharpe ratios: s |s| / q, infinite variation or none included."""
    total, squares = sum(profits), sum(p * p for p in profits)
    return Fraction(total * abs(total), max(squares, 1))


def plain_sharpe(profits: list[int]) -> float:
    n, total = len(profits), sum(profits)
    spread = n * sum(p * p for p in profits) - total * total
    return total * sqrt(365 * (n - 1) / (n * spread)) if spread else 0.0


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_equals_the_slow_way(data: st.DataObject) -> None:
    sets, days = data.draw(st.integers(2, 5)), data.draw(st.integers(32, 39))
    rows = data.draw(st.lists(st.lists(st.integers(-9, 9), min_size=days, max_size=days), min_size=sets, max_size=sets))
    found = overfitting(np.array(rows))
    assert found is not None
    probability, logits, lost, points = slow(rows, 8)
    assert (found.sets, found.days, found.blocks, found.splits) == (sets, days, 8, 70)
    assert found.probability == round(probability * SCALE)
    assert found.logits == logits
    assert found.loss_probability == round(lost * SCALE)
    inner, outer = np.array(points).T
    assert found.in_sample / SCALE == pytest.approx(inner.mean(), abs=1e-6)
    assert found.out_of_sample / SCALE == pytest.approx(outer.mean(), abs=1e-6)
    if inner.std() > 1e-6:
        slope, intercept = np.polyfit(inner, outer, 1)
        assert found.slope is not None and found.intercept is not None
        assert found.slope / SCALE == pytest.approx(slope, rel=1e-5, abs=1e-5)
        assert found.intercept / SCALE == pytest.approx(intercept, rel=1e-5, abs=1e-5)


def noise(seed: int, sets: int = 100, days: int = 365) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(10**13), 10**13, (sets, days))


def test_noise_is_a_coin_toss() -> None:
    found = [overfitting(noise(seed)) for seed in range(12)]
    probabilities = [f.probability / SCALE for f in found if f is not None]
    assert 0.4 < np.mean(probabilities) < 0.6
    assert all(f.in_sample > 2 * SCALE and abs(f.out_of_sample) < 2 * SCALE for f in found if f is not None)


def test_one_truly_better_set() -> None:
    matrix = noise(1)
    matrix[40] += 4 * 10**12
    found = overfitting(matrix)
    assert found is not None
    assert found.probability < SCALE // 100
    assert found.loss_probability == 0
    assert sum(found.logits[18:]) > 0.95 * found.splits


def test_identical_sets_say_nothing() -> None:
    found = overfitting(np.tile(noise(1, 1), (10, 1)))
    assert found is not None
    assert found.probability == SCALE // 2
    assert found.logits[12] == found.splits
    still = overfitting(np.zeros((4, 64), dtype=np.int64))
    assert still is not None
    assert (still.probability, still.loss_probability, still.slope) == (SCALE // 2, 0, None)


def test_too_little_to_tell() -> None:
    assert overfitting(noise(1, 1)) is None
    assert overfitting(noise(1, 5, 31)) is None
    with pytest.raises(BadInput, match="int64"):
        overfitting(noise(1).astype(float))


def test_the_same_bits_in_every_order_of_adding() -> None:
    """Sums of integers below 2^53 do not depend on the order, so neither does the product."""
    matrix = noise(3, 50) * 2**18
    edges = _edges(365)
    sums, squares = block_sums(matrix)
    assert squares.max() > 2**43 and squares.sum(axis=0).max() <= 2**53
    halves = _halves(16)
    assert halves.shape == (6435, 16)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(16)
        for part in (sums, squares):
            assert np.array_equal(halves @ part, np.ascontiguousarray(halves[:, order]) @ part[order])
    exact = [[sum(int(x) ** 2 for x in row[a : a + 22]) for row in small(matrix)] for a in edges[:1]]
    assert squares[0].tolist() == exact[0]


@pytest.mark.parametrize("idle", [False, True])
def test_it_does_not_matter_how_many_sets_are_multiplied_at_once(idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of many sets; `idle`: some neither gain nor lose in whole blocks."""
    matrix = noise(7, 11, 40)
    if idle:
        matrix[::3, :10] = 0
    whole = overfitting(matrix)
    assert whole is not None
    for cells in (4, 8, 20, 44, 100):
        monkeypatch.setattr("candlemill.guards.overfitting.CELLS", cells)
        assert overfitting(matrix) == whole


@given(st.integers(0, 2**32), st.integers(0, 20))
@settings(max_examples=5, deadline=None)
def test_order_of_sets_and_unit_of_money_do_not_matter(seed: int, shift: int) -> None:
    matrix = noise(seed, 20, 64) // 2**20
    order = np.random.default_rng(seed).permutation(20)
    assert overfitting(matrix) == overfitting(matrix[order] << shift)
