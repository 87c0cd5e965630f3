"""Measure what large sweeps cost on this machine, and write the table of docs/howto/sweep.md.

    python benchmarks/large_sweeps.py [--case SETS:SPAN …] [--most SETS] [--workers N] [--keep] [--print]

Each line is `candlemill sweep` of sma_cross as a process of its own, on an embedded store, with its guards and nothing
stored before: a month of minutes, a year or ten. The times include the start of the process and of its workers. The
longest are interrupted with Ctrl-C at half of their tasks, and requested again: their lines are the sums of both
processes. It fails if a sweep lacks sets or guards, if one that was interrupted computes again what it had stored, if
its progress is far from its time, or if its memory grows.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from data.market import SYMBOL, YEAR
from lab import Lab, environment, say
from measure import load_now, write_table
from watched import Watched, watch

PAGE = Path(__file__).parents[1] / "docs/howto/sweep.md"
RANGES = {  # of the stored candles; empty: all of them
    "month": f"{YEAR}-01",
    "year": str(YEAR),
    "ten-years": "",
}
INTERRUPTED = 130  # the exit status after Ctrl-C
LOST_SECONDS, LOST_TASKS = 1, 4  # results that are not stored yet; batches that two workers have in hand and next
GROWTH = 30e6  # bytes in the last third of a run
LOOKS, TASKS = 60, 50  # of a run, from which on its memory and its progress are judged
DEVIATION = 0.15  # of the share of tasks from that of time


@dataclass(frozen=True)
class Case:
    sets: int
    span: str
    stopped: bool = False  # at half of its tasks

    @property
    def grid(self) -> tuple[str, str]:
        """Values of both parameters; every pair is valid."""
        fast = next(
            count for least, count in ((1_000_000, 500), (100_000, 200), (10_000, 100), (0, 10)) if self.sets >= least
        )
        first = max(100, fast + 2)
        return f"2:{fast + 1}", f"{first}:{first + self.sets // fast - 1}"

    def __str__(self) -> str:
        return f"{self.sets:,} × {'10 years' if self.span == 'ten-years' else f'1 {self.span}'}"


CASES = [
    Case(1_000, "month"),
    Case(10_000, "month"),
    Case(10_000, "year"),
    Case(10_000, "ten-years", True),
    Case(100_000, "month"),
    Case(1_000_000, "month"),
    Case(1_000_000, "year", True),
]


def main() -> int:
    options = parser().parse_args()
    lab = Lab(True, options.keep, None)
    cases = options.case or [case for case in CASES if case.sets <= options.most]
    try:
        lines = [line(lab, case, options.workers) for case in cases]
    finally:
        lab.close()
    text = table([cells for cells, _ in lines])
    print(text)
    faults = [fault for _, found in lines for fault in found]
    if not options.print and not faults:
        write_table(PAGE, "benchmarks/large_sweeps.py", text)
    for fault in faults:
        print(f"FAILED {fault}", file=sys.stderr)
    return 1 if faults else 0


def line(lab: Lab, case: Case, workers: int) -> tuple[list[str], list[str]]:
    """Run a case. Return the cells of its line, and what is wrong with it."""
    say(str(case))
    store = lab.folder("sweep")
    source = lab.ten_years_store if case.span == "ten-years" else lab.year_store
    shutil.copytree(source, store, dirs_exist_ok=True, symlinks=True)
    empty = used(store)
    fast, slow = case.grid
    within = ["--range", RANGES[case.span]] if RANGES[case.span] else []
    arguments = [*within, "--grid", f"fast={fast}", "--grid", f"slow={slow}"]
    sweep = ["sweep", "--symbol", SYMBOL, "--strategy", "sma_cross", *arguments, "--workers", str(workers)]
    command = [sys.executable, "-m", "candlemill", *sweep, "--top", "5", "--json"]
    runs = [watch(command, environment(store), 0.5 if case.stopped else None)]
    if case.stopped:
        runs.append(watch(command, environment(store)))
    cells = [
        f"{case}{', interrupted once' if case.stopped else ''}",
        f"{sum(run.seconds for run in runs):,.0f} s",
        f"{sum(run.cpu_seconds for run in runs):,.0f} s",
        f"{max(run.peak for run in runs) / 1e6:,.0f} MB",
        f"{(used(store) - empty) / 1e6:,.0f} MB",
    ]
    shutil.rmtree(store)
    for run in runs:
        say(
            f"{run.seconds:,.1f} s, {run.tasks[0]:,} of {run.tasks[1]:,} tasks, at most {run.peak / 1e6:,.0f} MB, "
            f"{run.growth() / 1e6:+,.0f} MB at the end, progress off by {run.deviation():.0%} of the time"
        )
    return cells, [f"{case}: {fault}" for fault in faults_of(case, runs)]


def faults_of(case: Case, runs: list[Watched]) -> list[str]:
    last = runs[-1]
    if last.status:
        return [f"exit status {last.status}: {last.errors[-500:]}"]
    found = []
    if last.answer["sets"] != case.sets or not last.answer["guards"]:
        found.append(f"{last.answer['sets']:,} sets, guards {last.answer['guards']}")
    if case.stopped:
        done, known = runs[0].tasks
        lost = last.tasks[1] - (known - done)
        most = LOST_TASKS + LOST_SECONDS * done / max(1.0, runs[0].seconds - LOST_SECONDS)
        if runs[0].status != INTERRUPTED:
            found.append(f"exit status {runs[0].status} instead of {INTERRUPTED}: {runs[0].errors[-500:]}")
        elif last.tasks[1] and not 0 <= lost <= most:
            found.append(f"{done:,} of {known:,} tasks were done, and {last.tasks[1]:,} were left: {lost:,} again")
    for run in runs:
        if len(run.looks) < LOOKS or run.tasks[1] < TASKS:
            continue  # its start is most of it
        if run.growth() > GROWTH:
            found.append(f"the largest process grew by {run.growth() / 1e6:,.0f} MB in the last third")
        if run.deviation() > DEVIATION:
            found.append(f"the progress bar was off by {run.deviation():.0%}")
    return found


def used(folder: Path) -> int:
    """Return the bytes of a folder's files, each counted once."""
    return sum({(s.st_dev, s.st_ino): s.st_size for s in (f.stat() for f in folder.rglob("*") if f.is_file())}.values())


def table(lines: list[list[str]]) -> str:
    head = ["sets", "time", "processor time", "largest process", "stored"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    about = f"Two-parameter grid of `sma_cross`, {len(os.sched_getaffinity(0))} cores, load {load_now()} at the end."
    return "\n".join([*("| " + " | ".join(row) + " |" for row in rows), "", about])


def case_argument(text: str) -> Case:
    sets, _, span = text.partition(":")
    if not sets.isdecimal() or span not in RANGES:
        raise argparse.ArgumentTypeError(f"{text!r} is not SETS:SPAN with a SPAN of {', '.join(RANGES)}")
    count = int(sets)
    return next((case for case in CASES if (case.sets, case.span) == (count, span)), Case(count, span, True))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description="Measure what large sweeps cost, and write the table of the page.")
    only = "only this one, such as 20000:year or 500:ten-years; repeatable"
    found.add_argument("--case", type=case_argument, action="append", metavar="SETS:SPAN", help=only)
    found.add_argument("--most", type=int, default=1_000_000, metavar="SETS", help="the largest sweep (default all)")
    found.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default 2)")
    found.add_argument("--keep", action="store_true", help="keep the synthetic zips for the next run")
    found.add_argument("--print", action="store_true", help="leave the page as it is")
    return found


if __name__ == "__main__":
    sys.exit(main())
