"""The command line: what scripts rely on. Results on stdout, the rest on stderr, errors in one line with a way out."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from candlemill.config import DSN_VARIABLE
from candlemill.engine.candles import DAY_MS
from candlemill.pipeline import execute
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.strategies import REGISTERED
from candlemill.units import SCALE
from conftest import Cli, days, environment, run_cli, said, write_zip

PROMISED = {
    "job_id", "strategy_id", "symbol", "start", "end", "bars", "missing_minutes", "slices", "repaired_slices",
    "total_pnl", "sharpe_ratio", "sortino_ratio", "max_drawdown", "trades", "wins", "gross_profit", "gross_loss",
    "fees", "fills", "exposure_bars", "open_position", "days", "data_digest", "result_digest", "execution_time_ms",
}  # fmt: skip
BARS = 8 * 1440 - 90
JOB = ("--symbol", "AAAUSDT", "--strategy", "sma_cross")
GRID = ("--grid", "fast=2:6:2", "--grid", "slow=5,9")  # fast=6 slow=5 is refused by the strategy
SETS = 5


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with every task that this process computes."""
    made: list[object] = []
    real = execute.run_slice

    def counting(*arguments: Any) -> Any:
        made.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(execute, "run_slice", counting)
    return made


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{tmp_path / 'empty'}")
    return tmp_path / "empty"


# --- what goes well ---------------------------------------------------------------------------------------------------


def test_from_files_to_a_verified_result(run: Cli, empty: Path, market: Path) -> None:
    """The whole way, once, as JSON and as text."""
    found = said(run("ingest", market, "--json"))
    assert (found["files"], found["rows"], found["stored"]) == (3, BARS + 3 * 1440, BARS + 3 * 1440)
    assert found["symbols"] == ["AAAUSDT", "BBBUSDT"]
    assert "3 files, 15,750 rows read, 0 new or changed" in run("ingest", market)[1]

    months = said(run("coverage", "--json"))["symbols"]
    assert [(m["month"], m["rows"], m["missing_minutes"]) for m in months["AAAUSDT"]] == [
        ("2024-01", 3 * 1440 - 90, 90), ("2024-02", 5 * 1440, 0),
    ]  # fmt: skip
    assert said(run("coverage", "BBBUSDT", "--json"))["symbols"] == {"BBBUSDT": months["BBBUSDT"]}
    assert "AAAUSDT: 11,430 rows, 90 minutes missing from first to last" in run("coverage", "AAAUSDT")[1]

    plan = said(run("plan", *JOB, "--slices", 4, "--json"))
    assert (plan["bars"], plan["slices"], plan["tasks"], plan["cached"]) == (BARS, 4, 4, False)
    result = said(run("backtest", *JOB, "--slices", 4, "--json"))
    assert set(result) >= PROMISED and all(type(result[key]) is int for key in PROMISED if key not in TEXTS)
    assert (result["job_id"], result["bars"], result["missing_minutes"], result["slices"]) == (
        plan["job_id"],
        BARS,
        90,
        4,
    )
    assert said(run("plan", *JOB, "--json"))["cached"] is True

    job = result["job_id"]
    assert said(run("results", job, "--json")) == result == said(run("results", job[:8], "--json"))
    assert said(run("results", "--json")) == {"results": [result], "sweeps": []}
    verified = said(run("verify", job, "--json"))
    assert verified == {
        "job_id": job, "same": True, "sets": 1, "different": {},
        "stored": result["result_digest"], "computed": result["result_digest"],
    }  # fmt: skip
    assert run("verify", job)[1] == f"same bits: {result['result_digest']}\n"


TEXTS = {"job_id", "strategy_id", "symbol", "data_digest", "result_digest"}


def test_a_sweep_s_rows_are_the_single_backtests(run: Cli, database: Path) -> None:
    swept = said(run("sweep", *JOB, *GRID, "--slices", 3, "--json"))
    rows = swept["results"]
    assert swept["sets"] == len(rows) == SETS and all(set(row) >= PROMISED | {"params"} for row in rows)
    assert [row["sharpe_ratio"] for row in rows] == sorted((row["sharpe_ratio"] for row in rows), reverse=True)
    for row in rows:
        params = (f"--param={name}={row['params'][name]}" for name in ("fast", "slow"))
        alone = said(run("backtest", *JOB, *params, "--json"))
        assert (alone["job_id"], alone["result_digest"]) == (row["job_id"], row["result_digest"])
    backwards = said(run("sweep", *JOB, *GRID[2:], *GRID[:2], "--no-cache", "--json"))
    digests = [{row["job_id"]: row["result_digest"] for row in each["results"]} for each in (swept, backwards)]
    assert digests[0] == digests[1]

    assert said(run("results", swept["job_id"], "--json"))["results"] == backwards["results"]
    (listed,) = said(run("results", "--json"))["sweeps"]
    assert (listed["job_id"], listed["sets"], listed["symbol"]) == (swept["job_id"], SETS, "AAAUSDT")
    assert [listed[name] for name in ("total_pnl", "sharpe_ratio")] == [
        rows[0][name] for name in ("total_pnl", "sharpe_ratio")
    ]
    assert said(run("verify", swept["job_id"], "--json"))["sets"] == SETS
    worst = said(run("sweep", *JOB, *GRID, "--sort", "max_drawdown", "--top", 2, "--json"))["results"]
    assert [row["max_drawdown"] for row in worst] == sorted(row["max_drawdown"] for row in rows)[:2]


def test_the_other_commands(run: Cli, empty: Path) -> None:
    version = said(run("version", "--json"))
    assert set(version) == {"version", "engine", "code_digest", "python"}
    assert run("version")[1].startswith(f"candlemill {version['version']}, engine ")
    assert run_cli("--version").stdout == f"candlemill {version['version']}\n"
    names = [strategy["name"] for strategy in said(run("strategies", "--json"))["strategies"]]
    assert names == sorted(REGISTERED)
    assert run("coverage")[1] == "nothing is stored yet: candlemill ingest PATH\n"
    assert run("results")[1] == "no results yet: candlemill backtest --help\n"
    assert said(run("coverage", "--json")) == {"symbols": {}} and said(run("results", "--json")) == {
        "results": [],
        "sweeps": [],
    }


def test_every_rate_and_option_reaches_the_job(run: Cli, database: Path) -> None:
    options = {
        "fee": 1, "slippage": 2, "stop_loss": 3, "take_profit": 4, "trailing_stop": 5, "fill": "close",
        "quantity": "0.25", "timeframe": "1h", "range": "2024-01-30..2024-02-01T11:59",
    }  # fmt: skip
    given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", value)]
    spec = said(run("backtest", *JOB, *given, "--json"))["spec"]
    midnight = 1_706_572_800_000  # 2024-01-30
    expected = options | {"quantity": 25_000_000, "timeframe": 60, "start": midnight, "end": midnight + DAY_MS * 5 // 2}
    assert {name: spec[name] for name in expected if name != "range"} == {
        name: value for name, value in expected.items() if name != "range"
    }
    more = ("--sizing", "notional", "--capital", "500", "--notional", "99.5", "--volume-share", 7, "--maker-fee", -8)
    spec = said(run("backtest", *JOB, *more, "--json"))["spec"]
    assert (spec["sizing"], spec["capital"], spec["notional"]) == ("notional", 500 * SCALE, 9_950_000_000)
    assert (spec["volume_share"], spec["volume_scale"], spec["maker_fee"]) == (7, SCALE, -8)


COVERAGE = """\
month     rows  first              last               missing  digest
-------  -----  -----------------  -----------------  -------  ----------------
2024-01  4,230  2024-01-29T00:00Z  2024-01-31T23:59Z       90  DIGEST
2024-02  7,200  2024-02-01T00:00Z  2024-02-05T23:59Z        0  DIGEST
AAAUSDT: 11,430 rows, 90 minutes missing from first to last
"""


def test_what_people_read_fits_100_columns_and_lines_up(run: Cli, database: Path) -> None:
    long = ("--symbol", "AAAUSDT", "--strategy", "momentum_v1", "--param", "lookback=1000", "--param=threshold=100000")
    costs = ("--slippage", 100, "--stop-loss", 5000, "--take-profit", 9000, "--trailing-stop", 4000)
    texts = [
        run("backtest", *long, "--quantity", "40000"),
        run("backtest", *JOB, *costs),
        run("sweep", *JOB, *GRID, "--sort", "sortino_ratio"),
        run("plan", *JOB, "--range", "2024-01-30T00:00..2024-01-30T04:59"),
        *(run(*command) for command in (("coverage",), ("coverage", "AAAUSDT"), ("results",))),
    ]
    for status, out, err in texts:
        assert (status, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 100, out
    sweep, results = texts[2][1].splitlines(), texts[6][1].splitlines()
    head = next(k for k, line in enumerate(sweep) if line.startswith("--"))
    assert len(set(map(len, sweep[head : head + SETS + 1]))) == 1, "columns end with their figures"
    assert len(set(map(len, [*results[:2], *results[2::2]]))) == 1
    assert all(line.startswith(("  momentum_v1 ", "  sma_cross ")) for line in results[3::2])
    assert [line for line in results[3::2] if "sweep" in line] == [
        f"  sma_cross sweep of {SETS} sets, the figures are of the best"
    ]
    assert re.sub(r"\w{16}\n", "DIGEST\n", texts[5][1]) == COVERAGE
    assert "slices          1 of 1 day\n" in texts[3][1] and "bars            300\n" in texts[3][1]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_wrong_argument_is_one_line_and_status_2(run: Cli, database: Path) -> None:
    backtest = ("backtest", *JOB)
    wrong: list[tuple[tuple[object, ...], str, str]] = [
        (("backtest", "--symbol", "AAAUSD", *JOB[2:]), "unknown_name", "symbol 'AAAUSD': did you mean 'AAAUSDT'?"),
        (("backtest", "--symbol", "bbbusdt", *JOB[2:]), "unknown_name", "did you mean 'BBBUSDT'?"),
        (("backtest", "--symbol", "\udcff", *JOB[2:]), "bad_input", "is not printable text"),
        (("backtest", *JOB[:3], "smacross"), "unknown_name", "did you mean 'sma_cross'?"),
        ((*backtest, "--param", "fats=5"), "unknown_name", "did you mean 'fast'?"),
        ((*backtest, "--param", "fast"), "bad_input", "'fast' is not like fast=10"),
        ((*backtest, "--param", "fast=1", "--param", "fast=2"), "bad_input", "given twice"),
        ((*backtest, "--param", "fast=50"), "bad_input", "fast=50 must be less than slow=50"),
        ((*backtest, "--range", ""), "bad_input", "range ''"),
        ((*backtest, "--range", "2024-02..2024-01"), "bad_input", "empty or reversed"),
        ((*backtest, "--range", "9999-12-31"), "bad_input", "9999"),
        ((*backtest, "--range", "2023"), "no_data", "stored are 2024-01-29T00:00Z..2024-02-05T23:59Z"),
        ((*backtest, "--slices", "0"), "bad_input", "'0' is neither a positive number nor auto"),
        ((*backtest, "--slices", "10001"), "bad_input", "between 1 and 10,000"),
        ((*backtest, "--workers", "0"), "bad_input", "'0' is not a whole number from 1 on"),
        ((*backtest, "--quantity", "1.000000001"), "bad_input", "more than 8 decimals"),
        ((*backtest, "--quantity", "-1"), "bad_input", "-1"),
        ((*backtest, "--fee", "-100001"), "bad_input", "fee=-10.0001%: give at least -10%"),
        ((*backtest, "--fee", "x"), "bad_input", "fee='x' is no rate: write it like 0.1%, 10bp or 1000 (ppm)"),
        ((*backtest, "--fee", "0.001"), "bad_input", "fee='0.001' has no unit: write 0.1% or 1000"),
        ((*backtest, "--fe", "5"), "bad_input", "--fe"),
        ((*backtest, "--timeframe", "5"), "bad_input", "write it like 5m, 4h or 1d"),
        ((*backtest, "--max-gap", "89"), "no_data", "misses 90 of 11,520 minutes"),
        (("sweep", *JOB, "--grid", "fast=1:2000", "--grid", "slow=1:2000"), "bad_input", "4,000,000 points, the limit"),
        (("sweep", *JOB, "--grid", "fast=60,70"), "bad_input", "fast=60 must be less than slow=50"),
        (("sweep", *JOB), "bad_input", "required: --grid"),
        ((*backtest, "--sizing", "half"), "bad_input", "invalid choice: 'half'"),
        ((*backtest, "--sizing", "compound", "--quantity", "2"), "bad_input", "quantity=2 does not go with sizing="),
        ((*backtest, "--notional", "2"), "bad_input", "notional=2 does not go with size=equity"),
        ((*backtest, "--capital", "0"), "bad_input", "capital '0' is not between"),
        ((*backtest, "--funding"), "no_data", "AAAUSDT has no funding rate in"),
        ((*backtest, "--weight", "AAAUSDT=2"), "bad_input", "--weight is for portfolios"),
        ((*backtest, "--report", "/no/such/folder/x.html"), "bad_input", "there is no folder /no/such/folder"),
        (("backtest", "--symbol", "A*,ZZZ", *JOB[2:]), "unknown_name", "unknown symbol 'ZZZ'"),
        (("backtest", "--symbol", "Q*", *JOB[2:]), "unknown_name", "unknown symbols 'Q*'"),
        (("walk-forward", *JOB, "--grid", "fast=1,2", "--train", "soon"), "bad_input", "span 'soon'"),
        (("walk-forward", *JOB, "--grid", "fast=1,2", "--train", "90d"), "bad_input", "leaves nothing of 8 days"),
        (("verify", "nonsense"), "unknown_name", "unknown job 'nonsense'"),
        (("results", "00000000"), "unknown_name", "unknown job '00000000'"),
        (("coverage", "AAAUSDTT"), "unknown_name", "did you mean 'AAAUSDT'?"),
        (("ingest", "/no/such/path"), "bad_file", "/no/such/path: no such file or folder"),
        (("ingest", "/no/such/path", "--volume-scale", "x"), "bad_input", "invalid int value"),
        (("explode",), "bad_input", "invalid choice: 'explode'"),
        ((), "bad_input", "required: COMMAND"),
    ]  # fmt: skip
    for arguments, code, words in wrong:
        status, out, err = run(*arguments, "--json")
        answer = json.loads(out)["error"]
        assert (status, answer["code"], err) == (2, code, f"candlemill: {answer['message']}\n"), arguments
        assert words in err and err.count("\n") == 1, err
    assert run("coverage", "AAAUSDTT")[:2] == (2, ""), "without --json stdout stays empty"


def test_an_empty_database_says_what_to_do(run: Cli, empty: Path) -> None:
    assert "nothing is stored yet, ingest candles first" in run("backtest", *JOB, "--range", "2024")[2]


def test_max_gap_counts_the_minutes_of_the_range_not_of_its_days(run: Cli, database: Path) -> None:
    """The gap lies in 2024-01-31, 18:40 to 20:09."""
    for minutes, gap in (
        ("18:00..2024-01-31T18:59", 20),
        ("20:00..2024-01-31T21:59", 10),
        ("21:00..2024-01-31T21:59", 0),
    ):
        job = (*JOB, "--range", f"2024-01-31T{minutes}", "--json")
        assert said(run("backtest", *job, "--max-gap", gap))["missing_minutes"] == gap
        assert gap == 0 or run("backtest", *job, "--max-gap", gap - 1)[0] == 2


def test_numbers_that_nothing_can_carry_are_refused_not_wrapped(run: Cli, empty: Path, tmp_path: Path) -> None:
    """Prices of a million: the sum of a million closes passes 2^63."""
    candles = days(1, 31, 1)
    for name in ("open", "high", "low", "close"):
        candles[name] = candles[name] * 0 + 10**14
    run("ingest", write_zip(tmp_path, "MAXUSDT-1m-2024-02-01", candles))
    job = ("backtest", "--symbol", "MAXUSDT", "--strategy", "sma_cross", "--json")
    assert said(run(*job, "--param", "slow=1000"))["fills"] == 0
    status, out, err = run(*job, "--param", "slow=1000000")
    assert (status, json.loads(out)["error"]["code"], err.count("\n")) == (2, "too_large", 1)
    assert "MAXUSDT sma_cross" in err and "use smaller windows or rates" in err


def test_money_beyond_the_table_s_64_bits_is_refused(run: Cli, database: Path) -> None:
    status, out, err = run("backtest", *JOB, "--quantity", "40000000000", "--json")
    assert (status, err.count("\n")) == (1, 1) and "does not fit" in err and "smaller quantity" in err
    assert set(json.loads(out)) == {"error"}


def test_a_corrupt_zip_is_named_and_the_rest_is_stored(run: Cli, empty: Path, market: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(market, tmp_path / "files")
    (folder / "BBBUSDT-1m-2024-02.zip").write_bytes(b"PK")
    status, out, err = run("ingest", folder, "--json")
    assert (status, json.loads(out)["error"]["code"]) == (2, "bad_file")
    assert err.startswith(f"candlemill: {folder}/BBBUSDT-1m-2024-02.zip: damaged or truncated zip")
    assert list(said(run("coverage", "--json"))["symbols"]) == ["AAAUSDT"]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.5 MB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_reported_and_leaves_what_was_stored(tiny: Path, market: Path) -> None:
    where = {DSN_VARIABLE: f"chdb://{tiny / 'db'}"}
    ClickHouseStore(where[DSN_VARIABLE]).close()
    (tiny / "ballast").write_bytes(bytes(os.statvfs(tiny).f_bavail * os.statvfs(tiny).f_frsize - 100_000))
    done = run_cli("ingest", str(market), **where)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert "space" in done.stderr.lower()
    (tiny / "ballast").unlink()
    assert run_cli("coverage", **where).returncode == 0


def test_verbose_shows_where(run: Cli, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, err = run("backtest", *JOB, "--range", "x", "-v")
    assert "Traceback" in err and err.splitlines()[-1].startswith("candlemill: range 'x'")
    monkeypatch.setattr(execute, "run_slice", lambda *_: 1 / 0)
    status, out, err = run("backtest", *JOB)
    assert (status, out, err) == (
        1,
        "",
        "candlemill: internal error: ZeroDivisionError: division by zero; -v shows where\n",
    )


# --- nothing is computed twice ----------------------------------------------------------------------------------------


def test_a_stored_result_is_not_computed_again_unless_requested(run: Cli, database: Path, tasks: list[object]) -> None:
    first = said(run("backtest", *JOB, "--slices", 3, "--json"))
    assert len(tasks) >= 3
    tasks.clear()
    assert said(run("backtest", *JOB, "--json")) == first and tasks == []
    said(run("sweep", *JOB, *GRID, "--json"))
    tasks.clear()
    said(run("sweep", *JOB, *GRID, "--json"))
    assert tasks == []
    again = said(run("backtest", *JOB, "--slices", 2, "--no-cache", "--json"))
    assert len(tasks) >= 2 and again["slices"] == 2 and again["result_digest"] == first["result_digest"]


def test_what_is_requested_afresh_ignores_even_stored_partials(
    run: Cli, database: Path, tasks: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there after a job of more than a few seconds."""
    monkeypatch.setattr("candlemill.local.job_stores.FLUSH_SECONDS", 0)
    result = said(run("backtest", *JOB, "--slices", 3, "--json"))
    for again in (("backtest", *JOB, "--slices", 3, "--no-cache"), ("verify", result["job_id"])):
        tasks.clear()
        said(run(*again, "--json"))
        assert tasks


def test_a_corrected_candle_makes_another_job(
    run: Cli, database: Path, market: Path, tmp_path: Path, tasks: list[object]
) -> None:
    before = said(run("backtest", *JOB, "--json"))
    other = said(run("backtest", *JOB, "--range", "2024-02-02..2024-02-05", "--json"))
    day = days(1, 31, 1)  # 2024-02-01
    day["high"] = day["high"] + (day["t"] == day["t"][700]) * 1_000_000
    assert said(run("ingest", write_zip(tmp_path, "AAAUSDT-1m-2024-02-01", day), "--json"))["stored"] == 1
    tasks.clear()
    status, _, err = run("verify", before["job_id"])
    assert (status, tasks) == (1, []) and "the candles have changed since" in err
    after = said(run("backtest", *JOB, "--json"))
    assert tasks and after["data_digest"] != before["data_digest"] and after["job_id"] != before["job_id"]
    assert after["total_pnl"] == before["total_pnl"], "no decision looks at a high"
    tasks.clear()
    assert said(run("backtest", *JOB, "--range", "2024-02-02..2024-02-05", "--json")) == other and tasks == []


TAMPERED = {
    "a figure": "replaceOne(result, '\"trades\":', '\"trades\":1')",
    "the digest": 'replaceRegexpOne(result, \'"result_digest":"....\', \'"result_digest":"0000\')',
}


@pytest.mark.parametrize("what", [*TAMPERED, "a column"])
def test_verify_detects_a_tampered_row_and_writes_nothing(run: Cli, database: Path, what: str) -> None:
    job = said(run("backtest", *JOB, "--json"))["job_id"]
    swept = said(run("sweep", *JOB, *GRID, "--json"))
    changed = {job, swept["results"][0]["job_id"]}
    with ClickHouseStore(f"chdb://{database}") as store:
        column = "total_pnl + 1" if what == "a column" else "total_pnl"
        names = f"{column}, sharpe_ratio, max_drawdown, execution_time_ms, created_at, sweep_id"
        for one in sorted(changed):
            store._client.command(
                f"INSERT INTO backtest_results SELECT job_id, strategy_id, {names}, "  # noqa: S608
                f"{TAMPERED.get(what, 'result')}, daily, number"
                f" FROM backtest_results WHERE job_id = '{one}'"
            )
        before = store._rows("SELECT count() FROM backtest_results", {})
    for requested, sets in ((job, 1), (swept["job_id"], SETS)):
        status, out, err = run("verify", requested, "--json")
        found = json.loads(out)
        assert (status, found["same"], found["sets"], err.count("\n")) == (1, False, sets, 1)
        (name,) = found["different"]
        assert name in changed and found["error"]["message"] in err
    with ClickHouseStore(f"chdb://{database}") as store:
        assert store._rows("SELECT count() FROM backtest_results", {}) == before


def test_a_result_of_other_code_is_verified_by_its_figures(
    run: Cli, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new release has new job ids; its figures for an old job shall be the old ones."""
    job = said(run("backtest", *JOB, "--json"))["job_id"]
    monkeypatch.setattr("candlemill.backtests.identity.code_digest", lambda: "another release")
    assert said(run("verify", job, "--json"))["same"] is True
    assert said(run("backtest", *JOB, "--json"))["job_id"] != job


# --- interrupted ------------------------------------------------------------------------------------------------------

ACCOUNT = ("--account", "units")  # slices of the other one wait for each other
SWEEP = ("sweep", *JOB, *ACCOUNT, "--grid", "fast=1:10", "--grid", "slow=11:20", "--slices", "4", "--json")
DRIVER = """
import os, signal, sys
from candlemill.backtests import plan
from candlemill.cli.main import main
from candlemill.local import job_stores
from candlemill.local.worker_pool import Pool
from candlemill.pipeline import execute
step, number = int(sys.argv[1]), int(sys.argv[2])
job_stores.FLUSH_SECONDS, plan.BATCH_SETS = 0, 25
tasks = 0
def counting(real):
    def call(*arguments):
        global tasks
        tasks += 1
        if tasks == step:
            os.killpg(0, number)
        return real(*arguments)
    return call
execute.run_slice = counting(execute.run_slice)
Pool.submit = counting(Pool.submit)
status = main(sys.argv[3:])
print("tasks:", tasks, file=sys.stderr)
sys.exit(status)
"""


def drive(database: Path, step: int, number: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command line in a session of its own, whose whole process group gets the signal at its `step`th task."""
    command = [sys.executable, "-c", DRIVER, str(step), str(number), *arguments]
    process = subprocess.Popen(
        command,
        env=environment(**{DSN_VARIABLE: f"chdb://{database}"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert alone(process.pid), "no worker outlives the command"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def alone(session: int) -> bool:
    """Whether all processes of the session have ended, soon."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        stats = [
            path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()
        ]
        if not [fields for fields in stats if int(fields[3]) == session and fields[0] != "Z"]:
            return True
        time.sleep(0.05)
    return False


def digests(out: str) -> dict[str, str]:
    return {row["job_id"]: row["result_digest"] for row in json.loads(out)["results"]}


@pytest.fixture(scope="module")
def undisturbed(stored_market: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of SWEEP."""
    folder = shutil.copytree(stored_market, tmp_path_factory.mktemp("undisturbed") / "db", symlinks=True)
    done = drive(folder, 0, 0, *SWEEP)
    assert done.stderr == "tasks: 16\n"
    return digests(done.stdout)


def test_ctrl_c_says_how_to_go_on_and_only_the_missing_is_computed(database: Path, undisturbed: dict[str, str]) -> None:
    done = drive(database, 10, signal.SIGINT, *SWEEP)
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (130, "interrupted")
    message = "candlemill: interrupted; what is done is stored, and the same command goes on from there"
    assert done.stderr == f"{message}\ntasks: 10\n"
    again = drive(database, 0, 0, *SWEEP)
    assert (again.returncode, again.stderr) == (0, "tasks: 7\n")
    assert digests(again.stdout) == undisturbed and len(undisturbed) == 100


KILLER = """
import os, signal, sys, threading
from candlemill.backtests import plan
from candlemill.cli.main import main
from candlemill.local import job_stores
from candlemill.store.clickhouse import ClickHouseStore
step, wait = int(sys.argv[1]), float(sys.argv[2])
job_stores.FLUSH_SECONDS, plan.BATCH_SETS = 0, 25
writes, real = 0, ClickHouseStore._insert
def counting(*arguments):
    global writes
    writes += 1
    if writes == step:
        threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return real(*arguments)
ClickHouseStore._insert = counting
status = main(sys.argv[3:])
print("writes:", writes, file=sys.stderr)
sys.exit(status)
"""
PORTFOLIO = ("backtest", "--symbol", "AAAUSDT,BBBUSDT", *JOB[2:], "--slices", "3", "--json")
WALK = ("walk-forward", *SWEEP[1:], "--train", "3d", "--test", "2d")
KILLS = 4


def killed(database: Path, step: int, wait: float, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command line, which is killed `wait` seconds after it has begun to write for the `step`th time."""
    command = [sys.executable, "-c", KILLER, str(step), str(wait), *arguments]
    env = environment(**{DSN_VARIABLE: f"chdb://{database}"})
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def said_digests(out: str) -> set[str]:
    """All digests in a command's answer."""
    return set(re.findall(r'"result_digest": ?"([0-9a-f]{64})"', out))


@pytest.mark.parametrize(
    ("seed", "command"), [(1, SWEEP), (2, PORTFOLIO), (3, WALK)], ids=["sweep", "portfolio", "walk"]
)
def test_killed_at_any_moment_and_begun_again_it_ends_the_same(
    stored_market: Path, database: Path, tmp_path: Path, seed: int, command: tuple[str, ...]
) -> None:
    """At random moments of a random write, or between writes; then again, until it gets through."""
    rng = random.Random(seed)
    calm = killed(shutil.copytree(stored_market, tmp_path / "calm", symlinks=True), 0, 0, *command)
    assert calm.returncode == 0, calm.stderr
    writes = int(calm.stderr.removeprefix("writes: "))
    ends = []
    for _ in range(KILLS):
        step, wait = rng.randrange(1, writes), rng.choice([0.0, 0.001, 0.01]) * rng.random()
        ends.append(killed(database, step, wait, *command).returncode)
    assert set(ends) <= {0, -signal.SIGKILL} and -signal.SIGKILL in ends
    again = killed(database, 0, 0, *command)
    assert again.returncode == 0, again.stderr
    assert said_digests(again.stdout) == said_digests(calm.stdout) != set()
    with ClickHouseStore(f"chdb://{database}") as store:
        assert {entry.row.state for entry in store.jobs()} == {"done"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_workers_end_with_their_parent_and_say_nothing(
    database: Path, undisturbed: dict[str, str], number: signal.Signals
) -> None:
    """Ctrl-C reaches the workers too; a parent that is killed cannot tell them anything."""
    done = drive(database, 8, number, *SWEEP, "--workers", "2")
    assert done.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    lines = done.stderr.splitlines()[1:]
    assert [line for line in lines if not re.fullmatch("tasks: [0-9]+", line)] == []
    again = drive(database, 0, 0, *SWEEP)
    assert again.returncode == 0 and digests(again.stdout) == undisturbed


def test_a_worker_that_is_killed_is_reported_in_one_line(
    run: Cli, database: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, str]
) -> None:
    from candlemill.local.broker import Pool

    real, submitted = Pool.submit_batch, []

    def killing(pool: Pool, *batch: Any) -> Any:
        submitted.append(batch)
        future = real(pool, *batch)
        if len(submitted) == 3:
            os.kill(next(iter(pool._pool._processes)), signal.SIGKILL)
        return future

    monkeypatch.setattr(Pool, "submit_batch", killing)
    monkeypatch.setattr("candlemill.backtests.plan.BATCH_SETS", 25)
    status, _, err = run(*SWEEP, "--workers", "2")
    assert (status, err.count("\n")) == (1, 1) and "a worker process died" in err and "use fewer --workers" in err
    monkeypatch.undo()
    done = run_cli(*SWEEP, **{DSN_VARIABLE: f"chdb://{database}"})
    assert digests(done.stdout) == undisturbed


@pytest.mark.parametrize(("first", "then"), [("8", "1"), ("1", "8")])
def test_a_sweep_goes_on_with_another_number_of_slices(
    run: Cli, database: Path, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch, first: str, then: str
) -> None:
    """And so with other batches: what is left of one plan must not be mistaken for the other's."""
    monkeypatch.setattr("candlemill.backtests.plan.BATCH_SETS", 50)
    monkeypatch.setattr("candlemill.backtests.plan.BATCH_OUTCOMES", 100)
    monkeypatch.setattr("candlemill.local.job_stores.FLUSH_SECONDS", 0)
    sweep = [argument for argument in SWEEP if argument not in ("--slices", "4")]
    real, made = execute.run_slice, []

    def interrupted(*arguments: Any) -> Any:
        made.append(arguments)
        if len(made) == (2 if first == "1" else 13):
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(execute, "run_slice", interrupted)
        assert run(*sweep, "--slices", first)[0] == 130
    assert digests(run(*sweep, "--slices", then)[1]) == undisturbed


def test_a_reader_that_goes_away_is_no_error_and_a_full_disk_is(database: Path) -> None:
    program = f"{sys.executable} -m candlemill"
    sweep = f"{program} sweep {' '.join(JOB)} --grid fast=1:30 --grid slow=31:60 --json"
    more = {"env": environment(**{DSN_VARIABLE: f"chdb://{database}"}), "shell": True, "timeout": 300}
    done = subprocess.run(f"{sweep} | head -c 100", capture_output=True, text=True, check=False, **more)
    assert (len(done.stdout), done.stderr) == (100, "")
    done = subprocess.run(f"{program} coverage > /dev/full", capture_output=True, text=True, check=False, **more)
    assert (done.returncode, done.stderr) == (1, "candlemill: output: No space left on device\n")
