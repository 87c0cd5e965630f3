"""Paper runs over REST and in the address of the dashboard: what a run in the store has decided."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.conftest import Gateway, serving


@pytest.fixture
def gateway(database: Path, run: Any, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway on a copy of the command line's database, in which a run has decided the last minutes."""
    words = ("--symbol", "AAAUSDT", "--strategy", "sma_cross", "--follow", "--once", "--json")
    status, out, err = run("paper", *words, "--from", "2024-01-30", "--since", "2024-02-01")
    assert status == 0 and out.count("\n") > 100, err
    shutil.copytree(database, tmp_path / "served", symlinks=True)
    with serving(tmp_path / "served") as found:
        yield found


def test_runs_and_their_last_decisions(gateway: Gateway) -> None:
    (found,) = gateway.get("/api/v1/paper")["runs"]
    assert (found["symbol"], found["strategy"], found["params"]["fast"]) == ("AAAUSDT", "sma_cross", 10)
    one = gateway.get(f"/api/v1/paper/{found['run'][:8]}?limit=5")
    minutes = [decision["minute"] for decision in one["decisions"]]
    assert one["run"] == found and len(minutes) == 5
    assert minutes == sorted(minutes, reverse=True)
    assert found["last"] == one["decisions"][0]
    assert all(decision["equity"] > 0 and len(decision["state"]) == 16 for decision in one["decisions"])
    for path, status in (("0000000", 404), ("xyz", 400), (f"{found['run']}?limit=0", 400)):
        assert gateway.ask("GET", f"/api/v1/paper/{path}")[0] == status
