"""Candles of hours and days: decisions at their ends are those that the minutes they were made of would give."""

import json
from pathlib import Path
from typing import Any

import candlemill as cm
import numpy as np
import pytest
from candlemill.backtests.long_candles import candle_minutes
from candlemill.cli.main import main
from hypothesis import given, settings
from hypothesis import strategies as st

PRICES = ("open", "high", "low", "close")
FIRST = 1_704_067_200_000  # 2024-01-01, a Monday
MINUTE = 60_000
Columns = dict[str, Any]


def minutes(days: int, seed: int) -> Columns:
    """Whole minutes of some days, with jumps between them."""
    rng = np.random.default_rng(seed)
    n = days * 1440
    close = (100 * np.exp(np.cumsum(rng.normal(0, 0.002, n)))).round(4)
    open_ = (np.append(100, close[:-1]) * rng.choice([0.999, 1, 1.001], n)).round(4)
    high, low = np.maximum(open_, close) + rng.choice([0, 0.01], n), np.minimum(open_, close) - rng.choice([0, 0.01], n)
    time, volume = FIRST + np.arange(n) * MINUTE, rng.integers(0, 50, n)
    return {"time": time, "open": open_, "high": high.round(4), "low": low.round(4), "close": close, "volume": volume}


def folded(columns: Columns, length: int) -> Columns:
    rows = {name: column.reshape(-1, length) for name, column in columns.items()}
    firsts = {name: rows[name][:, 0] for name in ("time", "open")}
    more = {"high": rows["high"].max(1), "low": rows["low"].min(1), "close": rows["close"][:, -1]}
    return firsts | more | {"volume": rows["volume"].sum(1)}


@pytest.mark.parametrize("fill", ["next_open", "close"])
@pytest.mark.parametrize(("length", "timeframe"), [(60, "1h"), (60, "4h"), (1440, "1d"), (15, "1h")])
@pytest.mark.parametrize(
    ("strategy", "params"),
    [
        ("sma_cross", {"fast": 2, "slow": 4}),
        ("supertrend", {"length": 2, "multiple": 100}),
        ("donchian", {"entry": 4, "exit": 2}),
    ],
)
def test_decisions_at_ends_of_long_candles_are_those_of_their_minutes(
    length: int, timeframe: str, fill: str, strategy: str, params: dict[str, int]
) -> None:
    whole = minutes(120 if length == 1440 else 40, length)
    name = {60: "1h", 1440: "1d", 15: "15m"}[length]
    long = cm.Candles.from_columns(folded(whole, length), "OWN", timeframe=name)
    job: dict[str, Any] = {"timeframe": timeframe, "fill": fill, "fee": "10bp", **params}
    found = cm.backtest(long, strategy, **job)
    exact = cm.backtest(cm.Candles.from_columns(whole, "OWN"), strategy, **job)
    assert long.symbol == f"OWN@{name}" and long.missing_minutes == 0
    assert found.result["trades"] == exact.result["trades"] > 0
    for figure in ("total_pnl", "fees", "turnover", "sharpe_ratio", "open_position", "wins"):
        assert found.result[figure] == exact.result[figure], figure
    for column in ("entry_time", "exit_time", "entry_price", "exit_price", "profit"):
        assert list(found.trades[column]) == list(exact.trades[column]), column


def test_nothing_of_a_long_candle_but_its_open_is_seen_before_its_last_minute() -> None:
    hours = folded(minutes(2, 5), 60)
    columns = cm.Candles.from_columns(hours, "OWN", timeframe="1h").columns
    for k in range(48):
        first, last = slice(60 * k, 60 * k + 59), 60 * k + 59
        assert all((columns[name][first] == columns["open"][60 * k]).all() for name in PRICES)
        assert not columns["volume"][first].any()
        whole = [columns[name][last] for name in (*PRICES, "volume")]
        assert whole == [round(float(hours[name][k]) * 10**8) for name in (*PRICES, "volume")]


def test_what_needs_minutes_is_refused_by_name() -> None:
    hours = folded(minutes(20, 5), 60)
    own = cm.Candles.from_columns(hours, "OWN", timeframe="1h")
    assert cm.backtest(own, "sma_cross", fast=2, slow=4).result["spec"]["timeframe"] == 60  # where none is named
    sets = cm.sweep(own, "sma_cross", fast=[2, 3], slow=4)
    assert sets.best().result["spec"]["timeframe"] == 60
    days = cm.Candles.from_columns(folded(minutes(20, 5), 1440), "OWN", timeframe="1d")
    assert cm.backtest([own, days], "sma_cross", fast=2, slow=4).parts["OWN@1h"].result["spec"]["timeframe"] == 1440
    for job, said in (
        ({"timeframe": "15m"}, "timeframe=15m needs shorter ones: give 1h or a multiple"),
        ({"timeframe": "90m"}, "timeframe=90m needs shorter ones"),
        ({"volume_share": "10%"}, "volume_share needs the volumes of minutes"),
    ):
        with pytest.raises(cm.BadInput, match=said):
            cm.backtest(own, "sma_cross", fast=2, slow=4, **job)  # type: ignore[arg-type]
    with pytest.raises(cm.BadInput, match="funding needs prices of the hours between"):
        cm.backtest(days, "sma_cross", fast=2, slow=4, funding=True)
    with pytest.raises(cm.BadInput, match="OWN@1d has candles of 1d"):
        cm.backtest([own, days], "sma_cross", fast=2, slow=4, timeframe="1h")
    space = {"fast": [2], "slow": [4], "timeframe": ["1h", "90m", "4h"]}
    refused = cm.optimize(own, "sma_cross", space=space, trials=9, sampler="grid")
    assert sorted(refused.trials["state"]) == ["done", "done", "refused"]
    for timeframe, said in (
        (None, "no two candles are a minute apart, the nearest are 60: give the timeframe"),
        ("30m", "no two candles are 30 minutes apart, the nearest are 60"),
        ("1d", "row 1, 2024-01-01T01:00Z, is not when a candle of 1d opens in UTC"),
        ("7h", "candles of 7h do not divide a day evenly"),
        ("1w", "candles of 1w do not divide a day evenly"),
    ):
        with pytest.raises(cm.BadInput, match=said):
            cm.Candles.from_columns(hours, "OWN", timeframe=timeframe)


def test_names_of_symbols_of_long_candles() -> None:
    names = {"A@1h": 60, "A": 1, "A@1w": 1, "A@x": 1, "A@": 1, "A@7h": 1, "B@15m@1d": 1440, "X:A/B@1m": 1}
    assert {name: candle_minutes(name) for name in names} == names


def test_files_of_long_candles(database: Path, tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("pyarrow")
    days = folded(minutes(60, 9), 1440)
    lines = ["date,open,high,low,close,volume"]
    for time, *rest in zip(*days.values(), strict=True):
        lines.append(",".join([str(np.datetime64(int(time), "ms"))[:10], *map(str, rest)]))
    (tmp_path / "own.csv").write_text("\n".join(lines))
    ingest = ("ingest", str(tmp_path / "own.csv"), "--format", "csv", "--as", "STOOQ:ABC")
    assert main([*ingest]) != 0
    assert "the nearest are 1,440: give the timeframe that the candles have" in capsys.readouterr().err
    assert main([*ingest, "--timeframe", "1d", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] == 60 * 1440
    assert main(["coverage", "STOOQ:ABC@1d", "--json"]) == 0
    assert [month["rows"] for month in json.loads(capsys.readouterr().out)["symbols"]["STOOQ:ABC@1d"]] == [44640, 41760]
    job = ("backtest", "--symbol", "STOOQ:ABC@1d", "--strategy", "sma_cross", "--param", "fast=2", "--param", "slow=4")
    assert main([*job, "--json"]) == 0
    stored = json.loads(capsys.readouterr().out)
    own = cm.Candles.from_columns(days, "STOOQ:ABC", timeframe="1d")
    assert cm.backtest(own, "sma_cross", fast=2, slow=4).job_id == stored["job_id"]
    assert main([*job, "--timeframe", "1h"]) != 0
    assert "STOOQ:ABC@1d has candles of 1d, timeframe=1h needs shorter ones" in capsys.readouterr().err


LEVELS: list[tuple[str, dict[str, int], dict[str, Any]]] = [
    ("sma_cross", {"fast": 2, "slow": 4}, {"stop_loss": "2%", "take_profit": "3%"}),
    ("sma_cross", {"fast": 1, "slow": 3, "allow_short": True}, {"stop_loss": "1%", "fill": "close"}),
    ("donchian", {"entry": 4, "exit": 2}, {"stop_loss": "1%", "take_profit": "2%", "path": "best"}),
    ("atr_bracket", {"entry": 6, "atr": 4, "stop": 100, "take": 200}, {}),
    ("breakout_stop", {"entry": 6, "risk": 20_000}, {"path": "best"}),
]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(LEVELS), st.floats(0, 0.3))
def test_levels_within_a_long_candle_fill_as_within_a_minute(
    seed: int, case: tuple[str, dict[str, int], dict[str, Any]], missing: float
) -> None:
    """Hours, some of which are missing, and the same candles as if they were minutes: the same prices, in turn."""
    strategy, params, options = case
    hours = folded(minutes(12, seed), 60)
    there = np.random.default_rng(seed).random(len(hours["time"])) >= missing
    hours = {name: column[there] for name, column in hours.items()}
    short = hours | {"time": FIRST + (hours["time"] - FIRST) // 60}
    long = cm.backtest(cm.Candles.from_columns(hours, "OWN", timeframe="1h"), strategy, **params, **options)
    quick = cm.backtest(cm.Candles.from_columns(short, "OWN"), strategy, **params, **options, max_gap=10**6)
    for column in ("side", "entry_price", "exit_price", "quantity", "profit", "reason"):
        assert list(long.trades[column]) == list(quick.trades[column]), column
    for figure in ("trades", "wins", "fills", "ambiguous_bars", "total_pnl", "turnover"):
        assert long.result[figure] == quick.result[figure], figure
