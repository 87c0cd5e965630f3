"""The commands `export` and `log`: tables of stored jobs as files for other programs, and logs of results."""

import argparse
from pathlib import Path
from typing import Any

from candlemill.cli.arguments import Parser, count_argument, open_store, output, strategy_seconds, text_argument
from candlemill.errors import BadInput

TABLES = {
    "trades": "closed round trips",
    "equity": "the account at each minute",
    "daily": "profit of each UTC day",
    "contribution": "profit of each symbol of a panel up to each UTC day",
    "orders": "each fill: of targets, orders, stops and takes",
    "sets": "a sweep's parameter sets with all figures",
    "jobs": "one row with all figures",
}


def add_arguments(sub: Parser) -> None:
    sub.add_argument("jobs_", nargs="*", type=text_argument, metavar="JOB", help="first letters of a job's id")
    sub.add_argument("--last", type=count_argument, metavar="N", help="the N jobs that were done last")
    for name, text in TABLES.items():
        sub.add_argument(f"--{name}", action="append_const", dest="tables", const=name, help=text)
    text = "FILE.parquet, FILE.csv or FILE.arrow for one table, else a folder: TABLE/JOB.parquet in it"
    sub.add_argument("--to", required=True, type=Path, metavar="PATH", help=text)
    sub.add_argument("--strategy", metavar="FILE.py[:CLASS]", help="file of the job's strategy, if it is not built in")
    strategy_seconds(sub)


def run(args: argparse.Namespace) -> None:
    """Write the tables; prints the files with their rows."""
    from candlemill.local.exports import default_names, exported, newest, write_folder
    from candlemill.local.runner import JobRunner
    from candlemill.strategies import loader
    from candlemill.tables.files import FORMATS, format_of, write_file

    is_file = args.to.suffix in {f".{one}" for one in FORMATS} and not args.to.is_dir()
    names = list(dict.fromkeys(args.tables or []))
    if bool(args.jobs_) == (args.last is not None):
        raise BadInput("give either ids of jobs or --last N; `candlemill results` lists the newest jobs")
    if is_file and (len(args.jobs_) + (args.last or 0) > 1 or len(names) != 1):
        raise BadInput(f"--to {args.to} is one file: name one job and one of {', '.join('--' + one for one in TABLES)}")
    if args.strategy:
        loader.load(args.strategy)
    written: list[Path] = []
    with open_store() as store:
        trace = _Replays(JobRunner(store, strategy_seconds=args.strategy_seconds))
        for job_id in args.jobs_ or newest(store, args.last):
            found = exported(store, job_id)
            if is_file:
                format_of(args.to)
                write_file(found.table(names[0], trace.of), args.to, found.about())
                written.append(args.to)
            else:
                written += write_folder(args.to, found, names or default_names(found), trace.of)
    files = [str(path) for path in written]
    output(args, {"files": files}, "\n".join(files))


class _Replays:
    """Replays of runs; keeps the last one, because several tables of a job need it."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._last: tuple[str, Any] = ("", None)

    def of(self, result: dict[str, Any]) -> Any:
        if self._last[0] != result["job_id"]:
            self._last = (result["job_id"], self._runner.trace(result))
        return self._last[1]


def log_arguments(sub: Parser) -> None:
    sub.add_argument("jobs_", nargs="*", type=text_argument, metavar="JOB", help="first letters of a job's id")
    sub.add_argument("--last", type=count_argument, metavar="N", help="the N jobs that were done last")
    sub.add_argument("--to", type=Path, metavar="FILE.jsonl", help="add a line of JSON for each result")
    text = "a tracking server or database of MLflow, like http://127.0.0.1:5000 or sqlite:///mlflow.db"
    sub.add_argument("--mlflow", metavar="URI", help=text)


def run_log(args: argparse.Namespace) -> None:
    """Log results; those that are logged already are left out."""
    from candlemill.local.exports import exported, newest
    from candlemill.local.sinks import JsonLines, MLflow, Sink
    from candlemill.pipeline.rows import Notes

    if (args.to is None) == (args.mlflow is None):
        raise BadInput("give either --to FILE.jsonl or --mlflow URI")
    if bool(args.jobs_) == (args.last is not None):
        raise BadInput("give either ids of jobs or --last N; `candlemill jobs` lists the newest jobs")
    sink: Sink = JsonLines(args.to) if args.to is not None else MLflow(args.mlflow)
    new = 0
    with open_store() as store:
        for job_id in args.jobs_ or newest(store, args.last):
            found = exported(store, job_id)
            new += sink.log(found, store.notes([found.job_id]).get(found.job_id, Notes(found.job_id)))
    output(args, {"logged": new}, f"{new:,} results logged")
