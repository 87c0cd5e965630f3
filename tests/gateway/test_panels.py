"""Panels over REST are those of the command line: one job of many symbols, sweeps, and what is refused."""

from pathlib import Path
from typing import Any

from conftest import said

from gateway.conftest import Gateway

PANEL = {"symbol": ["BBBUSDT", "AAAUSDT"], "strategy": "xs_momentum", "params": {"lookback": 3, "every": 2, "top": 1},
         "account": "cash", "timeframe": "1h", "stop_loss": "3%", "universe": "top:1:over=2d:every=1d"}  # fmt: skip
ARGUMENTS = ("--symbol", "*USDT", "--strategy", "xs_momentum", "--param", "lookback=3", "--param", "every=2", "--param",
             "top=1", "--account", "cash", "--timeframe", "1h", "--stop-loss", "3%", "--json")  # fmt: skip
UNIVERSE = ("--universe", "top:1:over=2d:every=1d")


def test_a_panel(gateway: Gateway, database: Path, run: Any) -> None:
    expected = said(run("backtest", *ARGUMENTS, *UNIVERSE, "--slices", "3"))
    accepted = gateway.submit(**PANEL)
    assert (accepted["kind"], accepted["job_id"]) == ("backtest", expected["job_id"])
    job = gateway.wait(accepted["job_id"])
    assert job["result"]["result_digest"] == expected["result_digest"]
    assert job["result"]["symbols"] == expected["symbols"]
    assert sum(one["trades"] for one in expected["symbols"].values()) == expected["trades"] > 0
    assert gateway.submit(**job["request"])["job_id"] == job["job_id"]
    base = f"/api/v1/backtest/{job['job_id']}"
    assert gateway.get(f"{base}/equity")["equity"][-1] == expected["total_pnl"]
    assert sum(month["pnl"] for month in gateway.get(f"{base}/monthly")["months"]) == expected["total_pnl"]
    trades = gateway.get(f"{base}/trades")
    assert trades["total"] == expected["trades"]
    assert {row["symbol"] for row in trades["items"]} <= {"AAAUSDT", "BBBUSDT"}


def test_a_sweep_of_a_panel(gateway: Gateway, database: Path, run: Any) -> None:
    request = {**PANEL, "params": {"every": 2}, "grid": {"lookback": [2, 3, 5], "top": [1, 2]}}
    job = gateway.finish(**request)
    assert (job["kind"], job["state"]) == ("sweep", "done")
    rows = gateway.get(f"/api/v1/backtest/{job['job_id']}/results")["items"]
    assert len(rows) == 6
    one = next(row for row in rows if (row["params"]["lookback"], row["params"]["top"]) == (3, 1))
    alone = said(run("backtest", *ARGUMENTS, *UNIVERSE))
    assert (one["job_id"], one["result_digest"]) == (alone["job_id"], alone["result_digest"])


def test_a_walk_forward_of_a_panel(gateway: Gateway, database: Path, run: Any) -> None:
    walk = ("--grid", "lookback=2,3", "--grid", "top=1,2", "--train", "3d", "--test", "2d")
    job = ("--symbol", "*USDT", "--strategy", "xs_momentum", "--param", "every=2", "--timeframe", "1h", "--json")
    expected = said(run("walk-forward", *job, "--stop-loss", "3%", *UNIVERSE, *walk, "--slices", "3"))
    grid = {"lookback": [2, 3], "top": [1, 2]}
    found = gateway.finish(**{**PANEL, "params": {"every": 2}}, grid=grid, walk_forward={"train": "3d", "test": "2d"})
    assert (found["kind"], found["state"]) == ("walk_forward", "done")
    chosen = [fold["params"] for fold in expected["folds"] if fold["params"]]
    assert [leg["params"] for leg in expected["result"]["spec"]["schedule"]] == chosen
    assert found["result"]["result"]["result_digest"] == expected["result"]["result_digest"]


def test_what_a_panel_does_not_take(gateway: Gateway) -> None:
    for more, message in (
        ({"account": "units"}, "give account=cash"),
        ({"universe": "top:0"}, "top is not between"),
        ({"symbol": "AAAUSDT,NONE"}, "NONE"),
        ({"strategy": "sma_cross", "params": {}, "symbol": "AAAUSDT"}, "belongs to strategies of many symbols"),
        ({"margin": "isolated"}, "is of one: leave it out"),
    ):
        status, _, problem = gateway.ask("POST", "/api/v1/backtest", {**PANEL, **more})
        assert (400 <= status < 500, message in problem["detail"]) == (True, True), problem
