"""A study over ten years that is killed and resumed, beside its twin that is not: python benchmarks/study.py WORK_DIR

    [--trials 300] [--years 10] [--pruner none|halving|median] [--kill-at 0.5]

Both have the same trials; the table says what each computed: slices, bars and seconds of processor time. A slice is
computed *again* where the killed process had not stored it yet. With a pruner, a trial runs over a quarter, a half and
all of the range: no bar of it is computed twice, apart from repairs of wrong guesses. Exits with 1 if the trials
differ, or a resumed study costs more than what is new and the trial that was under way.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import candlemill as cm
from candlemill.ingest.candles import ingest
from candlemill.pipeline import execute
from candlemill.store.clickhouse import ClickHouseStore
from data import synthetic

SYMBOL, SEED, FIRST_YEAR = "SYNTHUSDT", 1, 2014
SPACE = {"fast": (5, 60), "slow": (70, 400, 10), "stop_loss": "0%:5%:1%", "timeframe": ["5m", "15m", "1h"]}
WAIT_SECONDS = 3_600

Slice = tuple[str, int, int]  # the trial's set and options, and the first and last minute
Log = list[Slice]


def child(store: str, log: Path, trials: int, pruner: str) -> None:
    """Run the study in this process; write a line for each slice that is computed, and print the trials."""
    real = execute.run_slice
    with log.open("a", buffering=1) as file:

        def counting(spec: Any, window: Any, sets: Any, starts: Any, *more: Any) -> Any:
            found = real(spec, window, sets, starts, *more)
            t = window.candles.columns()["t"]
            for _, strategy in sets:
                name = f"{strategy} {spec.stop_loss} {spec.timeframe}{' repair' * (starts is not None)}"
                print(json.dumps([name, int(t[window.lo]), int(t[window.hi - 1]), window.hi - window.lo]), file=file)
            return found

        execute.run_slice = counting
        study = cm.optimize(
            SYMBOL, "sma_cross", space=SPACE, trials=trials, pruner=pruner, seed=7, workers=1, store=store,
            progress=False,
        )  # fmt: skip
    used = resource.getrusage(resource.RUSAGE_SELF)
    rows = [[one.number, one.point, one.state, one.score, one.job_id] for one in study._found.trials]
    print(json.dumps({"seconds": used.ru_utime + used.ru_stime, "study": study.study_id, "trials": rows}))


def run(store: Path, log: Path, args: argparse.Namespace, kill_at: int | None = None) -> dict[str, Any] | None:
    """Run the study in a process of its own; kill it after `kill_at` slices. Return what it printed."""
    words = [sys.executable, __file__, str(store), "--child", str(log), "--trials", str(args.trials)]
    process = subprocess.Popen([*words, "--pruner", args.pruner], stdout=subprocess.PIPE, env=os.environ)
    end = time.monotonic() + WAIT_SECONDS
    while kill_at is not None and process.poll() is None and time.monotonic() < end:
        if len(read(log)) >= kill_at:
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.05)
    out, _ = process.communicate(timeout=max(1.0, end - time.monotonic()))
    if kill_at is not None:
        assert process.returncode == -signal.SIGKILL, "the study ended before it was killed"
        return None
    assert process.returncode == 0, "the study failed"
    found: dict[str, Any] = json.loads(out)
    return found


def read(log: Path) -> list[tuple[Slice, int]]:
    """Return the slices of a log with their numbers of bars; the last line of a killed process may be cut."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [((name, first, last), bars) for name, first, last, bars in map(json.loads, lines)]


def made(folder: Path, years: int) -> Path:
    """Return a store of so many years, made once."""
    store = folder / f"years-{years}"
    if not store.exists():
        files = folder / "files"
        price = 30_000.0
        files.mkdir(parents=True, exist_ok=True)
        for number in range(FIRST_YEAR, FIRST_YEAR + years):
            candles = synthetic.year(SEED, number, price)
            price = float(candles["close"][-1]) / 1e8
            for month in range(1, 13):
                synthetic.write_month(files, SYMBOL, number, month, candles)
        with ClickHouseStore(f"chdb://{store}") as opened:
            ingest(opened, sorted(files.glob("*.zip")))
        shutil.rmtree(files)
    return store


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--pruner", choices=["none", "halving", "median"], default="none")
    parser.add_argument("--kill-at", type=float, default=0.5, help="after this share of the twin's slices")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(f"chdb://{args.folder}", args.child, args.trials, args.pruner)
        return 0
    store = made(args.folder, args.years)
    logs = {name: args.folder / f"{name}.log" for name in ("twin", "killed", "resumed")}
    for name in ("twin", "killed"):
        shutil.rmtree(args.folder / name, ignore_errors=True)
        shutil.copytree(store, args.folder / name, symlinks=True)
    for log in logs.values():
        log.unlink(missing_ok=True)
    twin = run(args.folder / "twin", logs["twin"], args)
    run(args.folder / "killed", logs["killed"], args, int(len(read(logs["twin"])) * args.kill_at))
    resumed = run(args.folder / "killed", logs["resumed"], args)
    assert twin is not None and resumed is not None
    return report(args, twin, resumed, {name: read(log) for name, log in logs.items()})


def report(args: argparse.Namespace, twin: dict[str, Any], resumed: dict[str, Any], logs: dict[str, Any]) -> int:
    slices = {name: Counter(one for one, _ in log) for name, log in logs.items()}
    new = slices["twin"] - slices["killed"]
    again = slices["resumed"] - new
    equal = twin["study"] == resumed["study"] and twin["trials"] == resumed["trials"]
    states = Counter(state for _, _, state, _, _ in twin["trials"])
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"{args.trials} trials over {args.years} years, pruner {args.pruner}: {counts}")
    for name, log in logs.items():
        bars = sum(bars for _, bars in log)
        cpu = {"twin": twin, "resumed": resumed}.get(name)
        print(f"{name:8} {len(log):6,} slices, {bars:13,} bars" + (f", {cpu['seconds']:6.1f} s of CPU" if cpu else ""))
    print(f"the trials are {'equal' if equal else 'DIFFERENT'}; new when resumed: {new.total():,} slices, "
          f"computed {slices['resumed'].total():,}, of them again {again.total():,}")  # fmt: skip
    twice = slices["twin"].total() - len(slices["twin"])
    print(f"computed twice within the twin: {twice:,} slices")
    most = max(Counter(name.removesuffix(" repair") for name, _, _ in slices["twin"]).values())  # of one trial
    return 0 if equal and again.total() <= most and not twice else 1


if __name__ == "__main__":
    sys.exit(main())
