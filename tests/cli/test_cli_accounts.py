"""Accounts of real money from the command line: cuts, panels, and what is refused."""

from pathlib import Path

import candlemill as cm
import pytest
from candlemill.units import SCALE
from conftest import Cli, said

CASH = ("--account", "cash", "--capital", "5000", "--step", "0.001", "--min-notional", "10", "--leverage", "2x")
JOB = ("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--param", "allow_short=true", *CASH)
PANEL = ("backtest", "--strategy", "xs_momentum", "--param", "lookback=3", "--param", "every=2", "--param", "top=1")
NEW = {"cut_orders", "rejected_orders", "turnover", "liquidations", "symbols"}


def test_no_cut_changes_an_account(run: Cli, database: Path) -> None:
    whole = said(run(*JOB, "--json"))
    assert set(whole) >= NEW
    assert (whole["capital"], whole["slices"], whole["fills"] > 0) == (5000 * SCALE, 1, True)
    own = {"trades": whole["trades"], "wins": whole["wins"], "profit": whole["total_pnl"], "fees": whole["fees"]}
    assert whole["symbols"] == {"AAAUSDT": own}
    cut = said(run(*JOB, "--json", "--no-cache", "--slices", "3"))
    assert (cut["slices"], cut["repaired_slices"]) == (3, 0)  # what is decided forgets, and money is settled apart
    assert cut["result_digest"] == whole["result_digest"]
    assert said(run("verify", whole["job_id"], "--json"))["same"] is True


def test_reports_and_guards_know_accounts_and_orders(run: Cli, database: Path, tmp_path: Path) -> None:
    plain = said(run(*JOB, "--json"))
    guarded = said(run(*JOB, "--json", "--guards", "--report", str(tmp_path / "cash.html")))
    assert guarded.pop("guards")["costs"]["break_even_fee"] is not None
    assert guarded == plain
    grid = (
        "backtest",
        "--symbol",
        "AAAUSDT",
        "--strategy",
        "grid",
        "--guards",
        "--report",
        str(tmp_path / "grid.html"),
    )
    for account in ((), CASH):
        assert said(run(*grid, *account, "--path", "best", "--json"))["guards"]["bootstrap"]
    assert {path.name for path in tmp_path.glob("*.html")} == {"cash.html", "grid.html"}


def test_a_portfolio_of_accounts_is_the_sum_of_its_parts(run: Cli, database: Path) -> None:
    job = ("backtest", "--strategy", "sma_cross", "--account", "cash")
    whole = said(run(*job, "--symbol", "AAAUSDT,BBBUSDT", "--capital", "10000", "--json"))
    parts = whole["parts"]
    assert [part["capital"] for part in parts] == [5000 * SCALE] * 2
    for name in ("total_pnl", "trades", "turnover", "cut_orders", "rejected_orders", "borrow", "gap_profit"):
        assert whole[name] == sum(part[name] for part in parts)


def test_a_panel_is_one_job_whatever_the_order_of_its_symbols(run: Cli, database: Path) -> None:
    one = said(run(*PANEL, "--symbol", "BBBUSDT,AAAUSDT", *CASH, "--timeframe", "1h", "--json"))
    other = said(run(*PANEL, "--symbol", "AAAUSDT,BBBUSDT", *CASH, "--timeframe", "1h", "--json", "--no-cache"))
    assert one["symbol"] == "AAAUSDT,BBBUSDT"
    assert list(one["symbols"]) == ["AAAUSDT", "BBBUSDT"]
    assert one["trades"] == sum(own["trades"] for own in one["symbols"].values()) > 0
    same = ("job_id", "result_digest", "bars")
    assert [one[name] for name in same] == [other[name] for name in same]
    assert said(run("verify", one["job_id"], "--json"))["same"] is True
    cut = said(run(*PANEL, "--symbol", "*USDT", *CASH, "--timeframe", "1h", "--json", "--no-cache", "--slices", "3"))
    assert (cut["slices"], cut["result_digest"]) == (3, one["result_digest"])


def test_a_sweep_of_a_panel_has_the_sets_as_they_are_alone(run: Cli, database: Path) -> None:
    grid = ("--grid", "lookback=2:25", "--symbol", "AAAUSDT,BBBUSDT", *CASH, "--timeframe", "1h", "--json")
    job = ("--strategy", "xs_momentum", "--param", "every=2", "--param", "top=1")
    found = said(run("sweep", *job, *grid, "--workers", "2", "--slices", "2"))
    assert found["sets"] == 24  # two batches
    row = next(row for row in found["results"] if row["params"]["lookback"] == 3)
    alone = said(run(*PANEL, "--symbol", "AAAUSDT,BBBUSDT", *CASH, "--timeframe", "1h", "--json", "--no-cache"))
    assert (row["job_id"], row["result_digest"]) == (alone["job_id"], alone["result_digest"])


PLUGIN = """
import numpy as np
from candlemill.strategies import Panel, PanelStrategy


class EqualWeights(PanelStrategy, frozen=True):
    n: int = 24

    def lookback(self) -> int:
        return self.n

    def positions(self, panel: Panel):
        return np.where(panel.close > panel.ago(panel.close, self.n), 1.0 / len(panel.names), 0.0)
"""


def test_a_panel_from_a_file(run: Cli, database: Path, tmp_path: Path) -> None:
    (tmp_path / "equal.py").write_text(PLUGIN)
    job = (
        "backtest",
        "--strategy",
        str(tmp_path / "equal.py"),
        "--symbol",
        "AAAUSDT,BBBUSDT",
        *CASH,
        "--timeframe",
        "1h",
    )
    whole = said(run(*job, "--universe", "top:1:over=2d", "--json"))
    cut = said(run(*job, "--universe", "top:1:over=2d", "--json", "--slices", "3", "--no-cache"))
    assert whole["trades"] > 0
    assert (cut["slices"], cut["result_digest"]) == (3, whole["result_digest"])
    guarded = said(run(*job, "--universe", "top:1:over=2d", "--json", "--guards"))
    assert guarded["guards"]["shuffle"] is not None and guarded["result_digest"] == whole["result_digest"]


def test_reports_of_panels(run: Cli, database: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    job = ("--symbol", "AAAUSDT,BBBUSDT", "--strategy", "xs_momentum", "--param", "every=2", "--timeframe", "1h")
    grid = ("--grid", "lookback=2,3", "--grid", "top=1,2")
    commands = {
        "run": ("backtest", *job, "--param", "lookback=3", "--warm-up", "stored", "--range", "2024-01-30..2024-02-03"),
        "sweep": ("sweep", *job, *grid),
        "walk": ("walk-forward", *job, *grid, "--train", "3d", "--test", "2d"),
    }
    for name, command in commands.items():
        page = tmp_path / f"{name}.html"
        found = said(run(*command, "--report", page, "--json"))
        text = page.read_text()
        if name == "sweep":
            assert found["guards"]["trials"] == 4 and found["guards"]["deflated_sharpe"] is not None
        else:
            assert 'id="contribution"' in text and "<td>BBBUSDT</td>" in text and "in equal parts, before costs" in text


def test_a_panel_in_python(run: Cli, database: Path) -> None:
    found = cm.backtest(
        ["BBBUSDT", "AAAUSDT"], "xs_momentum", lookback=3, every=2, top=1, account="cash", timeframe="1h"
    )
    expected = said(run(*PANEL, "--symbol", "AAAUSDT,BBBUSDT", "--account", "cash", "--timeframe", "1h", "--json"))
    assert found.result["result_digest"] == expected["result_digest"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--sizing", "fixed", "--step", "1"),
            "sizing is of account units, step of account cash",
        ),
        ((*JOB, "--sizing", "compound"), "sizing=compound does not go with account=cash"),
        ((*JOB, "--leverage", "much"), "leverage 'much' is neither parts per million nor like 3x"),
        ((*PANEL, "--symbol", "AAAUSDT,BBBUSDT", "--quantity", "2"), "give account=cash"),
        ((*PANEL, "--symbol", "AAAUSDT,BBBUSDT", "--margin", "cross"), "is of one: leave it out"),
        ((*PANEL, "--symbol", "AAAUSDT,NONE", *CASH), "unknown symbol 'NONE'"),
    ],
)
def test_what_does_not_go_together(run: Cli, database: Path, arguments: tuple[str, ...], message: str) -> None:
    code, _, output = run(*arguments)
    assert code == 2
    assert message in output


def test_the_python_interface_knows_accounts(run: Cli, database: Path) -> None:
    options = {"range": "all", "account": "cash", "capital": 5000, "step": "0.001", "min_notional": 10}
    found = cm.backtest("AAAUSDT", "sma_cross", allow_short=True, leverage="2x", **options)
    assert found.result["result_digest"] == said(run(*JOB, "--json"))["result_digest"]
    assert len(found.trades) == found.result["trades"] > 0
    assert found.trades["profit"].sum() * SCALE == pytest.approx(
        found.result["gross_profit"] - found.result["gross_loss"], abs=1000
    )
    plain = cm.backtest("AAAUSDT", "sma_cross").spec
    assert (plain.account, plain.size, plain.capital) == ("cash", "equity", 10_000 * SCALE)
    assert cm.backtest("AAAUSDT", "sma_cross", quantity=2).spec.account == "units"
    assert found.equity["equity"][-1] == pytest.approx((5000 * SCALE + found.result["total_pnl"]) / SCALE)


def test_a_panel_in_python_is_one_run(run: Cli, database: Path) -> None:
    options = {"timeframe": "1h", "lookback": 3, "every": 2, "top": 1}
    there = said(run(*PANEL, "--symbol", "AAAUSDT,BBBUSDT", "--timeframe", "1h", "--json"))
    for symbols in (["BBBUSDT", "AAAUSDT"], "AAAUSDT,BBBUSDT"):
        found = cm.backtest(symbols, "xs_momentum", **options)
        assert found.result["result_digest"] == there["result_digest"]
    assert len(found.trades) == found.result["trades"] > 0
    assert set(found.trades["symbol"]) <= {"AAAUSDT", "BBBUSDT"}
    assert found.equity["equity"][-1] == pytest.approx((10_000 * SCALE + found.result["total_pnl"]) / SCALE)
    assert found.guards().exact["bootstrap"] is not None
    assert sum(found.contribution["profit"][-2:]) == pytest.approx(found.result["total_pnl"] / SCALE)
    assert {line.name for line in found.plot("contribution").data} == {"AAAUSDT", "BBBUSDT"}
    with pytest.raises(cm.BadInput, match="plot their contribution"):
        found.plot("price")
    sweep = cm.sweep("AAAUSDT,BBBUSDT", "xs_momentum", **{**options, "lookback": [3, 5]})
    assert (len(sweep), sweep.run(there["job_id"]).result["result_digest"]) == (2, there["result_digest"])
    with pytest.raises(cm.BadInput, match="weights are for portfolios"):
        cm.backtest("AAAUSDT,BBBUSDT", "xs_momentum", weights={"AAAUSDT": 2})
