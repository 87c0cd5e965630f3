"""Random panels: sparse and dense candles of some symbols, and a job over them."""

from typing import Any

import hypothesis.strategies as st
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.strategies import build
from world import DAY, bar_lists

NAMES = ("AAA", "BBB", "CCC", "DDD")
LENGTHS = st.integers(2, 9)
STRATEGIES = st.one_of(
    st.builds(lambda back, top, every: ("xs_momentum", {"lookback": back, "top": top, "every": every}),
              LENGTHS, st.integers(1, 3), st.integers(1, 4)),
    st.builds(lambda n, exit, more: ("pair_reversion", {"length": n, "exit": exit, "entry": exit + more}),
              LENGTHS, st.integers(1, 99), st.integers(1, 100)),
    st.builds(lambda n, every: ("inverse_volatility", {"length": n, "every": every}), LENGTHS, st.integers(1, 4)),
)  # fmt: skip
RATES = st.sampled_from([0, 0, 1_000, 20_000, 150_000])


@st.composite
def panels(draw: Any) -> tuple[dict[str, Any], Spec]:
    """Sparse and dense candles of some symbols, some of which begin late or end early."""
    name, params = draw(STRATEGIES)
    symbols = NAMES[:2] if name == "pair_reversion" else NAMES[: draw(st.integers(1, 4))]
    candles = {symbol: draw(bar_lists(80)) for symbol in symbols}
    times = [bar.t for bars in candles.values() for bar in bars]
    spec = Spec(
        symbol=",".join(symbols), strategy=name, params=parameters_of(build(name, params)),
        start=min(times) // DAY * DAY, end=(max(times) // DAY + 1) * DAY, account="cash", capital=10**12,
        timeframe=draw(st.sampled_from([1, 7, 60, 1_441, 10_080])), fill=draw(st.sampled_from(["next_open", "close"])),
        path=draw(st.sampled_from(["worst", "both"])), slippage=draw(RATES), stop_loss=draw(RATES),
        take_profit=draw(RATES), trailing_stop=draw(RATES), borrow=draw(st.sampled_from([0, 300])),
        leverage=draw(st.sampled_from([10**6, 3 * 10**6])), delist_after=draw(st.sampled_from([1_440, 5])),
        universe=draw(st.sampled_from(["", "AAA,CCC", "top:2:by=turnover:over=2d:every=1d"])),
    )  # fmt: skip
    return candles, spec
