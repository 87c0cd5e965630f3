"""Ingest of candles: exact, each file completely or not at all, and no write without new rows."""

import hashlib
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candlemill.errors import BadFile, BadInput
from candlemill.ingest import candles as ingest_module
from candlemill.ingest.candles import FilesRefused, ingest
from candlemill.store.candle_writer import current_days
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import Day
from conftest import DAY_MS, Columns, days, write_zip
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slow_engine import Bar, read_zip

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real candles are not at {DATA}")
NAMES = ("open", "high", "low", "close", "volume")
MIDNIGHT = 1_709_164_800_000  # 2024-02-29
MINUTE = 60_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseStore]:
    """Embedded store; test_store.py covers servers."""
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


def content(store: ClickHouseStore, symbol: str) -> dict[int, tuple[int, ...]]:
    """All stored candles of a symbol, by minute."""
    columns = store.read_columns(symbol, 0, 2**42, NAMES)
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    found = {row[0]: row[1:] for row in rows}
    assert list(found) == sorted(found) and len(found) == len(columns["t"])
    return found


def recounted(rows: dict[int, tuple[int, ...]]) -> list[Day]:
    """Metadata index by its documented definition, computed with struct and hashlib only."""
    out = []
    for start in sorted({t // DAY_MS * DAY_MS for t in rows}):
        minutes = sorted(t for t in rows if start <= t < start + DAY_MS)
        digest = hashlib.sha256(struct.pack(f"<{len(minutes)}q", *minutes))
        for k in range(4):
            digest.update(struct.pack(f"<{len(minutes)}q", *(rows[t][k] for t in minutes)))
        digest.update(struct.pack(f"<{len(minutes)}Q", *(rows[t][4] for t in minutes)))
        out.append(Day(start, len(minutes), minutes[0], minutes[-1], digest.hexdigest()))
    return out


def as_rows(bars: list[Bar]) -> dict[int, tuple[int, ...]]:
    return {bar.t: (bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars}


def columns_as_rows(columns: Columns) -> dict[int, tuple[int, ...]]:
    return dict(zip(columns["t"].tolist(), zip(*(columns[name].tolist() for name in NAMES), strict=True), strict=True))


def written(store: ClickHouseStore) -> Any:
    """All parts of all tables, and the index with its versions."""
    parts = store._rows(
        "SELECT table, name, rows, modification_time FROM system.parts WHERE database = currentDatabase()", {}
    )
    index = store._rows("SELECT * FROM coverage_days ORDER BY ALL", {})
    return sorted(parts), index


# --- real files -------------------------------------------------------------------------------------------------------


READ_TWICE = ("COTIBTC-1m-2020-02", "BTCBUSD", "ETHUSDT-1m-2025-11")  # the independent reader is slow


@needs_real_data
def test_real_files_are_stored_exactly(store: ClickHouseStore) -> None:
    """Compare minutes of all files, and the content of some with an independent reader; times in ms and in µs."""
    folders = [DATA / name for name in ("spot", "official-daily")]
    report = ingest(store, folders)
    files = sorted((path for folder in folders for path in folder.glob("*.zip")), key=lambda path: path.name)
    minutes: dict[str, set[int]] = {}
    for file in files:
        with zipfile.ZipFile(file) as archive:
            lines = archive.read(archive.namelist()[0]).splitlines()
        minutes.setdefault(file.name.split("-")[0], set()).update(int(line[:13]) for line in lines)
    assert (report.files, report.symbols, store.symbols()) == (len(files), sorted(minutes), sorted(minutes))
    assert report.rows == report.stored == sum(map(len, minutes.values()))
    for symbol, expected in minutes.items():
        assert store.read_columns(symbol, 0, 2**42, ())["t"].tolist() == sorted(expected)
        assert sum(day.rows for day in store.days(symbol)) == len(expected)
    for file in (file for file in files if file.name.startswith(READ_TWICE)):
        rows = as_rows(read_zip(file))
        found = content(store, file.name.split("-")[0])
        assert rows == {t: found[t] for t in rows}
        whole_days = {day for day in recounted(rows) if day.rows == 1440}
        assert whole_days <= set(store.days(file.name.split("-")[0]))


@needs_real_data
def test_dirty_files_keep_the_last_duplicate_and_fill_no_gap(store: ClickHouseStore) -> None:
    """26 856 of 43 200 rows are duplicates."""
    (file,) = (DATA / "dirty").glob("BTCRUB-*.zip")
    report, expected = ingest(store, [file]), as_rows(read_zip(file))
    assert (report.rows, report.stored, len(expected)) == (43_200, 16_344, 16_344)
    assert content(store, "BTCRUB") == expected and store.days("BTCRUB") == recounted(expected)


# --- new and unchanged rows -------------------------------------------------------------------------------------------


def test_ingesting_again_writes_nothing(store: ClickHouseStore, market: Path) -> None:
    first = ingest(store, [market])
    before = written(store)
    again = ingest(store, [market, market / "AAAUSDT-1m-2024-02.zip"])
    assert (first.rows, first.stored, again.rows, again.stored) == (first.rows, first.rows, first.rows, 0)
    assert written(store) == before


def test_a_corrected_day_replaces_its_month_and_changes_only_its_digest(store: ClickHouseStore, tmp_path: Path) -> None:
    month, day = days(5, 31, 4), days(5, 33, 1)
    day["close"] = day["close"].copy()
    day["close"][100:103] = day["high"][100:103] = day["high"][100:103] + 7
    write_zip(tmp_path / "files", "XUSDT-1m-2024-02", month)
    ingest(store, [tmp_path / "files"])
    before = store.days("XUSDT")
    write_zip(tmp_path / "files", "XUSDT-1m-2024-02-03", day)
    report = ingest(store, [tmp_path / "files"])
    after = store.days("XUSDT")
    assert report.stored == 3
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True]
    expected = columns_as_rows(month) | columns_as_rows(day)
    assert content(store, "XUSDT") == expected and after == recounted(expected)


def test_both_units_of_time_and_a_header_give_the_same_candles(store: ClickHouseStore, tmp_path: Path) -> None:
    candles = days(6, 10, 1)
    write_zip(tmp_path / "files", "MSUSDT-1m-2024-01-11", candles)
    write_zip(tmp_path / "files", "USUSDT-1m-2024-01-11", candles, microseconds=True)
    header = b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,"
    header += b"taker_buy_quote_volume,ignore\n"
    with zipfile.ZipFile(tmp_path / "files" / "MSUSDT-1m-2024-01-11.zip") as archive:
        text = archive.read("MSUSDT-1m-2024-01-11.csv")
    write_zip(tmp_path / "files", "HEADUSDT-1m-2024-01-11", header + text)
    (tmp_path / "files" / "CSVUSDT-1m-2024-01-11.csv").write_bytes(text)
    ingest(store, [tmp_path / "files"], market="spot")
    found = [content(store, symbol) for symbol in ("MSUSDT", "USUSDT", "HEADUSDT", "CSVUSDT")]
    assert found == [columns_as_rows(candles)] * 4


def row(minute: int, value: int, volume: int) -> bytes:
    t = MIDNIGHT + minute * MINUTE
    price = f"{value // 10**8}.{value % 10**8:08d}"
    return (
        f"{t},{price},{price},{price},{price},{volume // 10**8}.{volume % 10**8:08d},{t + 59_999},0,0,0,0,0\n".encode()
    )


SYMBOLS = count()
CANDLE = st.tuples(st.integers(-3, 3), st.integers(1, 2**40), st.integers(0, 2**64 - 1))  # minute from midnight
FILES = st.lists(st.lists(CANDLE, min_size=1, max_size=8), min_size=1, max_size=5)


@given(FILES, st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_ingests_keeps_the_last_candle_of_each_minute(
    store: ClickHouseStore, tmp_path: Path, files: list[list[tuple[int, int, int]]], rng: random.Random
) -> None:
    """Minutes around a midnight at the end of a month; every file may have any of them, also twice."""
    symbol = f"H{next(SYMBOLS)}"
    expected: dict[int, tuple[int, ...]] = {}
    for number, file in enumerate(files):
        folder = tmp_path / symbol / str(number)
        for month, wanted in (("2024-02", range(-3, 0)), ("2024-03", range(4))):
            rows = [row(DAY_MS // MINUTE + m, value, volume) for m, value, volume in file if m in wanted]
            if rows:
                write_zip(folder, f"{symbol}-1m-{month}", b"".join(rows))
        for minute, value, volume in file:
            expected[MIDNIGHT + DAY_MS + minute * MINUTE] = (value, value, value, value, volume)
    number = 0
    while number < len(files):
        together = rng.randint(1, len(files) - number)
        ingest(store, [tmp_path / symbol / str(k) for k in range(number, number + together)])
        number += together
    assert content(store, symbol) == expected
    assert store.days(symbol) == recounted(expected)


# --- invalid files ----------------------------------------------------------------------------------------------------


def good(folder: Path) -> dict[int, tuple[int, ...]]:
    """Write two valid files; their names come before and after the one that a test adds."""
    candles = days(7, 31, 2)
    for k, name in enumerate(("AAAUSDT-1m-2024-02-01", "CCCUSDT-1m-2024-02-02")):
        rows = slice(1440 * k, 1440 * (k + 1))
        write_zip(folder, name, {column: values[rows] for column, values in candles.items()})
    return columns_as_rows(candles)


def damaged(folder: Path, damage: str) -> tuple[str, str]:
    """Write an invalid file; return the start of its error and the reason."""
    name = "BBBUSDT-1m-2024-02-01"
    path = write_zip(folder, name, days(8, 31, 1))
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        return f"{path}: ", "damaged or truncated zip"
    if damage == "bits":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        return f"{path}: ", "damaged or truncated zip"
    if damage == "checksum":
        Path(f"{path}.CHECKSUM").write_text(f"{'0' * 64}  {path.name}")
        return f"{path}: ", ".CHECKSUM has 000"
    lines = [row(k - 28 * 1440, 5, 5) for k in range(10)]
    lines[6] = {
        "text": b"hello\n",
        "negative": lines[6].replace(b",0.", b",-0."),
        "huge": row(6 - 28 * 1440, 5, 2**64),
    }[damage]
    write_zip(folder, name, b"".join(lines))
    return f"{path}:7: ", "does not fit UInt64" if damage == "huge" else ""


@pytest.mark.parametrize("damage", ["truncated", "bits", "checksum", "text", "negative", "huge"])
def test_an_invalid_file_changes_nothing_and_the_others_are_stored(
    store: ClickHouseStore, tmp_path: Path, damage: str
) -> None:
    expected = good(tmp_path / "files")
    place, reason = damaged(tmp_path / "files", damage)
    with pytest.raises(BadFile) as caught:
        ingest(store, [tmp_path / "files"])
    assert str(caught.value).startswith(place) and reason in str(caught.value) and "\n" not in str(caught.value)
    assert content(store, "AAAUSDT") | content(store, "CCCUSDT") == expected
    assert (content(store, "BBBUSDT"), store.days("BBBUSDT"), store.volume_scale("BBBUSDT")) == ({}, [], None)
    assert store.symbols() == ["AAAUSDT", "CCCUSDT"]


def test_each_bad_file_is_named_with_its_reason(store: ClickHouseStore, tmp_path: Path) -> None:
    good(tmp_path)
    for name in ("BBBUSDT", "DDDUSDT", "EEEUSDT"):
        write_zip(tmp_path, f"{name}-1m-2024-02-01", b"hello\n")
    with pytest.raises(
        FilesRefused, match=r"BBBUSDT-1m-2024-02-01.zip.*\(and 2 more files refused; 2 stored\)"
    ) as caught:
        ingest(store, [tmp_path])
    report = caught.value.report
    assert [Path(one.file).name[:3] for one in report.refused] == ["BBB", "DDD", "EEE"]
    assert {one.line for one in report.refused} == {1} and report.symbols == ["AAAUSDT", "CCCUSDT"]
    assert all(f"refused {one.file}:1: 1 columns, expected 12" in report.text() for one in report.refused)


def test_the_way_out_of_a_volume_beyond_64_bits_works(store: ClickHouseStore, tmp_path: Path) -> None:
    """SHIBUSDT at 2021-11-04 15:16; with 64-bit overflow the volume would look plausible."""
    path = write_zip(tmp_path, "SHIBUSDT-1m-2024-02-29", row(0, 6_000, 44_814_560_998_800_000_000))
    with pytest.raises(BadFile, match=r"448145609988\.0+ does not fit UInt64 .*--volume-scale, such as 100"):
        ingest(store, [path])
    ingest(store, [path], volume_scale=100)
    assert content(store, "SHIBUSDT") == {MIDNIGHT: (6_000,) * 4 + (44_814_560_998_800,)}
    more = write_zip(tmp_path, "SHIBUSDT-1m-2024-03-01", row(1440, 6_000, 5 * 10**8))
    ingest(store, [more])  # the symbol's scale is remembered
    assert content(store, "SHIBUSDT")[MIDNIGHT + DAY_MS][4] == 500


def test_a_stored_symbol_keeps_its_volume_scale(store: ClickHouseStore, tmp_path: Path) -> None:
    """Otherwise one column would have two units."""
    path = write_zip(tmp_path, "XUSDT-1m-2024-02-29", row(0, 6_000, 10**8))
    ingest(store, [path])
    before = written(store)
    with pytest.raises(
        BadInput, match=r"XUSDT is stored with volume scale 100000000, which cannot change to 100: .*new database"
    ):
        ingest(store, [path], volume_scale=100)
    huge = write_zip(tmp_path, "XUSDT-1m-2024-03-01", row(1440, 6_000, 2**64))
    with pytest.raises(BadFile, match="XUSDT is stored with this scale already: use a new database"):
        ingest(store, [huge])
    assert written(store) == before


@pytest.mark.parametrize("scale", [0, -1, 3, 99, 10**9])
def test_a_volume_scale_is_a_power_of_ten(store: ClickHouseStore, tmp_path: Path, scale: int) -> None:
    with pytest.raises(BadInput, match=f"volume scale {scale} is not a power of ten"):
        ingest(store, [write_zip(tmp_path, "XUSDT-1m-2024-02-29", row(0, 6_000, 10**8))], volume_scale=scale)


# --- files that disagree ----------------------------------------------------------------------------------------------


def test_files_that_say_different_things_about_a_minute_are_named(store: ClickHouseStore, tmp_path: Path) -> None:
    """A month and its day, and the month once more elsewhere: the last in order wins."""
    month, day = days(5, 31, 4), days(5, 33, 1)
    day["close"] = day["close"].copy()
    day["close"][100:103] = day["high"][100:103] = day["high"][100:103] + 7
    first, again = (write_zip(tmp_path / folder, "XUSDT-1m-2024-02", month) for folder in "ab")
    by_day = write_zip(tmp_path / "a", "XUSDT-1m-2024-02-03", day)
    report = ingest(store, [tmp_path])
    found = [(one.period, one.won, one.lost, one.minutes) for one in report.disagreements]
    assert found == [("2024-02-03", str(by_day), str(lost), 3) for lost in (first, again)]
    assert report.disagreements[0].first == int(day["t"][100])
    assert f"disagreement XUSDT 2024-02-03: {by_day} wins over {first} in 3 minutes" in report.text()
    assert content(store, "XUSDT")[int(day["t"][100])][3] == int(day["close"][100])


# --- interrupted ------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """A BaseException that nothing handles, like the end of the process."""


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Raise Crash instead of the write number `step`, of any kind."""
    made = count()

    def crashing(real: Callable[..., None]) -> Callable[..., None]:
        def write(*arguments: Any) -> None:
            if next(made) == step:
                raise Crash
            real(*arguments)

        return write

    for name in ("put_writer", "put_days", "_insert_block", "add_symbol"):
        monkeypatch.setattr(ClickHouseStore, name, crashing(getattr(ClickHouseStore, name)))


WRITES = 13  # per symbol: scale, open writer, uncounted days, months (2 and 1), closed writer, days


@pytest.mark.parametrize("step", range(WRITES))
def test_after_a_crash_at_any_write_the_index_is_right_and_a_second_ingest_completes(
    tmp_path: Path, market: Path, clean: dict[str, list[Day]], step: int
) -> None:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as store:
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, step)
            with pytest.raises(Crash):
                ingest(store, [market])
        for symbol in ("AAAUSDT", "BBBUSDT"):
            assert list(current_days(store, symbol)) == recounted(content(store, symbol))
        ingest(store, [market])
        assert {symbol: store.days(symbol) for symbol in store.symbols()} == clean


@pytest.fixture(scope="session")
def clean(market: Path) -> dict[str, list[Day]]:
    """Index after a complete ingest, computed from the files."""
    rows: dict[str, dict[int, tuple[int, ...]]] = {}
    for file in sorted(market.glob("*.zip")):
        rows.setdefault(file.name.split("-")[0], {}).update(as_rows(read_zip(file)))
    return {symbol: recounted(found) for symbol, found in rows.items()}


def test_the_crash_test_covers_every_write(
    store: ClickHouseStore, market: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_at(monkeypatch, WRITES)
    ingest(store, [market])
    with pytest.raises(Crash):
        store.add_symbol("X", 1)


def test_an_interrupted_ingest_continues(
    store: ClickHouseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups are written when they are full; groups before the interruption are not written again."""
    monkeypatch.setattr(ingest_module, "GROUP_ROWS", 2000)
    candles = days(9, 31, 6)
    for k in range(6):
        part = {name: column[1440 * k : 1440 * (k + 1)] for name, column in candles.items()}
        write_zip(tmp_path / "files", f"XUSDT-1m-2024-02-{k + 1:02d}", part)
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, 8)
        with pytest.raises(Crash):
            ingest(store, [tmp_path / "files"])
    stored = len(content(store, "XUSDT"))
    assert 0 < stored < 6 * 1440
    assert ingest(store, [tmp_path / "files"]).stored == 6 * 1440 - stored
    assert content(store, "XUSDT") == columns_as_rows(candles)
    assert store.days("XUSDT") == recounted(columns_as_rows(candles))


def test_files_of_several_groups_are_written_completely(
    store: ClickHouseStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day may be split between groups, and a later group may correct an earlier one."""
    monkeypatch.setattr(ingest_module, "GROUP_ROWS", 100)
    candles = days(3, 31, 1)
    for k, minutes in enumerate((slice(0, 900), slice(700, 1440), slice(100, 120))):
        part = {name: column[minutes] for name, column in candles.items()}
        write_zip(tmp_path / str(k), "XUSDT-1m-2024-02-01", part | {"volume": part["volume"] + np.int64(k)})
    ingest(store, [tmp_path / str(k) for k in range(3)])
    volume = candles["volume"].copy()
    volume[700:] += 1
    volume[100:120] += 2
    expected = columns_as_rows(candles | {"volume": volume})
    assert content(store, "XUSDT") == expected and store.days("XUSDT") == recounted(expected)
