"""The compiled run of a new account of one symbol, beside the account that knows all cases."""

from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
from candlemill.backtests import single
from candlemill.backtests.account import AccountRules, Lot
from candlemill.engine.candles import MINUTE_MS, CandleColumns, native
from candlemill.engine.position import ExecutionRules
from candlemill.engine.signals import PositionChanges
from candlemill.engine.summary import CarriedState
from hypothesis import given, settings

MONEY = 10**8


def candle_columns(seed: int, bars: int) -> CandleColumns:
    """A walk with gaps of some minutes, over several days."""
    random = np.random.default_rng(seed)
    steps = np.where(random.random(bars) < 0.05, random.integers(2, 900, bars), 1)
    t = np.cumsum(steps) * MINUTE_MS + 20 * 86_400_000 - 500 * MINUTE_MS
    close = np.maximum(1, 100 * MONEY + np.cumsum(random.integers(-3 * MONEY, 3 * MONEY, bars)))
    opened = np.maximum(1, close + random.integers(-MONEY, MONEY, bars))
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    return CandleColumns(*([column] for column in (t, opened, high, low, close, np.ones_like(t))))


def changes_of(seed: int, lo: int, hi: int, share: float) -> PositionChanges:
    random = np.random.default_rng(seed)
    at = np.flatnonzero(random.random(hi - lo) < share) + lo
    value, before = [], 0
    for _ in at:
        before = int(random.choice([side for side in (-1, 0, 1) if side != before]))
        value.append(before)
    return PositionChanges(native(at), native(np.array(value, dtype=np.int64)))


ACCOUNTS = st.builds(
    AccountRules,
    capital=st.sampled_from([200 * MONEY, 10_000 * MONEY, 10**14]),
    size=st.sampled_from(["units", "notional", "equity"]),
    quantity=st.sampled_from([MONEY // 3, 5 * MONEY]),
    notional=st.sampled_from([150 * MONEY, 20_000 * MONEY]),
    leverage=st.sampled_from([1_000_000, 3_000_000]),
    lot=st.sampled_from([Lot(), Lot(MONEY // 10, MONEY // 2, 40 * MONEY)]),
)


@settings(max_examples=150)
@given(
    ACCOUNTS, st.integers(0, 1 << 30), st.integers(1, 300), st.integers(0, 40),
    st.sampled_from([0.02, 0.3, 1.0]), st.sampled_from([0, 1_000]), st.sampled_from([0, 500, 900_000]),
)  # fmt: skip
def test_both_accounts_agree(
    account: AccountRules, seed: int, bars: int, lo: int, share: float, fee: int, slippage: int
) -> None:
    candles = candle_columns(seed, lo + bars)
    rules = ExecutionRules(fee, slippage, marked=False)
    changes = changes_of(seed, lo, lo + bars, share)

    def found() -> tuple[Any, ...]:
        total, state, daily = single.run_cash(candles, changes, rules, account, CarriedState(), lo, lo + bars)
        return total.to_list(), state.to_bytes(), daily

    quick = found()
    with patch.object(single, "is_plain", lambda *_: False):
        assert found() == quick
