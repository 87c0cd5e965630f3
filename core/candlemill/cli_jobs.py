"""The commands that run jobs: backtest, sweep, walk-forward, plan."""

import argparse
import json
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from candlemill.cli_common import (
    Parser,
    count_argument,
    open_store,
    output,
    parameters,
    progress_bar,
    text_argument,
)
from candlemill.errors import BadInput
from candlemill.model import (
    Spec,
    parse_grid,
)
from candlemill.ranking import FIGURES, SMALLER_IS_BETTER, path_of
from candlemill.request import Request, spec_of

SCORES = ("sharpe_ratio", "sortino_ratio", "total_pnl")


def job_arguments(sub: Parser) -> None:
    sub.add_argument("--symbol", required=True, type=text_argument, metavar="SYMBOL")
    sub.add_argument("--strategy", required=True, metavar="NAME|FILE.py[:CLASS]")
    sub.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    sub.add_argument("--range", default="all", metavar="RANGE", help="2023, 2023-05, 2023-01-01..2023-06-30 or all")
    sub.add_argument("--fee", type=int, default=1000, metavar="PPM", help="of every fill (default 1000 = 0.1 %%)")
    sub.add_argument("--maker-fee", type=int, metavar="PPM", help="of take-profit exits; below 0 a rebate")
    for name in ("slippage", "stop-loss", "take-profit", "trailing-stop"):
        sub.add_argument(f"--{name}", type=int, default=0, metavar="PPM")
    sub.add_argument("--funding", action="store_true", help="apply the symbol's stored funding rates")
    sub.add_argument("--fill", choices=["next_open", "close"], default="next_open")
    sub.add_argument("--sizing", choices=["fixed", "notional", "compound"], default="fixed")
    sub.add_argument("--quantity", default="1", metavar="DECIMAL", help="units of base traded (default 1)")
    sub.add_argument("--capital", metavar="DECIMAL", help="what the account begins with")
    sub.add_argument("--notional", metavar="DECIMAL", help="quote money in each trade, with --sizing notional")
    sub.add_argument("--volume-share", type=int, default=0, metavar="PPM", help="most of a bar's volume that one takes")
    sub.add_argument(
        "--timeframe", default="1m", help="bars that decisions are taken on: 1m, 5m, 1h, 1d … (default 1m)"
    )
    sub.add_argument("--max-gap", type=int, metavar="MINUTES", help="refuse a range that misses more minutes")
    sub.add_argument("--slices", default="auto", metavar="N|auto")
    sub.add_argument("--workers", type=count_argument, metavar="N", help="processes (default: what the job is worth)")
    sub.add_argument("--no-cache", action="store_true", help="compute even what is stored")


def backtest_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--weight", action="append", default=[], metavar="SYMBOL=W", help="of a portfolio's symbol")
    sub.add_argument("--guards", action="store_true", help="how much may be luck: intervals, break-even fee")
    sub.add_argument("--seed", type=int, default=1, metavar="N", help="of the guards' resampling (default 1)")
    report_argument(sub)


def report_argument(sub: Parser) -> None:
    sub.add_argument("--report", type=Path, metavar="FILE.html", help="write a page with pictures")


def sweep_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--grid", action="append", required=True, metavar="NAME=VALUES", help="5:50:5 or 20,50,100")
    sub.add_argument("--sort", choices=FIGURES, metavar="FIGURE", default="sharpe_ratio")
    sub.add_argument("--top", type=count_argument, metavar="N", help="how many to show (default 10; all with --json)")
    report_argument(sub)


def walk_forward_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--grid", action="append", required=True, metavar="NAME=VALUES", help="5:50:5 or 20,50,100")
    sub.add_argument("--train", default="6mo", metavar="SPAN", help="what a set is chosen on: 90d or 6mo (default)")
    sub.add_argument("--test", default="1mo", metavar="SPAN", help="what it is traded on then (default 1mo)")
    sub.add_argument("--anchored", action="store_true", help="each training begins at the range's start")
    sub.add_argument("--score", choices=SCORES, default="sharpe_ratio", help="what sets are chosen by")
    report_argument(sub)


def plan_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument("--grid", action="append", default=[], metavar="NAME=VALUES")


# -- commands ------------------------------------------------------------------------------------------------------


def run_backtest(args: argparse.Namespace) -> None:
    if any(mark in args.symbol for mark in ",*?["):
        _run_portfolio(args)
        return
    from candlemill import show
    from candlemill.io.jobs import Home, run_one

    if args.weight:
        raise BadInput("--weight is for portfolios: give several symbols, as in --symbol BTCUSDT,ETHUSDT")
    spec, options = _spec(args), _options(args)
    with open_store() as store:
        home = Home(store)
        with progress_bar("backtest") as progress:
            row = run_one(home, _with_span(spec, args, home), options, progress)
        result = json.loads(row.result)
        if args.guards or args.report:
            from candlemill.guards.run import with_guards
            from candlemill.report import write_report

            trace = with_guards(home.trace(result), args.seed)
            result = trace.result if args.guards else result
            if args.report:
                write_report(trace, args.report)
    output(args, result, show.result(result))


def _run_portfolio(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io.campaigns import run_portfolio
    from candlemill.io.jobs import Home
    from candlemill.portfolio import parse_weights, symbols_of

    if args.report or args.guards:
        raise BadInput("--report and --guards tell of one symbol: run them for a symbol of the portfolio")
    options = _options(args)
    with open_store() as store:
        home = Home(store)
        weights = parse_weights(args.weight, symbols_of(args.symbol, store.symbols()))
        args.symbol = next(iter(weights))
        spec = _with_span(_spec(args), args, home, *weights)
        with progress_bar("portfolio") as progress:
            result = run_portfolio(home, spec, weights, options, progress)
    output(args, result, show.portfolio(result))


def run_sweep(args: argparse.Namespace) -> None:
    from candlemill.io.jobs import Home, run_job, started_early

    spec, options = _spec(args, args.grid), _options(args)
    with started_early(spec, options.workers) as started, open_store() as store:
        home = Home(store, started=started)
        with progress_bar("sweep") as progress:
            job, _ = run_job(home, _with_span(spec, args, home), options, progress)
        if args.report:
            _write_sweep_report(store, job.job_id, args)
        show_sweep(args, store, job.job_id, args.sort)


def show_sweep(args: argparse.Namespace, store: Any, sweep_id: str, sort: str) -> None:
    """A finished sweep's best sets and its guards."""
    from candlemill import show
    from candlemill.io.jobs import sweep_row

    row = sweep_row(store, sweep_id)
    guards = json.loads(row.figures) if row.figures else None
    top = args.top or (None if args.json else 10)
    total = store.count_sweep(sweep_id)
    best = _best(store, sweep_id, sort, top)
    if args.json:
        _print_sweep(sweep_id, total, guards, best)
        return
    names = list(json.loads(row.spec)["grid"])
    print(show.sweep([json.loads(row) for row in best], names, sort, total))
    if guards:
        print(show.guards(guards))
    print(f"job {sweep_id}")


def _best(store: Any, sweep_id: str, sort: str, top: int | None) -> Iterable[str]:
    found: Iterable[str] = store.sweep_results(sweep_id, path_of(sort), sort not in SMALLER_IS_BETTER, top)
    return found


def _print_sweep(job_id: str, total: int, guards: object, rows: Iterable[str]) -> None:
    """One object, written piece by piece: the rows are JSON already."""
    print(f'{{"job_id":"{job_id}","sets":{total},"guards":{json.dumps(guards)},"results":[', end="")
    for k, row in enumerate(rows):
        print("," if k else "", row, sep="", end="")
    print("]}")


def run_walk_forward(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.guards import parse_span
    from candlemill.io.campaigns import run_walk_forward
    from candlemill.io.jobs import Home

    spec, options = _spec(args, args.grid), _options(args)
    train, test = parse_span(args.train), parse_span(args.test)
    with open_store() as store:
        home = Home(store)
        spec = _with_span(spec, args, home)
        with progress_bar("walk-forward") as progress:
            found = run_walk_forward(home, spec, train, test, args.anchored, args.score, options, progress)
        if args.report:
            _write_walk_forward_report(home, found, spec, args)
    told = {"sweep_id": found.sweep_id, "score": args.score, "folds": found.folds, "result": found.result}
    output(args, told, show.walk_forward(found.folds, list(spec.grid), found.result, args.score))


def run_plan(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io.jobs import Home
    from candlemill.plan import estimate_seconds, valid_sets
    from candlemill.reuse import explain

    spec, options = _spec(args, args.grid), _options(args)
    with open_store() as store:
        home = Home(store)
        job = home.prepare(_with_span(spec, args, home), options.slices, options.max_gap)
        row = store.job(job.job_id)
        bars = home.count_bars(job.spec)
        cached, sets = row is not None and row.state == "done", valid_sets(job.spec)
        plan, reuse = explain(home.index, store, job.spec, job.plan, options.slices)
    seconds = 0.0 if cached else estimate_seconds(plan, reuse.share if reuse else 1.0)
    found = {
        "job_id": job.job_id,
        "bars": bars,
        "slices": plan.slices,
        "cuts": plan.cuts,
        "sets": sets,
        "tasks": plan.tasks,
        "cached": cached,
        "estimated_seconds": seconds,
        "reuse": None if reuse is None else msgspec.to_builtins(reuse),
    }
    output(args, found, show.plan(job.job_id, plan, bars, sets, seconds, cached, reuse))


# -- reports -------------------------------------------------------------------------------------------------------


def _write_sweep_report(store: Any, sweep_id: str, args: argparse.Namespace) -> None:
    from candlemill.io.jobs import sweep_row
    from candlemill.report import write_sweep_report

    row = sweep_row(store, sweep_id)
    write_sweep_report(
        {
            "job_id": sweep_id,
            "spec": json.loads(row.spec),
            "results": [json.loads(one) for one in _best(store, sweep_id, args.sort, None)],
            "guards": json.loads(row.figures) if row.figures else None,
        },
        args.report,
    )


def _write_walk_forward_report(home: Any, found: Any, spec: Spec, args: argparse.Namespace) -> None:
    from candlemill.command import command_of
    from candlemill.io.jobs import sweep_row
    from candlemill.report import write_walk_forward_report

    asked = {"train": args.train, "test": args.test, "score": args.score, **({"anchored": ""} if args.anchored else {})}
    figures = sweep_row(home.store, found.sweep_id).figures
    write_walk_forward_report(
        {
            "folds": found.folds,
            "trace": home.trace(found.result),
            "guards": json.loads(figures) if figures else None,
            "score": args.score,
            "command": command_of(spec, "walk-forward", **asked),
        },
        args.report,
    )


# -- from arguments to a job ---------------------------------------------------------------------------------------


def _spec(args: argparse.Namespace, grid: Sequence[str] = ()) -> Spec:
    """All that can be checked without the database, which is then not even opened. See `_with_span`."""
    from candlemill.io import plugins

    request = Request(
        symbol=args.symbol,
        strategy=plugins.load(args.strategy),
        range=args.range,
        params=parameters(args.param),
        grid={**parse_grid(list(grid))},
        fee=args.fee,
        maker_fee=args.maker_fee,
        slippage=args.slippage,
        stop_loss=args.stop_loss,
        take_profit=args.take_profit,
        trailing_stop=args.trailing_stop,
        fill=args.fill,
        sizing=args.sizing,
        quantity=args.quantity,
        capital=args.capital,
        notional=args.notional,
        volume_share=args.volume_share,
        funding=args.funding,
        timeframe=args.timeframe,
    )
    return spec_of(request, args.symbol)


def _with_span(spec: Spec, args: argparse.Namespace, home: Any, *symbols: str) -> Spec:
    """The spec with what its symbols have for the range `all`."""
    if args.range != "all":
        return spec
    start, end = home.full_span(*(symbols or [spec.symbol]))
    return msgspec.structs.replace(spec, start=start, end=end)


def _options(args: argparse.Namespace) -> Any:
    """How to run it. What would only show at the end, after the work, is looked at here."""
    from candlemill.io.jobs import Options

    report = getattr(args, "report", None)
    if report is not None and find_spec("plotly") is None:
        raise BadInput("--report draws with plotly, which is not installed: pip install 'candlemill[report]'")
    if report is not None and not report.absolute().parent.is_dir():
        raise BadInput(f"--report {report}: there is no folder {report.absolute().parent}")
    return Options(_slices(args), args.workers, args.no_cache, args.max_gap)


def _slices(args: argparse.Namespace) -> int | None:
    if args.slices == "auto":
        return None
    if not args.slices.isdecimal() or int(args.slices) < 1:
        raise BadInput(f"slices {args.slices!r} is neither a positive number nor auto")
    return int(args.slices)
