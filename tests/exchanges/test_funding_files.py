"""Funding rates: parsing of Binance's files, storing them, and use in a job."""

import zipfile
from pathlib import Path

import pytest
from candlemill.errors import BadFile
from candlemill.exchanges.binance.funding_files import FundingName, parse_funding
from candlemill.ingest.funding import ingest_funding
from candlemill.store.clickhouse import ClickHouseStore

HEADER = b"calc_time,funding_interval_hours,last_funding_rate\n"
ROWS = b"1672531200005,8,0.00010000\n1672560000000,8,-0.00023\n1672588800011,8,0\n"


def test_rates_are_exact_and_times_whole_minutes() -> None:
    found = parse_funding(HEADER + ROWS, "x.csv")
    assert found.t.tolist() == [1672531200000, 1672560000000, 1672588800000]
    assert found.rate.tolist() == [10_000, -23_000, 0]
    assert parse_funding(ROWS, "x.csv").rate.tolist() == found.rate.tolist()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1672531200005,8", "is not TIME_MS,HOURS,RATE"),
        (b"1672531200,8,0.1", "is not TIME_MS,HOURS,RATE"),
        (b"1672531200005,8,1e-4", "not a decimal number"),
        (b"1672531200005,8,0.123456789", "at most 8 decimals"),
        (b"1672531200005,8,2", "more than 1"),
        (b"9972531200005,8,0.1", "outside 2009 to 2100"),
    ],
)
def test_an_invalid_rate_is_reported_with_its_line(row: bytes, reason: str) -> None:
    with pytest.raises(BadFile, match=f"x.csv:5: .*{reason}"):
        parse_funding(HEADER + ROWS + row + b"\n", "x.csv")


def test_names_tell_the_symbol() -> None:
    for symbol in ("BTCUSDT", "BTCUSD_PERP", "币安人生USDT"):
        assert FundingName.parse(f"{symbol}-fundingRate-2023-01.zip").symbol == symbol
    for name in ("BTCUSDT-1m-2023-01.zip", "../x-fundingRate-2023-01.zip", "BTCUSDT-fundingRate-2023.csv"):
        with pytest.raises(BadFile, match="not the name of a file of funding rates"):
            FundingName.parse(name)


def test_all_files_are_stored_or_none(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "XUSDT-fundingRate-2023-01.zip", "w") as archive:
        archive.writestr("XUSDT-fundingRate-2023-01.csv", HEADER + ROWS)
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as store:
        for _ in range(2):
            assert ingest_funding(store, [tmp_path]) == {"XUSDT": 3}
        assert store.funding("XUSDT").rate.tolist() == [10_000, -23_000, 0]
        (tmp_path / "XUSDT-fundingRate-2023-02.csv").write_bytes(HEADER)
        with pytest.raises(BadFile, match="no funding rate in it"):
            ingest_funding(store, [tmp_path])
        (tmp_path / "XUSDT-fundingRate-2023-02.csv").write_bytes(b"1672531200005,8,0.5\n")
        with pytest.raises(BadFile, match=r"2023-02\.csv: a rate of 2023-01-01T00:00Z, but the name says 2023-02"):
            ingest_funding(store, [tmp_path])
        (tmp_path / "XUSDT-fundingRate-2023-02.csv").unlink()
        later = tmp_path / "later" / "XUSDT-fundingRate-2023-01.csv"
        later.parent.mkdir()
        later.write_bytes(b"1672531200005,8,0.5\n")
        ingest_funding(store, [later])
        assert store.funding("XUSDT").rate.tolist() == [50_000_000, -23_000, 0], "the last stored wins"
        assert store.funding("YUSDT").t.tolist() == []
    with pytest.raises(BadFile, match="no file of funding rates found"):
        ingest_funding(store, [tmp_path / "db"])
