"""The synthetic market: valid, repeatable, and the same in memory as in its files."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from candlemill.exchanges.binance.kline_files import clean
from candlemill.ingest.files import find_kline_files, load

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "data" / "synthetic.py"


@pytest.fixture(scope="module")
def synthetic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_year_is_valid_and_repeatable(synthetic: ModuleType) -> None:
    candles = synthetic.year(7, 2024)
    again = synthetic.year(7, 2024)
    assert all(column.dtype == np.int64 and np.array_equal(column, again[name]) for name, column in candles.items())
    assert not np.array_equal(candles["close"][:1000], synthetic.year(8, 2024)["close"][:1000])
    top, bottom = np.maximum(candles["open"], candles["close"]), np.minimum(candles["open"], candles["close"])
    assert np.all(candles["high"] >= top) and np.all(candles["low"] <= bottom) and np.all(candles["low"] > 0)
    missing = 366 * 1440 - len(candles["t"])
    assert 80 <= missing <= 4 * 360 and np.all(np.diff(candles["t"]) >= 60_000)
    quiet = candles["volume"] == 0
    assert 50 < quiet.sum() < 1000 and np.all(candles["high"][quiet] == candles["low"][quiet])
    assert np.all(candles["close"] % 1_000_000 == 0) and np.all(candles["volume"] % 1000 == 0)
    assert np.all(candles["taker_volume"] <= candles["volume"])


@pytest.mark.parametrize("year", [2021, 2025])
def test_files_hold_the_same_candles(synthetic: ModuleType, tmp_path: Path, year: int) -> None:
    arguments = [str(tmp_path), "--symbol", "XUSDT", "--year", str(year), "--seed", "3", "--months", "2"]
    subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True, capture_output=True, timeout=300)
    expected = synthetic.year(3, year)
    files = [file.path for file in find_kline_files([tmp_path]).files]
    assert [path.name for path in files] == [f"XUSDT-1m-{year}-01.zip", f"XUSDT-1m-{year}-02.zip"]
    assert all(path.with_name(f"{path.name}.CHECKSUM").exists() for path in files)
    start = 0
    for path in files:
        symbol, candles = load(path, 8)
        assert symbol == "XUSDT" and clean(candles) is candles
        rows = slice(start, start := start + len(candles))
        for name in ("t", "open", "high", "low", "close", "volume"):
            assert np.array_equal(getattr(candles, name), expected[name][rows].astype(getattr(candles, name).dtype))
