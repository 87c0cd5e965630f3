"""Rows of what a researcher asks for beside a run: the guards of a sweep, a report with pictures."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import chain
import numpy as np
from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.plan import make_plan
from candlemill.backtests.replay import replay_of
from candlemill.backtests.result import result_of
from candlemill.guards import sweep_guards, thinned
from candlemill.guards.run import with_guards
from candlemill.strategies.builtin.moving_averages import SmaCross
from lab import Lab
from measure import Row, alternate, milliseconds, timed
from rows.engine import FAST, FEE, GRID, SLOW


def rows_guards(lab: Lab) -> Iterator[Row]:
    """A thousand sets with their results, and the same with the guards over them."""
    market = lab.year
    spec = market.spec("sma_cross", {}, grid=GRID, fee=FEE)
    plan, candles = make_plan(spec, market.days, None), market.candles()
    points = [(point, params) for point, params, _ in grid_points(spec, 0, spec.combinations)]

    def sweep() -> tuple[list[int], np.ndarray]:
        merged = chain.compute(spec, plan, candles)
        found = [result_of(spec.single(p), plan, merged[k], job_id(spec.single(p), ""), "") for k, p in points]
        return [int(str(result["sharpe_ratio"])) for result, _ in found], np.array([daily for _, daily in found])

    def guarded() -> None:
        sharpes, matrix = sweep()
        rows = thinned(np.arange(len(sharpes)), len(sharpes), int(np.argmax(sharpes)))
        sets = [(params, sharpe) for (_, params), sharpe in zip(points, sharpes, strict=True)]
        sweep_guards(matrix[rows], rows, sets, spec.grid)

    alone, both = "alone", "guarded"
    times = alternate({alone: timed(sweep), both: timed(guarded)}, lab.rounds(9), warm_up=1)
    ratio = float(np.median(np.array(times[both]) / np.array(times[alone])))
    ours, theirs = (milliseconds(float(np.median(times[name]))) for name in (both, alone))
    yield Row(f"sweep of {len(points):,} sets with its guards", ours, f"without {theirs}", ratio, "<= 1.5 x", "")


def rows_report(lab: Lab) -> Iterator[Row]:
    """From a stored result of a year of minutes to a page: the run in full, its guards, the file."""
    from candlemill.report import write_report

    market = lab.year
    spec, strategy = market.spec("sma_cross", {"fast": FAST, "slow": SLOW}, fee=FEE), SmaCross(FAST, SLOW)
    plan = make_plan(spec, market.days, None)
    (merged,) = chain.compute(spec, plan, market.candles()).values()
    result, _ = result_of(spec, plan, merged, job_id(spec, ""), "")
    with TemporaryDirectory() as folder:
        page = Path(folder) / "run.html"

        def write() -> None:
            candles = market.window().candles
            write_report(with_guards(replay_of(spec, candles, strategy, result | {"execution_time_ms": 0}), 1), page)

        (times,) = alternate({"report": timed(write)}, lab.rounds(9), warm_up=1).values()
        size = page.stat().st_size
    what = f"report of a year of minutes, {int(str(result['trades'])):,} trades, {size / 1e6:.2f} MB"
    yield Row(what, milliseconds(float(np.median(times))), "", None, "<= 2 s, 5 MB", "")
