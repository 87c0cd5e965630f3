"""Strategies that place orders from the command line: accounts, cuts, paths, and what is refused."""

from pathlib import Path

import candlemill as cm
import pytest
from conftest import Cli, said

GRID = ("backtest", "--symbol", "AAAUSDT", "--strategy", "grid", "--param", "spacing=1500")
CASH = ("--account", "cash", "--capital", "5000", "--step", "0.001")
WIDE = ("backtest", "--symbol", "AAAUSDT", "--strategy", "breakout_stop", "--param", "entry=3", "--param", "risk=500")


@pytest.mark.parametrize("account", [CASH, ("--quantity", "0.5")], ids=["cash", "units"])
@pytest.mark.parametrize("job", [GRID, WIDE], ids=["grid", "breakout_stop"])
def test_no_cut_changes_what_orders_earn(
    run: Cli, database: Path, job: tuple[str, ...], account: tuple[str, ...]
) -> None:
    whole = said(run(*job, *account, "--json"))
    assert whole["trades"] > 0
    cut = said(run(*job, *account, "--json", "--no-cache", "--slices", "3"))
    assert (cut["slices"], cut["result_digest"]) == (3, whole["result_digest"])
    assert said(run("verify", whole["job_id"], "--json"))["same"] is True


@pytest.mark.parametrize("account", [CASH, ("--quantity", "0.5")], ids=["cash", "units"])
def test_both_paths_make_an_interval(run: Cli, database: Path, account: tuple[str, ...]) -> None:
    worst, best, both = (said(run(*WIDE, *account, "--json", "--path", path)) for path in ("worst", "best", "both"))
    assert worst["ambiguous_bars"] > 0
    assert worst["total_pnl"] < best["total_pnl"]
    assert set(both["interval"]) == {"worst", "best"}
    for path, alone in (("worst", worst), ("best", best)):
        assert both["interval"][path] == {name: alone[name] for name in both["interval"][path]}
    assert both["interval"]["best"]["job_id"] == best["job_id"] != worst["job_id"] != both["job_id"]
    own = {"job_id", "result_digest", "spec", "interval", "best_path_pnl", "execution_time_ms"}
    assert {name: both[name] for name in both.keys() - own} == {name: worst[name] for name in worst.keys() - own}
    cut = said(run(*WIDE, *account, "--json", "--path", "both", "--no-cache", "--slices", "3"))
    assert (cut["slices"], cut["result_digest"]) == (3, both["result_digest"])
    assert said(run("verify", both["job_id"], "--json"))["same"] is True
    code, output, _ = run(*WIDE, *account, "--path", "both")
    assert (code, "interval" in output) == (0, True)


@pytest.mark.parametrize("options", [(), ("--fill", "close", "--slippage", "300", "--account", "cash")])
def test_positions_with_stops_have_an_interval_too(run: Cli, database: Path, options: tuple[str, ...]) -> None:
    job = ("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--param", "fast=3", "--param", "slow=9",
           "--stop-loss", "0.02%", "--take-profit", "0.02%", "--json", *options)  # fmt: skip
    worst, best, both = (said(run(*job, "--path", path)) for path in ("worst", "best", "both"))
    ends = {"worst": worst, "best": best}
    assert {path: one["total_pnl"] for path, one in both["interval"].items()} == {
        path: one["total_pnl"] for path, one in ends.items()
    }
    assert both["metrics"] == worst["metrics"]


def test_an_interval_is_on_every_road(run: Cli, database: Path) -> None:
    alone = said(run(*WIDE, "--json", "--path", "both"))
    found = cm.backtest("AAAUSDT", "breakout_stop", entry=3, risk=500, path="both")
    assert (found.result["result_digest"], found.interval) == (alone["result_digest"], alone["interval"])
    grid = ("sweep", "--symbol", "AAAUSDT", "--strategy", "breakout_stop", "--param", "risk=500", "--grid",
            "entry=3,5,8", "--path", "both", "--sort", "total_pnl")  # fmt: skip
    rows = said(run(*grid, "--json"))["results"]
    (own,) = [row for row in rows if row["params"]["entry"] == 3]
    assert own["result_digest"] == alone["result_digest"]
    assert [row["total_pnl"] for row in rows] == sorted((row["total_pnl"] for row in rows), reverse=True)
    assert "best path" in run(*grid)[1]
    swept = cm.sweep("AAAUSDT", "breakout_stop", entry=[3, 5, 8], risk=500, path="both", metric="total_pnl")
    assert "best_path_pnl" in swept.sets.columns
    joint = said(run("backtest", "--symbol", "AAAUSDT,BBBUSDT", *WIDE[3:], "--path", "both", "--json"))
    ends = [part["interval"]["best"]["total_pnl"] for part in joint["parts"]]
    assert joint["interval"]["best"]["total_pnl"] == joint["best_path_pnl"] == sum(ends)


def test_python_knows_orders_and_paths(run: Cli, database: Path) -> None:
    found = cm.backtest("AAAUSDT", "breakout_stop", entry=3, risk=500, path="best")
    assert found.result["result_digest"] == said(run(*WIDE, "--path", "best", "--json"))["result_digest"]


def test_a_sweep_of_orders_has_what_each_set_has_alone(run: Cli, database: Path) -> None:
    sweep = ("sweep", "--symbol", "AAAUSDT", "--strategy", "grid", "--grid", "spacing=1000:2500:500", "--json")
    rows = said(run(*sweep, *CASH))["results"]
    assert len(rows) == 4
    (own,) = [row for row in rows if row["params"]["spacing"] == 1500]
    assert own["result_digest"] == said(run(*GRID, *CASH, "--json", "--no-cache"))["result_digest"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*GRID, "--sizing", "compound"), "grid does not go with sizing compound"),
        ((*GRID, "--volume-share", "1%"), "grid with volume_share=10000 needs real money: give account=cash"),
    ],
)
def test_what_does_not_go_together(run: Cli, database: Path, arguments: tuple[str, ...], message: str) -> None:
    code, _, output = run(*arguments)
    assert (code, message in output) == (2, True), output


def test_a_plan_says_what_repairs_cost_at_most(run: Cli, database: Path) -> None:
    job = ("--symbol", "AAAUSDT", "--strategy", "grid", "--grid", "levels=1,2,3", "--slices", "3")
    assert said(run("plan", *job, "--json"))["repairs"]["slices"] == 6
    assert "6 slices again" in run("plan", *job)[1]
    other = ("--symbol", "AAAUSDT", "--strategy", "sma_cross", "--grid", "fast=5,8", "--slices", "3",
             "--account", "units")  # fmt: skip
    assert said(run("plan", *other, "--json"))["repairs"] is None


def test_limits_may_have_to_be_passed(run: Cli, database: Path) -> None:
    fills = [said(run(*GRID, "--json", "--limit-through", through))["fills"] for through in ("0", "0.01", "1000")]
    assert fills[0] >= fills[1] > fills[2] == 0
    code, _, output = run("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--limit-through", "1")
    assert (code, "sma_cross places no limit orders" in output) == (2, True), output


def test_a_report_of_both_paths_has_the_interval(run: Cli, database: Path, tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    both = said(run(*WIDE, "--path", "both", "--guards", "--report", str(page), "--json"))
    assert "Profit, best path" in page.read_text()
    assert "costs" in both["guards"]


@pytest.mark.parametrize("account", [CASH, (*CASH, "--volume-share", "0.1%"), ("--quantity", "0.5")])
def test_a_walk_forward_trades_the_orders_that_it_chose(
    run: Cli, database: Path, tmp_path: Path, account: tuple[str, ...]
) -> None:
    job = ("walk-forward", "--symbol", "AAAUSDT", "--strategy", "grid", "--grid", "spacing=500,1500", "--train", "1d",
           "--test", "1d", *account)  # fmt: skip
    found = said(run(*job, "--json", "--report", str(tmp_path / "walk.html")))
    assert [fold["params"]["spacing"] in (500, 1500) for fold in found["folds"]] == [True] * len(found["folds"])
    assert found["result"]["trades"] > 0
    assert "walk-forward" in (tmp_path / "walk.html").read_text().lower()
    cut = said(run(*job, "--json", "--no-cache", "--slices", "3"))
    assert cut["result"]["result_digest"] == found["result"]["result_digest"]


def test_a_share_of_the_volume_fills_orders_in_parts(run: Cli, database: Path) -> None:
    job = (*GRID, *CASH, "--timeframe", "15m", "--json")
    free, limited = said(run(*job)), said(run(*job, "--volume-share", "0.01%"))
    assert 0 < limited["turnover"] < free["turnover"]
    cut = said(run(*job, "--volume-share", "0.01%", "--no-cache", "--slices", "4"))
    assert (cut["slices"], cut["result_digest"]) == (4, limited["result_digest"])
