"""Rows that run in this process: one backtest and a sweep, against the plain loop and vectorbt."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import chain
import numpy as np
from candlemill.backtests.grid import grid_points
from candlemill.backtests.plan import make_plan
from candlemill.backtests.slice import run_slice
from candlemill.backtests.spec import Spec
from candlemill.engine.summary import FIELDS
from candlemill.strategies.builtin.moving_averages import SmaCross
from data.market import Market
from lab import Lab
from measure import OURS, Row, alternate, compared, milliseconds, timed
from twins.peers import Peer, python_of, version_of

FAST, SLOW, FEE = 10, 50, 1000
STOP_LOSS, TAKE_PROFIT = 10_000, 20_000
C_TWIN, C_EVENTS, NUMBA_TWIN = "C", "C by crossings", "numba"
FEW = 1e-3
GRID: dict[str, list[object]] = {"fast": list(range(5, 101, 5)), "slow": list(range(110, 601, 10))}
SAMPLE = 50
CHUNK = 10


def rows_run(lab: Lab) -> Iterator[Row]:
    """One moving-average backtest over a year, signals and all, on candles that exist."""
    from twins.twin import Twin

    market = lab.year
    window, spec = market.window(), _spec(market)
    sets = [(0, SmaCross(FAST, SLOW))]
    c_loop = Twin(market).prepared(FAST, SLOW, FEE)
    by_crossings = Twin(market).prepared(FAST, SLOW, FEE, by_crossings=True)
    contenders = {OURS: lambda: run_slice(spec, window, sets), C_TWIN: c_loop, C_EVENTS: by_crossings}
    for name, loop in ((C_TWIN, c_loop), (C_EVENTS, by_crossings)):
        same(figures(run_slice(spec, window, sets).outcomes[0].summary), loop().figures(), name)
    numba_loop = _numba_loop(market)
    if numba_loop is not None:
        same(figures(run_slice(spec, window, sets).outcomes[0].summary), numba_loop(), NUMBA_TWIN)
        contenders[NUMBA_TWIN] = numba_loop
    times = alternate({name: timed(call) for name, call in contenders.items()}, lab.rounds(51))
    what = f"one run, SMA {FAST}/{SLOW}, {market.n:,} bars"
    yield compared(what, times, C_TWIN, ">= 0.7 x", "> 1 x")
    yield compared(what, times, C_EVENTS, "", "")
    if numba_loop is None:
        yield Row(what, milliseconds(float(np.median(times[OURS]))), "numba not installed: pip install .[bench]")
    else:
        yield compared(what, times, NUMBA_TWIN, "", "")


def rows_stops(lab: Lab) -> Iterator[Row]:
    """The same with a stop loss and a take profit."""
    from twins.twin import Twin

    market = lab.year
    window, spec = market.window(), _spec(market, stop_loss=STOP_LOSS, take_profit=TAKE_PROFIT)
    sets = [(0, SmaCross(FAST, SLOW))]
    c_loop = Twin(market).prepared(FAST, SLOW, FEE, STOP_LOSS, TAKE_PROFIT)
    same(figures(run_slice(spec, window, sets).outcomes[0].summary), c_loop().figures(), C_TWIN)
    contenders = {OURS: timed(lambda: run_slice(spec, window, sets)), C_TWIN: timed(c_loop)}
    times = alternate(contenders, lab.rounds(51))
    yield compared("the same with stop loss and take profit", times, C_TWIN, ">= 0.6 x", "1 x")


def rows_sweep(lab: Lab) -> Iterator[Row]:
    """A thousand parameter pairs over a year on one core, against as many plain loops."""
    from twins.twin import Twin

    market = lab.year
    spec, pairs = _sweep(market)
    plan, candles = make_plan(spec, market.days, None), market.candles()
    chosen = _spread(len(pairs), SAMPLE)
    twin = Twin(market)
    loops = {
        name: [twin.prepared(*pairs[k], FEE, by_crossings=name == C_EVENTS) for k in chosen]
        for name in (C_TWIN, C_EVENTS)
    }
    merged = chain.compute(spec, plan, candles)
    contenders = {OURS: timed(lambda: chain.compute(spec, plan, candles))}
    for name, some in loops.items():
        for k, loop in zip(chosen, some, strict=True):
            same(figures(merged[k].summary.to_list()), loop().figures(), f"{name} with {pairs[k]}")
        contenders[name] = timed(lambda some=some: [loop() for loop in some])
    times = alternate(contenders, lab.rounds(9), warm_up=1)
    what = f"sweep of {len(pairs):,} SMA pairs, one core"
    note = f" ({len(chosen)} pairs timed, scaled)"
    row = compared(what, times, C_TWIN, ">= 1 x", "3 x", len(chosen) / len(pairs), note)
    row.raw["repaired"] = sum(found.repaired for found in merged.values())
    yield row
    yield compared(what, times, C_EVENTS, "", "", len(chosen) / len(pairs), note)


def rows_vectorbt(lab: Lab) -> Iterator[Row]:
    """The same sweep, and one run, against vectorbt in chunks of pairs."""
    yield from _against(lab, "vectorbt", lab.vectorbt_python, "pip install .[vectorbt]", ">= 50 x", "200 x")


def rows_raptorbt(lab: Lab) -> Iterator[Row]:
    """The same against raptorbt, an engine in Rust."""
    yield from _against(lab, "raptorbt", lab.raptorbt_python, "pip install raptorbt", "", "")


def _against(lab: Lab, name: str, given: Path | None, install: str, reach: str, aim: str) -> Iterator[Row]:
    python = python_of(name, given)
    market = lab.year
    spec, pairs = _sweep(market)
    what = f"sweep of {len(pairs):,} SMA pairs, one core"
    if python is None:
        yield Row(what, "", f"{name} not installed: {install}", None, reach, aim)
        return
    version = version_of(name, python)
    plan, candles, window = make_plan(spec, market.days, None), market.candles(), market.window()
    single, sets = _spec(market), [(0, SmaCross(FAST, SLOW))]
    firsts = _spread(len(pairs) - CHUNK + 1, SAMPLE // CHUNK)
    sample = [pairs[k] for first in firsts for k in range(first, first + CHUNK)]
    with Peer(name, python, market) as peer:
        found = peer.simulate([(FAST, SLOW)])
        ours = figures(run_slice(single, window, sets).outcomes[0].summary)
        agreement = {
            "fills": [ours["fills"], found["fills"][0]],
            "profit": [ours["profit"] / 1e16, found["profit"][0]],
        }
        _close(agreement, name)
        contenders = {
            OURS: timed(lambda: run_slice(single, window, sets)),
            name: lambda: peer.nanoseconds([(FAST, SLOW)], 1),
        }
        one = alternate(contenders, lab.rounds(9))
        contenders = {
            OURS: timed(lambda: chain.compute(spec, plan, candles)),
            name: lambda: peer.nanoseconds(sample, CHUNK),
        }
        many = alternate(contenders, lab.rounds(9), warm_up=1)
    note = f" ({len(sample)} pairs timed in chunks of {CHUNK}, scaled)"
    row = compared(what, many, name, reach, aim, len(sample) / len(pairs), note)
    row.raw |= {name: version}
    yield row
    row = compared(f"one run, SMA {FAST}/{SLOW}", one, name, "", "")
    row.raw |= {name: version, "agreement": agreement}
    yield row


def _close(agreement: Mapping[str, list[Any]], name: str) -> None:
    """Floats may see a crossing a bar earlier or later where two averages are equal; more than that is other work."""
    (fills, theirs), (profit, other) = agreement["fills"], agreement["profit"]
    if abs(fills - theirs) > FEW * fills or abs(profit - other) > FEW * abs(profit):
        raise SystemExit(f"candlemill and {name} disagree: {dict(agreement)}")


def figures(summary: list[int]) -> dict[str, int]:
    """A summary's fields by name; the daily profits add up to the equity at the last day's end."""
    found = dict(zip(FIELDS, summary, strict=True))
    return {**found, "day_sum": found["profit"]}


def same(ours: Mapping[str, int], theirs: Mapping[str, int], peer: str) -> None:
    """A benchmark of different work is worthless."""
    different = {name: (ours[name], value) for name, value in theirs.items() if ours[name] != value}
    if different:
        raise SystemExit(f"candlemill and the {peer} twin disagree: {different}")


def _spec(market: Market, **rest: int) -> Spec:
    return market.spec("sma_cross", {"fast": FAST, "slow": SLOW}, fee=FEE, **rest)


def _sweep(market: Market) -> tuple[Spec, dict[int, tuple[int, int]]]:
    """The sweep and its valid pairs by grid point."""
    spec = market.spec("sma_cross", {}, grid=GRID, fee=FEE)
    points = grid_points(spec, 0, spec.combinations)
    return spec, {point: (int(params["fast"]), int(params["slow"])) for point, params, _ in points}


def _spread(count: int, sample: int) -> list[int]:
    """`sample` indices spread over the grid, from its first point to its last."""
    return [int(index) for index in np.linspace(0, count - 1, sample).round()]


def _numba_loop(market: Market) -> Any:
    try:
        from twins import twin_numba
    except ImportError:
        return None
    return twin_numba.prepared(market, FAST, SLOW, FEE)
