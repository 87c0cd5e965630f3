"""Work of several jobs: portfolios and walk-forwards. Each job is stored and found again by itself, so a campaign that
was interrupted goes on where it was."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.daily import pack, unpack
from candlemill.engine.tape import DAY_MS, Column
from candlemill.errors import BadInput, NoData, TooLarge
from candlemill.guards import Fold, Span, make_folds, walk_forward
from candlemill.io.jobs import Home, Options, run_job, run_one
from candlemill.io.local import Progress
from candlemill.ledger import ResultRow
from candlemill.model import Leg, Spec, grid_points, job_id
from candlemill.portfolio import Part, parts_of, portfolio_result
from candlemill.service import Prepared, checked, prepare

INT64 = 2**63
MATRIX_LIMIT = 100_000_000  # set-days that a walk-forward looks at: 800 MB


def run_portfolio(
    home: Home, spec: Spec, weights: Mapping[str, int], options: Options, progress: Progress
) -> dict[str, Any]:
    """Each symbol's job, and their joint result. `spec` is that of a symbol without its weight."""
    jobs = parts_of(spec, weights)
    for job in jobs:
        prepare(home.index, job, options.slices)  # whatever is wrong with one shows before any is run
    parts = []
    for k, job in enumerate(jobs):

        def counted(done: int, known: int, k: int = k) -> None:
            progress(k * known + done, len(jobs) * known)

        row = run_one(home, job, options, counted)
        parts.append(Part(job.symbol, msgspec.json.decode(row.result), row.daily))
    result, daily = portfolio_result(spec, weights, parts)
    home.store.put_results([_portfolio_row(result, daily)])
    return result


def _portfolio_row(result: dict[str, Any], daily: tuple[Column, list[int]]) -> ResultRow:
    took = sum(part["execution_time_ms"] for part in result["parts"])
    result["execution_time_ms"] = took
    return ResultRow(
        job_id=result["job_id"],
        strategy_id=result["strategy_id"],
        total_pnl=result["total_pnl"],
        sharpe_ratio=max(-INT64, min(result["sharpe_ratio"], INT64 - 1)),
        max_drawdown=result["max_drawdown"],
        execution_time_ms=took,
        sweep_id="",
        result=msgspec.json.encode(result).decode(),
        daily=pack([day // DAY_MS for day in daily[0].tolist()], daily[1]),
    )


class WalkForward(msgspec.Struct, frozen=True):
    """Folds with what was chosen in each, the sweep that it was chosen from, and the run of the choices."""

    sweep_id: str
    folds: list[dict[str, Any]]
    spec: Spec
    result: dict[str, Any]


def run_walk_forward(
    home: Home, spec: Spec, train: Span, test: Span, anchored: bool, score: str, options: Options, progress: Progress
) -> WalkForward:
    """Choose the best set of each training span, and trade the choices through the tests, one after the other.

    One sweep over the whole range tells every set's daily profits; a set is judged by those of a fold's days. The
    choices are then run as one job with a schedule, from the first test on, so costs of changing over are in it.
    """
    folds = make_folds(spec.start, spec.end, train, test, anchored)
    sweep, _ = run_job(home, spec, options, progress)
    params, days, matrix = sweep_matrix(home, sweep)
    choices = walk_forward(matrix, days, folds, score)
    chosen = [(fold, choice) for fold, choice in zip(folds, choices, strict=True) if choice is not None]
    if not chosen:
        raise NoData(f"no fold of {len(folds)} has days with candles in both training and test: take longer spans")
    told = [
        {
            **msgspec.to_builtins(fold),
            "params": params[choice.row],
            "in_sample": choice.in_sample,
            "out_of_sample": choice.out_of_sample,
            "efficiency": choice.efficiency,
        }
        for fold, choice in chosen
    ]
    stitched = _stitched(spec, [(fold, params[choice.row]) for fold, choice in chosen])
    row = run_one(home, stitched, options, progress)
    return WalkForward(sweep.job_id, told, stitched, msgspec.json.decode(row.result))


def _stitched(spec: Spec, chosen: list[tuple[Fold, dict[str, Any]]]) -> Spec:
    """The job that trades each fold's choice during its test."""
    legs = [Leg(fold.test_start, params) for fold, params in chosen]
    start, end = chosen[0][0].test_start, chosen[-1][0].test_end
    return checked(msgspec.structs.replace(spec, params={}, grid={}, schedule=legs, start=start, end=end))


def sweep_matrix(home: Home, sweep: Prepared) -> tuple[list[dict[str, Any]], Column, NDArray[np.int64]]:
    """A finished sweep's parameter sets, its days (midnights in ms), and each set's daily figures."""
    spec = sweep.spec
    if not spec.grid:
        raise BadInput("a walk-forward chooses among parameter sets: give at least one --grid")
    points = [params for _, params, _ in grid_points(spec, 0, spec.combinations)]
    ids = [job_id(spec.single(params), sweep.data_digest) for params in points]
    daily = home.store.sweep_daily(sweep.job_id, ids)
    days, _ = unpack(daily[ids[0]])
    if len(ids) * len(days) > MATRIX_LIMIT:
        raise TooLarge(
            f"{len(ids):,} sets of {len(days):,} days are {len(ids) * len(days):,} figures, the limit is "
            f"{MATRIX_LIMIT:,}: use a smaller grid or a shorter range"
        )
    return points, days, np.stack([unpack(daily[one])[1] for one in ids])
