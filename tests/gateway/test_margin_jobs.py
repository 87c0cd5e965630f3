"""Accounts with margin over REST: the results are those of the command line, alone, in sweeps and in walk-forwards."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import said

from gateway.conftest import Gateway, serving

TIERS = "symbol,valid_from,floor,rate,amount\nAAAUSDT,2020-01-01,0,0.4%,0\n"
RULES = {"account": "cash", "margin": "isolated", "leverage": "100x", "size": "notional", "notional": "400000"}
MARGIN = tuple(part for name, value in RULES.items() for part in (f"--{name}", value))
JOB = ("--symbol", "AAAUSDT", "--strategy", "grid", "--json", *MARGIN)
BODY = {"symbol": "AAAUSDT", "strategy": "grid", **RULES}


@pytest.fixture
def gateway(database: Path, run: Any, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway on a copy of the command line's database, both with tiers."""
    file = tmp_path / "tiers.csv"
    file.write_text(TIERS)
    run("margin-tiers", str(file))
    shutil.copytree(database, tmp_path / "served", symlinks=True)
    with serving(tmp_path / "served") as found:
        yield found


def test_a_run_and_its_orders(database: Path, run: Any, gateway: Gateway) -> None:
    expected = said(run("backtest", *JOB, "--param", "spacing=1500", "--slices", "3"))
    job = gateway.finish(**BODY, params={"spacing": 1500})
    assert expected["liquidations"] > 0
    assert (job["job_id"], job["result"]["result_digest"]) == (expected["job_id"], expected["result_digest"])
    for name in ("liquidations", "liquidation_price"):
        assert job["result"][name] == expected[name]
    trades = gateway.get(f"/api/v1/backtest/{job['job_id']}/trades?limit=500")["items"]
    ends = [trade["exit_ms"] for trade in trades if trade["reason"] == "liquidation"]
    assert ends
    minute = ends[0] // 60_000 * 60_000
    shown = gateway.get(f"/api/v1/backtest/{job['job_id']}/orders?from={minute - 3_600_000}&to={minute}")
    levels = [line for line in shown["lines"] if line["key"] == "liquidation"]
    assert levels and all(line["kind"] == "level" for line in levels)
    assert "liquidation" in {fill["what"] for fill in shown["fills"]}


def test_a_sweep_and_a_walk_forward(database: Path, run: Any, gateway: Gateway) -> None:
    rows = said(run("sweep", *JOB, "--grid", "spacing=1500,3000"))["results"]
    sweep = gateway.finish(**BODY, grid={"spacing": [1500, 3000]})
    found = gateway.get(f"/api/v1/backtest/{sweep['job_id']}/results")["items"]
    assert {row["result_digest"] for row in found} == {row["result_digest"] for row in rows}
    walk = said(run("walk-forward", *JOB, "--grid", "spacing=1500,3000", "--train", "2d", "--test", "1d"))
    job = gateway.finish(**BODY, grid={"spacing": [1500, 3000]}, walk_forward={"train": "2d", "test": "1d"})
    assert job["result"]["result"]["result_digest"] == walk["result"]["result_digest"]
