"""Products and quotients beyond 64 bits: exact, or refused."""

import hypothesis.strategies as st
import pytest
from candlemill.engine.wide import (
    LIMIT,
    QUANTITY_LIMIT,
    below_limit,
    fitting,
    part_over_price,
    ppm_up,
    product,
    ratio_of,
    value_down,
    value_up,
)
from hypothesis import assume, example, given

SCALE, MILLION = 10**8, 10**6
SIZES = st.integers(0, 2**60 - 1) | st.integers(0, 10**6) | st.integers(0, 10**13)


@given(SIZES, SIZES, st.booleans())
@example(10**17, 798, False)
def test_a_product_is_whole_and_rest(quantity: int, price: int, short: bool) -> None:
    assume(quantity * price < 11 * 10**24)
    signed = -quantity if short else quantity
    assert product(signed, price) == divmod(signed * price, SCALE)
    assert value_down(signed, price) == signed * price // SCALE
    assert value_up(signed, price) == -(-signed * price // SCALE)


def test_a_product_above_the_limit_is_refused() -> None:
    with pytest.raises(OverflowError, match=r"worth more than the limit of 2\^60"):
        product(2**59, 2**30)


@given(SIZES, st.integers(-100_000, MILLION))
def test_fees_round_up_and_rebates_down(amount: int, rate: int) -> None:
    assert ppm_up(amount, rate) == -(-amount * rate // MILLION)


@given(SIZES, SIZES, SIZES.filter(bool))
@example(2**59, 2**59, 2**59)
@example(999_999_999_999, 1_000_000_000_000, 1_000_999_999_999)
def test_a_ratio_is_exact(a: int, b: int, c: int) -> None:
    assume(a * b // c < 4 * LIMIT)
    assert ratio_of(a, b, c) == a * b // c


@given(st.integers(1, 10**8) | st.just(MILLION), SIZES, st.integers(0, SCALE - 1), st.integers(1, 2**58))
def test_a_part_of_an_amount_over_a_price_is_exact(ppm: int, whole: int, rest: int, price: int) -> None:
    exact = ppm * (whole * SCALE + rest) // (MILLION * price)
    assume(exact < 4 * LIMIT)
    assert part_over_price(ppm, whole, rest, price) == exact


def test_a_quotient_above_the_limit_is_refused() -> None:
    with pytest.raises(OverflowError):
        ratio_of(2**59, 2**59, 1)
    with pytest.raises(OverflowError):
        part_over_price(MILLION, 2**59, 0, 1)


def test_limits_hold_on_both_sides() -> None:
    for check, limit in ((below_limit, LIMIT), (fitting, QUANTITY_LIMIT)):
        for sign in (1, -1):
            assert check(sign * (limit - 1)) == sign * (limit - 1)
            with pytest.raises(OverflowError):
                check(sign * limit)
