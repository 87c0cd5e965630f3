"""Portfolios and walk-forwards over REST are those of the command line."""

from pathlib import Path
from typing import Any

from conftest import said

from gateway.conftest import Gateway

PORTFOLIO = {"symbol": "AAAUSDT,BBBUSDT", "strategy": "sma_cross", "params": {"fast": 5, "slow": 30},
             "weights": {"BBBUSDT": "2.5"}, "sizing": "notional"}  # fmt: skip
WALK = {"symbol": "AAAUSDT", "strategy": "sma_cross", "grid": {"fast": [5, 10], "slow": [40, 80]},
        "walk_forward": {"train": "3d", "test": "1d", "score": "total_pnl"}}  # fmt: skip


def test_a_portfolio(gateway: Gateway, database: Path, run: Any):
    expected = said(run("backtest", "--symbol", "AAAUSDT,BBBUSDT", "--strategy", "sma_cross", "--param", "fast=5",
                        "--param", "slow=30", "--weight", "BBBUSDT=2.5", "--sizing", "notional", "--json"))  # fmt: skip
    accepted = gateway.submit(**PORTFOLIO)
    assert (accepted["kind"], accepted["job_id"]) == ("portfolio", expected["job_id"])
    job = gateway.wait(accepted["job_id"])
    assert job["result"]["result_digest"] == expected["result_digest"]
    for part, other in zip(job["result"]["parts"], expected["parts"], strict=True):
        alone = gateway.get(f"/api/v1/backtest/{part['job_id']}")
        assert alone["result"]["result_digest"] == part["result_digest"] == other["result_digest"]
    found = gateway.get(f"/api/v1/backtest/{job['job_id']}/equity")
    assert found["equity"][-1] == expected["total_pnl"]
    assert gateway.submit(**job["request"])["job_id"] == job["job_id"]
    assert gateway.ask("GET", f"/api/v1/backtest/{job['job_id']}/trades")[0] == 422
    listed = gateway.get("/api/v1/backtests")["items"]
    assert [(line["symbol"], line["total_pnl"]) for line in listed] == [("AAAUSDT,BBBUSDT", expected["total_pnl"])]
    assert len(gateway.get("/api/v1/backtests?parts=true")["items"]) == 3


def test_a_walk_forward(gateway: Gateway, database: Path, run: Any):
    expected = said(run("walk-forward", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--grid", "fast=5,10",
                        "--grid", "slow=40,80", "--grid", "stop-loss=1%,2%", "--train", "3d", "--test", "1d",
                        "--score", "total_pnl", "--json"))  # fmt: skip
    walk = {**WALK["walk_forward"], "options": {"stop_loss": ["1%", "2%"]}}
    job = gateway.finish(**WALK | {"walk_forward": walk})
    result = job["result"]
    assert (job["kind"], job["job_id"], result["folds"], result["sweep_id"], result["guards"]["trials"]) == (
        "walk_forward", expected["job_id"], expected["folds"], expected["sweep_id"], 8)  # fmt: skip
    assert result["result"]["result_digest"] == expected["result"]["result_digest"]
    assert gateway.submit(**job["request"])["job_id"] == job["job_id"]
    base = f"/api/v1/backtest/{job['job_id']}"
    assert gateway.get(f"{base}/trades")["total"] == result["result"]["trades"]
    assert sum(month["pnl"] for month in gateway.get(f"{base}/monthly")["months"]) == result["result"]["total_pnl"]
    assert gateway.ask("GET", f"{base}/report")[2][:15].lower() == "<!doctype html>"
    listed = gateway.get("/api/v1/backtests?kind=walk_forward")["items"]
    assert [(line["job_id"], line["total_pnl"]) for line in listed] == [(job["job_id"], result["result"]["total_pnl"])]


def test_a_workflow_that_cannot_end_is_not_begun(gateway: Gateway):
    status, _, found = gateway.ask("POST", "/api/v1/backtest", PORTFOLIO | {"symbol": "AAAUSDT,NOUSDT", "weights": {}})
    assert (status, set(found["near"])) == (404, {"AAAUSDT", "BBBUSDT"})
    walk = {"train": "90d", "test": "30d"}
    assert gateway.ask("POST", "/api/v1/backtest", WALK | {"walk_forward": walk})[0] in (409, 422)


def test_sweeps_and_walk_forwards_of_several_symbols(gateway: Gateway, database: Path, run: Any):
    """One job with a part for each symbol, which is that symbol's own job; their sets have one order."""
    requested = WALK | {"symbol": "AAAUSDT,BBBUSDT", "range": "2024-02"}
    grid = ("--symbol", "AAAUSDT,BBBUSDT", "--strategy", "sma_cross", "--grid", "fast=5,10", "--grid", "slow=40,80",
            "--range", "2024-02")  # fmt: skip
    sweeps = {name: requested[name] for name in ("symbol", "strategy", "grid", "range")}
    job = gateway.finish(**sweeps)
    expected = said(run("sweep", *grid, "--json"))
    assert (job["kind"], job["job_id"]) == ("sweeps", expected["job_id"])
    alone = gateway.submit(**sweeps | {"symbol": "BBBUSDT"})
    assert [part["job_id"] for part in job["result"]["parts"]] == [part["job_id"] for part in expected["parts"]]
    assert (alone["state"], alone["job_id"]) == ("done", job["result"]["parts"][1]["job_id"])
    found = gateway.get(f"/api/v1/backtest/{job['job_id']}/results?limit=3")
    ratios = sorted((row["sharpe_ratio"] for part in expected["parts"] for row in part["results"]), reverse=True)
    assert (found["total"], [row["sharpe_ratio"] for row in found["items"]]) == (8, ratios[:3])
    rest = gateway.get(f"/api/v1/backtest/{job['job_id']}/results?limit=9&cursor={found['next']}")
    assert [row["sharpe_ratio"] for row in rest["items"]] == ratios[3:]
    assert gateway.submit(**job["request"])["job_id"] == job["job_id"]
    assert gateway.ask("GET", f"/api/v1/backtest/{job['job_id']}/equity")[0] == 422
    check_report_and_tables(gateway, job["job_id"], {"sets": 8, "jobs": 8, "trades": 422, "daily": 422})
    walks = gateway.finish(**requested)
    expected = said(run("walk-forward", *grid, "--train", "3d", "--test", "1d", "--score", "total_pnl", "--json"))
    assert (walks["kind"], walks["job_id"]) == ("walk_forwards", expected["job_id"])
    trades = 0
    for part, other in zip(walks["result"]["parts"], expected["parts"], strict=True):
        assert part["result"]["result"]["result_digest"] == other["result"]["result_digest"]
        trades += part["result"]["result"]["trades"]
    check_report_and_tables(gateway, walks["job_id"], {"trades": trades, "jobs": 2, "sets": 422})


def check_report_and_tables(gateway: Gateway, job_id: str, rows: dict[str, int]) -> None:
    """Check that a job of two symbols has its report, and that each table has as many rows, or is refused in words."""
    base = f"/api/v1/backtest/{job_id}"
    page = gateway.ask("GET", f"{base}/report")[2]
    assert all(f"<td>{symbol}</td>" in page for symbol in ("AAAUSDT", "BBBUSDT"))
    for name, expected in rows.items():
        status, _, found = gateway.ask("GET", f"{base}/tables/{name}?format=csv")
        if expected == 422:
            assert status == 422 and f"but no {name}" in found["detail"]
        else:
            assert status == 200 and found.count("\n") == expected + 1
