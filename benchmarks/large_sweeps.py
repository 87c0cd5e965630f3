"""Measure what large sweeps cost on this machine, and write the table of docs/howto/sweep.md.

    python benchmarks/large_sweeps.py [--most SETS] [--workers N] [--keep] [--print]

Each line is `candlemill sweep` of sma_cross as a process of its own, on an embedded store, with its guards and nothing
cached: a month of minutes, and with fewer sets a year. The times include the start of the process and of its workers.
"""

import argparse
import os
import shutil
from pathlib import Path

from data.market import SYMBOL, YEAR
from lab import Lab, Run, say
from measure import load_now, write_table

PAGE = Path(__file__).parents[1] / "docs/howto/sweep.md"
GRIDS = {  # sets, and the values of both parameters: every pair is valid
    1_000: ("2:11", "100:199"),
    10_000: ("2:101", "102:201"),
    100_000: ("2:201", "202:701"),
    1_000_000: ("2:501", "502:2501"),
}
YEARLY = 10_000


def main() -> None:
    options = parser().parse_args()
    lab = Lab(True, options.keep, None)
    try:
        lines = [
            line(lab, sets, f"{YEAR}-01" if month else str(YEAR), "month" if month else "year", options.workers)
            for sets in GRIDS
            for month in (True, False)
            if sets <= options.most and (month or sets == YEARLY)
        ]
    finally:
        lab.close()
    text = table(lines)
    print(text)
    if not options.print:
        write_table(PAGE, "benchmarks/large_sweeps.py", text)


def line(lab: Lab, sets: int, span: str, what: str, workers: int) -> list[str]:
    say(f"{sets:,} sets of a {what}")
    store = lab.folder("sweep")
    shutil.copytree(lab.year_store, store, dirs_exist_ok=True, symlinks=True)
    empty = used(store)
    fast, slow = GRIDS[sets]
    arguments = ["--range", span, "--grid", f"fast={fast}", "--grid", f"slow={slow}", "--workers", str(workers)]
    run = lab.cli(store, "sweep", "--symbol", SYMBOL, "--strategy", "sma_cross", *arguments, "--no-cache", "--top", "5")
    return [
        f"{sets:,} × 1 {what}",
        *times(run),
        f"{run.peak_bytes / 1e6:,.0f} MB",
        f"{(used(store) - empty) / 1e6:,.0f} MB",
    ]


def times(run: Run) -> list[str]:
    return [f"{run.wall_ns / 1e9:,.0f} s", f"{run.cpu_ns / 1e9:,.0f} s"]


def used(folder: Path) -> int:
    """Return the bytes of a folder's files, each counted once."""
    return sum({(s.st_dev, s.st_ino): s.st_size for s in (f.stat() for f in folder.rglob("*") if f.is_file())}.values())


def table(lines: list[list[str]]) -> str:
    head = ["sets", "time", "processor time", "largest process", "stored"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    about = f"Two-parameter grid of `sma_cross`, {len(os.sched_getaffinity(0))} cores, load {load_now()} at the end."
    return "\n".join([*("| " + " | ".join(row) + " |" for row in rows), "", about])


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description="Measure what large sweeps cost, and write the table of the page.")
    found.add_argument("--most", type=int, default=1_000_000, metavar="SETS", help="the largest sweep (default all)")
    found.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default 2)")
    found.add_argument("--keep", action="store_true", help="keep the synthetic zips for the next run")
    found.add_argument("--print", action="store_true", help="leave the page as it is")
    return found


if __name__ == "__main__":
    main()
