"""Measure candlemill against plain loops, vectorbt and its own aims.

    python benchmarks/bench.py [ROW …] [--quick] [--keep] [--vectorbt-python PATH]
        [--raptorbt-python PATH] [--page] [--list]

Contenders take turns within one run and are compared by the median of their per-round ratios. Nothing here passes or
fails by a time; only different figures are an error. README.md tells what each row is.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from lab import RESULTS, Lab, say
from measure import Row, load_now, machine, write_table
from rows.engine import rows_raptorbt, rows_run, rows_stops, rows_sweep, rows_vectorbt
from rows.gateway import rows_gateway
from rows.guess import rows_guesses
from rows.process import rows_ingest, rows_memory, rows_process, rows_slices, rows_workers
from rows.ready import rows_ready
from rows.research import rows_guards, rows_report
from rows.reuse import rows_reuse
from rows.strategies import rows_strategies
from tabulate import tabulate

ROWS: dict[str, Callable[[Lab], Iterator[Row]]] = {
    "run": rows_run,
    "stops": rows_stops,
    "sweep": rows_sweep,
    "vectorbt": rows_vectorbt,
    "raptorbt": rows_raptorbt,
    "memory": rows_memory,
    "workers": rows_workers,
    "process": rows_process,
    "ready": rows_ready,
    "ingest": rows_ingest,
    "slices": rows_slices,
    "reuse": rows_reuse,
    "guesses": rows_guesses,
    "strategies": rows_strategies,
    "guards": rows_guards,
    "report": rows_report,
    "gateway": rows_gateway,
}
PAGE = Path(__file__).with_name("README.md")
HEADERS = ("what", "candlemill", "peer", "ratio", "reach", "aim")
ALIGNED = ("left", "right", "left", "right", "right", "right")


def main() -> int:
    arguments = parser().parse_args()
    if arguments.list:
        for name, rows in ROWS.items():
            print(f"{name:10}{rows.__doc__}")
        return 0
    about = machine()
    if not about["engine_compiled"]:
        say("the engine is NOT compiled: these are the figures of interpreted Python")
    lab = Lab(arguments.quick, arguments.keep, arguments.vectorbt_python, arguments.raptorbt_python)
    found: dict[str, list[Row]] = {}
    try:
        for name in arguments.rows or ROWS:
            say(f"{name}: {ROWS[name].__doc__}")
            found[name] = list(ROWS[name](lab))
    finally:
        lab.close()
    cells = [row.cells() for rows in found.values() for row in rows]
    print(tabulate(cells, headers=HEADERS, disable_numparse=True, colalign=ALIGNED))
    if arguments.page:
        table = tabulate(cells, headers=HEADERS, disable_numparse=True, colalign=ALIGNED, tablefmt="pipe")
        when = f"{datetime.now(UTC):%Y-%m-%d}, {about['cpu']}, {about['cores']} cores, load {load_now()} at the end"
        write_table(PAGE, "benchmarks/bench.py --page", f"{when}.\n\n{table}")
    print(f"\n{about['cpu']}, {about['cores']} cores; written to {write(about, found, arguments.quick)}")
    return 0


def write(about: dict[str, object], found: dict[str, list[Row]], quick: bool) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "latest.json"
    rows = {name: [row.to_dict() for row in rows] for name, rows in found.items()}
    when = datetime.now(UTC).isoformat(timespec="seconds")
    path.write_text(json.dumps({"when": when, "quick": quick, "machine": about, "rows": rows}, indent=1))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description="Measure candlemill against plain loops, vectorbt and its own aims.")
    names = f"any of {', '.join(ROWS)} (default all)"
    found.add_argument("rows", nargs="*", metavar="ROW", choices=[*ROWS, []], help=names)
    found.add_argument("--quick", action="store_true", help="a third of the rounds")
    found.add_argument("--keep", action="store_true", help="keep the synthetic zips for the next run")
    found.add_argument("--vectorbt-python", type=Path, metavar="PATH", help="an interpreter that has vectorbt")
    found.add_argument("--raptorbt-python", type=Path, metavar="PATH", help="an interpreter that has raptorbt")
    found.add_argument("--page", action="store_true", help="also write the table into README.md")
    found.add_argument("--list", action="store_true", help="list the rows")
    return found


if __name__ == "__main__":
    sys.exit(main())
