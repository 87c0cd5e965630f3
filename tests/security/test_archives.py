"""Zips with false sizes, beyond those of tests/exchanges/test_kline_files.py: what a zip can cost is bounded."""

import io
import resource
import struct
import zipfile
from pathlib import Path

import pytest
from candlemill.errors import BadFile
from candlemill.exchanges.binance.kline_files import MEMBERS_MAX, read_zip
from candlemill.ingest.files import load

NAME = "BTCUSDT-1m-2024-01"
ROW = b"1704067200000,2,3,1,2,5,1704067259999,0,0,0,0,0\n"


def zipped(members: dict[str, bytes]) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return bytearray(buffer.getvalue())


def with_sizes(data: bytearray, size: int) -> bytes:
    """The zip with another uncompressed size, in both of its headers."""
    struct.pack_into("<I", data, 22, size)
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, size)
    return bytes(data)


def refused(data: bytes) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadFile) as caught:
        read_zip(data, f"{NAME}.zip")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, "KiB"
    assert "\n" not in str(caught.value) and len(caught.value.reason) < 400
    return caught.value.reason


def test_sizes_that_are_not_true() -> None:
    """What it says less than it holds is not made, what it says more is not waited for."""
    rows = ROW * 2_000
    for size in (0, 10, len(rows) - 1, len(rows) + 1, 2**31, 2**32 - 1):
        assert refused(with_sizes(zipped({f"{NAME}.csv": rows}), size))


def test_a_zip_of_many_files_is_not_listed() -> None:
    """Each entry is an object: a zip of the size that is read could have a million."""
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    many = entry * 1_000_000
    for size, comment in ((len(many), b""), (len(many), b"words"), (2**32 - 1, b"")):
        end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, 0, len(comment)) + comment
        assert f"more than {MEMBERS_MAX} files" in refused(many + end)


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.csv",
        "{folder}/evil.csv",
        "..\\evil.csv",
        "a\0b.csv",
        "é\u202e.csv",
        "a/" * 2_000 + "b.csv",
        "\x1b[31m.csv",
    ],
)
def test_a_members_name_is_no_path_and_no_text(name: str, tmp_path: Path) -> None:
    """The one CSV inside is read, whatever it is called; its name is used for nothing, and nothing is written."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"{NAME}.zip").write_bytes(zipped({name.replace("{folder}", str(tmp_path)): ROW}))
    try:
        assert load(folder / f"{NAME}.zip", 8)[0] == "BTCUSDT"
    except BadFile as error:
        assert str(error).isprintable()
    assert [path.name for path in tmp_path.rglob("*")] == ["in", f"{NAME}.zip"]


def test_headers_that_point_anywhere() -> None:
    sound = bytes(zipped({f"{NAME}.csv": ROW * 20}))
    directory = sound.index(b"PK\x01\x02")
    for offset, form, values in (
        (directory + 42, "<I", (1, 2**31, 2**32 - 1, directory)),  # where the member begins
        (directory + 20, "<I", (0, 2**32 - 1)),  # its compressed size
        (directory + 28, "<H", (0, 65_535)),  # its name's length
        (26, "<H", (65_535,)),
        (28, "<H", (65_535,)),
        (len(sound) - 6, "<I", (0, 5, 2**32 - 1)),  # where the directory begins
        (len(sound) - 10, "<I", (0, 1, 2**32 - 1)),  # its size
        (directory + 10, "<H", (1, 12, 14, 93, 99)),  # the way of compression
        (directory + 8, "<H", (1, 0x41, 0xFFFF)),  # flags: encrypted, strongly, all
    ):
        for value in values:
            broken = bytearray(sound)
            struct.pack_into(form, broken, offset, value)
            try:
                assert read_zip(bytes(broken), "x.zip") in (ROW * 20, b"")
            except BadFile as error:
                assert str(error).isprintable()
