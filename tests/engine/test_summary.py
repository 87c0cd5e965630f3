"""Sums of squares in limbs, and the bytes of states and summaries."""

from operator import floordiv, mod

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.engine.candles import native
from candlemill.engine.position import distance
from candlemill.engine.summary import FIELDS, FINE, CarriedState, Summary, count_equity
from hypothesis import example, given

LEVELS = st.integers(-(2**61) * FINE, (2**61) * FINE - 1) | st.integers(-5 * FINE, 5 * FINE)


@given(st.lists(LEVELS, max_size=40))
@example([-(2**61) * FINE, 2**61 * FINE - 1])
@example([92 * 10**9 * FINE - 1, 0, 92 * 10**9 * FINE, 0, (92 * 10**9 - 1) * FINE])
def test_days_are_counted_exactly(levels: list[int]) -> None:
    profits = [b - a for a, b in zip([0, *levels], levels, strict=False)]
    equity, rest = (native(np.array([part(x, FINE) for x in levels], dtype=np.int64)) for part in (floordiv, mod))
    total = Summary()
    assert count_equity(total, equity, rest) == profits
    wanted = Summary()
    wanted.count_days(profits)
    assert total.to_list() == wanted.to_list()
    assert total.squares == sum(x * x for x in profits)


@given(st.integers(0, 2**58), st.integers(0, 1_000_000))
def test_distances_are_rounded_up(price: int, ppm: int) -> None:
    assert distance(price, ppm) == -(-price * ppm // 10**6)


SIGNS, PRICES = st.integers(-1, 1), st.integers(0, 2**62)


@given(SIGNS, SIGNS, st.booleans(), PRICES, PRICES, PRICES)
def test_states_are_their_bytes(side: int, desired: int, locked: bool, entry: int, extreme: int, quantity: int) -> None:
    data = CarriedState(side, desired, locked, entry, extreme, quantity).to_bytes()
    assert CarriedState.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize("data", [b"", b"1,1,0,0,0", b"2,0,0,0,0,0", b"0,0,7,0,0,0", b"0,0,0,-1,0,0", b"a,b,c,d,e,f"])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        CarriedState.from_bytes(data)


@given(st.lists(st.integers(), min_size=len(FIELDS), max_size=len(FIELDS)))
def test_summaries_are_their_lists(values: list[int]) -> None:
    assert Summary.from_list(values).to_list() == values
