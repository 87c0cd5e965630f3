"""Runs computed from bounds of blocks against the walk that marks every stretch by its closes."""

import hypothesis.strategies as st
import numpy as np
from candlemill.engine.candles import DAY_MS, MINUTE_MS, CandleColumns
from candlemill.engine.fills import Fills
from candlemill.engine.position import ExecutionRules
from candlemill.engine.signals import changes_of
from candlemill.engine.simulate import run
from candlemill.engine.summary import CarriedState
from candlemill.engine.unstopped import state_after
from hypothesis import given

BARS = 700  # some large stretches of whole blocks, and days that end within them


def market(seed: int, drift: int, gaps: bool) -> CandleColumns:
    """A seeded walk of closes with opens beside them; with `gaps`, some minutes are missing."""
    random = np.random.default_rng(seed)
    close = 10_000 + np.cumsum(random.integers(-9, 10, BARS) + drift)
    close = np.maximum(close, 1)
    opens = np.maximum(close + random.integers(-3, 4, BARS), 1)
    steps = np.where(random.random(BARS) < 0.02, random.integers(2, 400, BARS), 1) if gaps else np.ones(BARS, int)
    t = DAY_MS - 300 * MINUTE_MS + np.cumsum(steps) * MINUTE_MS
    empty = np.empty(0, dtype=np.int64)
    return CandleColumns([t], [opens], [np.maximum(opens, close)], [np.minimum(opens, close)], [close], [empty])


@given(
    seed=st.integers(0, 2**32),
    drift=st.integers(-2, 2),
    gaps=st.booleans(),
    often=st.sampled_from([0.0, 0.005, 0.02, 0.3]),
    shorts=st.booleans(),
    fee=st.sampled_from([0, -7, 1000, 20_000]),
    slippage=st.sampled_from([0, 333]),
    stop=st.sampled_from([0, 3000]),
    side=st.integers(-1, 1),
    wanted=st.integers(-1, 1),
    lo=st.integers(1, 300),
    blocks=st.booleans(),
)
def test_bounds_change_no_figure(
    seed: int, drift: int, gaps: bool, often: float, shorts: bool, fee: int, slippage: int, stop: int, side: int,
    wanted: int, lo: int, blocks: bool,
) -> None:  # fmt: skip
    candles = market(seed, drift, gaps)
    if blocks:
        candles.add_blocks()
    random = np.random.default_rng(seed + 1)
    hi = int(random.integers(lo, BARS + 1))
    turns = random.random(hi - lo) < often
    values = random.integers(-1 if shorts else 0, 2, hi - lo).astype(np.int8)
    held = np.maximum.accumulate(np.where(turns, np.arange(hi - lo), -1)) if hi > lo else np.empty(0, int)
    desired = np.where(held >= 0, values[held], wanted).astype(np.int8) if hi > lo else values
    changes = changes_of(desired, wanted, lo, None)
    rules = ExecutionRules(fee, slippage, stop)
    start = CarriedState(side, wanted, entry=int(candles.columns()["close"][lo - 1]) if side and stop else 0)
    plain = market(seed, drift, gaps)  # without blocks

    fast, after, days = run(candles, changes, rules, start, lo, hi)
    slow, state, daily = run(plain, changes, rules, start, lo, hi, Fills())

    assert fast.to_list() == slow.to_list()
    assert after.to_bytes() == state.to_bytes()
    assert days == daily
    if side == wanted == stop == 0:
        assert state_after(changes, hi).to_bytes() == state.to_bytes()
