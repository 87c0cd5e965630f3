"""Rates as people write them, and numbers as they read them."""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import hypothesis.strategies as st
import pytest
from candlemill import formatting
from candlemill.errors import BadInput
from candlemill.units import SCALE, parse_decimal, parse_rate
from hypothesis import given


@pytest.mark.parametrize(
    "given_, ppm",
    [
        ("0.1%", 1_000), ("0.1 %", 1_000), ("10bp", 1_000), ("10 bps", 1_000), ("1000ppm", 1_000), ("1000", 1_000),
        (1000, 1_000), ("2%", 20_000), ("-0.005%", -50), (-50, -50), ("0", 0), (0, 0), (0.0, 0), ("100%", 1_000_000),
        ("0.0001%", 1), ("0.01bp", 1), ("+5bp", 500), (Decimal(7), 7),
    ],
)  # fmt: skip
def test_rates(given_: Any, ppm: int) -> None:
    assert parse_rate(given_, "fee") == ppm


@pytest.mark.parametrize(
    "given_, said",
    [
        ("0.001", "fee='0.001' has no unit: write 0.1% or 1000"),
        (0.001, "fee=0.001 has no unit: write 0.1% or 1000"),
        (-0.0002, "fee=-0.0002 has no unit: write -0.02% or -200"),
        ("0.1", "fee='0.1' has no unit: write 10% or 100000, or 0.1% for percent"),
        ("2.5", "fee='2.5' has no unit: write 2.5% or 25000"),
        ("0.00001%", "fee='0.00001%' is finer than 1 part per million"),
        ("1/1000", "fee='1/1000' is no rate: write it like 0.1%, 10bp or 1000 (ppm)"),
        ("", "is no rate"), (True, "is no rate"), (float("nan"), "is no rate"), ("1e3", "is no rate"),
        ("0.1%%", "is no rate"), ("١%", "is no rate"), ("5 pct", "is no rate"),
    ],
)  # fmt: skip
def test_what_is_no_rate_is_refused_with_the_way_out(given_: Any, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_rate(given_, "fee")
    assert said in str(refused.value)


@given(st.integers(-(10**9), 10**9))
def test_a_shown_rate_is_read_again(ppm: int) -> None:
    assert parse_rate(formatting.rate(ppm).replace(",", ""), "fee") == ppm


@given(st.integers(-(2**70), 2**70), st.integers(0, 8))
def test_numbers_are_rounded_half_to_even_not_cut(scaled: int, places: int) -> None:
    wanted = (Decimal(scaled) / SCALE).quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)
    assert Decimal(formatting.decimal(scaled, places).replace(",", "")) == wanted


def test_one_amount_reads_the_same_everywhere() -> None:
    assert formatting.money(5_327_868_500_001) == "53,278.69"
    assert formatting.money(5_327_868_500_000) == "53,278.68"  # a tie goes to the even digit
    assert formatting.money(-1) == "-0.00000001" and formatting.decimal(-1, 2) == "0.00"
    column = [1_234_500, 250 * SCALE, None]
    assert [formatting.money(x, formatting.largest_of(column)) for x in column] == ["0.01", "250.00", "–"]


@given(st.integers(1, 2**62))
def test_exact_texts_are_read_again(scaled: int) -> None:
    assert parse_decimal(formatting.exact(scaled), "x") == scaled
