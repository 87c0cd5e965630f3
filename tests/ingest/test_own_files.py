"""Files of other sources: the same candles as Binance's files, or a refusal that names the row."""

import csv
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import candlemill as cm
import numpy as np
import pytest
from conftest import Cli, days, said
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
from candlemill.errors import BadFile
from candlemill.ingest import own_files
from candlemill.ingest.fold import Folder
from candlemill.ingest.own_files import OwnFormat, read_own
from pyarrow import parquet

PRICES = ("open", "high", "low", "close")
MINUTE = 60_000
pytestmark = pytest.mark.usefixtures("database")


def rows_of(candles: dict[str, Any], names: tuple[str, ...] = (*PRICES, "volume")) -> dict[str, list[Any]]:
    texts = {name: [str(Decimal(int(x)).scaleb(-8)) for x in candles[name]] for name in names}
    return {"t": candles["t"].tolist(), **texts}


def write_csv(path: Path, columns: dict[str, list[Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def digest(symbol: str) -> list[str]:
    return list(cm.coverage(symbol)["digest"])


def test_every_way_in_stores_the_same_candles(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_files, "ROWS_AT_ONCE", 1000)
    candles = days(2, 40, 3)  # as BBBUSDT of the stored market
    columns = rows_of(candles)
    named = {"when": columns["t"], "o": columns["open"], "High": columns["high"], "low": columns["low"]}
    named |= {"c": columns["close"], "base volume": columns["volume"], "note": ["x"] * len(columns["t"])}
    path = write_csv(tmp_path / "a.csv", named)
    options = ("--map", "time=when,open=o,close=c", "--map", "volume=base volume", "--json")
    report = said(run("ingest", path, "--format", "csv", "--as", "OWN:csv", *options))
    assert (report["files"], report["rows"], report["stored"]) == (1, len(columns["t"]), len(columns["t"]))
    exact = {name: pa.array([Decimal(x) for x in columns[name]], pa.decimal128(20, 8)) for name in (*PRICES, "volume")}
    table = pa.table(
        {
            "timestamp": pa.array(candles["t"], pa.timestamp("ms", "UTC")),
            **exact,
            "s": ["P"] * len(path.read_text().splitlines()[1:]),
        }
    )
    parquet.write_table(table, tmp_path / "b.parquet", row_group_size=700)
    said(run("ingest", tmp_path, "--format", "parquet", "--map", "symbol=s", "--json"))
    floats = {name: pa.array([float(x) for x in columns[name]]) for name in (*PRICES, "volume")}
    parquet.write_table(pa.table({"t": candles["t"], **floats}), tmp_path / "c.parquet")
    said(run("ingest", tmp_path / "c.parquet", "--format", "parquet", "--as", "FLOATS", "--json"))
    ccxt = [[t, *map(float, rest)] for t, *rest in zip(*columns.values(), strict=True)]
    assert cm.Candles.from_ccxt(ccxt, "BTC/USDT:USDT").save() == len(ccxt)
    for symbol in ("OWN:csv", "P", "FLOATS", "BTC/USDT:USDT"):
        assert digest(symbol) == digest("BBBUSDT"), symbol
    again = said(run("ingest", path, "--format", "csv", "--as", "OWN:csv", *options))
    assert again["stored"] == 0
    own = cm.backtest("BTC/USDT:USDT", "sma_cross", fast=5, slow=20).stats["Profit"]
    assert own == cm.backtest("BBBUSDT", "sma_cross", fast=5, slow=20).stats["Profit"]


def test_a_wrong_row_refuses_the_file_and_nothing_else(run: Cli, tmp_path: Path) -> None:
    good = {name: column[:50] for name, column in rows_of(days(2, 40, 1)).items()}

    def spoiled(name: str, row: int, value: Any) -> dict[str, list[Any]]:
        return {
            key: [*column[:row], value, *column[row + 1 :]] if key == name else column for key, column in good.items()
        }

    wrong = {
        "high": (spoiled("high", 7, "1"), "row 7, 2024-02-10T00:07Z, has its open above its high"),
        "zero": (spoiled("low", 9, "0"), "has a low of 0 or less"),
        "text": (spoiled("close", 3, "abc"), "close 'abc' of row 3 is not a number"),
        "fine": (spoiled("close", 3, "1.123456789"), "has more than 8 decimals"),
        "none": (spoiled("open", 4, ""), "open of row 4 is missing"),
        "time": (spoiled("t", 5, good["t"][5] + 1), "is not on a whole minute"),
        "twice": (spoiled("t", 5, good["t"][4]), "comes twice"),
        "hours": (
            {**good, "t": [good["t"][0] + k * 60 * MINUTE for k in range(50)]},
            "no two candles are a minute apart",
        ),
        "less": ({key: column for key, column in good.items() if key != "low"}, "no column 'low'"),
    }
    for name, (columns, reason) in wrong.items():
        path = write_csv(tmp_path / f"{name}.csv", columns)
        status, out, err = run("ingest", path, "--format", "csv", "--as", "SPOILED")
        assert status == 2 and reason in err and str(path) in err, (name, err)
    assert "SPOILED" not in cm.coverage().to_numpy()["symbol"]
    write_csv(tmp_path / "good.csv", good)
    status, out, err = run("ingest", tmp_path, "--format", "csv", "--as", "GOOD", "--json")
    assert (status, json.loads(out)["files"], len(json.loads(out)["refused"])) == (2, 1, len(wrong))
    assert len(cm.candles("GOOD")) == 50


def test_requests_that_cannot_be_meant(run: Cli, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", {name: column[:5] for name, column in rows_of(days(2, 40, 1)).items()})
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    for arguments, text in (
        ((path, "--as", "A"), "--as is for files of other sources"),
        ((path, "--format", "csv"), "whose candles"),
        ((path, "--format", "csv", "--as", "A,B"), "symbol 'A,B' is not"),
        ((path, "--format", "csv", "--as", "A", "--map", "opne=o"), "did you mean 'open'?"),
        ((path, "--format", "csv", "--as", "A", "--map", "open=o"), "unknown column 'o'"),
        ((path, "--format", "csv", "--as", "A", "--map", "open"), "is not like open=o"),
        ((tmp_path / "b.parquet", "--format", "parquet", "--as", "A"), "no parquet"),
        ((tmp_path / "no.csv", "--format", "csv", "--as", "A"), "no such file"),
        ((path, "--format", "csv", "--as", "A", "--market", "um"), "--market is for Binance's files"),
        ((path, "--format", "csv", "--as", "A", "--decimals", "9"), "--decimals 9"),
    ):
        status, _, err = run("ingest", *arguments)
        assert status == 2 and text in err and err.count("\n") == 1, (arguments, err)


# -- folding -------------------------------------------------------------------------------------------------------


@given(st.data())
def test_folding_seconds_gives_their_minutes_however_the_file_is_cut(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 130)) * 1000 + 1_700_000_040_000  # within the first minutes
    seconds = sorted(data.draw(st.sets(st.integers(0, 400), min_size=1, max_size=200)))
    t = np.array([first + 1000 * k for k in seconds], np.int64)
    prices = np.array(data.draw(st.lists(st.integers(1, 9), min_size=4 * len(t), max_size=4 * len(t)))).reshape(4, -1)
    low, high = prices.min(axis=0), prices.max(axis=0)
    columns = {"t": t, "open": prices[1], "high": high, "low": low, "close": prices[2], "volume": prices[0]}
    folder, parts, at = Folder(), [], 0
    while at < len(t):
        size = data.draw(st.integers(1, len(t) - at))
        parts.append(folder.add({name: column[at : at + size] for name, column in columns.items()}))
        at += size
    parts.append(folder.finish())
    found = {name: np.concatenate([part[name] for part in parts]).tolist() for name in columns}
    expected: dict[int, list[int]] = {}
    for k, moment in enumerate(t.tolist()):
        expected.setdefault(moment // MINUTE * MINUTE, []).append(k)
    edges = list(expected)
    left_out = {edges[0]} if t[0] % MINUTE else set()
    left_out |= {edges[-1]} if (t[-1] + 1000) % MINUTE else set()
    kept = {minute: rows for minute, rows in expected.items() if minute not in left_out}
    assert folder.left_out == len(left_out)
    assert found["t"] == list(kept)
    for k, rows in enumerate(kept.values()):
        bar = tuple(found[name][k] for name in ("open", "high", "low", "close", "volume"))
        some = {name: columns[name][rows].tolist() for name in columns}
        assert bar == (some["open"][0], max(some["high"]), min(some["low"]), some["close"][-1], sum(some["volume"]))


def test_seconds_of_a_file_become_minutes(run: Cli, tmp_path: Path) -> None:
    start, n = 1_704_067_200, 600
    price = [str(100 + k % 7) for k in range(n)]
    columns = {"time": list(range(start, start + n)), **dict.fromkeys(PRICES, price), "volume": ["1"] * n}
    path = write_csv(tmp_path / "s.csv", columns)
    status, _, err = run("ingest", path, "--format", "csv", "--as", "SECONDS")
    assert status == 2 and "not on a whole minute" in err
    assert said(run("ingest", path, "--format", "csv", "--as", "SECONDS", "--fold", "--json"))["incomplete"] == 0
    found = cm.candles("SECONDS").to_numpy()
    assert (len(found["time"]), set(found["volume"]), set(found["high"]), set(found["low"])) == (10, {60}, {106}, {100})
    assert found["open"].tolist() == [100 + 60 * k % 7 for k in range(10)]
    with pytest.raises(BadFile, match="comes twice or too late"):
        late = {name: column[::-1] for name, column in columns.items()}
        read_own(write_csv(tmp_path / "l.csv", late), OwnFormat(form="csv", symbol="L", fold=True), lambda _: 8)
