"""Thousands of runs in which everything goes wrong, around the functions' own handlers: see docs/simulation.md."""

import subprocess
import sys
from pathlib import Path

from loadtests.simulation.__main__ import told
from loadtests.simulation.faults import EVENTS, RATES
from loadtests.simulation.run import shrunk, simulate

RUNS = 2_000


def test_every_job_ends_in_the_right_bits_or_with_a_reason() -> None:
    fired: set[str] = set()
    states: set[str] = set()
    for seed in range(1_000_000, 1_000_000 + RUNS):
        found = simulate(seed)
        assert not found.wrong, told(shrunk(seed))
        fired |= {name for name, _ in found.fired}
        states |= set(found.states)
    assert fired == {*RATES, *EVENTS}
    assert states >= {"done", "failed"}


def test_a_seed_is_one_run() -> None:
    """In another process too, whose sets of strings have another order."""
    script = "from loadtests.simulation.run import simulate; print(*(simulate(k).digest for k in range(20)))"
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=_environment()
    )
    assert other.stdout.split() == [simulate(k).digest for k in range(20)]


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[1]
    return {"PYTHONPATH": f"{root / 'core'}:{root}", "PYTHONHASHSEED": "7"}
