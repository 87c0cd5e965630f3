"""Finding and loading kline files, including all available real files."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from candlemill.errors import BadFile
from candlemill.exchanges.binance.kline_files import clean
from candlemill.ingest.files import find_kline_files, load

DATA = Path(__file__).parents[2].parent / "shared" / "data"
ROW = b"1619827200000,2,3,1,2.5,5,1619827259999,0,0,0,0,0\n"


def real_zips() -> list[Path]:
    return [path for folder in ("spot", "dirty", "official-daily") for path in sorted((DATA / folder).glob("*.zip"))]


def touch(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(ROW)
    return paths


# --- finding ----------------------------------------------------------------------------------------------------------


def test_files_are_sorted_by_symbol_and_time_months_before_days(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "BTCUSDT-1m-2021-05.zip",
        "deep/er/BTCUSDT-1m-2021-04-25.csv",
        "z/BTCUSDT-1m-2021-04.zip",
        "ETHUSDT-1m-2020-01.zip",
        "BTCUSDT-1m-2021-04.zip.CHECKSUM",
        "BTCUSDT-5m-2021-04.zip",
        "notes.txt",
    )
    found = find_kline_files([tmp_path])
    ignored = [str(note) for note in found.ignored]
    assert [file.path.name for file in found.files] == [
        "BTCUSDT-1m-2021-04.zip",
        "BTCUSDT-1m-2021-04-25.csv",
        "BTCUSDT-1m-2021-05.zip",
        "ETHUSDT-1m-2020-01.zip",
    ]
    assert len(ignored) == 2
    assert ignored[0] == f"{tmp_path}/BTCUSDT-5m-2021-04.zip: interval 5m, only 1m candles are supported"
    assert ignored[1].startswith(f"{tmp_path}/notes.txt: not a kline file's name, expected SYMBOL-1m-YYYY-MM.zip")


def test_a_file_named_twice_is_found_once(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "sub/BTCUSDT-1m-2021-05.zip")
    detour = tmp_path / "sub" / ".." / "sub"
    assert [one.path for one in find_kline_files([file, tmp_path, tmp_path / "sub", file]).files] == [file]
    assert len(find_kline_files([file, detour]).files) == 1


def test_the_error_without_files_names_the_expected_format(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt")
    for paths in ([tmp_path], []):
        with pytest.raises(BadFile, match=r"no kline file found, expected SYMBOL-1m-YYYY-MM\.zip or .*\(or \.csv\)"):
            find_kline_files(paths)
    with pytest.raises(BadFile, match=r"no kline file found.*; .*/a\.txt: not a kline file's name"):
        find_kline_files([tmp_path])
    (refused,) = find_kline_files([tmp_path / "a.txt"]).refused
    assert str(refused).startswith(f"{tmp_path}/a.txt: not a kline file's name"), "a file that is named is not ignored"
    with pytest.raises(BadFile, match="none: no such file or folder"):
        find_kline_files([tmp_path / "none"])


# --- loading ----------------------------------------------------------------------------------------------------------


def write_zip(path: Path, text: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", text)
    return path


def write_checksum(path: Path, data: bytes) -> None:
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}")


def test_zip_and_csv_give_equal_candles(tmp_path: Path) -> None:
    (csv,) = touch(tmp_path, "BTCUSDT-1m-2021-05.csv")
    for path in (csv, write_zip(tmp_path / "BTCUSDT-1m-2021-05.zip", ROW)):
        for checked in (False, True):
            if checked:
                write_checksum(path, path.read_bytes())
            symbol, candles = load(path, 2)
            assert symbol == "BTCUSDT"
            assert [column.tolist() for column in (candles.t, candles.close, candles.volume)] == [
                [1619827200000],
                [250_000_000],
                [500],
            ]


def test_errors_name_the_path_and_the_line(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "BTCUSDT-1m-2021-05.zip", ROW * 3 + ROW.replace(b",5,", b",-5,"))
    with pytest.raises(BadFile) as caught:
        load(path, 8)
    assert str(caught.value) == f"{path}:4: volume -5 is negative"
    write_checksum(path, b"something else")
    with pytest.raises(BadFile, match=rf"^{path}: its sha256 is [0-9a-f]+, its \.CHECKSUM has"):
        load(path, 8)
    path.write_bytes(b"no zip")
    write_checksum(path, b"no zip")
    with pytest.raises(BadFile, match=rf"^{path}: damaged or truncated zip: File is not a zip file"):
        load(path, 8)
    with pytest.raises(BadFile, match=rf"^{tmp_path}/x\.zip: not a kline file's name"):
        load(tmp_path / "x.zip", 8)
    with pytest.raises(BadFile, match=r"BTCUSDT-1m-2021-06\.zip: cannot be read: No such file"):
        load(tmp_path / "BTCUSDT-1m-2021-06.zip", 8)


def test_an_unreadable_checksum_is_an_error(tmp_path: Path) -> None:
    (path,) = touch(tmp_path, "BTCUSDT-1m-2021-05.csv")
    neighbour = path.with_name(f"{path.name}.CHECKSUM")
    neighbour.write_bytes(b"\xff\xfe")
    with pytest.raises(BadFile, match=r"its \.CHECKSUM is not one line"):
        load(path, 8)
    neighbour.write_bytes(b"0" * 5000)
    with pytest.raises(BadFile, match="more than 4096 bytes"):
        load(path, 8)


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", real_zips() or [None], ids=lambda path: path.stem if path else "absent")
def test_real_files_load(path: Path | None) -> None:
    if path is None:
        pytest.skip(f"no real market data: {DATA} is absent")
    symbol, candles = load(path, 8)
    cleaned = clean(candles)
    assert path.name.startswith(f"{symbol}-1m-")
    assert bool(np.all(np.diff(cleaned.t) > 0)) and bool(np.all(cleaned.t % 60_000 == 0))
    assert set(cleaned.t.tolist()) == set(candles.t.tolist())
    month = path.stem.split("-1m-")[1]
    assert str(candles.t[0].astype("datetime64[ms]")).startswith(month)


def test_real_duplicates_hide_a_gap() -> None:
    path = DATA / "dirty" / "BTCUSDT-1m-2019-11.zip"
    if not path.exists():
        pytest.skip(f"no real market data: {path} is absent")
    candles = load(path, 8)[1]
    assert (len(candles), len(clean(candles))) == (20031, 19888)


def test_finding_real_files() -> None:
    if not real_zips():
        pytest.skip(f"no real market data: {DATA} is absent")
    found = find_kline_files([DATA])
    assert set(real_zips()) <= {file.path for file in found.files}
    assert any("XRPETH-trades-2019-10.zip: single trades, not candles" in str(note) for note in found.ignored)
