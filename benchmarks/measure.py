"""Timing, ratios, and the table's rows."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from candlemill.backtests.identity import code_digest
from candlemill.engine.compiled import COMPILED

OURS = "candlemill"
WARM_UP_ROUNDS = 2

Timer = Callable[[], int]  # runs once and returns nanoseconds
Times = dict[str, list[int]]


@dataclass
class Row:
    """One line of the table. `raw` is what the figures were made from."""

    what: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    reach: str = ""
    aim: str = ""
    raw: dict[str, Any] = field(default_factory=dict)

    def cells(self) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        return [self.what, self.ours, self.peer, ratio, self.reach, self.aim]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def write_table(page: Path, writer: str, text: str) -> None:
    """Put a table between `<!-- written by WRITER -->` and `<!-- end -->`. Raises ValueError without these lines."""
    whole = page.read_text()
    begin = whole.index(mark := f"<!-- written by {writer} -->") + len(mark)
    page.write_text(f"{whole[:begin]}\n\n{text}\n\n{whole[whole.index('<!-- end -->', begin) :]}")


def load_now() -> str:
    """Return how many processes have wanted a core in the last minutes, as text."""
    return f"{os.getloadavg()[1]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def timed(call: Callable[[], object]) -> Timer:
    def run() -> int:
        begin = time.perf_counter_ns()
        call()
        return time.perf_counter_ns() - begin

    return run


def alternate(contenders: Mapping[str, Timer], rounds: int, warm_up: int = WARM_UP_ROUNDS) -> Times:
    """A B C A B C …: what disturbs the machine for a while disturbs everyone."""
    times: Times = {name: [] for name in contenders}
    for number in range(-warm_up, rounds):
        for name, run in contenders.items():
            taken = run()
            if number >= 0:
                times[name].append(taken)
    return times


def ratio_of(times: Times, peer: str) -> float:
    """How many times faster than `peer` we are: the median of the ratios within each round."""
    return median(theirs / ours for ours, theirs in zip(times[OURS], times[peer], strict=True))


def compared(what: str, times: Times, peer: str, reach: str, aim: str, peers_share: float = 1, note: str = "") -> Row:
    """A row of speeds. `peers_share` is the part of the work that the peer was timed on: the rest is scaled."""
    raw: dict[str, Any] = {
        "median_ns": {name: median(taken) for name, taken in times.items()},
        "peers_share": peers_share,
        "rounds": len(times[OURS]),
    }
    return Row(
        what,
        milliseconds(median(times[OURS])),
        f"{peer} {milliseconds(median(times[peer]) / peers_share)}{note}",
        ratio_of(times, peer) / peers_share,
        reach,
        aim,
        raw,
    )


def milliseconds(ns: float) -> str:
    return f"{ns / 1e6:,.2f} ms" if ns < 1e8 else f"{ns / 1e9:,.2f} s"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in ("candlemill", "numpy", "librt", "numba", "chdb")},
        "gcc": _first_line(["gcc", "--version"]),
        "engine_compiled": COMPILED,
        "code_digest": code_digest(),
        "commit": _first_line(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str:
    if name == "candlemill":
        import candlemill._version

        return candlemill._version.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _first_line(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return ""
