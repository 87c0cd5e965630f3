"""The command line. Results go to stdout, everything else to stderr; exit 2 for bad input, 1 for failure."""

import argparse
import contextlib
import json
import os
import sys
import traceback

# Before NumPy is imported: there is no linear algebra here, and its idle threads would cost memory and start-up.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Callable, Sequence
from pathlib import Path

from candlemill import cli_check, cli_cluster, cli_feed
from candlemill import cli_jobs as jobs
from candlemill._version import __version__
from candlemill.cli_common import Parser, count_argument, open_store, output, progress_bar, text_argument
from candlemill.engine.flag import COMPILED
from candlemill.errors import BadInput, CandlemillError, one_line
from candlemill.model import spec_from_json

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser().parse_args(arguments)
        status = int(args.run(args) or 0)
        sys.stdout.flush()  # a closed pipe or a full disk shows here, not when the interpreter ends
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
    except Exception as error:  # a bug: still one line, with the way to see more
        text = f"internal error: {type(error).__name__}: {error}; -v shows where"
        return _complain(1, "internal", " ".join(text.split()), arguments)


def _drop_output() -> None:
    """Nobody can take what is left of stdout: have the interpreter's last flush succeed."""
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


def parser() -> Parser:
    top = Parser(prog="candlemill", description="Exact, distributed backtesting over one-minute candles.")
    top.add_argument("--version", action="version", version=f"candlemill {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Parser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    def with_json(sub: Parser) -> Parser:
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return sub

    ingest = with_json(command("ingest", run_ingest, "store candles from kline files, or from an exchange"))
    ingest.add_argument("paths", nargs="*", type=Path, metavar="PATH")
    ingest.add_argument("--volume-scale", type=int, metavar="N", help="a power of ten for new symbols (default 10^8)")
    cli_feed.add_download(ingest)
    cli_feed.add_feed(command("feed", cli_feed.run_feed, "follow an exchange's candles and keep the store complete"))

    funding = "store a perpetual's funding rates from Binance public-data files"
    rates = with_json(command("funding", run_funding, funding))
    rates.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    run = "run one strategy over a range; with several symbols (A,B or a glob) as a portfolio"
    jobs.backtest_arguments(with_json(command("backtest", jobs.run_backtest, run)))
    jobs.sweep_arguments(with_json(command("sweep", jobs.run_sweep, "run a strategy for every combination of a grid")))
    walk = "choose the best set of a grid on past data, trade it on what follows, again and again"
    jobs.walk_forward_arguments(with_json(command("walk-forward", jobs.run_walk_forward, walk)))
    plan = "show what a backtest or sweep would do, without doing it"
    jobs.plan_arguments(with_json(command("plan", jobs.run_plan, plan)))

    coverage = with_json(command("coverage", run_coverage, "show which candles are stored"))
    coverage.add_argument("symbol", nargs="?", type=text_argument)
    coverage.add_argument("--check", action="store_true", help="list every gap, and whether the exchange has it too")
    results = with_json(command("results", run_results, "show stored results"))
    results.add_argument("job", nargs="?", type=text_argument)
    results.add_argument(
        "--top", type=count_argument, metavar="N", help="how many: of a sweep the best, else the newest"
    )
    verify = with_json(command("verify", run_verify, "compute a stored result again and compare"))
    verify.add_argument("job", type=text_argument)
    verify.add_argument("--strategy", metavar="FILE.py[:CLASS]", help="where the job's strategy is, if it is a file's")
    cli_check.add_arguments(with_json(command("check", cli_check.run, "find out whether a strategy is honest")))
    with_json(command("strategies", run_strategies, "list the strategies and their parameters"))
    new = with_json(command("new-strategy", run_new_strategy, "write a strategy to begin with, and its test"))
    new.add_argument("name", type=text_argument, metavar="NAME")
    new.add_argument("--kind", choices=["windowed", "stateful"], default="windowed")
    new.add_argument("--folder", type=Path, default=Path(), metavar="PATH", help="where its folder goes (default here)")
    web = command("serve", run_serve, "the REST interface, the dashboard and all functions, on one port")
    web.add_argument("--host", default="127.0.0.1")
    web.add_argument("--port", type=int, default=8080, help="0 takes any free one")
    key = command("key", run_key, "make a key for the REST interface, and its line for the file of keys")
    key.add_argument("name", type=text_argument, metavar="NAME")
    db = command("db", run_db, "serve the embedded database to other processes over ClickHouse's HTTP interface")
    db.add_argument("--host", default="127.0.0.1")
    db.add_argument("--port", type=int, default=8123, help="0 takes any free one")
    text = "run on Kubernetes with Knative: deploy, status, watch, smoke, down, schema"
    cli_cluster.add_arguments(commands.add_parser("cluster", help=text, description=text))
    with_json(command("version", run_version, "show the version and which build of the engine runs"))
    return top


# -- commands ------------------------------------------------------------------------------------------------------


def run_ingest(args: argparse.Namespace) -> None:
    from candlemill.io.ingest import ingest

    if args.symbol:
        downloaded = cli_feed.download(args)
        output(args, downloaded.to_dict(), downloaded.text())
        return
    if not args.paths:
        raise BadInput("nothing to ingest: give files or folders, or --symbol BTCUSDT --days 30")
    with open_store() as store:
        report = ingest(store, args.paths, args.volume_scale)
    output(args, report.to_dict(), report.text())


def run_funding(args: argparse.Namespace) -> None:
    from candlemill.io.funding import ingest_funding

    with open_store() as store:
        counts = ingest_funding(store, args.paths)
    output(args, {"rates": counts}, "\n".join(f"{symbol}: {count:,} rates" for symbol, count in counts.items()))


def run_coverage(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.errors import UnknownName
    from candlemill.io.coverage import current_days

    with cli_feed.store() as store:
        known = store.symbols()
        if args.symbol and args.symbol not in known:
            raise UnknownName("symbol", args.symbol, known, "`candlemill coverage` lists what is stored")
        chosen = [args.symbol] if args.symbol else known
        if args.check:
            output(args, *cli_feed.check(store, chosen))
            return
        days = {symbol: current_days(store, symbol) for symbol in chosen}
    if args.symbol:
        text = show.coverage(args.symbol, days[args.symbol])
    else:
        text = show.coverage_summary(days) if known else "nothing is stored yet: candlemill ingest PATH"
    output(args, {"symbols": {symbol: show.coverage_rows(rows) for symbol, rows in days.items()}}, text)


def run_results(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io.jobs import fetch

    with open_store() as store:
        args.job = store.complete_id(args.job or "")
        if args.job and store.count_sweep(args.job):
            jobs.show_sweep(args, store, args.job, "sharpe_ratio")
            return
        if args.job:
            result = json.loads(fetch(store, args.job).result)
            output(args, result, show.portfolio(result) if "parts" in result else show.result(result))
            return
        rows = [(created, json.loads(row.result)) for created, row in store.recent_results(args.top or 20)]
    text = show.results_list(rows) if rows else "no results yet: candlemill backtest --help"
    output(args, {"results": [row for _, row in rows]}, text)


def run_verify(args: argparse.Namespace) -> int:
    from candlemill.io import plugins
    from candlemill.io.jobs import Home, fetch, sweep_row

    if args.strategy:
        plugins.load(args.strategy)
    with open_store() as store:
        args.job = store.complete_id(args.job)
        if store.count_sweep(args.job):
            row = sweep_row(store, args.job)
            spec, digest, stored = spec_from_json(row.spec), row.data_digest, ""
        else:
            result = json.loads(fetch(store, args.job).result)
            if "parts" in result:
                raise BadInput(
                    f"{args.job} is a portfolio: verify its jobs, the first is {result['parts'][0]['job_id']}"
                )
            spec, digest = spec_from_json(json.dumps(result["spec"])), result["data_digest"]
            stored = result["result_digest"]
        plugins.load(spec.strategy)
        home = Home(store)
        job = home.prepare(spec, None)
        if job.data_digest != digest:
            raise CandlemillError(
                f"the candles have changed since: their digest was {digest[:16]}, is {job.data_digest[:16]}; "
                "run it again for the new ones"
            )
        with progress_bar("verify") as progress:
            done = home.verify(job, args.job, progress)
    found = {"job_id": args.job, "same": not done.different, "sets": done.sets, "different": done.different}
    found |= {"stored": stored, "computed": done.computed} if stored else {}
    if done.different:
        name, figures = next(iter(done.different.items()))
        message = f"job {name}: stored and computed differ in {', '.join(figures)}"
        found["error"] = {"code": "different", "message": message}
        output(args, found, f"DIFFERENT: {len(done.different):,} of {done.sets:,} parameter sets")
        print(f"candlemill: {message}", file=sys.stderr)
        return 1
    output(args, found, f"same bits: {done.computed}" if stored else f"same bits: all {done.sets:,} parameter sets")
    return 0


def run_strategies(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io import plugins

    for problem in plugins.load_offered():
        print(f"candlemill: {problem}", file=sys.stderr)
    output(args, {"strategies": show.strategies_rows()}, show.strategies())


def run_new_strategy(args: argparse.Namespace) -> None:
    from candlemill.io.skeleton import write_strategy

    folder = write_strategy(args.name, args.kind, args.folder)
    files = sorted(str(path) for path in folder.iterdir())
    output(args, {"files": files}, "\n".join([*files, f"{folder / 'README.md'} says how to run it"]))


def run_serve(args: argparse.Namespace) -> None:
    from candlemill.io import logs
    from candlemill.io.serve import serve
    from candlemill.io.settings import dsn

    logs.setup_service(args.verbose)

    def ready(port: int) -> None:
        print(f"candlemill serves http://{args.host}:{port}", file=sys.stderr, flush=True)

    serve(dsn(), args.host, args.port, ready)


def run_key(args: argparse.Namespace) -> None:
    from candlemill.io.gateway.keys import make_key

    key, line = make_key(args.name)
    print(f"the key of {args.name}, shown only now: {key}", file=sys.stderr)
    print(line)


def run_db(args: argparse.Namespace) -> None:
    from candlemill.io import logs
    from candlemill.io.dbserver import serve
    from candlemill.io.settings import dsn

    logs.setup_service(args.verbose)
    where = dsn()
    if not where.startswith("chdb://"):
        raise BadInput(f"candlemill db serves an embedded database, not {where.split('@')[-1]}: give a chdb:// DSN")

    def ready(port: int) -> None:
        print(f"serving {where} on http://{args.host}:{port}/default", file=sys.stderr, flush=True)

    serve(Path(where.removeprefix("chdb://")), args.host, args.port, ready)


def run_version(args: argparse.Namespace) -> None:
    from candlemill.model import code_digest

    build = "compiled" if COMPILED else "pure Python"
    found = {"version": __version__, "engine": build, "code_digest": code_digest(), "python": sys.version.split()[0]}
    output(
        args, found, f"candlemill {__version__}, engine {build}, code {code_digest()[:16]}, Python {found['python']}"
    )


if __name__ == "__main__":
    sys.exit(main())
