"""What is easily written wrong on the command line: it works, or one line names the value and the way out."""

import json
from pathlib import Path

import candlemill as cm
import pytest
from candlemill.config import DSN_VARIABLE
from candlemill.errors import BadInput
from candlemill.pipeline.request import Request, resolve_request
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import FrozenIndex
from conftest import Cli, days, run_cli, write_zip

CHINESE = "币安人生USDT"


def test_a_parameter_that_is_no_finite_number_is_named(run: Cli, database: Path, tmp_path: Path) -> None:
    file = tmp_path / "above.py"
    file.write_text(
        "import candlemill as cm\n\n\nclass Above(cm.Windowed, frozen=True):\n    level: float = 1.0\n\n"
        "    def lookback(self):\n        return 0\n\n"
        "    def positions(self, bars):\n        return bars.close > self.level * 10**8\n"
    )
    for given in (("backtest", "--param", "level=nan"), ("sweep", "--grid", "level=1.5,inf")):
        status, _, err = run(given[0], "--symbol", "AAAUSDT", "--strategy", file, *given[1:])
        assert (status, len(err.splitlines())) == (2, 1)
        assert f"above: level={err.split('level=')[1][:3]} is not a finite number: give another value" in err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_console_without_a_symbol_s_letters_shows_them_escaped(tmp_path: Path, encoding: str) -> None:
    write_zip(tmp_path, f"{CHINESE}-1m-2024-02", days(2, 40, 3))
    more = {DSN_VARIABLE: f"chdb://{tmp_path / 'db'}", "PYTHONIOENCODING": encoding}
    escaped = CHINESE.encode("ascii", "backslashreplace").decode()
    assert run_cli("ingest", str(tmp_path), **more).returncode == 0
    for command in (("coverage",), ("backtest", "--symbol", CHINESE, "--strategy", "buy_and_hold")):
        done = run_cli(*command, **more)
        assert done.returncode == 0 and escaped in done.stdout, done.stderr
    wrong = run_cli("backtest", "--symbol", CHINESE[1:], "--strategy", "buy_and_hold", **more)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1) and escaped in wrong.stderr


PORTFOLIO = ("backtest", "--strategy", "sma_cross", "--range", "2024-01")


def test_a_glob_leaves_out_what_was_listed_later(run: Cli, database: Path) -> None:
    """BBBUSDT's first candle is of February: named it is refused, by a glob it is left out."""
    status, out, err = run(*PORTFOLIO, "--symbol", "*USDT", "--json")
    assert (status, err) == (0, "candlemill: 1 without a candle in 2024-01 left out: BBBUSDT\n")
    assert json.loads(out)["symbol"] == "AAAUSDT"
    p = cm.backtest("*USDT", "sma_cross", range="2024-01")
    assert (list(p.parts), p.left_out) == (["AAAUSDT"], ["BBBUSDT"])
    assert "sma_cross on 1 symbols, 1 without candles left out" in repr(p)

    status, _, err = run(*PORTFOLIO, "--symbol", "AAAUSDT,BBBUSDT")
    assert status == 2 and "BBBUSDT has no candle in 2024-01-01" in err
    status, _, err = run(*PORTFOLIO[:3], "--range", "2023", "--symbol", "*USDT")
    assert status == 2 and "none of 2 symbols of *USDT has a candle in 2023-01-01" in err
    with ClickHouseStore(f"chdb://{database}") as store:
        requested = resolve_request(Request(symbol="*USDT", strategy="sma_cross", range="2024-01"), FrozenIndex(store))
    assert list(requested.weights) == ["AAAUSDT"]


@pytest.mark.parametrize("symbol", [" ", ",", [" ", ""]])
def test_a_request_without_a_symbol_says_so(database: Path, symbol: str | list[str]) -> None:
    with ClickHouseStore(f"chdb://{database}") as store, pytest.raises(BadInput, match="names none: give at least one"):
        resolve_request(Request(symbol=symbol, strategy="sma_cross"), FrozenIndex(store))
