"""Ratios from exact sums, against fractions and high-precision decimals."""

from decimal import Decimal, localcontext

import hypothesis.strategies as st
from candlemill.reduce import sharpe, sortino
from hypothesis import given
from reference import sharpe_ratio, sortino_ratio

DAYS = st.lists(st.one_of(st.integers(-(10**16), 10**16), st.integers(-5, 5)), max_size=30)


@given(DAYS)
def test_ratios_equal_the_reference(profits: list[int]) -> None:
    squares, losses = sum(p * p for p in profits), sum(p * p for p in profits if p < 0)
    assert sharpe(sum(profits), squares, len(profits)) == sharpe_ratio(profits)
    assert sortino(sum(profits), losses, len(profits)) == sortino_ratio(profits)


@given(DAYS.filter(lambda days: len(set(days)) > 1))
def test_sharpe_is_within_half_a_unit_of_the_real_number(profits: list[int]) -> None:
    with localcontext() as context:
        context.prec = 80
        n = len(profits)
        mean = Decimal(sum(profits)) / n
        deviation = (sum((p - mean) ** 2 for p in profits) / (n - 1)).sqrt()
        exact = mean / deviation * Decimal(365).sqrt() * 10**8
        found = sharpe(sum(profits), sum(p * p for p in profits), n)
        assert abs(exact - found) <= Decimal("0.5") + Decimal(10) ** -40
