"""The command line. Results go to stdout, everything else to stderr; exit 2 for bad input, 1 for failure."""

import argparse
import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from candlemill._version import __version__
from candlemill.cli import candles, check, cluster, doctor, export, find, jobs, paper, studies
from candlemill.cli.arguments import Parser, count_argument, port_argument, strategy_seconds, text_argument
from candlemill.cli.candles import run_coverage, run_funding, run_ingest, run_margin_tiers
from candlemill.cli.results import run_new_strategy, run_results, run_strategies, run_verify, run_version
from candlemill.cli.services import run_db, run_key, run_mcp, run_serve
from candlemill.errors import CandlemillError, one_line

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    _escape_what_consoles_lack()
    try:
        args = parser().parse_args(arguments)
        status = int(args.run(args) or 0)
        sys.stdout.flush()  # a closed pipe or a full disk fails here, not at the interpreter's exit
        return status
    except CandlemillError as error:
        return _complain(error.exit_status, error.code, str(error), arguments)
    except KeyboardInterrupt:
        message = "interrupted; what is done is stored, and the same command goes on from there"
        return _complain(INTERRUPTED, "interrupted", message, arguments)
    except BrokenPipeError:
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        return _complain(1, "failed", f"{error.filename or 'output'}: {error.strerror or error}", arguments)
    except Exception as error:  # a bug: still one line, which names the option for details
        text = f"internal error: {type(error).__name__}: {error}; -v shows where"
        return _complain(1, "internal", " ".join(text.split()), arguments)


def _escape_what_consoles_lack() -> None:
    """Write characters that the console's encoding lacks as \\uXXXX instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Redirect stdout to the null device, so that the interpreter's last flush succeeds after a write error."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(status: int, code: str, message: str, arguments: Sequence[str]) -> int:
    if "-v" in arguments or "--verbose" in arguments:
        traceback.print_exc()
    message = one_line(message)
    print(f"candlemill: {message}", file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps({"error": {"code": code, "message": message}}))
    return status


class _Commands:
    """Adds the program's commands: `add(name, run, text)`, or `add.json` for one that has --json."""

    def __init__(self, top: Parser) -> None:
        self.parsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def __call__(self, name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Parser:
        sub: Parser = self.parsers.add_parser(name, help=text, description=text)
        sub.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    def json(self, name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Parser:
        sub = self(name, run, text)
        sub.add_argument("--json", action="store_true", help="write one JSON object on stdout")
        return sub


def parser() -> Parser:
    top = Parser(prog="candlemill", description="Exact, distributed backtesting over one-minute candles.")
    top.add_argument("--version", action="version", version=f"candlemill {__version__}")
    add = _Commands(top)
    _add_candles(add)
    _add_jobs(add)
    _add_results(add)
    _add_strategies(add)
    _add_services(add)
    text = "run on Kubernetes with Knative: deploy, status, watch, smoke, down, schema"
    cluster.add_arguments(add.parsers.add_parser("cluster", help=text, description=text))
    add.json("version", run_version, "show the version and which build of the engine runs")
    return top


def _add_candles(add: _Commands) -> None:
    ingest = add.json("ingest", run_ingest, "store candles from kline files, or from an exchange")
    ingest.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="kline files (.zip, .csv), or folders of them"
    )
    ingest.add_argument("--volume-scale", type=int, metavar="N", help="a power of ten for new symbols (default 10^8)")
    candles.add_market(ingest, "spot, um, cm, um-mark, um-index, cm-mark or cm-index")
    candles.add_own(ingest)
    candles.add_download(ingest)
    candles.add_feed(add("feed", candles.run_feed, "follow an exchange's candles and keep the store complete"))
    on_paper = "decide on an exchange's candles as they close; no real order is ever placed"
    paper.paper_arguments(add("paper", paper.run_paper, on_paper))

    funding = "store a perpetual's funding rates from Binance public-data files"
    rates = add.json("funding", run_funding, funding)
    rates.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files of funding rates")
    candles.add_market(rates, "um or cm")
    tiers = "store a perpetual's maintenance tiers, with the date from which they are in force"
    dated = add.json("margin-tiers", run_margin_tiers, tiers)
    dated.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="CSV: symbol,valid_from,floor,rate,amount; or leverage brackets, .json",
    )
    dated.add_argument("--valid-from", metavar="DATE", help="first day of the brackets of a .json file")


def _add_jobs(add: _Commands) -> None:
    run = "run one strategy over a range; with several symbols (A,B or a glob) as a portfolio"
    jobs.backtest_arguments(add.json("backtest", jobs.run_backtest, run))
    jobs.sweep_arguments(add.json("sweep", jobs.run_sweep, "run a strategy for every combination of a grid"))
    walk = "choose the best set of a grid on past data, trade it on what follows, again and again"
    jobs.walk_forward_arguments(add.json("walk-forward", jobs.run_walk_forward, walk))
    search = "search parameters, stops and costs by trials that a sampler chooses"
    studies.optimize_arguments(add.json("optimize", studies.run_optimize, search))
    plan = "show what a backtest or sweep would do, without doing it"
    jobs.plan_arguments(add.json("plan", jobs.run_plan, plan))


def _add_results(add: _Commands) -> None:
    coverage = add.json("coverage", run_coverage, "show which candles are stored")
    coverage.add_argument("symbol", nargs="?", type=text_argument, help="its months (default: a line for each symbol)")
    coverage.add_argument("--check", action="store_true", help="count all candles: every gap and damaged day")
    results = add.json("results", run_results, "show stored results")
    results.add_argument("job", nargs="?", type=text_argument, help="the first letters of a job's id, six or more")
    results.add_argument(
        "--top",
        type=count_argument,
        metavar="N",
        help="number of results: of a sweep the best sets, else the newest jobs",
    )
    find.jobs_arguments(add.json("jobs", find.run_jobs, "find jobs: by symbol, parameter, date, figure, tag"))
    find.label_arguments(add.json("label", find.run_label, "give a job a label, a note and tags"))
    find.diff_arguments(add.json("diff", find.run_diff, "show what differs between two jobs"))
    export.log_arguments(add.json("log", export.run_log, "log results as lines of JSON, or to MLflow"))
    export.add_arguments(add.json("export", export.run, "write tables of jobs as files for other programs"))
    verify = add.json("verify", run_verify, "compute a stored result again and compare")
    verify.add_argument("job", type=text_argument, help="the first letters of a job's id, six or more")
    verify.add_argument(
        "--strategy", metavar="FILE.py[:CLASS]", help="file of the job's strategy, if it is not built in"
    )
    strategy_seconds(verify)
    doctor.add_arguments(add.json("doctor", doctor.run, "examine the store, and repair what can be"))


def _add_strategies(add: _Commands) -> None:
    check.add_arguments(add.json("check", check.run, "find out whether a strategy is honest"))
    add.json("strategies", run_strategies, "list the strategies and their parameters")
    new = add.json("new-strategy", run_new_strategy, "write a strategy to begin with, and its test")
    new.add_argument("name", type=text_argument, metavar="NAME", help="of the strategy, like my_fade")
    new.add_argument(
        "--kind",
        choices=["windowed", "stateful"],
        default="windowed",
        help="windowed reads some bars back, stateful remembers",
    )
    new.add_argument(
        "--folder", type=Path, default=Path(), metavar="PATH", help="parent of the new folder (default here)"
    )


def _add_services(add: _Commands) -> None:
    web = add("serve", run_serve, "the REST interface, the dashboard and all functions, on one port")
    web.add_argument("--host", default="127.0.0.1", help="beyond this machine keys are required")
    web.add_argument("--port", type=port_argument, default=8080, help="0 takes any free one")
    strategy_seconds(web)
    assistant = add("mcp", run_mcp, "serve an assistant over the Model Context Protocol, on stdin and stdout")
    assistant.add_argument(
        "--allow-jobs", action="store_true", help="allow the assistant to run jobs and checks, and to write notes"
    )
    assistant.add_argument("--url", metavar="URL", help="of a running gateway (default: the store of this machine)")
    key = add("key", run_key, "make a key for the REST interface, and its line for the file of keys")
    key.add_argument("name", type=text_argument, metavar="NAME", help="of the key's owner")
    db = add("db", run_db, "serve the embedded database to other processes over ClickHouse's HTTP interface")
    db.add_argument("--host", default="127.0.0.1", help="beyond this machine a password is required")
    db.add_argument("--port", type=port_argument, default=8123, help="0 takes any free one")


# -- commands ------------------------------------------------------------------------------------------------------


if __name__ == "__main__":
    sys.exit(main())
