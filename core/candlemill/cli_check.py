"""`candlemill check`: is a strategy honest?"""

import argparse
import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import msgspec

from candlemill.cli_common import open_store, output, parameters, progress_bar
from candlemill.engine.tape import Tape
from candlemill.errors import BadInput, NoData
from candlemill.model import SCALE, iso, parse_range, parse_timeframe
from candlemill.strategies import build

if TYPE_CHECKING:  # imported late: every command would pay for it
    from candlemill.checks.report import Counterexample, Finding, Report

COLUMNS = ("open", "high", "low", "close", "volume")
SHOWN_CANDLES = 12  # of a counterexample's tape; the JSON has more
SHOWN_CHANGES = 6


def add_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("strategy", metavar="FILE.py[:CLASS]|NAME")
    sub.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="fixed; the others vary")
    sub.add_argument("--symbol", help="on stretches of these stored candles (default: synthetic markets)")
    sub.add_argument("--range", metavar="RANGE", help="with --symbol: 2023, 2023-05, 2023-01-01..2023-06-30 or all")
    sub.add_argument("--timeframe", default="1m,15m", metavar="LIST", help="decision bars (default 1m,15m)")
    sub.add_argument("--seed", type=int, default=1, metavar="N", help="of markets and trials (default 1)")
    sub.add_argument(
        "--only", default="", metavar="TESTS", help="such as cuts,future-cut: see docs/check.md (default all)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the report; 0 without a fault, 1 with one. Raises BadInput."""
    from candlemill.checks.examine import check
    from candlemill.io import elsewhere, plugins

    if args.range and not args.symbol:
        raise BadInput("--range is of stored candles: give their --symbol too")
    if args.seed < 0:
        raise BadInput(f"seed {args.seed} is negative: give a whole number from 0 on")
    params = parameters(args.param)
    strategy = build(plugins.load(args.strategy), params)
    timeframes = [parse_timeframe(text) for text in args.timeframe.split(",")]
    tape = _tape(args.symbol, args.range or "all") if args.symbol else None
    with progress_bar("check") as progress, redirect_stdout(sys.stderr):  # whatever the strategy prints
        report = check(
            strategy, tape, timeframes=timeframes, seed=args.seed, pinned=params,
            only=[test for test in args.only.split(",") if test], elsewhere=elsewhere.decide, progress=progress,
        )  # fmt: skip
    output(args, {"honest": report.honest, **msgspec.to_builtins(report)}, text_of(report, args))
    return 0 if report.honest else 1


def _tape(symbol: str, span: str) -> Tape:
    from candlemill.io.jobs import Home

    with open_store() as store:
        start, end = Home(store).full_span(symbol)
        if span != "all":
            start, end = parse_range(span)
        found = store.read_columns(symbol, start, end, COLUMNS)
    if len(found["t"]) < 2:
        raise NoData(f"{symbol} has no candles in {iso(start)}..{iso(end)}: `candlemill coverage {symbol}` shows which")
    try:
        return Tape(*([found[name]] for name in ("t", *COLUMNS)))
    except OverflowError as error:
        raise BadInput(f"{symbol}: {error}") from None


# -- what people read ----------------------------------------------------------------------------------------------


def text_of(report: "Report", args: argparse.Namespace) -> str:
    timeframes = " and ".join(_timeframe(k) for k in report.timeframes)
    data = report.data if args.symbol is None else f"{report.data} of {args.symbol}"
    lines = [
        f"{report.strategy} {_params(report.params)}".rstrip(),
        f"on {data}, seed {report.seed}, decision bars of {timeframes}",
        *findings_of(report, lambda test: [f"  again: {_command(args, test)}"]),
    ]
    return "\n".join(lines)


def findings_of(report: "Report", again: Callable[[str], list[str]] = lambda test: []) -> list[str]:
    """Every test's line, then the faults with their counterexamples; `again` says how to see a test's once more."""
    lines = [_line(finding) for finding in report.findings]
    for finding in report.findings:
        if finding.verdict == "fault":
            lines += ["", f"FAULT {finding.test}: {finding.text}"]
            lines += [f"  {line}" for line in _case(finding.counterexample)]
            lines += again(finding.test)
    faults = sum(finding.verdict == "fault" for finding in report.findings)
    found = f"{faults} fault{'s' * (faults > 1)} found" if faults else "no fault found"
    return [*lines, "", f"{found}, in {report.seconds:.1f} s"]


def _line(finding: "Finding") -> str:
    verdict = finding.verdict.upper() if finding.verdict == "fault" else finding.verdict
    return f"  {verdict:<8} {finding.test:<15} {finding.text}"


def _case(case: "Counterexample | None") -> list[str]:
    if case is None:
        return []
    lines = [f"{_params(case.params)}  {_timeframe(case.timeframe)} bars, {case.bars:,} candles: {case.market}".strip()]
    if case.t is not None:
        lines.append(f"at {iso(case.t)}:")
    wide = max((len(done) for done, _ in case.said), default=0)
    lines += [f"  {done:<{wide}}  {said}" for done, said in case.said]
    if case.changed:
        lines.append("what was rewritten:")
    for change in case.changed[:SHOWN_CHANGES]:
        lines.append(f"  {iso(change.t)} {change.column}  {_value(change.column, change.before)} -> "
                     f"{_value(change.column, change.after)}")  # fmt: skip
    if len(case.changed) > SHOWN_CHANGES:
        lines.append(f"  and {len(case.changed) - SHOWN_CHANGES:,} more values")
    if 0 < len(case.candles) <= SHOWN_CANDLES:
        rows = [[iso(row["t"]), *(_value(name, row[name]) for name in COLUMNS)] for row in case.candles]
        lines += ["the whole tape:", *_table(rows, ["candle", *COLUMNS])]
    return lines


def _table(rows: list[list[str]], headers: list[str]) -> list[str]:
    from candlemill.show import table

    return [f"  {line}" for line in table(rows, headers, right=range(1, len(headers))).splitlines()]


def _value(column: str, value: int) -> str:
    if column == "t":
        return iso(value)
    return f"{value // SCALE}.{value % SCALE:08d}"


def _params(params: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())


def _timeframe(k: int) -> str:
    for minutes, unit in ((1440, "d"), (60, "h")):
        if k % minutes == 0:
            return f"{k // minutes}{unit}"
    return f"{k}m"


def _command(args: argparse.Namespace, test: str) -> str:
    words = ["candlemill", "check", args.strategy]
    for param in args.param:
        words += ["--param", param]
    for name in ("symbol", "range"):
        if getattr(args, name):
            words += [f"--{name}", getattr(args, name)]
    return shlex.join([*words, "--timeframe", args.timeframe, "--seed", str(args.seed), "--only", test])
