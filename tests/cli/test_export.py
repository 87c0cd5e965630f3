"""`candlemill export`: the files hold what the results say, and many jobs read as one table."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import candlemill as cm
import pytest
from conftest import Cli, said

pytest.importorskip("pyarrow")
duckdb = pytest.importorskip("duckdb")
pytestmark = pytest.mark.usefixtures("database")

JOB = ("--strategy", "sma_cross", "--param", "fast=5", "--param", "slow=20", "--json")


@pytest.fixture
def jobs(run: Cli) -> dict[str, dict[str, Any]]:
    grid = ("--strategy", "sma_cross", "--grid", "fast=5,10", "--grid", "slow=20,30", "--json")
    return {
        "run": said(run("backtest", "--symbol", "AAAUSDT", *JOB)),
        "compound": said(run("backtest", "--symbol", "AAAUSDT", *JOB, "--sizing", "compound", "--capital", "100")),
        "portfolio": said(run("backtest", "--symbol", "AAAUSDT,BBBUSDT", *JOB)),
        "sweep": said(run("sweep", "--symbol", "AAAUSDT", *grid)),
    }


def test_a_folder_of_jobs_reads_as_tables(
    run: Cli, jobs: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ids, folder = [job["job_id"] for job in jobs.values()], Path("results")
    written = said(run("export", *ids, "--to", folder, "--json"))["files"]
    assert sorted(str(path) for path in folder.rglob("*.parquet")) == sorted(written)
    assert not [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    sums = dict(duckdb.sql("SELECT job_id, sum(profit) FROM 'results/daily/*.parquet' GROUP BY 1").fetchall())
    assert sums == {jobs[name]["job_id"]: _money(jobs[name]["total_pnl"]) for name in ("run", "compound", "portfolio")}
    trades = duckdb.sql("SELECT job_id, symbol, sum(profit), count(*) FROM 'results/trades/*.parquet' GROUP BY ALL")
    found = {(job_id, symbol): (profit, count) for job_id, symbol, profit, count in trades.fetchall()}
    for one in (jobs["run"], *jobs["portfolio"]["parts"]):
        profit, count = found[one["job_id"], one["symbol"]]
        gained = _money(one["gross_profit"] - one["gross_loss"])
        assert count >= one["trades"] and abs(profit - gained * (count // one["trades"])) <= count * Decimal("1e-8")
    sets = duckdb.sql("SELECT param_fast, param_slow, total_pnl FROM 'results/sets/*.parquet' ORDER BY 1, 2")
    expected = [(r["params"]["fast"], r["params"]["slow"], _money(r["total_pnl"])) for r in jobs["sweep"]["results"]]
    assert sets.fetchall() == sorted(expected)
    drawdowns = duckdb.sql("SELECT job_id, max_drawdown, funding_missing_minutes FROM 'results/jobs/*.parquet'")
    by_job = {job_id: fall for job_id, fall, _ in drawdowns.fetchall()}
    assert by_job[jobs["run"]["job_id"]] == _money(jobs["run"]["max_drawdown"])
    assert by_job[jobs["compound"]["job_id"]] == _money(jobs["compound"]["max_drawdown"] * 100)  # percent of the peak


def _money(scaled: int) -> Decimal:
    return Decimal(scaled).scaleb(-8)


def test_equity_of_each_minute(
    run: Cli, jobs: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, job = Path("equity.csv"), jobs["run"]
    said(run("export", job["job_id"][:8], "--equity", "--to", path, "--json"))
    found = duckdb.sql("""
        SELECT count(*), max(drawdown), arg_max(equity, time)
        FROM read_csv('equity.csv', types={'equity': 'DECIMAL(19,8)', 'drawdown': 'DECIMAL(19,8)'})
    """)
    assert found.fetchall() == [(job["bars"], _money(job["max_drawdown"]), _money(job["capital"] + job["total_pnl"]))]


def test_stored_jobs_load_as_what_made_them(jobs: dict[str, dict[str, Any]]) -> None:
    run_, sweep = cm.load(jobs["run"]["job_id"][:10]), cm.load(jobs["sweep"]["job_id"])
    assert run_.result["result_digest"] == jobs["run"]["result_digest"]
    assert len(run_.trades) == jobs["run"]["trades"]
    assert len(sweep) == 4 and sweep.best().params == cm.load(sweep.best().job_id).params
    assert list(cm.load(jobs["portfolio"]["job_id"]).parts) == ["AAAUSDT", "BBBUSDT"]
    walk = cm.walk_forward("AAAUSDT", "sma_cross", fast=[5, 10], slow=20, train="2d", test="1d")
    assert cm.load(walk.job_id).result["result_digest"] == walk.result["result_digest"]


def test_bad_requests_are_one_line(run: Cli, jobs: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    sweep, single = jobs["sweep"]["job_id"], jobs["run"]["job_id"]
    for arguments, text in (
        ((sweep, "--trades", "--to", tmp_path / "a.csv"), "(sweep) has sets, jobs, but no trades"),
        (
            (single, "--sets", "--to", tmp_path / "x"),
            "(backtest) has trades, orders, equity, daily, jobs, but no sets",
        ),
        ((single, "--to", tmp_path / "a.csv"), "is one file: name one job and one of --trades"),
        ((single, sweep, "--jobs", "--to", tmp_path / "a.csv"), "is one file"),
        (("--to", tmp_path / "x"), "give either ids of jobs or --last N"),
        (("0123456789", "--to", tmp_path / "x"), "unknown job"),
        ((single, "--trades", "--to", tmp_path / "no" / "a.csv"), "there is no folder"),
    ):
        status, out, err = run("export", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1) and text in err, (arguments, err)
    assert json.loads(run("export", "--to", "x", "--json")[1])["error"]["code"] == "bad_input"


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "sma_cross", "fast": 5, "slow": 20, "allow_short": True, "stop_loss": "0.5%", "take_profit": "1%"},
        {
            "strategy": "sma_cross",
            "fast": 5,
            "slow": 20,
            "maker_fee": "-0.01%",
            "take_profit": "0.4%",
            "slippage": "2bp",
        },
        {"strategy": "buy_and_hold"},
        {"strategy": "sma_cross", "fast": 5, "slow": 20, "sizing": "notional", "capital": 1000, "notional": 500},
        {"strategy": "sma_cross", "fast": 5, "slow": 20, "account": "cash", "capital": 5000, "step": "0.001"},
        {"strategy": "grid", "levels": 3, "spacing": 2000},
        {"strategy": "grid", "levels": 3, "spacing": 2000, "account": "cash", "capital": 5000},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_orders_explain_the_profit(options: dict[str, Any]) -> None:
    run = cm.backtest("AAAUSDT", progress=False, **options)
    orders = run.orders
    assert len(orders) == run.result["fills"] > 0
    sides = [1 if side == "buy" else -1 for side in orders["side"]]
    exact = [orders.exact(name).tolist() for name in ("quantity", "price", "fee")]
    cash = held = paid = 0
    for side, quantity, price, fee in zip(sides, *exact, strict=True):
        cash, held, paid = cash - side * quantity * price, held + side * quantity, paid + fee
    value = (cash + held * run.result["last_close"]) // 10**8 - paid
    assert abs(value - run.result["total_pnl"]) <= 2 * len(orders) + 2  # each flow is rounded by less than 10^-8
    assert abs(paid - run.result["fees"]) <= len(orders)
    assert (held != 0) == (run.result["open_position"] != 0)
    assert orders["time"].tolist() == sorted(orders["time"].tolist())


def test_jobs_of_many_symbols_have_the_tables_that_make_sense(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grid = ("--strategy", "sma_cross", "--grid", "fast=5,10", "--grid", "slow=20,30", "--json")
    both = said(run("sweep", "--symbol", "AAAUSDT,BBBUSDT", *grid))["job_id"]
    assert {symbol: len(sweep) for symbol, sweep in cm.load(both).parts.items()} == {"AAAUSDT": 4, "BBBUSDT": 4}
    said(run("export", "--last", 1, "--to", "sweeps", "--json"))
    sets = duckdb.sql("SELECT symbol, param_fast, param_slow FROM 'sweeps/sets/*.parquet' ORDER BY ALL").fetchall()
    assert sets == [(s, f, w) for s in ("AAAUSDT", "BBBUSDT") for f in (5, 10) for w in (20, 30)]
    walks = said(run("walk-forward", "--symbol", "AAAUSDT,BBBUSDT", *grid, "--train", "1d", "--test", "1d"))["job_id"]
    loaded = cm.load(walks)
    files = said(run("export", walks, "--to", "walks", "--json"))["files"]
    assert [Path(name).parent.name for name in files] == ["trades", "orders", "daily", "jobs"]
    earned = duckdb.sql("SELECT symbol, sum(profit) FROM 'walks/daily/*.parquet' GROUP BY ALL ORDER BY ALL").fetchall()
    assert earned == [(name, _money(one.result["total_pnl"])) for name, one in sorted(loaded.parts.items())]
    panel = ("--strategy", "xs_momentum", "--param", "lookback=60", "--param", "every=60", "--param", "top=1")
    more = ("--account", "cash", "--max-gap", 100_000, "--json")
    job = said(run("backtest", "--symbol", "AAAUSDT,BBBUSDT", *panel, *more))
    files = said(run("export", job["job_id"], "--to", "panel", "--json"))["files"]
    assert [Path(name).parent.name for name in files] == ["trades", "orders", "daily", "contribution", "jobs"]
    count = duckdb.sql("SELECT count(*), count(DISTINCT symbol) FROM 'panel/trades/*.parquet'").fetchall()
    assert count == [(job["trades"], 2)]
    total = duckdb.sql("SELECT sum(profit) FROM 'panel/daily/*.parquet'").fetchall()
    assert total == [(_money(job["total_pnl"]),)]
