"""Coins whose prices are few units of 10^-8, as a user meets them: files, ingest, the command line."""

from pathlib import Path
from typing import Any

import pytest
from candlemill.config import DSN_VARIABLE
from candlemill.units import SCALE
from conftest import Cli, said, write_zip

START, MINUTE = 1_704_067_200_000, 60_000  # 2024-01-01
SPOT = Path(__file__).parents[3] / "shared/data/spot"


def still(price: str, count: int) -> bytes:
    """Kline rows of a price that never moves."""
    rows = (
        f"{START + k * MINUTE},{price},{price},{price},{price},1,{START + (k + 1) * MINUTE - 1},0,0,0,0,0\n"
        for k in range(count)
    )
    return "".join(rows).encode()


@pytest.fixture
def stored(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FOURBTC has four bars at 0.00000798, STILLBTC thirty at 0.00000090."""
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{tmp_path / 'db'}")
    write_zip(tmp_path / "files", "FOURBTC-1m-2024-01", still("0.00000798", 4))
    write_zip(tmp_path / "files", "STILLBTC-1m-2024-01", still("0.00000090", 30))
    status, _, err = run("ingest", tmp_path / "files")
    assert status == 0, err


def backtest(run: Cli, symbol: str, *options: object) -> dict[str, Any]:
    job = (
        "backtest",
        "--symbol",
        symbol,
        "--strategy",
        "buy_and_hold",
        "--account",
        "units",
        "--range",
        "all",
        "--max-gap",
        "60000",
    )
    found: dict[str, Any] = said(run(*job, *options, "--json"))
    return found


def test_four_bars_and_a_million_coins(run: Cli, stored: None) -> None:
    found = backtest(run, "FOURBTC", "--quantity", "1000000", "--fee", "1000")
    assert (found["fills"], found["turnover"]) == (1, 7_98000000)
    assert (found["fees"], found["total_pnl"]) == (798_000, -798_000)  # 0.00798
    rebate = backtest(run, "FOURBTC", "--quantity", "1000000", "--fee", "-1")
    assert (rebate["fees"], rebate["total_pnl"]) == (-798, 798)  # 1 ppm of 7.98


def test_slippage_is_one_tick_at_least(run: Cli, stored: None) -> None:
    found = backtest(run, "FOURBTC", "--quantity", "1000000", "--fee", "0", "--slippage", "1000")
    assert (found["turnover"], found["total_pnl"]) == (7_99000000, -1_000_000)


@pytest.mark.parametrize("level", ["--stop-loss", "--take-profit", "--trailing-stop"])
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_a_still_price_meets_no_level(run: Cli, stored: None, level: str, fill: str) -> None:
    found = backtest(run, "STILLBTC", "--fee", "0", level, "10000", "--fill", fill)
    assert (found["fills"], found["trades"], found["open_position"], found["total_pnl"]) == (1, 0, 1, 0)


def test_fees_of_a_real_coin_are_their_share_of_the_turnover(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SPOT.is_dir():
        pytest.skip(f"no real candles at {SPOT}")
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{tmp_path / 'db'}")
    assert run("ingest", SPOT / "QLCBTC-1m-2019-11.zip")[0] == 0
    for fee in (1_000, -1):
        job = ("backtest", "--symbol", "QLCBTC", "--strategy", "sma_cross", "--range", "2019-11", "--max-gap", "60000")
        found = said(run(*job, "--quantity", "1000000", f"--fee={fee}", "--json"))
        assert found["turnover"] > SCALE
        assert found["fees"] == found["turnover"] * fee // 10**6
