"""Kills of `feed` and of `paper` on the simulated exchange, by seed, until so many have been killed.

Each seed is one of `exchange_simulator.torture` or of `exchange_simulator.paper`, over fewer hours: a process is killed
again and again, the last one ends in order, and then what it left is compared. *Wrong* are seeds whose store is not the
exchange's row for row, or whose run is not a backtest; *stuck* are those in which a process did not end or catch up.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadtests.exchange_simulator import paper, torture

HOURS = {"feed": 4.0, "paper": 1.0}
SPEED = {"feed": 3_600.0, "paper": 600.0}


def _feed(seed: int, folder: Path) -> tuple[int, list[str]]:
    found = asyncio.run(torture.torture(seed, HOURS["feed"], SPEED["feed"], folder))
    wrong = [f"{place} {name}: {n}" for place in ("live", "files") for name, n in found[place].items() if n]
    return sum(n for name, n in found["kills"].items() if name not in ("stopped", "ended by itself")), wrong


def _paper(seed: int, folder: Path) -> tuple[int, list[str]]:
    found = asyncio.run(paper.torture(seed, HOURS["paper"], SPEED["paper"], folder))
    return found["kills"], found["wrong"]


KINDS: dict[str, Callable[[int, Path], tuple[int, list[str]]]] = {"feed": _feed, "paper": _paper}


def run(kind: str, first: int, kills: int) -> int:
    """Run seeds from `first` on until so many kills are done; print what failed and the counts; return how many did."""
    counts: dict[str, Any] = {"kills": 0, "seeds": 0, "wrong": 0, "stuck": 0}
    seed = first
    while counts["kills"] < kills:
        with tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True) as name:
            try:
                done, wrong = KINDS[kind](seed, Path(name))
                counts["kills"] += done
                counts["wrong"] += bool(wrong)
            except Exception as error:  # of whatever kind: the process did not do what it had to
                wrong = [f"{type(error).__name__}: {error}"]
                counts["kills"] += 1
                counts["stuck"] += 1
        for text in wrong:
            print(f"seed {seed}, {kind}: {text}", flush=True)
        counts["seeds"] += 1
        print(f"{kind}, seed {seed}: {counts}", file=sys.stderr, flush=True)
        seed += 1
    print(f"{kind}, seeds from {first} on: {counts}", flush=True)
    return int(counts["wrong"] + counts["stuck"])
