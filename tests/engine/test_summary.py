"""Sums of squares in limbs, and the bytes of states and summaries."""

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.engine.book import share
from candlemill.engine.summary import FIELDS, State, Summary, square_sums
from candlemill.engine.tape import native
from hypothesis import given


@given(st.lists(st.integers(-(2**61), 2**61 - 1), max_size=40))
def test_square_sums_are_exact(equity: list[int]) -> None:
    profits = [b - a for a, b in zip([0, *equity], equity, strict=False)]
    fits = [p for p in profits if abs(p) < 2**62]
    levels = np.cumsum(np.array(fits, dtype=object)).tolist() if fits else []
    levels = [x for x in levels if abs(x) < 2**63]
    profits = [b - a for a, b in zip([0, *levels], levels, strict=False)]
    if all(abs(p) < 2**62 for p in profits):
        expected = sum(p * p for p in profits), sum(p * p for p in profits if p < 0)
        assert square_sums(native(np.array(levels, dtype=np.int64))) == expected


@given(st.integers(0, 2**58), st.integers(0, 1_000_000))
def test_share_is_exact(amount: int, ppm: int) -> None:
    assert share(amount, ppm) == amount * ppm // 10**6


SIGNS, PRICES = st.integers(-1, 1), st.integers(0, 2**62)


@given(SIGNS, SIGNS, st.booleans(), PRICES, PRICES, PRICES)
def test_states_are_their_bytes(side: int, desired: int, locked: bool, entry: int, extreme: int, quantity: int) -> None:
    data = State(side, desired, locked, entry, extreme, quantity).to_bytes()
    assert State.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("data", [b"", b"1,1,0,0,0", b"2,0,0,0,0,0", b"0,0,7,0,0,0", b"0,0,0,-1,0,0", b"a,b,c,d,e,f"])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        State.from_bytes(data)


@given(st.lists(st.integers(), min_size=len(FIELDS), max_size=len(FIELDS)))
def test_summaries_are_their_lists(values: list[int]) -> None:
    assert Summary.from_list(values).to_list() == values
