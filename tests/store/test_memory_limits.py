"""Caches follow the memory that a control group leaves to the process, read from files as the kernel writes them."""

import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from candlemill import config
from candlemill.backtests.resolve import resolve
from candlemill.config import bundled, memory_bytes
from candlemill.local.strategy_limits import MEMORY_MIN, limits_of
from candlemill.store.base import PRICES
from candlemill.store.candle_reader import CACHE_BYTES, CandleReader
from candlemill.store.candle_writer import recount, touched_days, write
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.column_cache import LIMIT_BYTES, ColumnCache

MIB = 1 << 20
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
Limited = Callable[..., None]


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limited:
    """Writes files of control groups by their paths, beside the file that names this process's group."""
    monkeypatch.setattr(config, "CGROUPS", tmp_path)
    monkeypatch.setattr(config, "CGROUP_OF_PROCESS", tmp_path / "cgroup")

    def write(group: str = "0::/\n", **files: str) -> None:
        (tmp_path / "cgroup").write_text(group)
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("memory_max", "memory.max")
            path = path.with_name(path.name.replace("limit_in_bytes", "memory.limit_in_bytes"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_the_least_limit_around_the_process_counts(limited: Limited) -> None:
    limited()
    assert memory_bytes() == MACHINE
    limited(memory_max="max\n")
    assert memory_bytes() == MACHINE
    limited(memory_max=f"{3 * MIB}\n")
    assert memory_bytes() == 3 * MIB
    limited("0::/a/b\n", a__memory_max=f"{2 * MIB}\n", a__b__memory_max="max\n")
    assert memory_bytes() == 2 * MIB, "of a group above"
    limited(memory__limit_in_bytes=f"{MIB}\n")
    assert memory_bytes() == MIB, "of version 1"


def test_caches_take_a_share_of_it(limited: Limited) -> None:
    limited(memory_max=str(512 * MIB))
    assert CandleReader(lambda symbol: [], None)._limit == 128 * MIB
    assert ColumnCache()._limit == 64 * MIB
    assert limits_of("s", None, 1, "").memory == MEMORY_MIN
    limited(memory_max=str(MACHINE * 1000))
    assert CandleReader(lambda symbol: [], None)._limit == min(CACHE_BYTES, MACHINE // 4)
    assert ColumnCache()._limit == min(LIMIT_BYTES, MACHINE // 8)


@pytest.mark.parametrize("name", ["execute", "long-tasks"])
def test_an_executor_leaves_room_in_its_container(limited: Limited, name: str) -> None:
    text = (bundled("knative") / "base" / f"{name}.yaml").read_text()
    least, most = (int(size) << {"Mi": 20, "Gi": 30}[unit] for size, unit in re.findall(r"memory: (\d+)(Mi|Gi)", text))
    limited(memory_max=str(most))
    assert CandleReader(lambda symbol: [], None)._limit <= min(most // 4, least // 2)


def test_months_of_many_symbols_stay_within_it(limited: Limited, database: Path) -> None:
    limited(memory_max=str(MIB))
    with ClickHouseStore(f"chdb://{database}") as store:
        reader = CandleReader(store.days, store)
        for symbol, first, last in (("AAAUSDT", "2024-01-29", "2024-02-05"), ("BBBUSDT", "2024-02-10", "2024-02-13")):
            start, end = (int(np.datetime64(day, "ms").astype(np.int64)) for day in (first, last))
            spec = resolve(symbol=symbol, strategy="buy_and_hold", span=(start, end), params={})
            window = reader.window(spec, start, end, 0, ("t", "open", "close"))
            assert window.hi - window.lo > 4_000
            assert reader._bytes <= MIB // 4


def test_a_soak_over_200_symbols_stays_within_it(limited: Limited, tmp_path: Path) -> None:
    """One process reads the candles of 200 symbols again and again; together they are many times what it may keep."""
    limited(memory_max=str(16 * MIB))
    start, length, symbols = 1_706_745_600_000, 2 * 1440, [f"S{k:03}USDT" for k in range(200)]
    columns = {"t": start + 60_000 * np.arange(length, dtype=np.int64)}
    columns |= {name: np.full(length, 10**10, np.int64) for name in PRICES}
    columns["volume"] = np.full(length, 10**8, np.uint64)
    names, span = ("t", *PRICES), (start, start + 60_000 * length)
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as store:
        rows = dict.fromkeys(symbols, columns)
        write(store, rows)
        recount(store, touched_days(rows))
        shared = ColumnCache()
        reader = CandleReader(store.days, store, shared=shared)
        specs = [resolve(symbol=symbol, strategy="buy_and_hold", span=span, params={}) for symbol in symbols]
        tracemalloc.start()
        try:
            for spec in specs + specs[::-1]:
                window = reader.window(spec, *span, 0, names)
                assert window.hi - window.lo == length
                assert reader._bytes <= 4 * MIB
            kept, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    whole = 2 * len(symbols) * length * 8 * len(names)
    assert whole > 2 * 16 * MIB
    assert kept < (4 + 2 + 1) * MIB and peak < (4 + 2 + 2) * MIB, f"{kept:,} bytes kept, {peak:,} at most"
