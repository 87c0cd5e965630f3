"""Portfolios and walk-forwards from the command line: stored jobs, joined exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
from candlemill.backtests.daily import unpack
from candlemill.backtests.result import compounded, sharpe
from candlemill.pipeline import execute
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import SCALE
from conftest import Cli, said

PORTFOLIO = ("--symbol", "AAAUSDT,BBBUSDT", "--strategy", "sma_cross")
GRID = ("--grid", "fast=5,20", "--grid", "slow=60,240")
WALK = ("--symbol", "AAAUSDT", "--strategy", "sma_cross", *GRID, "--train", "3d", "--test", "2d")


@pytest.mark.parametrize("sizing", ["fixed", "notional", "compound", ""])
def test_a_portfolio_is_its_symbols_added_day_by_day(run: Cli, database: Path, sizing: str) -> None:
    """Without a sizing in accounts of real money."""
    account = ("--sizing", sizing) if sizing else ()
    found = said(run("backtest", *PORTFOLIO, *account, "--weight", "AAAUSDT=3", "--json"))
    parts = {part["symbol"]: part for part in found["parts"]}
    assert list(parts) == ["AAAUSDT", "BBBUSDT"] and found["weights"] == {"AAAUSDT": 3 * SCALE, "BBBUSDT": SCALE}
    for name in ("total_pnl", "trades", "wins", "fees", "fills", "bars", "capital", "exposure_bars"):
        assert found[name] == sum(part[name] for part in parts.values()), name
    total: dict[int, int] = {}
    with ClickHouseStore(f"chdb://{database}") as store:
        rows = store.results([part["job_id"] for part in parts.values()])
        (joint,) = store.results([found["job_id"]])
    for row in rows:
        days, figures = unpack(row.daily)
        profits = figures.tolist()
        if sizing == "compound":
            profits = compounded(profits, json.loads(row.result)["capital"])
        for day, profit in zip(days.tolist(), profits, strict=True):
            total[day] = total.get(day, 0) + profit
    days, profits = unpack(joint.daily)
    assert (
        dict(zip(days.tolist(), profits.tolist(), strict=True)) == total and sum(total.values()) == found["total_pnl"]
    )
    curve = np.concatenate(([0], np.cumsum(profits)))
    falls = np.maximum.accumulate(curve) - curve
    if sizing == "compound":
        assert found["max_drawdown"] == pytest.approx(
            SCALE * float((falls / (found["capital"] + np.maximum.accumulate(curve))).max()), abs=1
        )
        assert parts["AAAUSDT"]["capital"] == 3 * parts["BBBUSDT"]["capital"]
    else:
        assert found["max_drawdown"] == falls.max()
        squares = sum(x * x for x in total.values())
        assert found["sharpe_ratio"] == sharpe(sum(total.values()), squares, len(total))


def test_a_portfolio_is_the_same_however_its_jobs_are_cut_and_reuses_them(
    run: Cli, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = said(run("backtest", *PORTFOLIO, "--slices", 1, "--json"))
    cut = said(run("backtest", *PORTFOLIO, "--slices", 3, "--no-cache", "--json"))
    assert cut["result_digest"] == whole["result_digest"] and cut["job_id"] == whole["job_id"]
    monkeypatch.setattr(execute, "run_slice", None)  # nothing is computed from here on
    assert said(run("backtest", "--symbol", "?AA*,BBBUSDT", *PORTFOLIO[2:], "--json"))["job_id"] == whole["job_id"]
    status, out, _ = run("results", whole["job_id"])
    assert status == 0 and "AAAUSDT" in out and whole["result_digest"] in out


def test_an_equal_weight_changes_nothing_of_a_symbol_alone(run: Cli, database: Path) -> None:
    """With real money it has half of the capital."""
    options = (*PORTFOLIO[2:], "--range", "2024-01-29..2024-02-12", "--json")
    for whole, half in ((("--sizing", "fixed"), ("--sizing", "fixed")), ((), ("--capital", "5000"))):
        found = said(run("backtest", *PORTFOLIO[:2], *options, *whole))
        alone = said(run("backtest", "--symbol", "BBBUSDT", *options, *half))
        assert found["parts"][1]["result_digest"] == alone["result_digest"]


def test_a_walk_forward_trades_what_past_days_chose(run: Cli, database: Path) -> None:
    found = said(run("walk-forward", *WALK, "--json"))
    folds, result = found["folds"], found["result"]
    assert [leg["start"] for leg in result["spec"]["schedule"]] == [fold["test_start"] for fold in folds]
    assert [leg["params"] for leg in result["spec"]["schedule"]] == [fold["params"] for fold in folds]
    assert (result["start"], result["end"]) == (folds[0]["test_start"], folds[-1]["test_end"])
    for fold in folds:
        assert fold["train_end"] == fold["test_start"]
        assert fold["in_sample"] == max(_sharpe_within(database, found["sweep_id"], fold))
    cut = said(run("walk-forward", *WALK, "--slices", 4, "--no-cache", "--json"))
    assert (cut["folds"], cut["result"]["result_digest"]) == (folds, result["result_digest"])
    status, out, _ = run("walk-forward", *WALK)
    assert status == 0 and "out of\n" in out and "2024-02-01..02-02" in out


def _sharpe_within(database: Path, sweep_id: str, fold: dict[str, int]) -> list[int]:
    """Every set's Sharpe ratio over the days of the fold's training."""
    with ClickHouseStore(f"chdb://{database}") as store:
        rows = store.sweep_daily(sweep_id, [own for own, _, _ in store.sweep_figures(sweep_id, ("sharpe_ratio",))])
    out = []
    for text in rows.values():
        days, profits = unpack(text)
        inside = profits[(days >= fold["train_start"]) & (days < fold["train_end"])].tolist()
        out.append(sharpe(sum(inside), sum(x * x for x in inside), len(inside)))
    return out


def test_a_sweep_comes_with_its_guards(run: Cli, database: Path) -> None:
    found = said(run("sweep", *PORTFOLIO[2:], "--symbol", "AAAUSDT", *GRID, "--json"))
    guards = found["guards"]
    assert (guards["trials"], guards["days"]) == (4, 8) and guards["warnings"]
    best = max(found["results"], key=lambda result: result["sharpe_ratio"])
    assert guards["best"] == best["params"]
    assert guards["sharpe_ratio"] == pytest.approx(best["sharpe_ratio"], abs=SCALE // 10**4)
    again = said(run("sweep", *PORTFOLIO[2:], "--symbol", "AAAUSDT", *GRID, "--slices", 5, "--no-cache", "--json"))
    assert again["guards"] == guards
    assert "caution: " in run("results", found["job_id"])[1]


def test_reports_are_written_for_every_kind_of_run(run: Cli, database: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    for name, command in {
        "run": ("backtest", "--symbol", "AAAUSDT", *PORTFOLIO[2:], "--sizing", "compound"),
        "sweep": ("sweep", "--symbol", "AAAUSDT", *PORTFOLIO[2:], *GRID),
        "walk": ("walk-forward", *WALK),
    }.items():
        page = tmp_path / f"{name}.html"
        status, _, err = run(*command, "--report", page)
        assert (status, err) == (0, "") and b"AAAUSDT" in page.read_bytes()
