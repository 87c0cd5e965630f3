"""Names, zips, checksums and cleaning of Binance's kline files, without a file system."""

import hashlib
import io
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from candlemill.errors import BadFile
from candlemill.exchanges.binance.kline_files import (
    CSV_BYTES_MAX,
    Candles,
    KlineName,
    clean,
    parse_csv,
    read_file,
    read_zip,
    verify_checksum,
)
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = b"1619827200000,2,3,1,2,5,1619827259999,0,0,0,0,0\n" * 50
NAME = "BTCUSDT-1m-2021-05"


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def refusal(data: bytes | Path) -> str:
    with pytest.raises(BadFile) as caught:
        read_zip(data, "x.zip")
    assert (caught.value.file, caught.value.line) == ("x.zip", None)
    return caught.value.reason


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("BTCUSDT-1m-2021-04.zip", KlineName("BTCUSDT", 2021, 4, None)),
        ("BTCUSDT-1m-2021-04-25.csv", KlineName("BTCUSDT", 2021, 4, 25)),
        ("1000SATSUSDT-1m-2024-02-29.zip", KlineName("1000SATSUSDT", 2024, 2, 29)),
        ("币安人生USDT-1m-2025-10.zip", KlineName("币安人生USDT", 2025, 10, None)),
        ("BTCUSD_PERP-1m-2021-04.zip", KlineName("BTCUSD_PERP", 2021, 4, None)),
        ("BTCUSDT_230331-1m-2023-03-31.csv", KlineName("BTCUSDT_230331", 2023, 3, 31)),
    ],
)
def test_names(name: str, expected: KlineName) -> None:
    assert KlineName.parse(name) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("BTCUSDT-5m-2021-04.zip", "interval 5m, only 1m candles are supported"),
        ("BTCUSDT-1M-2021-04.zip", "interval 1M, only 1m candles are supported"),
        ("btcusdt-1m-2021-04.zip", "symbol btcusdt is not all upper-case letters and digits"),
        ("BTC USDT-1m-2021-04.zip", "symbol BTC USDT is not all upper-case letters and digits"),
        ("BTC-USDT-1m-2021-04.zip", "symbol BTC-USDT is not all upper-case letters and digits"),
        ("BTC_USDT-1m-2021-04.zip", "symbol BTC_USDT is not all upper-case letters and digits"),
        ("BTCUSDT-1s-2021-04-25.zip", "interval 1s, only 1m candles are supported"),
        ("BTCUSDT-aggTrades-2021-04.zip", "aggregate trades, not candles: take the klines of the same days"),
        ("BTCUSDT-fundingRate-2021-04.zip", "funding rates, not candles: store them with `candlemill funding`"),
        ("BTCUSDT-metrics-2021-04-25.zip", "open interest and ratios, not candles"),
        ("BTCUSDT-1m-2021-13.zip", "no such date: 2021-13"),
        ("BTCUSDT-1m-2021-02-29.zip", "no such date: 2021-02-29"),
        ("BTCUSDT-1m-0000-01.zip", "no such date: 0000-01"),
        ("-1m-2021-04.zip", "not a kline file's name, expected SYMBOL-1m-YYYY-MM.zip"),
        ("BTCUSDT-1m-2021-04.zip.CHECKSUM", "not a kline file's name"),
        ("BTCUSDT-1m-2021-04.ZIP", "not a kline file's name"),
        ("BTCUSDT-trades-2021-04.zip", "single trades, not candles"),
        ("BTCUSDT-1m-2021-04.zip\n", "not a kline file's name"),
        ("", "not a kline file's name"),
    ],
)
def test_invalid_names(name: str, reason: str) -> None:
    with pytest.raises(BadFile) as caught:
        KlineName.parse(name)
    assert caught.value.reason.startswith(reason)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_other_name_is_rejected(name: str) -> None:
    with pytest.raises(BadFile):
        KlineName.parse(name)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_bad_file_has_one_line_and_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(BadFile("a\nb.csv", 7, "x\ty\ud800")))
    assert (error.file, error.line, error.reason) == ("a\nb.csv", 7, "x\ty\ud800")
    assert str(error) == r"a\nb.csv:7: x\ty\ud800"
    assert str(BadFile("a.csv", None, "why")) == "a.csv: why"


def test_parse_csv_names_file_and_line() -> None:
    with pytest.raises(BadFile, match=r"^a\.csv:51: 1 columns, expected 12$"):
        parse_csv(TEXT + b"x", 8, "a.csv")
    assert len(parse_csv(TEXT, 8, "a.csv")) == 50


# --- zips -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_single_csv_is_read(method: int, tmp_path: Path) -> None:
    data = zipped({f"{NAME}.csv": TEXT, "readme.txt": b"hello"}, method)
    assert read_zip(data) == TEXT
    path = tmp_path / f"{NAME}.zip"
    path.write_bytes(data)
    assert read_zip(path) == TEXT


def test_none_or_several_csv_files() -> None:
    assert refusal(zipped({"a.txt": TEXT})) == "0 CSV files in the zip, expected exactly one"
    assert refusal(zipped({"a.csv": TEXT, "b/c.csv": TEXT})) == "2 CSV files in the zip, expected exactly one"


def test_a_zip_bomb_is_rejected_before_it_is_decompressed() -> None:
    assert "more than 200 times as much" in refusal(zipped({"a.csv": b"0" * 1_000_000}))
    about_300_times = random.Random(0).randbytes(2_000) + b"0" * 1_000_000
    assert "more than 200 times as much" in refusal(zipped({"a.csv": about_300_times}))
    assert f"the limit is {CSV_BYTES_MAX}" in refusal(zipped({"a.csv": b"0" * (CSV_BYTES_MAX + 1)}))


def test_a_zip_of_many_files_is_rejected_before_they_are_listed() -> None:
    assert read_zip(zipped({"a.csv": TEXT} | {f"{k}.txt": b"" for k in range(63)}), "x.zip") == TEXT
    assert refusal(zipped({"a.csv": TEXT} | {f"{k}.txt": b"" for k in range(64)})) == (
        "a zip of more than 64 files, expected one"
    )


def test_a_false_size_in_the_directory_entry_is_rejected() -> None:
    data = zipped({"a.csv": TEXT * 1000})
    size = (len(TEXT) * 1000).to_bytes(4, "little")
    assert data.count(size) == 2
    assert "damaged" in refusal(data.replace(size, (100_000).to_bytes(4, "little")))


def test_other_compression_methods_and_encryption() -> None:
    assert "compression method 14, expected deflate" in refusal(zipped({"a.csv": TEXT}, zipfile.ZIP_LZMA))
    data = bytearray(zipped({"a.csv": TEXT}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(bytes(data)) == "a.csv is encrypted"


def test_wrong_crc() -> None:
    data = zipped({"a.csv": TEXT}, zipfile.ZIP_STORED)
    assert "Bad CRC-32" in refusal(data.replace(TEXT, TEXT.replace(b"5", b"6")))


@pytest.mark.parametrize("kept", [0, 1, 20, 100, -1, -23])
def test_truncated(kept: int) -> None:
    assert refusal(zipped({"a.csv": TEXT})[:kept]).startswith("damaged or truncated zip: ")


@settings(max_examples=500)
@given(st.data())
def test_a_damaged_zip_gives_its_text_or_an_error(data: st.DataObject) -> None:
    damaged = bytearray(zipped({"a.csv": TEXT}, data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        text = read_zip(bytes(damaged))
    except BadFile:
        return
    assert text == TEXT


def test_read_file_limits_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_file(path, 5) == b"12345"
    with pytest.raises(BadFile, match="more than 4 bytes"):
        read_file(path, 4)
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        read_file(tmp_path / "none", 5)


# --- checksums --------------------------------------------------------------------------------------------------------


def test_checksums() -> None:
    good = hashlib.sha256(TEXT).hexdigest()
    for text in (f"{good}  {NAME}.zip", f"{good.upper()} *{NAME}.zip\r\n", f"{good}  {NAME}.zip\n"):
        verify_checksum(TEXT, text, f"{NAME}.zip")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{good}  other.zip", "its .CHECKSUM is for other.zip"),
        ("{bad}  x.zip", "its sha256 is {good}, its .CHECKSUM has {bad}: download both again"),
        ("{good}", "its .CHECKSUM is not one line `<sha256>  <name>`"),
        ("", "its .CHECKSUM is not one line `<sha256>  <name>`"),
        ("{good}  x.zip\n{good}  x.zip", "its .CHECKSUM is not one line `<sha256>  <name>`"),
    ],
)
def test_invalid_checksums(text: str, reason: str) -> None:
    values = {"good": hashlib.sha256(TEXT).hexdigest(), "bad": "0" * 64}
    with pytest.raises(BadFile) as caught:
        verify_checksum(TEXT, text.format(**values), "x.zip")
    assert str(caught.value) == "x.zip: " + reason.format(**values)


# --- cleaning ---------------------------------------------------------------------------------------------------------


def candles_at(times: list[int]) -> Candles:
    """Candles whose other columns contain their position in the file."""
    place = np.arange(len(times), dtype=np.int64)
    return Candles(np.array(times, np.int64), place, place + 1, place + 2, place + 3, (place + 4).astype(np.uint64))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_clean_sorts_and_keeps_the_last_duplicate(times: list[int]) -> None:
    cleaned = clean(candles_at(times))
    expected = dict(sorted({t: place for place, t in enumerate(times)}.items()))
    assert dict(zip(cleaned.t.tolist(), cleaned.open.tolist(), strict=True)) == expected
    for number, column in enumerate((cleaned.high, cleaned.low, cleaned.close, cleaned.volume), 1):
        assert column.tolist() == [place + number for place in expected.values()]
    assert cleaned.volume.dtype == np.uint64
    assert clean(cleaned) is cleaned


def test_clean_candles_are_not_copied() -> None:
    for times in ([], [5], [1, 2, 9]):
        candles = candles_at(times)
        assert clean(candles) is candles
