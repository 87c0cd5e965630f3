"""The command line. Results go to stdout, everything else to stderr; exit 2 for bad input, 1 for failure."""

import argparse
import contextlib
import json
import os
import sys
import traceback

# Before NumPy is imported: there is no linear algebra here, and its idle threads would cost memory and start-up.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from candlemill._version import __version__
from candlemill.engine.flag import COMPILED
from candlemill.errors import BadInput, CandlemillError, one_line
from candlemill.model import (
    FIRST_MS,
    LAST_MS,
    Spec,
    parse_decimal,
    parse_grid,
    parse_range,
    parse_timeframe,
    resolve,
    spec_from_json,
)

RESULT_KEYS = (
    "total_pnl", "sharpe_ratio", "sortino_ratio", "max_drawdown", "trades", "wins", "gross_profit", "gross_loss",
    "fees", "fills", "exposure_bars",
)  # fmt: skip
SMALLER_IS_BETTER = frozenset({"max_drawdown", "gross_loss", "fees", "fills"})
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """Complains in one line, and takes options by their whole names: an abbreviation would bind what comes later."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; see `{self.prog} --help`")


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
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, run: Callable[[argparse.Namespace], int | None], text: str) -> Parser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run)
        return sub

    def with_json(sub: Parser) -> Parser:
        sub.add_argument("--json", action="store_true", help="one JSON object on stdout")
        return sub

    ingest = with_json(command("ingest", run_ingest, "store candles from Binance public-data zips, CSVs or folders"))
    ingest.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    ingest.add_argument("--volume-scale", type=int, metavar="N", help="a power of ten for new symbols (default 10^8)")

    _job_arguments(with_json(command("backtest", run_backtest, "run one strategy over a range")))
    sweep = with_json(command("sweep", run_sweep, "run a strategy for every combination of a grid"))
    _job_arguments(sweep)
    _grid_arguments(sweep)
    plan = with_json(command("plan", run_plan, "show what a backtest or sweep would do, without doing it"))
    _job_arguments(plan)
    plan.add_argument("--grid", action="append", default=[], metavar="NAME=VALUES")

    coverage = with_json(command("coverage", run_coverage, "show which candles are stored"))
    coverage.add_argument("symbol", nargs="?", type=_text)
    results = with_json(command("results", run_results, "show stored results"))
    results.add_argument("job", nargs="?", type=_text)
    results.add_argument("--top", type=_count, metavar="N", help="how many: of a sweep the best, else the newest")
    verify = with_json(command("verify", run_verify, "compute a stored result again and compare"))
    verify.add_argument("job", type=_text)
    verify.add_argument("--strategy", metavar="FILE.py[:CLASS]", help="where the job's strategy is, if it is a file's")
    with_json(command("strategies", run_strategies, "list the strategies and their parameters"))
    new = with_json(command("new-strategy", run_new_strategy, "write a strategy to begin with, and its test"))
    new.add_argument("name", type=_text, metavar="NAME")
    new.add_argument("--kind", choices=["windowed", "stateful"], default="windowed")
    new.add_argument("--folder", type=Path, default=Path(), metavar="PATH", help="where its folder goes (default here)")
    db = command("db", run_db, "serve the embedded database to other processes over ClickHouse's HTTP interface")
    db.add_argument("--host", default="127.0.0.1")
    db.add_argument("--port", type=int, default=8123, help="0 takes any free one")
    with_json(command("version", run_version, "show the version and which build of the engine runs"))
    return top


def _job_arguments(sub: Parser) -> None:
    sub.add_argument("--symbol", required=True, type=_text)
    sub.add_argument("--strategy", required=True, metavar="NAME|FILE.py[:CLASS]")
    sub.add_argument("--param", action="append", default=[], metavar="NAME=VALUE")
    sub.add_argument("--range", default="all", metavar="RANGE", help="2023, 2023-05, 2023-01-01..2023-06-30 or all")
    sub.add_argument("--fee", type=int, default=1000, metavar="PPM", help="of every fill (default 1000 = 0.1 %%)")
    for name in ("slippage", "stop-loss", "take-profit", "trailing-stop"):
        sub.add_argument(f"--{name}", type=int, default=0, metavar="PPM")
    sub.add_argument("--fill", choices=["next_open", "close"], default="next_open")
    sub.add_argument("--sizing", choices=["fixed", "compound"], default="fixed")
    sub.add_argument("--quantity", default="1", metavar="DECIMAL", help="units of base traded (default 1)")
    sub.add_argument(
        "--timeframe", default="1m", help="bars that decisions are taken on: 1m, 5m, 1h, 1d … (default 1m)"
    )
    sub.add_argument("--max-gap", type=int, metavar="MINUTES", help="refuse a range that misses more minutes")
    sub.add_argument("--slices", default="auto", metavar="N|auto")
    sub.add_argument("--workers", type=_count, metavar="N", help="processes (default: what the job is worth)")
    sub.add_argument("--no-cache", action="store_true", help="compute even what is stored")


def _grid_arguments(sub: Parser) -> None:
    sub.add_argument("--grid", action="append", required=True, metavar="NAME=VALUES", help="5:50:5 or 20,50,100")
    sub.add_argument("--sort", choices=RESULT_KEYS, default="sharpe_ratio")
    sub.add_argument("--top", type=_count, metavar="N", help="how many to show (default 10; all with --json)")


def _text(text: str) -> str:
    """Whatever bytes a shell passes on, the database takes text."""
    if not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} is not printable text")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


# -- commands ------------------------------------------------------------------------------------------------------


def run_ingest(args: argparse.Namespace) -> None:
    from candlemill.io.ingest import ingest

    with _store() as store:
        report = ingest(store, args.paths, args.volume_scale)
    _print(args, report.to_dict(), report.text())


def run_backtest(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io.jobs import Home, fetch

    spec, slices = _spec(args), _slices(args)
    with _store() as store:
        home = Home(store)
        job = home.prepare(_with_span(spec, args, home), slices, args.max_gap)
        with _progress("backtest") as progress:
            ledger = home.run(job, slices, args.workers, args.no_cache, progress)
        row = ledger.last_results[0] if ledger.last_results else fetch(store, job.job_id)
    result = json.loads(row.result)
    _print(args, result, show.result(result))


def run_sweep(args: argparse.Namespace) -> None:
    from candlemill.io.jobs import Home

    spec, slices = _spec(args, args.grid), _slices(args)
    with _store() as store:
        home = Home(store)
        job = home.prepare(_with_span(spec, args, home), slices, args.max_gap)
        with _progress("sweep") as progress:
            home.run(job, slices, args.workers, args.no_cache, progress)
        _show_sweep(args, store, job.job_id, list(job.spec.grid), args.sort)


def _show_sweep(args: argparse.Namespace, store: Any, sweep_id: str, names: Sequence[str], sort: str) -> None:
    from candlemill import show

    top = args.top or (None if args.json else 10)
    total = store.count_sweep(sweep_id)
    best = store.sweep_results(sweep_id, sort, sort not in SMALLER_IS_BETTER, top)
    if args.json:
        _print_sweep(sweep_id, total, best)
    else:
        print(show.sweep([json.loads(row) for row in best], names, sort, total))
        print(f"job {sweep_id}")


def _print_sweep(job_id: str, total: int, rows: Iterable[str]) -> None:
    """One object, written piece by piece: the rows are JSON already."""
    print(f'{{"job_id":"{job_id}","sets":{total},"results":[', end="")
    for k, row in enumerate(rows):
        print("," if k else "", row, sep="", end="")
    print("]}")


def run_plan(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io.jobs import Home
    from candlemill.plan import estimate_seconds, valid_sets

    spec, slices = _spec(args, args.grid), _slices(args)
    with _store() as store:
        home = Home(store)
        job = home.prepare(_with_span(spec, args, home), slices, args.max_gap)
        row = store.job(job.job_id)
        bars = home.count_bars(job.spec)
    cached, sets = row is not None and row.state == "done", valid_sets(job.spec)
    found = {
        "job_id": job.job_id,
        "bars": bars,
        "slices": job.plan.slices,
        "cuts": job.plan.cuts,
        "sets": sets,
        "tasks": job.plan.tasks,
        "cached": cached,
        "estimated_seconds": 0.0 if cached else estimate_seconds(job.plan),
    }
    _print(args, found, show.plan(job.job_id, job.plan, bars, sets, cached))


def run_coverage(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.errors import UnknownName
    from candlemill.io.coverage import current_days

    with _store() as store:
        known = store.symbols()
        if args.symbol and args.symbol not in known:
            raise UnknownName("symbol", args.symbol, known, "`candlemill coverage` lists what is stored")
        chosen = [args.symbol] if args.symbol else known
        days = {symbol: current_days(store, symbol) for symbol in chosen}
    if args.symbol:
        text = show.coverage(args.symbol, days[args.symbol])
    else:
        text = show.coverage_summary(days) if known else "nothing is stored yet: candlemill ingest PATH"
    _print(args, {"symbols": {symbol: show.coverage_rows(rows) for symbol, rows in days.items()}}, text)


def run_results(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io.jobs import fetch

    with _store() as store:
        args.job = store.complete_id(args.job or "")
        if args.job and store.count_sweep(args.job):
            _show_sweep(args, store, args.job, list(_sweep_spec(store, args.job).grid), "sharpe_ratio")
            return
        if args.job:
            result = json.loads(fetch(store, args.job).result)
            _print(args, result, show.result(result))
            return
        rows = [(created, json.loads(row.result)) for created, row in store.recent_results(args.top or 20)]
    text = show.results_list(rows) if rows else "no results yet: candlemill backtest --help"
    _print(args, {"results": [row for _, row in rows]}, text)


def _sweep_spec(store: Any, sweep_id: str) -> Spec:
    row = store.job(sweep_id)
    if row is None:
        raise CandlemillError(f"sweep {sweep_id} has results, but its job is not stored: run it again")
    return spec_from_json(row.spec)


def run_verify(args: argparse.Namespace) -> int:
    from candlemill.io import plugins
    from candlemill.io.jobs import Home, fetch

    if args.strategy:
        plugins.load(args.strategy)
    with _store() as store:
        args.job = store.complete_id(args.job)
        if store.count_sweep(args.job):
            spec, digest = _sweep_spec(store, args.job), store.job(args.job).data_digest
            stored = ""
        else:
            result = json.loads(fetch(store, args.job).result)
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
        with _progress("verify") as progress:
            done = home.verify(job, args.job, progress)
    found = {"job_id": args.job, "same": not done.different, "sets": done.sets, "different": done.different}
    found |= {"stored": stored, "computed": done.computed} if stored else {}
    if done.different:
        name, figures = next(iter(done.different.items()))
        message = f"job {name}: stored and computed differ in {', '.join(figures)}"
        found["error"] = {"code": "different", "message": message}
        _print(args, found, f"DIFFERENT: {len(done.different):,} of {done.sets:,} parameter sets")
        print(f"candlemill: {message}", file=sys.stderr)
        return 1
    _print(args, found, f"same bits: {done.computed}" if stored else f"same bits: all {done.sets:,} parameter sets")
    return 0


def run_strategies(args: argparse.Namespace) -> None:
    from candlemill import show
    from candlemill.io import plugins

    for problem in plugins.load_offered():
        print(f"candlemill: {problem}", file=sys.stderr)
    _print(args, {"strategies": show.strategies_rows()}, show.strategies())


def run_new_strategy(args: argparse.Namespace) -> None:
    from candlemill.io.skeleton import write_strategy

    folder = write_strategy(args.name, args.kind, args.folder)
    files = sorted(str(path) for path in folder.iterdir())
    _print(args, {"files": files}, "\n".join([*files, f"{folder / 'README.md'} says how to run it"]))


def run_db(args: argparse.Namespace) -> None:
    from candlemill.io.dbserver import serve
    from candlemill.io.settings import dsn

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
    _print(
        args, found, f"candlemill {__version__}, engine {build}, code {code_digest()[:16]}, Python {found['python']}"
    )


# -- helpers -------------------------------------------------------------------------------------------------------


def _store() -> Any:
    from candlemill.io.settings import dsn
    from candlemill.io.store import Store

    return Store(dsn())


def _print(args: argparse.Namespace, found: dict[str, Any], text: str) -> None:
    print(json.dumps(found) if args.json else text)


def _spec(args: argparse.Namespace, grid: Sequence[str] = ()) -> Spec:
    """All that can be checked without the database, which is then not even opened. See `_with_span`."""
    from candlemill.io import plugins

    if args.sizing != "fixed":
        raise BadInput(f"sizing {args.sizing!r} is not built yet: use fixed")
    return resolve(
        symbol=args.symbol,
        strategy=plugins.load(args.strategy),
        span=(FIRST_MS, LAST_MS) if args.range == "all" else parse_range(args.range),
        params=_params(args.param),
        grid=parse_grid(list(grid)),
        fee=args.fee,
        slippage=args.slippage,
        stop_loss=args.stop_loss,
        take_profit=args.take_profit,
        trailing_stop=args.trailing_stop,
        fill=args.fill,
        quantity=parse_decimal(args.quantity, "quantity"),
        timeframe=parse_timeframe(args.timeframe),
    )


def _with_span(spec: Spec, args: argparse.Namespace, home: Any) -> Spec:
    """The spec with what its symbol has for the range `all`."""
    if args.range != "all":
        return spec
    start, end = home.full_span(spec.symbol)
    return msgspec.structs.replace(spec, start=start, end=end)


def _params(texts: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadInput(f"parameter {text!r} is not like fast=10")
        if name in found:
            raise BadInput(f"parameter {name!r} is given twice")
        found[name] = value
    return found


def _slices(args: argparse.Namespace) -> int | None:
    if args.slices == "auto":
        return None
    if not args.slices.isdecimal() or int(args.slices) < 1:
        raise BadInput(f"slices {args.slices!r} is neither a positive number nor auto")
    return int(args.slices)


class _progress:
    """A bar of finished tasks on stderr, for what takes longer than a second; nothing where nobody looks."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bar: Any = None

    def __enter__(self) -> Callable[[int, int], None]:
        return self._update

    def _update(self, done: int, known: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(desc=self._text, unit="task", delay=1, disable=None, dynamic_ncols=True)
        self._bar.total = known
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    sys.exit(main())
