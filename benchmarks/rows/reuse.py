"""Rows of what is not computed again, and of what keeping it costs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from lab import Lab, environment
from measure import Row, milliseconds

EXTEND = Path(__file__).parents[1] / "extend.py"


def rows_reuse(lab: Lab) -> Iterator[Row]:
    """Ten years that became a day longer against the ten years, and jobs that keep outcomes against others."""
    store = lab.ten_years_store
    command = [sys.executable, str(EXTEND), str(store), str(lab.rounds(5))]
    done = subprocess.run(command, env=environment(store), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    for sets, times in found["extended"].items():
        yield _row(f"ten years a day longer, {sets} sets", [pair[:2] for pair in times], "whole", 1, "<= 0.05 x")
        again = [after for _, _, after in times]
        what = f"ten years, {sets} sets, requested again in an open store"
        yield Row(what, milliseconds(median(again)), reach="<= 10 ms", raw={"ns": again})
    for sets, times in found["kept"].items():
        yield _row(f"a year with outcomes kept, {sets} sets", times, "without", 0, "<= 1.05 x")


def _row(what: str, times: list[list[int]], peer: str, ours: int, reach: str) -> Row:
    mine, other = ([pair[k] for pair in times] for k in (ours, 1 - ours))
    ratio = median(a / b for a, b in zip(mine, other, strict=True))
    raw = {"ns": mine, f"{peer}_ns": other}
    return Row(what, milliseconds(median(mine)), f"{peer} {milliseconds(median(other))}", ratio, reach, "", raw)
