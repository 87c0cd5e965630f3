"""Merged slices: repairs, trades over cuts, and ratios from exact sums against fractions and decimals."""

from decimal import Decimal, localcontext

import hypothesis.strategies as st
import pytest
from candlemill.backtests.merge import REPAIR_LIMIT, Outcomes, Repair, merge_slices
from candlemill.backtests.result import _signed_root, sharpe, sortino
from candlemill.backtests.slice import SliceOutcome
from candlemill.backtests.states import COLD, digest_of
from candlemill.engine.summary import CLOSED, THROUGH, Summary
from hypothesis import given
from slow_engine import sharpe_ratio, sortino_ratio

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


@pytest.mark.parametrize(
    ("factor", "numerator", "denominator", "root"),
    [(1, 1, 4, 0), (1, 9, 4, 2), (1, 25, 4, 2), (-1, 9, 4, -2), (3, 1, 4, 2), (5, 1, 4, 2), (1, 2, 0, 0)],
    ids=["0.5", "1.5", "2.5", "-1.5", "3 x 0.5", "5 x 0.5", "no days"],
)
def test_roots_are_rounded_half_to_even(factor: int, numerator: int, denominator: int, root: int) -> None:
    assert _signed_root(factor, numerator, denominator) == root


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (5, 5), (64, 64), (65, 64), (199, 1)])
def test_a_repair_grows_with_those_before_it_up_to_a_limit(right: int, count: int) -> None:
    """`right` slices were repaired; the next one is missing, of 200."""
    outcomes, state = Outcomes(), COLD
    for number in range(right):
        end = f"{number + 1},0,0,0,0,0|"
        outcomes.put(number, True, [], SliceOutcome(0, digest_of(state), end, Summary().to_list(), []))
        state = end.encode()
    assert merge_slices(outcomes, 0, 200) == Repair(0, right, count, state.decode())
    assert REPAIR_LIMIT == 64


@st.composite
def stretches(draw: st.DrawFn) -> list[Summary]:
    """Consecutive stretches of one account: a trade may span several of them."""
    out, held = [], False
    for _ in range(draw(st.integers(2, 6))):
        one = Summary()
        one.bars = 1
        if held:
            one.head = draw(st.sampled_from([CLOSED, THROUGH]))
            one.head_cash, one.head_gap = draw(st.integers(-9, 9)), draw(st.integers(0, 1))
        if one.head != THROUGH:
            one.tail = draw(st.integers(0, 1))
            one.tail_cash, one.tail_gap = one.tail * draw(st.integers(-9, 9)), one.tail * draw(st.integers(0, 1))
        held = bool(one.tail) or one.head == THROUGH
        out.append(one)
    return out


@given(stretches(), st.data())
def test_a_trade_over_several_cuts_is_one_trade_in_any_order_of_merging(
    parts: list[Summary], data: st.DataObject
) -> None:
    trades, cash, gap = [], 0, 0
    for part in parts:
        if part.head:
            cash, gap = cash + part.head_cash, gap | part.head_gap
        if part.head == CLOSED:
            trades.append((cash, gap))
        if part.head != THROUGH:
            cash, gap = part.tail_cash, part.tail_gap
    rest = list(parts)
    while len(rest) > 1:
        k = data.draw(st.integers(0, len(rest) - 2))
        rest[k : k + 2] = [rest[k].merge(rest[k + 1])]
    (whole,) = rest
    assert (whole.trades, whole.over_gaps) == (len(trades), sum(gap for _, gap in trades))
    assert whole.gross_profit - whole.gross_loss == sum(cash for cash, _ in trades)


def test_a_gap_in_any_of_a_trade_s_stretches_counts() -> None:
    def stretch(head: int = 0, gap: int = 0, tail: int = 0) -> Summary:
        one = Summary()
        one.bars, one.head, one.head_gap, one.tail = 1, head, gap, tail
        return one

    held = stretch(THROUGH, gap=1).merge(stretch(THROUGH))
    whole = stretch(tail=1).merge(held).merge(stretch(CLOSED))
    assert (whole.trades, whole.over_gaps) == (1, 1)
