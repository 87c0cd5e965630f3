"""Margin from the command line: tiers from a file, liquidations, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, days, said, write_zip

HEADER = "symbol,valid_from,floor,rate,amount\n"
TIERS = HEADER + "AAAUSDT,2020-01-01,0,0.4%,0\nAAAUSDT,2020-01-01,50000,0.005,50\nAAAUSDT,2021-01-01,0,0.01,0\n"
JOB = ("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--param", "allow_short=true", "--account", "cash")
MARGIN = (*JOB, "--leverage", "90x", "--margin", "isolated")


@pytest.fixture
def tiers(tmp_path: Path) -> Path:
    file = tmp_path / "tiers.csv"
    file.write_text(TIERS)
    return file


def test_positions_are_liquidated_by_stored_tiers(run: Cli, database: Path, tiers: Path) -> None:
    code, _, output = run(*MARGIN)
    assert (code, "no maintenance tiers" in output) == (2, True)
    assert said(run("margin-tiers", str(tiers), "--json"))["dates"] == {"AAAUSDT": 2}
    whole = said(run(*MARGIN, "--json"))
    assert whole["liquidations"] > 0
    assert whole["spec"]["margin"] == "isolated"
    assert list(whole["spec"]["tiers"]) == ["AAAUSDT"]
    cut = said(run(*MARGIN, "--json", "--no-cache", "--slices", "3"))
    assert (cut["slices"], cut["result_digest"]) == (3, whole["result_digest"])
    assert said(run("verify", whole["job_id"], "--json"))["same"] is True
    assert "liquidations" in run(*MARGIN)[1]
    safe = said(run(*JOB, "--json"))
    assert (safe["liquidations"], safe["liquidation_price"]) == (0, None)


def test_leverage_that_no_position_survives(run: Cli, database: Path, tiers: Path) -> None:
    run("margin-tiers", str(tiers))
    code, _, output = run(*JOB, "--leverage", "200x", "--margin", "cross")
    assert code == 2
    assert "leverage 200x: at a maintenance rate of 1% of AAAUSDT every position would be liquidated at once" in output


def test_other_tiers_make_another_job(run: Cli, database: Path, tiers: Path) -> None:
    run("margin-tiers", str(tiers))
    first = said(run(*MARGIN, "--json"))
    tiers.write_text(TIERS.replace("2020-01-01,50000,0.005,50", "2020-01-01,50000,0.006,100"))
    run("margin-tiers", str(tiers))  # no longer in force in the job's range
    assert said(run(*MARGIN, "--json"))["job_id"] == first["job_id"]
    tiers.write_text(TIERS.replace("2021-01-01,0,0.01,0", "2021-01-01,0,0.011,0"))
    run("margin-tiers", str(tiers))
    assert said(run(*MARGIN, "--json"))["job_id"] != first["job_id"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("symbol,floor\n", "1: expected the header symbol,valid_from,floor,rate,amount"),
        (HEADER, "no tier in it"),
        (HEADER + "A,2020-01-01,0,0.4%\n", "2: 4 fields, expected 5"),
        (HEADER + "A,today,0,0.4%,0\n", "range 'today' is not like 2023"),
        (HEADER + "A,2020-01-01,0,0.4%,0\nA,2020-01-01,100,0.5%,1\n", "the amount is 100000000, not 10000000"),
        (HEADER + "A,2020-01-01,0,0.0040001,0\n", "rate '0.0040001' has more than 6 decimals"),
    ],
)
def test_files_that_are_refused(run: Cli, database: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    code, _, output = run("margin-tiers", str(tmp_path / "bad.csv"))
    assert code != 0
    assert message in output


def test_leverage_brackets_of_binance(run: Cli, database: Path, tmp_path: Path) -> None:
    """The numbers are of the exchange's documentation of the call."""
    file = tmp_path / "brackets.json"
    bracket = {
        "bracket": 1,
        "initialLeverage": 75,
        "notionalCap": 10000,
        "notionalFloor": 0,
        "maintMarginRatio": 0.0065,
    }
    file.write_text(json.dumps([{"symbol": "ETHUSDT", "notionalCoef": 1.5, "brackets": [{**bracket, "cum": 0.0}]}]))
    assert "give --valid-from" in run("margin-tiers", file)[2]
    stored = said(run("margin-tiers", file, "--valid-from", "2024-01-01", "--json"))
    assert stored["dates"] == {"BINANCE-UM:ETHUSDT": 1}
    file.write_text('{"symbol": "ETHUSDT", "brackets": [{"notionalFloor": 0}]}')
    code, _, output = run("margin-tiers", file, "--valid-from", "2024-01-01")
    assert (code != 0, "not an answer of leverageBracket: KeyError('maintMarginRatio')" in output) == (True, True)


def test_margin_is_of_an_account_of_money(run: Cli, database: Path) -> None:
    code, _, output = run("backtest", "--symbol", "AAAUSDT", "--strategy", "sma_cross", "--margin", "cross",
                       "--account", "units")  # fmt: skip
    assert code == 2
    assert "margin=cross does not go with account=units" in output


def test_mark_prices_trigger_and_are_part_of_the_address(run: Cli, database: Path, tmp_path: Path) -> None:
    """The mark prices are the traded ones, 15 % lower in an hour."""
    um, name = tmp_path / "futures" / "um" / "monthly", "AAAUSDT-1m-2024-01"
    traded = days(1, 10, 2)
    none = np.zeros_like(traded["volume"])
    marks = traded | dict.fromkeys(("volume", "quote_volume", "taker_volume", "taker_quote_volume"), none)
    marks["count"] = none + 60
    for column in ("open", "high", "low", "close"):
        marks[column] = np.where(np.arange(len(none)) // 60 == 20, traded[column] * 85 // 100, traded[column])
    (tmp_path / "tiers.csv").write_text(HEADER + "BINANCE-UM:AAAUSDT,2020-01-01,0,0.4%,0\n")
    run("margin-tiers", tmp_path / "tiers.csv")
    run("ingest", write_zip(um / "klines" / "AAAUSDT" / "1m", name, traded))
    job = (
        *("backtest", "--symbol", "BINANCE-UM:AAAUSDT", "--strategy", "buy_and_hold"),
        *("--account", "cash", "--margin", "cross", "--leverage", "20x", "--size", "notional", "--notional", "100000"),
        "--json",
    )
    before = said(run(*job))
    assert before["spec"]["marks"] == ""
    run("ingest", write_zip(um / "markPriceKlines" / "AAAUSDT" / "1m", name, marks))
    after = said(run(*job))
    assert after["job_id"] != before["job_id"]
    assert after["liquidations"] > before["liquidations"]
    cut = said(run(*job, "--no-cache", "--slices", "2", "--workers", "2"))
    assert (cut["slices"], cut["result_digest"]) == (2, after["result_digest"])
    assert said(run("verify", after["job_id"], "--json"))["same"] is True
