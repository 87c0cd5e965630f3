"""`candlemill check`: tests a strategy for look-ahead, hidden state and dependence on slicing."""

import argparse
import shlex
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import msgspec

from candlemill.cli.arguments import open_store, output, parameters
from candlemill.engine.candles import CandleColumns
from candlemill.errors import BadInput, NoData
from candlemill.progress import progress_bar
from candlemill.strategies import build
from candlemill.units import iso, parse_range, parse_timeframe

if TYPE_CHECKING:  # late import: else every command would take longer to start
    from candlemill.checks.report import Report

COLUMNS = ("open", "high", "low", "close", "volume")


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("strategy", metavar="FILE.py[:CLASS]|NAME", help="a strategy of a file, or a built-in one")
    sub.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="value of a parameter; all others are varied"
    )
    sub.add_argument(
        "--symbol", help="check on its stored candles; for a panel several with commas (default: synthetic markets)"
    )
    sub.add_argument("--range", metavar="RANGE", help="with --symbol: 2023, 2023-05, 2023-01-01..2023-06-30 or all")
    sub.add_argument("--timeframe", default="1m,15m", metavar="LIST", help="decision bars (default 1m,15m)")
    sub.add_argument("--seed", type=int, default=1, metavar="N", help="seed of markets and trials (default 1)")
    sub.add_argument(
        "--only",
        default="",
        metavar="TESTS",
        help="tests to run, like cuts,future-cut; docs/check.md lists them (default all)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the report; return 0 without a fault, 1 with one. Raises BadInput."""
    from candlemill.checks import fresh_process
    from candlemill.checks.markets import market_of
    from candlemill.checks.panels import check_panel
    from candlemill.checks.runner import check
    from candlemill.strategies import PanelStrategy, loader

    if args.range and not args.symbol:
        raise BadInput("--range selects stored candles: give --symbol too")
    if args.seed < 0:
        raise BadInput(f"seed {args.seed} is negative: give a whole number from 0 on")
    params = parameters(args.param)
    strategy = build(loader.load(args.strategy), params)
    timeframes = [parse_timeframe(text) for text in args.timeframe.split(",")]
    only = [test for test in args.only.split(",") if test]
    symbols = args.symbol.split(",") if args.symbol else []
    if len(symbols) > 1 and not isinstance(strategy, PanelStrategy):
        raise BadInput(f"{args.strategy} trades one symbol, not {args.symbol[:80]}: give one")
    candles = {symbol: _stored_candles(symbol, args.range or "all") for symbol in symbols}
    options = {"timeframes": timeframes, "seed": args.seed, "pinned": params, "only": only}
    with progress_bar("check") as progress, redirect_stdout(sys.stderr):  # the strategy's own output goes to stderr
        if isinstance(strategy, PanelStrategy):
            markets = {symbol: market_of(one, "stored candles") for symbol, one in candles.items()}
            report = check_panel(strategy, markets or None, **options, progress=progress)
        else:
            data = candles[symbols[0]] if symbols else None
            report = check(strategy, data, **options, elsewhere=fresh_process.decide, progress=progress)
    output(args, {"honest": report.honest, **msgspec.to_builtins(report)}, text_of(report, args))
    return 0 if report.honest else 1


def _stored_candles(symbol: str, span: str) -> CandleColumns:
    from candlemill.local.runner import JobRunner
    from candlemill.store.integrity import read_checked

    with open_store() as store:
        start, end = JobRunner(store).full_span(symbol)
        if span != "all":
            start, end = parse_range(span)
        found = read_checked(store, symbol, start, end, COLUMNS)
    if len(found["t"]) < 2:
        raise NoData(f"{symbol} has no candles in {iso(start)}..{iso(end)}: `candlemill coverage {symbol}` shows which")
    try:
        return CandleColumns(*([found[name]] for name in ("t", *COLUMNS)))
    except OverflowError as error:
        raise BadInput(f"{symbol}: {error}") from None


# -- output for people ---------------------------------------------------------------------------------------------


def text_of(report: "Report", args: argparse.Namespace) -> str:
    from candlemill.checks.text import findings_of, params_text, timeframe_text

    timeframes = " and ".join(timeframe_text(k) for k in report.timeframes)
    data = report.data if args.symbol is None else f"{report.data} of {args.symbol}"
    lines = [
        f"{report.strategy} {params_text(report.params)}".rstrip(),
        f"on {data}, seed {report.seed}, decision bars of {timeframes}",
        *findings_of(report, lambda test: [f"  again: {_command(args, test)}"]),
    ]
    return "\n".join(lines)


def _command(args: argparse.Namespace, test: str) -> str:
    words = ["candlemill", "check", args.strategy]
    for param in args.param:
        words += ["--param", param]
    for name in ("symbol", "range"):
        if getattr(args, name):
            words += [f"--{name}", getattr(args, name)]
    return shlex.join([*words, "--timeframe", args.timeframe, "--seed", str(args.seed), "--only", test])
