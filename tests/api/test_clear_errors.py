"""What is easily written wrong: it works, or one line names the value and the way out."""

from pathlib import Path
from typing import Any

import candlemill as cm
import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import days

SCALE = 10**8
OHLCV = ("open", "high", "low", "close", "volume")
GRID = {"fast": [5, 10, 20], "slow": [50, 100]}


def frame() -> Any:
    candles = days(5, 0, 2)
    times = pd.to_datetime(candles["t"], unit="ms", utc=True)
    return pd.DataFrame({"time": times, **{name: candles[name] / SCALE for name in OHLCV}})


def refused(words: str, call: Any, *arguments: Any, **options: Any) -> None:
    with pytest.raises(cm.BadInput, match=words) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


class Above(cm.Windowed, frozen=True):
    """Long above `level`."""

    level: float = 1.0

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Any) -> Any:
        return bars.close > self.level * SCALE


class Forgetful(cm.Windowed, frozen=True):
    """Uses highs, of which `reads` knows nothing."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Any) -> Any:
        return (bars.high > bars.high.mean() if bars.high.size else bars.high).astype(np.int8)


class ForgetfulToo(cm.Windowed, frozen=True):
    """Reads highs; low is forgotten."""

    reads = frozenset({"high"})

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Any) -> Any:
        return bars.high - bars.low > 0


@pytest.mark.parametrize("level", [float("nan"), float("inf"), "nan", np.float64("-inf")])
def test_a_parameter_that_is_no_finite_number_is_named(level: Any) -> None:
    refused(r"above: level=-?(nan|inf) is not a finite number: give another value", cm.backtest, frame(), Above,
            level=level)  # fmt: skip
    refused(r"above: level=-?(nan|inf) is not a finite number", cm.sweep, frame(), Above, level=[1.0, level])
    refused(r"above: level=-?(nan|inf) is not a finite number", cm.check, Above, level=level)


def test_a_table_has_rows_by_number() -> None:
    r = cm.backtest(frame(), "sma_cross", fast=5, slow=20)
    first, last = r.trades[0], r.trades[-1]
    assert list(first) == r.trades.columns and first == {name: r.trades[name][0] for name in r.trades}
    assert last["exit_price"] == r.trades["exit_price"][-1] and last["side"] in ("long", "short")
    assert type(last["exit_price"]) is float and type(last["side"]) is str
    n = len(r.trades)
    refused(rf"row {n} is none of {n:,} rows: the first is 0", r.trades.__getitem__, n)
    refused(r"table\[0\.5\]: give a column's name or a row's number", r.trades.__getitem__, 0.5)


def test_a_set_is_run_by_its_row_in_the_table() -> None:
    s = cm.sweep(frame(), "sma_cross", **GRID)
    assert s.run(0).job_id == s.best().job_id == s.run(s.best().job_id).job_id
    fast, slow = (int(s.sets[name][3]) for name in GRID)
    assert {"fast": fast, "slow": slow}.items() <= s.run(3).params.items()
    assert s.run(np.int64(-1)).job_id == s.run(5).job_id
    refused(r"run\(6\): the sweep has 6 sets, the first is 0, the last is -1", s.run, 6)
    refused(r"run\(2.5\): give a row of sets, from 0 on, or a set's job id", s.run, 2.5)
    refused(r"unknown job 'nope'", s.run, "nope")


def test_a_frame_is_taken_for_candles() -> None:
    """Polars' and Arrow's too, by every call; several need names."""
    given = frame()
    wanted = cm.backtest(cm.Candles.from_pandas(given), "sma_cross").result["result_digest"]
    polars = pl.from_pandas(given)
    for one in (given, polars, polars.to_arrow()):
        assert cm.backtest(one, "sma_cross").result["result_digest"] == wanted
    assert len(cm.sweep(given, "sma_cross", **GRID)) == 6
    assert cm.check("buy_and_hold", given, seconds=0.2, only=["cuts"]).honest
    refused(r"neither a symbol nor Candles.*: make them of your own data with cm.Candles.from_pandas", cm.backtest,
            [given, given], "sma_cross")  # fmt: skip


@pytest.mark.parametrize("name", ["Open time", " time", "Date "])
def test_a_column_of_times_is_found_by_any_spelling(name: str, tmp_path: Path) -> None:
    given = frame().rename(columns={"time": name, "close": " Close"})
    wanted = cm.Candles.from_pandas(frame()).data_digest
    assert cm.Candles.from_pandas(given).data_digest == wanted
    assert cm.Candles.from_polars(pl.from_pandas(given)).data_digest == wanted
    path = tmp_path / "own.csv"
    given.assign(**{name: given[name].astype("int64") // 10**6}).to_csv(path, index=False)
    assert cm.Candles.from_csv(path, decimals=8).start == int(days(5, 0, 2)["t"][0])


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    given = frame()
    twice = pd.concat([given, given[["close"]]], axis=1)
    refused("columns 'close' and 'close' mean the same: leave one out", cm.Candles.from_pandas, twice)
    twice.to_csv(tmp_path / "own.csv", index=False)
    refused("columns 'close' and 'close' mean the same", cm.Candles.from_csv, tmp_path / "own.csv")
    table = pl.from_pandas(given).to_arrow()
    refused("columns 'close' and 'close' mean the same", cm.Candles.from_arrow,
            table.append_column("close", table["close"]))  # fmt: skip


def test_a_check_is_of_one_thing() -> None:
    refused(r"data=\['A', 'B'\]: a check is of one symbol", cm.check, "sma_cross", ["A", "B"])
    refused(r"fast=\[5, 10\] has several values: a check is of one", cm.check, "sma_cross", fast=[5, 10])
    refused(r"is neither a strategy's name, nor FILE.py:Class, nor a Strategy", cm.check, ["sma_cross"])


def test_columns_that_reads_forgets_are_named() -> None:
    refused(r"positions of shape \(0,\), .*; bars.high is empty without reads = frozenset\({\"high\"}\)", cm.backtest,
            frame(), Forgetful)  # fmt: skip
    refused(r"ValueError: .*; bars.low is empty without reads = frozenset\({\"high\", \"low\"}\)", cm.backtest,
            frame(), ForgetfulToo)  # fmt: skip


def test_an_empty_address_opens_no_other_database(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "CANDLEMILL_CLICKHOUSE_DSN is empty: unset it for the database in your own folder, or give chdb:///FOLDER"
    refused(words, cm.coverage, store="")
    monkeypatch.setenv("CANDLEMILL_CLICKHOUSE_DSN", " ")
    refused(words, cm.coverage)


def test_a_grid_over_no_symbol_is_refused() -> None:
    for call in (cm.sweep, cm.walk_forward):
        refused("is neither a symbol nor Candles", call, [], "sma_cross", **GRID)
