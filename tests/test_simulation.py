"""Thousands of runs in which everything goes wrong, around the functions' own handlers: see docs/simulation.md."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from candlemill import service
from candlemill.reduce import Outcomes

from loadtests.simulation import judge, tables
from loadtests.simulation.__main__ import told
from loadtests.simulation.faults import EVENTS, RATES
from loadtests.simulation.run import shrunk, simulate

RUNS = 2_000
FIRST = 1_000_000


def test_every_job_ends_in_the_right_bits_or_with_a_reason() -> None:
    fired: set[str] = set()
    states: set[str] = set()
    for seed in range(FIRST, FIRST + RUNS):
        found = simulate(seed)
        assert not found.wrong, told(shrunk(seed))
        fired |= {name for name, _ in found.fired}
        states |= set(found.states)
    assert fired == {*RATES, *EVENTS}
    assert states == {"done", "failed", "cancelled"}


def test_a_seed_is_one_run() -> None:
    """In another process too, whose sets of strings have another order."""
    script = "from loadtests.simulation.run import simulate; print(*(simulate(k).digest for k in range(20)))"
    root = Path(__file__).parents[1]
    env = {"PYTHONPATH": f"{root / 'core'}:{root}", "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert other.stdout.split() == [simulate(k).digest for k in range(20)]


def _unchecked(self: Outcomes, point: int, number: int, start: str) -> Any:
    """What was made of a slice from any state."""
    return next((found for key, found in self._found.items() if key[:2] == (point, number)), None)


SABOTAGE = {
    "has other bits": [(Outcomes, "find", _unchecked)],
    "was done and is": [(tables, "later", lambda known, row: row), (judge, "later", lambda known, row: row)],
    "nobody was told": [(service, "completed", lambda source, name: []), (service, "ended", lambda source, job: [])],
}


@pytest.mark.parametrize("finding", SABOTAGE)
def test_it_tells_a_broken_system(finding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for target, name, broken in SABOTAGE[finding]:
        monkeypatch.setattr(target, name, broken)
    assert any(finding in text for seed in range(200) for text in simulate(seed).wrong)
