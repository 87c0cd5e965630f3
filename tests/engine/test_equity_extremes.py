"""Peak, low and deepest fall from bounds of blocks against a loop over every bar."""

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.engine.candles import MINUTE_MS, CandleColumns
from candlemill.engine.equity_extremes import ROOM, EquityExtremes
from candlemill.engine.summary import FINE
from hypothesis import given, settings

EMPTY = np.empty(0, dtype=np.int64)


def candles_of(close: np.ndarray, blocks: bool) -> CandleColumns:
    found = CandleColumns([np.arange(len(close)) * MINUTE_MS], [close], [EMPTY], [EMPTY], [close], [EMPTY])
    if blocks:
        found.add_blocks()
    return found


@pytest.mark.parametrize("blocks", [True, False])
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 2 * ROOM), drift=st.integers(-2, 1), most=st.integers(1, 3))
def test_extremes_are_those_of_every_bar(blocks: bool, seed: int, count: int, drift: int, most: int) -> None:
    random = np.random.default_rng(seed)
    ends = np.cumsum(random.integers(1, 160, count)).tolist()
    close = np.maximum(10_000 + np.cumsum(random.integers(-9, 10, ends[-1]) + drift), 1)
    seen = EquityExtremes(candles_of(close, blocks))
    peak = low = fall = cash = begin = 0
    for end in ends:
        held = int(random.integers(-most, most + 1))
        base, rest = cash - held * int(close[begin]), int(random.integers(0, 3))
        if held:
            seen.see_held(begin, end, base, rest, held)
        else:
            seen.see(base, base, rest)
        for price in close[begin:end].tolist():
            equity = (base + held * price) * FINE + rest
            peak = max(peak, equity)
            fall, low = max(fall, peak - equity), min(low, equity)
        cash, begin = base + held * int(close[end - 1]) - 2, end  # each stretch costs a fee
    seen.read_waiting()

    assert (seen.peak * FINE + seen.peak_rest, seen.low * FINE + seen.low_rest) == (peak, low)
    assert seen.fall * FINE + seen.fall_rest == fall


def test_any_number_of_stretches_may_wait() -> None:
    close = np.full(200 * ROOM, 10_000, dtype=np.int64)
    close[64::64] -= 1 + np.arange(len(close[64::64])) % 97  # each stretch has a low of its own
    seen = EquityExtremes(candles_of(close, True))
    seen.see(1, 0, 0)
    for k in range(3 * ROOM):
        seen.see_held(64 * k, 64 * (k + 1), -10_000 - k, 0, 1)
    assert seen.waiting > ROOM

    seen.read_waiting()

    lows = [int(close[64 * k : 64 * (k + 1)].min()) - 10_000 - k for k in range(3 * ROOM)]
    assert (seen.low, seen.fall) == (min(lows), 1 - min(lows))
