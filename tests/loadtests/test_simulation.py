"""Thousands of runs in which everything goes wrong, around the functions' own handlers: see docs/simulation.md."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from candlemill.backtests.merge import Outcomes
from candlemill.backtests.spec_rules import places_orders, sees_panel
from candlemill.pipeline import aggregate, split
from candlemill.pipeline.cache_keys import JobData
from candlemill.pipeline.job_state import attempt_of, kind_of
from candlemill.store import candle_reader
from msgspec import structs

from loadtests.fault_simulation import judge, tables
from loadtests.fault_simulation.__main__ import output
from loadtests.fault_simulation.cases import families
from loadtests.fault_simulation.faults import EVENTS, RATES
from loadtests.fault_simulation.run import shrunk, simulate

RUNS = 1_000
FIRST = 1_000_000
# Once a violation, and rarer than one in a million runs.
FOUND = [
    6_321_898,  # a fresh portfolio takes a step's attempt after one that a clock ahead of its own has numbered
]


def test_every_job_ends_in_the_right_bits_or_with_a_reason() -> None:
    fired: set[str] = set()
    states: set[str] = set()
    for seed in (*FOUND, *range(FIRST, FIRST + RUNS)):
        found = simulate(seed)
        assert not found.wrong, output(shrunk(seed))
        fired |= {name for name, _ in found.fired}
        states |= set(found.states)
    assert fired == {*RATES, *EVENTS}
    assert states == {"done", "failed", "cancelled"}


def test_jobs_of_all_kinds_are_requested() -> None:
    requested = [one for family in families().values() for one in family]
    assert {kind_of(one) for one in requested} == {
        "backtest", "sweep", "portfolio", "walk_forward", "sweeps", "walk_forwards"
    }  # fmt: skip
    for is_such in (sees_panel, places_orders):
        found = [one for one in requested if is_such(one.spec.strategy)]
        assert {bool(one.spec.grid) for one in found} == {True, False}
    cash = [one.spec for one in requested if one.spec.account == "cash"]
    assert {spec.margin for spec in cash} == {"none", "isolated", "cross"}
    assert {1, 2, 9} <= {spec.combinations for spec in cash if not sees_panel(spec.strategy)}


def test_a_seed_is_one_run() -> None:
    """In another process too, whose sets of strings have another order."""
    script = "from loadtests.fault_simulation.run import simulate; print(*(simulate(k).digest for k in range(20)))"
    root = Path(__file__).parents[2]
    env = {"PYTHONPATH": f"{root / 'core'}:{root}", "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=300, text=True, check=True, env=env
    )
    assert other.stdout.split() == [simulate(k).digest for k in range(20)]


def _unchecked(self: Outcomes, point: int, number: int, start: str) -> Any:
    """What was made of a slice from any state."""
    return next((found for key, found in self._found.items() if key[:2] == (point, number)), None)


SABOTAGE = {
    "than the uncut run": [  # of candles that lack some
        (candle_reader, "check_read", lambda symbol, columns, days: None),
        (JobData, "bars", lambda self, start, end: (0, 1 << 60)),
    ],
    "has other bits": [(Outcomes, "find", _unchecked)],
    "was done and is": [(tables, "later", lambda known, row: row), (judge, "later", lambda known, row: row)],
    "nobody requested": [
        (
            split,
            "attempt_of",
            lambda known, request, plan, now: structs.replace(attempt_of(known, request, plan, now), number=now + 1),
        ),
    ],
    "nobody received": [
        (aggregate, "ended", lambda source, job: []),
    ],
}


@pytest.mark.parametrize("finding", SABOTAGE)
def test_it_tells_a_broken_system(finding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for target, name, broken in SABOTAGE[finding]:
        monkeypatch.setattr(target, name, broken)
    assert any(finding in text for seed in range(200) for text in simulate(seed).wrong)
