"""Limit, stop and bracket orders beside backtesting.py on real candles: the same trades where the rule is the same."""

from collections import Counter

import cases
import numpy as np
import pytest
from candlemill.backtests.replay import replay_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.slice import COLUMNS
from candlemill.strategies import build
from candlemill.units import SCALE
from candles import frame_of, world_of
from cases import FEE
from deals import Agreement, Deals, Run, compare, deals_of
from numpy.typing import NDArray
from tally import Tally, tally  # noqa: F401

pytest.importorskip("backtesting", reason="backtesting.py is not installed: pip install '.[peers]'")
from with_orders import ordered

pytestmark = cases.real_candles
PEER = "backtesting.py orders"

ENTRY_BAR = "stop or target within the bar of entry"
AFTER = "what came of another difference"


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


def positions(t: NDArray[np.int64], deals: Deals) -> NDArray[np.int64]:
    """The position of closed trades at each close."""
    found = np.zeros(len(t) + 1, dtype=np.int64)
    for trade in deals.itertuples():
        a, b = np.searchsorted(t, [trade.entry_t, trade.exit_t])
        found[a:b] += int(trade.side)
    return found[:-1]


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


def reasons_of(run: Run, theirs: Deals, found: Agreement) -> Counter[str]:
    """One reason for each trade that is in one program only: that of the stretch of other positions it belongs to."""
    t = run.trace.t
    differs = np.append(False, positions(t, run.deals) != positions(t, theirs))
    edges = np.flatnonzero(differs[1:] != differs[:-1]).tolist()
    stretches: list[tuple[int, int, str]] = []
    for a, b in zip(edges[0::2], [*edges[1::2], len(t)][: len(edges[0::2])], strict=True):
        why = cause(run, theirs, a)
        if why is None and stretches and a - stretches[-1][1] <= 2:
            why = AFTER  # nothing is placed at the decision after a fill, and both have not filled at once
        stretches.append((a, b, why or "none"))
    reasons: Counter[str] = Counter()
    for trade in [*found.only_ours.itertuples(), *found.only_theirs.itertuples()]:
        first, last = np.searchsorted(t, [trade.entry_t, trade.exit_t]).tolist()
        over = [why for a, b, why in stretches if a <= last and first <= b]
        if not over and any(0 <= first - b <= 2 for _, b, _ in stretches):
            over = [AFTER]
        reasons[over[0] if over else "none"] += 1
    return reasons


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
    reasons = reasons_of(run, theirs, found)
    assert not reasons["none"], (reasons, found.only_ours.head(8), found.only_theirs.head(8))
    tally.add(f"{strategy}, {', '.join(f'{k} {v}' for k, v in params.items()) or 'as built in'}", run, found, reasons)
