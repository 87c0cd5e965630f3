"""Limit, stop and bracket orders beside backtesting.py on real candles: the same trades where the rule is the same."""

import cases
import numpy as np
import pytest
from candlemill.backtests.replay import replay_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.strategies import build
from candlemill.units import SCALE
from candles import frame_of, world_of
from cases import FEE
from deals import Deals, Run, compare, deals_of
from stretches import AFTER, reasons_of
from tally import Tally, tally  # noqa: F401

pytest.importorskip("backtesting", reason="backtesting.py is not installed: pip install '.[peers]'")
from with_orders import ordered

pytestmark = cases.real_candles
PEER = "backtesting.py orders"

ENTRY_BAR = "stop or target within the bar of entry"


def run_of(name: str, strategy: str, params: dict[str, int]) -> Run:
    world = world_of(name)
    t = world.columns["t"]
    spec = resolve(symbol="X", strategy=strategy, span=(int(t[0]), int(t[-1]) + 60_000), params=dict(params),
                   account="units", fee=FEE)  # fmt: skip
    for kept in (world.jobs, world.rows, world.results, world.result_rows):
        kept.clear()
    (result,) = world.run(spec)
    candles = world.runtime.candles.window(spec, spec.start, spec.end, 0, COLUMNS).candles
    trace = replay_of(spec, candles, build(spec.strategy, dict(spec.params)), result)
    return Run(spec, result, trace, trace.position.astype(np.int8), deals_of(trace))


def cause(run: Run, theirs: Deals, bar: int) -> str | None:
    """Why the positions differ from this bar on."""
    t = int(run.trace.t[bar])
    own = run.deals[run.deals["entry_t"] == t]
    if (own["exit_t"] == t).any():
        return ENTRY_BAR
    held = [side[(side["entry_t"] < t) & (side["exit_t"] >= t)] for side in (run.deals, theirs)]
    if all(map(len, held)):
        ours, other = (side.iloc[0] for side in held)
        if ours.entry_t != other.entry_t or abs(ours.entry_price - other.entry_price) > 2 / SCALE:
            return AFTER  # both hold, but not since the same fill: their levels differ
    return None


CASES = [
    ("pullback_limit", {}),
    ("pullback_limit", {"lookback": 60, "depth": 1500, "stop": 4000, "take": 4000, "hold": 240}),
    ("breakout_stop", {}),
    ("breakout_stop", {"entry": 120, "risk": 4000}),
]


@pytest.mark.parametrize("name", ["BTCUSDT", "DOGEUSDT", "BTCUSDT 2025"])
@pytest.mark.parametrize(("strategy", "params"), CASES, ids=lambda value: str(value)[:40])
def test_the_same_orders_make_the_same_trades(name: str, strategy: str, params: dict[str, int], tally: Tally) -> None:  # noqa: F811
    run = run_of(name, strategy, params)
    theirs = ordered(frame_of(name), strategy, FEE / 1e6, **params).deals
    found = compare(run.deals, theirs)
    reasons = reasons_of(run, theirs, found, cause)
    assert not reasons["none"], (reasons, found.only_ours.head(8), found.only_theirs.head(8))
    tally.add(f"{strategy}, {', '.join(f'{k} {v}' for k, v in params.items()) or 'as built in'}", run, found, reasons)
