"""Two versions of candlemill on the same work in turns: the tree, and the wheel of an earlier release.

    python benchmarks/compare.py OTHER_PYTHON [--rounds 9]

OTHER_PYTHON is the interpreter of an environment that has the other version: `make bench-compare WHEEL=FILE` makes one.
Each version runs in a process of its own and times itself; they take turns, so that what disturbs the machine disturbs
both. A ratio above 1 says that the tree is faster. Only Python's public interface is used: it outlives releases.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

STOPS = {"stop_loss": "1%", "take_profit": "2%"}
GRID = {"fast": list(range(5, 101, 5)), "slow": list(range(110, 601, 20))}
WORKS = ("one run", "one run with stops", "supertrend", "sweep of 500 pairs")
GAPS = 10**6  # minutes: the synthetic market has outages
SECONDS = 600  # for one answer


def main() -> int:
    found = argparse.ArgumentParser(description="Time two versions of candlemill in turns.")
    found.add_argument("other", help="the interpreter of the other version's environment; --worker is for this program")
    found.add_argument("data", nargs="?", help=argparse.SUPPRESS)
    found.add_argument("--rounds", type=int, default=9, help="timed rounds of each work (default 9)")
    given = found.parse_args()
    if given.other == "worker":
        return work_for(given.data)
    return compare(given.other, given.rounds)


# -- in the process of one version -------------------------------------------------------------------------------------


def work_for(data: str) -> int:
    """Answer each line of standard input, the name of a work, with its nanoseconds and its figures."""
    import candlemill as cm
    import numpy as np

    with np.load(data) as columns:
        candles = cm.Candles.from_columns(dict(columns), scaled=True)
    print(json.dumps({"version": cm.__version__, "path": cm.__file__}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter_ns()
        figures = run(cm, candles, line.strip())
        taken = time.perf_counter_ns() - begin
        print(json.dumps({"ns": taken, "figures": figures}), flush=True)
    return 0


def run(cm: Any, candles: Any, name: str) -> list[int]:
    """Do one work; return profit and fills of its best set."""
    if name.startswith("sweep"):
        best = cm.sweep(candles, "sma_cross", **GRID, workers=1, fresh=True, max_gap=GAPS, progress=False).best()
        return [best.result["total_pnl"], best.result["fills"]]
    options: dict[str, Any] = STOPS if name.endswith("stops") else {}
    strategy = "supertrend" if name == "supertrend" else "sma_cross"
    result = cm.backtest(candles, strategy, fresh=True, max_gap=GAPS, progress=False, **options).result
    return [result["total_pnl"], result["fills"]]


# -- the comparison ----------------------------------------------------------------------------------------------------


class Version:
    """One version's process."""

    def __init__(self, python: str, data: Path) -> None:
        command = [python, __file__, "worker", str(data)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()

    def do(self, work: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(work + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a version ended early: its error is above")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.communicate(timeout=SECONDS)


def compare(other: str, rounds: int) -> int:
    import numpy as np
    from data.market import one_year
    from tabulate import tabulate

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "year.npz")
        market = one_year()
        np.savez(data, volume=np.ones(market.n, dtype=np.int64), **market.columns)
        versions = [Version(sys.executable, data), Version(other, data)]
        rows = [(work, *turns(versions, work, rounds)) for work in WORKS]
        for one in versions:
            one.close()
    tree, wheel = (f"{one.about['version']} ({name})" for one, name in zip(versions, ("tree", "other"), strict=True))
    print(tabulate(rows, headers=("work", tree, wheel, "other / tree", "figures"), disable_numparse=True))
    return 0


def turns(versions: list[Version], work: str, rounds: int) -> tuple[str, str, str, str]:
    """Times of both versions in ms, the median of the ratios of each round, and whether their figures are the same."""
    taken: list[list[int]] = [[], []]
    figures: list[Any] = [None, None]
    for number in range(-1, rounds):  # the first round warms up
        for k, version in enumerate(versions):
            answer = version.do(work)
            figures[k] = answer["figures"]
            if number >= 0:
                taken[k].append(answer["ns"])
    ratio = median(b / a for a, b in zip(*taken, strict=True))
    output = [f"{median(ns) / 1e6:,.1f} ms" for ns in taken]
    return (
        output[0],
        output[1],
        f"{ratio:.2f}",
        "the same" if figures[0] == figures[1] else f"{figures[0]}, {figures[1]}",
    )


if __name__ == "__main__":
    sys.exit(main())
