"""The commands that run jobs: backtest, sweep, walk-forward, plan."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from candlemill.backtests.grid import parse_grid
from candlemill.backtests.metric_table import RANKED, is_descending, order_of, path_of, value_of
from candlemill.backtests.portfolio import parse_weights, symbols_of
from candlemill.backtests.spec import OPTIONS, Score, Spec, WalkForward
from candlemill.cli.arguments import (
    Parser,
    count_argument,
    open_store,
    output,
)
from candlemill.cli.find import notes_arguments, write_notes
from candlemill.cli.job_arguments import is_panel, job_arguments, options_of_run, spec_of_arguments, with_span
from candlemill.errors import BadInput
from candlemill.pipeline.prepare import with_candles
from candlemill.pipeline.request import names_several
from candlemill.progress import progress_bar

SCORES = get_args(Score)


def backtest_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--weight", action="append", default=[], metavar="SYMBOL=W", help="of a portfolio's symbol")
    sub.add_argument("--guards", action="store_true", help="show how much may be luck: intervals, break-even fee")
    sub.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the guards' resampling (default 1)")
    report_argument(sub)
    notes_arguments(sub)


def report_argument(sub: Parser) -> None:
    sub.add_argument("--report", type=Path, metavar="FILE.html", help="write an HTML page with pictures")


def sweep_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--grid", action="append", required=True, metavar="NAME=VALUES", help="5:50:5 or 20,50,100")
    sub.add_argument("--sort", choices=RANKED, metavar="FIGURE", default="sharpe_ratio", help="the sets' order")
    sub.add_argument(
        "--order", choices=["best", "worst"], default="best", help="which sets to list first (default best)"
    )
    sub.add_argument("--top", type=count_argument, metavar="N", help="how many to show (default 10; all with --json)")
    report_argument(sub)
    notes_arguments(sub)


def walk_forward_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--grid", action="append", required=True, metavar="NAME=VALUES", help="5:50:5 or 20,50,100")
    sub.add_argument("--train", default="6mo", metavar="SPAN", help="span that chooses the set: 90d or 6mo (default)")
    sub.add_argument("--test", default="1mo", metavar="SPAN", help="span that is traded after it (default 1mo)")
    sub.add_argument("--anchored", action="store_true", help="each training begins at the range's start")
    sub.add_argument("--score", choices=SCORES, default="sharpe_ratio", help="what sets are chosen by")
    report_argument(sub)
    notes_arguments(sub)


def plan_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--grid", action="append", default=[], metavar="NAME=VALUES", help="of a sweep")


# -- commands ------------------------------------------------------------------------------------------------------


def run_backtest(args: argparse.Namespace) -> None:
    panel = is_panel(args.strategy)
    if names_several(args.symbol) and not panel:
        _run_portfolio(args)
        return
    from candlemill.cli import tables
    from candlemill.local.runner import JobRunner, run_one

    if args.weight:
        raise BadInput("--weight is for portfolios: give several symbols, as in --symbol BTCUSDT,ETHUSDT")
    spec, options = spec_of_arguments(args), options_of_run(args)
    with open_store() as store:
        runner = JobRunner(store, strategy_seconds=args.strategy_seconds)
        with progress_bar("backtest") as progress:
            spec = with_span(spec, args, runner)
            result = json.loads(run_one(runner, spec, options, progress).result)
        write_notes(args, store, result["job_id"])
        if args.guards or args.report:
            from candlemill.guards.run import with_guards
            from candlemill.report import write_report

            trace = with_guards(runner.trace(result), args.seed)
            result = trace.result if args.guards else result
            if args.report:
                write_report(trace, args.report)
    output(args, result, tables.result(result))


def _run_portfolio(args: argparse.Namespace) -> None:
    from candlemill.cli import tables
    from candlemill.local.runner import JobRunner
    from candlemill.local.workflow_runs import run_portfolio

    if args.report or args.guards:
        raise BadInput("--report and --guards tell of one symbol: run them for a symbol of the portfolio")
    options = options_of_run(args)
    with open_store() as store:
        runner = JobRunner(store, strategy_seconds=args.strategy_seconds)
        given, symbols = args.symbol, symbols_of(args.symbol, store.symbols())
        args.symbol = symbols[0]
        spec = spec_of_arguments(args)
        symbols, left_out = with_candles(runner.index, given, symbols, spec.start, spec.end)
        _tell_left_out(left_out, args.range)
        weights = parse_weights(args.weight, symbols)
        args.symbol = next(iter(weights))
        spec = with_span(spec_of_arguments(args), args, runner, *weights)
        with progress_bar("portfolio") as progress:
            result = run_portfolio(runner, spec, weights, options, progress)
        write_notes(args, store, result["job_id"])
    output(args, result, tables.portfolio(result))


def _tell_left_out(left_out: Sequence[str], span: str) -> None:
    """Print which symbols of a glob have no candle in the range."""
    if left_out:
        shown = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
        print(f"candlemill: {len(left_out):,} without a candle in {span} left out: {shown}", file=sys.stderr)


def run_sweep(args: argparse.Namespace) -> None:
    from candlemill.local.runner import JobRunner, run_job, started_early

    if any(_is_option(text, args.strategy) for text in args.grid):
        from candlemill.cli.studies import run_grid_of_options

        run_grid_of_options(args)
        return
    if names_several(args.symbol) and not is_panel(args.strategy):
        _run_sweeps(args)
        return
    spec, options = spec_of_arguments(args, args.grid), options_of_run(args)
    with started_early(spec, options.workers) as started, open_store() as store:
        runner = JobRunner(store, None, started, args.strategy_seconds)
        with progress_bar("sweep") as progress:
            job, _ = run_job(runner, with_span(spec, args, runner), options, progress)
        write_notes(args, store, job.job_id)
        if args.report:
            _write_sweep_report(store, job.job_id, args)
        show_sweep(args, store, job.job_id, args.sort, args.order == "best")


def _is_option(text: str, strategy: str) -> bool:
    """Return whether a grid's text names an option of the job, such as stop_loss, and not a parameter."""
    from candlemill.strategies import REGISTERED, loader, parameter_fields

    name = text.partition("=")[0].strip().replace("-", "_")
    return name in OPTIONS and name not in parameter_fields(REGISTERED[loader.load(strategy)])


def _of_symbols(args: argparse.Namespace, runner: Any, walk: WalkForward | None = None) -> dict[str, Any]:
    """Run the sweep or the walk-forward of each symbol; return the job's id and its parts."""
    from candlemill.local.workflow_runs import run_of_symbols

    if args.report:
        raise BadInput("--report tells of one symbol: run it for each symbol by itself")
    options = options_of_run(args)
    given = args.symbol
    symbols = symbols_of(given, runner.store.symbols())
    args.symbol = symbols[0]
    spec = spec_of_arguments(args, args.grid)
    symbols, left_out = with_candles(runner.index, given, symbols, spec.start, spec.end)
    _tell_left_out(left_out, args.range)
    args.symbol = symbols[0]
    spec = with_span(spec_of_arguments(args, args.grid), args, runner, *symbols)
    with progress_bar("walk-forwards" if walk else "sweeps") as progress:
        found: dict[str, Any] = run_of_symbols(runner, spec, symbols, options, progress, walk)
    write_notes(args, runner.store, found["job_id"])
    return found


def _run_sweeps(args: argparse.Namespace) -> None:
    from candlemill.cli import tables
    from candlemill.local.runner import JobRunner, sweep_row

    with open_store() as store:
        found = _of_symbols(args, JobRunner(store, strategy_seconds=args.strategy_seconds))
        top, descending = args.top or (None if args.json else 10), is_descending(args.sort, args.order == "best")
        for part in found["parts"]:
            row = sweep_row(store, part["job_id"])
            part["sets"] = store.count_sweep(part["job_id"])
            part["guards"] = json.loads(row.figures) if row.figures else None
            rows = store.sweep_results(part["job_id"], path_of(args.sort), descending, top)
            part["results"] = [json.loads(one) for one in rows]
    together = [row for part in found["parts"] for row in part["results"]]
    order = order_of([value_of(row, args.sort) for row in together], descending)
    best = [together[k] for k in order[:top]]
    output(args, found, tables.sweeps(found, best, list(json.loads(row.spec)["grid"]), args.sort))


def show_sweep(args: argparse.Namespace, store: Any, sweep_id: str, sort: str, from_best: bool = True) -> None:
    """Print a finished sweep's best sets and its guards."""
    from candlemill.cli import tables
    from candlemill.local.runner import sweep_row

    row = sweep_row(store, sweep_id)
    guards = json.loads(row.figures) if row.figures else None
    top = args.top or (None if args.json else 10)
    total = store.count_sweep(sweep_id)
    descending = is_descending(sort, from_best)
    rows: Iterable[str] = store.sweep_results(sweep_id, path_of(sort), descending, top)
    if args.json:
        _print_sweep(sweep_id, total, guards, rows)
        return
    names = list(json.loads(row.spec)["grid"])
    print(tables.sweep([json.loads(one) for one in rows], names, sort, total))
    if guards:
        print(tables.guards(guards))
    print(f"job {sweep_id}")


def _print_sweep(job_id: str, total: int, guards: object, rows: Iterable[str]) -> None:
    """Print one JSON object piece by piece; the rows are JSON already."""
    print(f'{{"job_id":"{job_id}","sets":{total},"guards":{json.dumps(guards)},"results":[', end="")
    for k, row in enumerate(rows):
        print("," if k else "", row, sep="", end="")
    print("]}")


def run_walk_forward(args: argparse.Namespace) -> None:
    from candlemill.cli import tables
    from candlemill.guards import parse_span
    from candlemill.local.runner import JobRunner
    from candlemill.local.workflow_runs import run_walk_forward, walk_forward_of

    train, test = parse_span(args.train), parse_span(args.test)
    chosen = parse_grid([text for text in args.grid if _is_option(text, args.strategy)])
    args.grid = [text for text in args.grid if not _is_option(text, args.strategy)]
    if names_several(args.symbol) and not is_panel(args.strategy):
        _run_walk_forwards(args, walk_forward_of(train, test, args.anchored, args.score, chosen))
        return
    spec, options = spec_of_arguments(args, args.grid), options_of_run(args)
    with open_store() as store:
        runner = JobRunner(store, strategy_seconds=args.strategy_seconds)
        spec = with_span(spec, args, runner)
        with progress_bar("walk-forward") as progress:
            found = run_walk_forward(runner, spec, train, test, args.anchored, args.score, options, progress, chosen)
        write_notes(args, store, found.job_id)
        if args.report:
            _write_walk_forward_report(runner, found, spec, args, chosen)
    shown_result = {"job_id": found.job_id, "sweep_id": found.sweep_id, "score": args.score, "folds": found.folds}
    shown_result |= {"result": found.result, "guards": found.guards}
    names = [*spec.grid, *chosen]
    text = tables.walk_forward(found.folds, names, found.result, args.score)
    output(args, shown_result, f"{text}\nwalk-forward         {found.job_id}")


def _run_walk_forwards(args: argparse.Namespace, walk: WalkForward) -> None:
    from candlemill.cli import tables
    from candlemill.local.runner import JobRunner
    from candlemill.local.workflow_runs import stored_walk_forward

    with open_store() as store:
        found = _of_symbols(args, JobRunner(store, strategy_seconds=args.strategy_seconds), walk)
        for part in found["parts"]:
            run = stored_walk_forward(store, part["job_id"])
            part |= {"sweep_id": run.sweep_id, "score": args.score, "folds": run.folds, "result": run.result}
    output(args, found, tables.walk_forwards(found))


def run_plan(args: argparse.Namespace) -> None:
    from candlemill.backtests.plan import estimate_seconds, repairs_at_most, valid_sets
    from candlemill.cli import tables
    from candlemill.local.runner import JobRunner
    from candlemill.pipeline.reuse import explain

    spec, options = spec_of_arguments(args, args.grid), options_of_run(args)
    with open_store() as store:
        runner = JobRunner(store, strategy_seconds=args.strategy_seconds)
        job = runner.prepare(with_span(spec, args, runner), options.slices, options.limit)
        row = store.job(job.job_id)
        bars = runner.count_bars(job.spec)
        cached, sets = row is not None and row.state == "done", valid_sets(job.spec)
        plan, reuse = explain(runner.index, store, job.spec, job.plan, options.slices)
    seconds = 0.0 if cached else estimate_seconds(plan, reuse.share if reuse else 1.0)
    repairs = None if cached else repairs_at_most(job.spec, plan, sets)
    found = {
        "job_id": job.job_id,
        "bars": bars,
        "slices": plan.slices,
        "cuts": plan.cuts,
        "sets": sets,
        "tasks": plan.tasks,
        "cached": cached,
        "estimated_seconds": seconds,
        "repairs": None if repairs is None else msgspec.to_builtins(repairs),
        "reuse": None if reuse is None else msgspec.to_builtins(reuse),
    }
    output(args, found, tables.plan(job.job_id, plan, bars, sets, seconds, cached, reuse, repairs))


# -- reports -------------------------------------------------------------------------------------------------------


def _write_sweep_report(store: Any, sweep_id: str, args: argparse.Namespace) -> None:
    from candlemill.local.runner import sweep_row
    from candlemill.report import write_sweep_report

    row = sweep_row(store, sweep_id)
    write_sweep_report(
        {
            "job_id": sweep_id,
            "spec": json.loads(row.spec),
            "results": [json.loads(one) for one in store.sweep_results(sweep_id, (), False, None)],
            "guards": json.loads(row.figures) if row.figures else None,
        },
        args.report,
    )


def _write_walk_forward_report(
    runner: Any, found: Any, spec: Spec, args: argparse.Namespace, chosen: dict[str, Any]
) -> None:
    from candlemill.backtests.command_line import command_of
    from candlemill.report import write_walk_forward_report

    given = {"train": args.train, "test": args.test, "score": args.score, **({"anchored": ""} if args.anchored else {})}
    write_walk_forward_report(
        {
            "folds": found.folds,
            "trace": runner.trace(found.result),
            "guards": found.guards,
            "score": args.score,
            "command": command_of(spec, "walk-forward", chosen, **given),
        },
        args.report,
    )


# -- from arguments to a job ---------------------------------------------------------------------------------------
