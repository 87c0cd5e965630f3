"""Commands that show and verify stored results, and list strategies."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from candlemill._version import __version__
from candlemill.backtests.spec import spec_from_json
from candlemill.cli import jobs
from candlemill.cli.arguments import open_store, output
from candlemill.engine.compiled import COMPILED
from candlemill.errors import BadInput, CandlemillError
from candlemill.progress import progress_bar

if TYPE_CHECKING:  # late import: else every command would take longer to start
    from candlemill.store.clickhouse import ClickHouseStore


def run_results(args: argparse.Namespace) -> None:
    from candlemill.cli import tables
    from candlemill.local.runner import fetch
    from candlemill.store.day_index import FrozenIndex
    from candlemill.store.integrity import result_problem

    with open_store() as store:
        args.job = store.complete_id(args.job or "")
        if args.job and store.count_sweep(args.job):
            jobs.show_sweep(args, store, args.job, "sharpe_ratio")
            return
        row = store.job(args.job) if args.job else None
        if row is not None and row.kind == "study":
            from candlemill.cli.studies import show_study
            from candlemill.studies.study import study_of

            show_study(args, study_of(row))
            return
        if args.job:
            result = json.loads(fetch(store, args.job).result)
            if why := result_problem(FrozenIndex(store), result):
                result["suspicion"] = why
                print(f"candlemill: {why}", file=sys.stderr)
            output(args, result, tables.portfolio(result) if "parts" in result else tables.result(result))
            return
        limit = args.top or 20
        rows = [(created, json.loads(row.result)) for created, row in store.recent_results(limit)]
        sweeps = _recent_sweeps(store, limit)
    newest = sorted([*rows, *sweeps], key=lambda one: one[0], reverse=True)[:limit]
    text = tables.results_list(newest) if newest else "no results yet: candlemill backtest --help"
    output(args, {"results": [row for _, row in rows], "sweeps": [row for _, row in sweeps]}, text)


def _recent_sweeps(store: "ClickHouseStore", limit: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the newest sweeps, each with the figures of its best set and the time when its results were stored."""
    recent = {sweep_id: created for created, sweep_id in store.recent_sweeps(limit)}
    jobs, best = store.job_rows(list(recent)), store.best_figures(list(recent))
    found = []
    for sweep_id, created in recent.items():
        if sweep_id not in jobs:  # removed between the two queries
            continue
        spec = json.loads(jobs[sweep_id].spec)
        profit, sharpe, drawdown, sets = best[sweep_id]
        row = {"job_id": sweep_id, "strategy_id": spec["strategy"], "sets": sets, "spec": spec, "total_pnl": profit}
        row |= {"sharpe_ratio": sharpe, "max_drawdown": drawdown, "params": spec["params"]}
        found.append((created, row | {name: spec[name] for name in ("symbol", "start", "end")}))
    return found


def run_verify(args: argparse.Namespace) -> int:
    from candlemill.local.runner import JobRunner, fetch, sweep_row
    from candlemill.pipeline.cache_keys import symbol_data
    from candlemill.store.integrity import check_days
    from candlemill.strategies import loader

    if args.strategy:
        loader.load(args.strategy)
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
        loader.load(spec.strategy)
        runner = JobRunner(store, strategy_seconds=args.strategy_seconds)
        job = runner.prepare(spec, None)
        if job.data_digest != digest:
            raise CandlemillError(
                f"the candles have changed since: their digest was {digest[:16]}, is {job.data_digest[:16]}; "
                "run it again for the new ones"
            )
        for symbol in spec.symbols:
            check_days(store, symbol, symbol_data(runner.index, msgspec.structs.replace(job.spec, symbol=symbol)).days)
        with progress_bar("verify") as progress:
            done = runner.verify(job, args.job, progress)
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
    from candlemill.cli import tables
    from candlemill.strategies import loader

    for problem in loader.load_offered():
        print(f"candlemill: {problem}", file=sys.stderr)
    output(args, {"strategies": tables.strategies_rows()}, tables.strategies())


def run_new_strategy(args: argparse.Namespace) -> None:
    from candlemill.strategies.scaffold import write_strategy

    folder = write_strategy(args.name, args.kind, args.folder)
    files = sorted(str(path) for path in folder.iterdir())
    output(args, {"files": files}, "\n".join([*files, f"{folder / 'README.md'} says how to run it"]))


def run_version(args: argparse.Namespace) -> None:
    from candlemill.backtests.identity import code_digest

    build = "compiled" if COMPILED else "pure Python"
    found = {"version": __version__, "engine": build, "code_digest": code_digest(), "python": sys.version.split()[0]}
    output(
        args, found, f"candlemill {__version__}, engine {build}, code {code_digest()[:16]}, Python {found['python']}"
    )
