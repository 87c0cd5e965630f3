"""The command `optimize`: a study of parameters and options."""

import argparse
import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from candlemill.cli.arguments import Parser, count_argument, open_store, output
from candlemill.cli.find import notes_arguments, write_notes
from candlemill.cli.job_arguments import is_panel, job_arguments, options_of_run, spec_of_arguments, with_span
from candlemill.errors import BadInput
from candlemill.pipeline.request import names_several
from candlemill.progress import progress_bar

if TYPE_CHECKING:  # late: a study imports what runs jobs
    from candlemill.studies.study import Study

SAMPLERS = ("tpe", "random", "cmaes", "grid")
PRUNERS = ("none", "median", "halving")

SHOWN = 10


def optimize_arguments(sub: Parser) -> None:
    job_arguments(sub)
    sub.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        help="values to search, like stop_loss=1%%:5%%:1%%",
    )
    sub.add_argument("--points", type=Path, metavar="FILE.csv", help="trials, one in each row, instead of --space")
    sub.add_argument("--trials", type=count_argument, default=100, metavar="N", help="how many (default 100)")
    sub.add_argument("--sampler", choices=SAMPLERS, default="tpe", help="method that chooses the trials (default tpe)")
    sub.add_argument(
        "--pruner",
        choices=PRUNERS,
        default="none",
        help="end bad trials early (default none)",
    )
    sub.add_argument("--seed", type=int, default=1, metavar="N", help="of the sampler (default 1)")
    sub.add_argument(
        "--score",
        metavar="FIGURE",
        default="sharpe_ratio",
        help="what is made best; several with commas have a front",
    )
    sub.add_argument("--top", type=count_argument, metavar="N", help="how many trials to show (default 10)")
    notes_arguments(sub)


def run_optimize(args: argparse.Namespace) -> None:
    from candlemill.cli import tables
    from candlemill.local.runner import JobRunner
    from candlemill.studies.space import parse_space, points_of
    from candlemill.studies.study import run_study, study_request

    spec, options = spec_of_arguments(args), options_of_run(args)
    if names_several(args.symbol) and not is_panel(args.strategy):
        raise BadInput(f"{args.symbol!r}: a study has one --symbol: several are an axis, --space symbol=A,B")
    if args.points is not None and args.space:
        raise BadInput("--points has the trials themselves: leave --space out")
    space, points = (parse_space(args.space), []) if args.points is None else points_of(read_points(args.points))
    with open_store() as store:
        runner = JobRunner(store, strategy_seconds=args.strategy_seconds)
        request = study_request(
            with_span(spec, args, runner), space, points, sampler=args.sampler, pruner=args.pruner, seed=args.seed,
            score=args.score,
        )  # fmt: skip
        with progress_bar("optimize") as progress:
            study = run_study(runner, request, args.trials, options, progress)
        write_notes(args, store, study.study_id)
    output(args, msgspec.to_builtins(study), tables.study(study, args.top or SHOWN))


def run_grid_of_options(args: argparse.Namespace) -> None:
    """Run a sweep whose grid has options of the job: each combination is a trial of a study."""
    from candlemill.cli import tables
    from candlemill.local.runner import JobRunner
    from candlemill.studies.space import every_point, parse_space
    from candlemill.studies.study import TRIALS_LIMIT, run_study, study_request

    if names_several(args.symbol) and not is_panel(args.strategy):
        raise BadInput(f"{args.symbol!r}: a grid with options is for one symbol yet; run it for each symbol by itself")
    if args.report or args.order != "best":
        raise BadInput("--report and --order are for grids of parameters alone: leave them, or the options, out")
    spec, options, space = spec_of_arguments(args), options_of_run(args), parse_space(args.grid)
    points = every_point(space, TRIALS_LIMIT)
    with open_store() as store:
        runner = JobRunner(store, strategy_seconds=args.strategy_seconds)
        spec = with_span(spec, args, runner)
        request = study_request(spec, space, points, sampler="points", pruner="none", seed=1, score=args.sort)
        with progress_bar("sweep") as progress:
            study = run_study(runner, request, len(points), options, progress)
        write_notes(args, store, study.study_id)
    output(args, msgspec.to_builtins(study), tables.study(study, args.top or SHOWN))


def read_points(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a CSV file of points, values as text. Raises BadInput."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [dict(row) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"--points {path}: {error}") from None


def show_study(args: argparse.Namespace, study: "Study") -> None:
    """Print a stored study."""
    from candlemill.cli import tables

    output(args, msgspec.to_builtins(study), tables.study(study, args.top or SHOWN))
    if study.best is None:
        print("candlemill: no trial has a score", file=sys.stderr)
