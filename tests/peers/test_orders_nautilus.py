"""Limit, stop and bracket orders beside NautilusTrader on real candles: the same trades where the rule is the same."""

from collections import Counter

import cases
import numpy as np
import pandas as pd
import pytest
from candlemill.backtests.replay import replay_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.strategies import build
from candlemill.units import SCALE
from candles import frame_of, world_of
from deals import Agreement, Deals, Run, compare, deals_of
from stretches import AFTER, reasons_of
from tally import Tally, tally  # noqa: F401

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed: pip install nautilus_trader")
from with_nautilus import ordered

pytestmark = cases.real_candles
PEER = "NautilusTrader orders"

BOTH_LEVELS = "stop and target in one bar: the high comes first"
LATE = "exits placed on the fill wait for the bar's end"
BEYOND = "an open beyond an order"
AT_ONCE = "a stop order at the close"


def run_of(name: str, strategy: str, params: dict[str, int]) -> Run:
    world = world_of(name)
    t = world.columns["t"]
    spec = resolve(symbol="X", strategy=strategy, span=(int(t[0]), int(t[-1]) + 60_000), params=dict(params),
                   account="units", fee=0, fill="close")  # fmt: skip
    for kept in (world.jobs, world.rows, world.results, world.result_rows):
        kept.clear()
    (result,) = world.run(spec)
    candles = world.runtime.candles.window(spec, spec.start, spec.end, 0, COLUMNS).candles
    trace = replay_of(spec, candles, build(spec.strategy, dict(spec.params)), result)
    return Run(spec, result, trace, trace.position.astype(np.int8), deals_of(trace))


def cause(run: Run, theirs: Deals, bar: int) -> str | None:
    """Why the positions differ from this bar on."""
    t = int(run.trace.t[bar])
    own, other = (side[side["entry_t"] == t] for side in (run.deals, theirs))
    before = theirs[theirs["entry_t"] == theirs["exit_t"]]["entry_t"]
    if (own["exit_t"] == t).any() or (before == int(run.trace.t[bar - 1])).any():  # it ended after that bar's decision
        return LATE
    at_close = abs(other["entry_price"] - run.trace.close[bar] / SCALE) < 1 / SCALE
    if not len(own) and at_close.any():
        return AT_ONCE
    held = [side[(side["entry_t"] < t) & (side["exit_t"] >= t)] for side in (run.deals, theirs)]
    if all(map(len, held)):
        ours, others = (side.iloc[0] for side in held)
        if ours.entry_t != others.entry_t or abs(ours.entry_price - others.entry_price) > 2 / SCALE:
            return AFTER
    return None


def within_bars(found: Agreement, late: bool) -> tuple[Counter[str], Agreement]:
    """Reasons of trades that differ within their bars only, and what is left without these: those that both make in the
    same bars at other prices, and where exits come `late`, those that candlemill makes within one bar."""
    keys = ["entry_t", "exit_t", "side"]
    joined = found.only_ours.merge(found.only_theirs, on=keys, suffixes=("", "_theirs"))
    reasons: Counter[str] = Counter()
    for both in joined.itertuples():
        at_levels = LATE if late and both.entry_t == both.exit_t else BOTH_LEVELS
        reasons[BEYOND if abs(both.entry_price - both.entry_price_theirs) > 2 / SCALE else at_levels] += 2
    known = pd.MultiIndex.from_frame(joined[keys])
    left, right = (side[~pd.MultiIndex.from_frame(side[keys]).isin(known)] for side in found[1:3])
    short = late & (left["entry_t"] == left["exit_t"])
    reasons[LATE] += int(short.sum())
    return +reasons, found._replace(only_ours=left[~short], only_theirs=right)


CASES = [
    ("pullback_limit", {"lookback": 60, "depth": 1500, "stop": 4000, "take": 4000, "hold": 240}),
    ("breakout_stop", {"entry": 120, "risk": 4000}),
]


@pytest.mark.parametrize("name", ["BTCUSDT", "DOGEUSDT"])
@pytest.mark.parametrize(("strategy", "params"), CASES, ids=lambda value: str(value)[:40])
def test_the_same_orders_make_the_same_trades(name: str, strategy: str, params: dict[str, int], tally: Tally) -> None:  # noqa: F811
    run = run_of(name, strategy, params)
    theirs = ordered(frame_of(name), strategy, **params)
    found = compare(run.deals, theirs)
    reasons, rest = within_bars(found, late=strategy == "breakout_stop")
    reasons += reasons_of(run, theirs, rest, cause)
    assert not reasons["none"], (reasons, rest.only_ours.head(8), rest.only_theirs.head(8))
    tally.add(f"{strategy}, {', '.join(f'{k} {v}' for k, v in params.items())}", run, found, reasons)
