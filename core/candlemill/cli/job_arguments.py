"""Arguments of commands that run jobs, and what they mean."""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import msgspec

from candlemill.backtests.grid import parse_grid
from candlemill.backtests.spec import OPTIONS, Spec
from candlemill.backtests.spec_rules import sees_panel
from candlemill.cli.arguments import (
    Parser,
    count_argument,
    option_argument,
    parameters,
    strategy_seconds,
    text_argument,
)
from candlemill.cli.find import check_notes
from candlemill.errors import BadInput
from candlemill.pipeline.gap_limit import gap_limit
from candlemill.pipeline.request import REQUEST_OPTIONS, Request, of_panel, spec_of


def job_arguments(sub: Parser) -> None:
    sub.add_argument("--symbol", required=True, type=text_argument, metavar="SYMBOL", help="a symbol that is stored")
    sub.add_argument("--strategy", required=True, metavar="NAME|FILE.py[:CLASS]", help="built in, or in a file")
    sub.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="of the strategy")
    for option in REQUEST_OPTIONS.values():
        option_argument(sub, option)
    sub.add_argument("--workers", type=count_argument, metavar="N", help="processes (default: as many as save time)")
    strategy_seconds(sub)


def is_panel(strategy: str) -> bool:
    from candlemill.strategies import REGISTERED, PanelStrategy, loader

    return issubclass(REGISTERED[loader.load(strategy)], PanelStrategy)


def spec_of_arguments(args: argparse.Namespace, grid: Sequence[str] = ()) -> Spec:
    """Return the job's spec after all checks that need no database; `with_span` completes it."""
    from candlemill.strategies import loader

    request = Request(
        symbol=args.symbol,
        strategy=loader.load(args.strategy),
        range=args.range,
        params=parameters(args.param),
        grid={**parse_grid(list(grid))},
        **{name: getattr(args, name) for name in OPTIONS},
    )
    return spec_of(request, args.symbol)


def with_span(spec: Spec, args: argparse.Namespace, runner: Any, *symbols: str) -> Spec:
    """Return the spec with a panel's symbols, and with the range `all` replaced by the span of its stored candles."""
    if sees_panel(spec.strategy):
        spec = of_panel(runner.index, spec, args.symbol)
    if args.range != "all":
        return spec
    start, end = runner.full_span(*(symbols or spec.symbols))
    return msgspec.structs.replace(spec, start=start, end=end)


def options_of_run(args: argparse.Namespace) -> Any:
    """Return the options of the run. Checks early what would otherwise fail only after the work."""
    from candlemill.local.runner import Options

    if hasattr(args, "label"):
        check_notes(args)
    report = getattr(args, "report", None)
    if report is not None and find_spec("plotly") is None:
        raise BadInput("--report draws with plotly, which is not installed: pip install 'candlemill[report]'")
    if report is not None and not report.absolute().parent.is_dir():
        raise BadInput(f"--report {report}: there is no folder {report.absolute().parent}")
    return Options(_slices(args), args.workers, args.fresh, gap_limit(args.max_gap, args.range))


def _slices(args: argparse.Namespace) -> int | None:
    if args.slices == "auto":
        return None
    if not args.slices.isdecimal() or int(args.slices) < 1:
        raise BadInput(f"slices {args.slices!r} is neither a positive number nor auto")
    return int(args.slices)
