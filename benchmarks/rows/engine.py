"""Rows that run in this process: one backtest and a sweep, against the plain loop and vectorbt."""

from collections.abc import Iterator, Mapping
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
from twins.peers import VectorBt, vectorbt_python, vectorbt_version

FAST, SLOW, FEE = 10, 50, 1000
STOP_LOSS, TAKE_PROFIT = 10_000, 20_000
C_TWIN, NUMBA_TWIN, VECTORBT = "C", "numba", "vectorbt"
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
    contenders = {OURS: lambda: run_slice(spec, window, sets), C_TWIN: c_loop}
    same(figures(run_slice(spec, window, sets).outcomes[0].summary), c_loop().figures(), C_TWIN)
    numba_loop = _numba_loop(market)
    if numba_loop is not None:
        same(figures(run_slice(spec, window, sets).outcomes[0].summary), numba_loop(), NUMBA_TWIN)
        contenders[NUMBA_TWIN] = numba_loop
    times = alternate({name: timed(call) for name, call in contenders.items()}, lab.rounds(51))
    what = f"one run, SMA {FAST}/{SLOW}, {market.n:,} bars"
    yield compared(what, times, C_TWIN, ">= 0.7 x", "> 1 x")
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
    loops = [twin.prepared(*pairs[k], FEE) for k in chosen]
    merged = chain.compute(spec, plan, candles)
    for k, loop in zip(chosen, loops, strict=True):
        same(figures(merged[k].summary.to_list()), loop().figures(), f"{C_TWIN} with {pairs[k]}")

    def sample() -> None:
        for loop in loops:
            loop()

    contenders = {OURS: timed(lambda: chain.compute(spec, plan, candles)), C_TWIN: timed(sample)}
    times = alternate(contenders, lab.rounds(9), warm_up=1)
    what = f"sweep of {len(pairs):,} SMA pairs, one core"
    note = f" ({len(chosen)} pairs timed, scaled)"
    row = compared(what, times, C_TWIN, ">= 1 x", "3 x", len(chosen) / len(pairs), note)
    row.raw["repaired"] = sum(found.repaired for found in merged.values())
    yield row


def rows_vectorbt(lab: Lab) -> Iterator[Row]:
    """The same sweep, and one run, against vectorbt in chunks of pairs."""
    python = vectorbt_python(lab.vectorbt_python)
    market = lab.year
    spec, pairs = _sweep(market)
    what = f"sweep of {len(pairs):,} SMA pairs, one core"
    if python is None:
        yield Row(what, "", "vectorbt not installed: pip install .[vectorbt]", None, ">= 50 x", "200 x")
        return
    version = vectorbt_version(python)
    plan, candles, window = make_plan(spec, market.days, None), market.candles(), market.window()
    single, sets = _spec(market), [(0, SmaCross(FAST, SLOW))]
    firsts = _spread(len(pairs) - CHUNK + 1, SAMPLE // CHUNK)
    sample = [pairs[k] for first in firsts for k in range(first, first + CHUNK)]
    with VectorBt(python, market) as peer:
        found = peer.simulate([(FAST, SLOW)])
        ours = figures(run_slice(single, window, sets).outcomes[0].summary)
        agreement = {"fills": [ours["fills"], found["fills"][0]], "profit": [ours["profit"] / 1e16, found["profit"][0]]}
        contenders = {
            OURS: timed(lambda: run_slice(single, window, sets)),
            VECTORBT: lambda: peer.nanoseconds([(FAST, SLOW)], 1),
        }
        one = alternate(contenders, lab.rounds(9))
        contenders = {
            OURS: timed(lambda: chain.compute(spec, plan, candles)),
            VECTORBT: lambda: peer.nanoseconds(sample, CHUNK),
        }
        many = alternate(contenders, lab.rounds(9), warm_up=1)
    note = f" ({len(sample)} pairs timed in chunks of {CHUNK}, scaled)"
    row = compared(what, many, VECTORBT, ">= 50 x", "200 x", len(sample) / len(pairs), note)
    row.raw |= {"vectorbt": version}
    yield row
    row = compared(f"one run, SMA {FAST}/{SLOW}", one, VECTORBT, "", "")
    row.raw |= {"vectorbt": version, "agreement": agreement}
    yield row


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
