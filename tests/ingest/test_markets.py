"""Whose candles are these: Binance's markets have one base name for many series."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from candlemill.errors import BadFile, BadInput
from candlemill.exchanges.binance.markets import mark_name
from candlemill.ingest.candles import FilesRefused, ingest
from candlemill.ingest.funding import ingest_funding
from candlemill.store.clickhouse import ClickHouseStore

DAY = 1_619_308_800_000  # 2021-04-25
NAME = "BTCUSDT-1m-2021-04-25"
HEADER = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)
SCALE = 10**8


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


def rows(price: int, volume: int = 5, count: int = 9, minutes: range = range(20), step: int = 1) -> bytes:
    """Flat candles of a price; `step` is how many minutes each lasts."""
    out = b""
    for k in minutes:
        t = DAY + k * step * 60_000
        out += f"{t},{price},{price},{price},{price},{volume},{t + step * 60_000 - 1},0,{count},0,0,0\n".encode()
    return out


def prices(price: int) -> bytes:
    """Mark or index prices, as Binance publishes them: no volume, 60 updates a minute."""
    return rows(price, volume=0, count=60)


def put(folder: Path, name: str, text: bytes, member: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member or f"{name}.csv", text)
    return path


def archive(folder: Path) -> Path:
    """Binance's own layout: one base name in seven places, and two contracts."""
    um, cm = folder / "data" / "futures" / "um" / "daily", folder / "data" / "futures" / "cm" / "daily"
    put(folder / "data" / "spot" / "daily" / "klines" / "BTCUSDT" / "1m", NAME, rows(1))
    put(um / "klines" / "BTCUSDT" / "1m", NAME, HEADER + b"\n" + rows(2))
    put(um / "markPriceKlines" / "BTCUSDT" / "1m", NAME, prices(3))
    put(um / "indexPriceKlines" / "BTCUSDT" / "1m", NAME, prices(4))
    put(um / "klines" / "BTCUSDT_230331" / "1m", "BTCUSDT_230331-1m-2021-04-25", rows(5))
    put(cm / "klines" / "BTCUSD_PERP" / "1m", "BTCUSD_PERP-1m-2021-04-25", rows(6))
    put(cm / "markPriceKlines" / "BTCUSD_PERP" / "1m", "BTCUSD_PERP-1m-2021-04-25", prices(7))
    put(cm / "indexPriceKlines" / "BTCUSD" / "1m", "BTCUSD-1m-2021-04-25", prices(8))
    return folder / "data"


def stored(store: ClickHouseStore) -> dict[str, int]:
    """The price of each symbol that is stored."""
    return {name: int(store.read_columns(name, 0, 2**42, ("close",))["close"][0]) // SCALE for name in store.symbols()}


def test_binances_own_folders_are_markets_with_names_of_their_own(store: ClickHouseStore, tmp_path: Path) -> None:
    ingest(store, [archive(tmp_path)])
    assert stored(store) == {
        "BTCUSDT": 1,
        "BINANCE-UM:BTCUSDT": 2,
        "BINANCE-UM-MARK:BTCUSDT": 3,
        "BINANCE-UM-INDEX:BTCUSDT": 4,
        "BINANCE-UM:BTCUSDT_230331": 5,
        "BINANCE-CM:BTCUSD_PERP": 6,
        "BINANCE-CM-MARK:BTCUSD_PERP": 7,
        "BINANCE-CM-INDEX:BTCUSD": 8,
    }
    assert mark_name("BINANCE-UM:BTCUSDT") == "BINANCE-UM-MARK:BTCUSDT" and mark_name("BTCUSDT") is None


def test_mark_prices_do_not_fill_an_outage(store: ClickHouseStore, tmp_path: Path) -> None:
    spot = tmp_path / "spot" / "daily" / "klines" / "BTCUSDT" / "1m"
    put(spot, NAME, rows(1, minutes=range(5)) + rows(1, minutes=range(10, 20)))
    put(tmp_path / "futures" / "um" / "daily" / "markPriceKlines" / "BTCUSDT" / "1m", NAME, prices(3))
    ingest(store, [tmp_path])
    assert store.days("BTCUSDT")[0].rows == 15 and store.days("BINANCE-UM-MARK:BTCUSDT")[0].rows == 20


def test_premium_indices_are_no_prices(store: ClickHouseStore, tmp_path: Path) -> None:
    put(tmp_path / "um" / "daily" / "premiumIndexKlines" / "BTCUSDT" / "1m", NAME, prices(1))
    with pytest.raises(FilesRefused, match="premium indices are rates around 0, not prices"):
        ingest(store, [tmp_path])
    assert store.symbols() == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("BTCUSD_PERP", "BINANCE-CM:BTCUSD_PERP"), ("BTCUSDT_230331", "BINANCE-UM:BTCUSDT_230331"), ("币安人生USDT",) * 2],
)
def test_a_contract_says_its_market_itself(store: ClickHouseStore, tmp_path: Path, name: str, expected: str) -> None:
    put(tmp_path / "files", f"{name}-1m-2021-04-25", rows(6))
    ingest(store, [tmp_path / "files"])
    assert store.symbols() == [expected]


def test_the_market_is_said_where_folders_do_not(store: ClickHouseStore, tmp_path: Path) -> None:
    file = put(tmp_path / "files", NAME, HEADER + b"\n" + rows(2))
    with pytest.raises(FilesRefused, match=r"a header, which files of futures have .* say which with --market"):
        ingest(store, [file])
    ingest(store, [file], market="um")
    mark = put(tmp_path / "mark", NAME, prices(3))
    with pytest.raises(FilesRefused, match=r"as mark and index prices are .* say which with --market"):
        ingest(store, [mark])
    ingest(store, [mark], market="um-mark")
    assert stored(store) == {"BINANCE-UM:BTCUSDT": 2, "BINANCE-UM-MARK:BTCUSDT": 3}
    with pytest.raises(BadInput, match="market 'swap' is not one of spot, um, cm, um-mark"):
        ingest(store, [mark], market="swap")


def test_columns_are_held_against_the_market(store: ClickHouseStore, tmp_path: Path) -> None:
    traded, mark = put(tmp_path / "a", NAME, rows(2)), put(tmp_path / "b", NAME, prices(3))
    with pytest.raises(FilesRefused, match="traded candles, with volume, where um-mark prices are expected"):
        ingest(store, [traded], market="um-mark")
    with pytest.raises(
        FilesRefused, match=r"without volume but with a count.* where traded candles of um are expected"
    ):
        ingest(store, [mark], market="um")
    assert store.symbols() == []


def test_files_that_disagree_about_whose_they_are_refuse_the_call(store: ClickHouseStore, tmp_path: Path) -> None:
    plain, other = put(tmp_path / "a", NAME, rows(1)), put(tmp_path / "b", NAME, prices(3))
    header = put(tmp_path / "c", NAME, HEADER + b"\n" + rows(2))
    innocent = put(tmp_path / "d", "ETHUSDT-1m-2021-04-25", rows(9))
    for second in (other, header):
        with pytest.raises(BadInput, match=rf"{plain} and {second} disagree about whose candles of BTCUSDT"):
            ingest(store, [innocent, plain, second])
    placed = put(tmp_path / "futures" / "um" / "daily" / "klines" / "BTCUSDT" / "1m", NAME, rows(2))
    with pytest.raises(BadInput, match="its folders or its symbol say um, --market says spot: nothing is stored"):
        ingest(store, [innocent, placed], market="spot")
    contract = put(tmp_path / "spot", "BTCUSD_PERP-1m-2021-04-25", rows(6))
    with pytest.raises(FilesRefused, match="BTCUSD_PERP is a contract of cm, but its folder is of spot"):
        ingest(store, [contract])
    assert store.symbols() == []


# -- the file against its name -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "line", "reason"),
    [
        (NAME, rows(1, step=5), None, "its first candle lasts 300 seconds, but the name says 1m"),
        (NAME, rows(1) + rows(1, minutes=range(1440, 1441)), 21, "a candle of 2021-04-26T00:00Z, but the name says"),
        (NAME, HEADER + b"\n" + rows(1, minutes=range(-1, 9)), 2, "a candle of 2021-04-24T23:59Z"),
        ("BTCUSDT-1m-2021-05", rows(1), 1, "a candle of 2021-04-25T00:00Z, but the name says 2021-05"),
    ],
)
def test_rows_are_held_against_the_name(
    store: ClickHouseStore, tmp_path: Path, name: str, text: bytes, line: int | None, reason: str
) -> None:
    file = put(tmp_path / "spot", name, text)
    with pytest.raises(FilesRefused) as caught:
        ingest(store, [file])
    assert (caught.value.file, caught.value.line) == (str(file), line) and reason in caught.value.reason
    assert store.symbols() == []


def test_rows_five_minutes_apart_without_a_close_time(store: ClickHouseStore, tmp_path: Path) -> None:
    lines = [line.split(b",") for line in rows(1, step=5).splitlines()]
    text = b"".join(b",".join([*fields[:6], b"0", *fields[7:]]) + b"\n" for fields in lines)
    with pytest.raises(FilesRefused, match="its rows are 5 minutes apart, but the name says 1m"):
        ingest(store, [put(tmp_path / "spot", NAME, text)])


def test_the_file_in_a_zip_has_the_zips_name(store: ClickHouseStore, tmp_path: Path) -> None:
    file = put(tmp_path / "files", NAME, rows(1), member="ETHUSDT-1m-2021-04-25.csv")
    with pytest.raises(FilesRefused, match=rf"the file in the zip is ETHUSDT-1m-2021-04-25\.csv, expected {NAME}\.csv"):
        ingest(store, [file])
    chinese = "币安人生USDT-1m-2021-04-25"
    put(tmp_path / "more", chinese, rows(1), member=f"{chinese}.csv".encode().decode("cp437"))
    ingest(store, [tmp_path / "more"])
    assert store.symbols() == ["币安人生USDT"]


# -- regular files only ------------------------------------------------------------------------------------------------


def test_a_named_pipe_is_not_waited_for(store: ClickHouseStore, tmp_path: Path) -> None:
    pipe = tmp_path / "files" / f"{NAME}.csv"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    with pytest.raises(FilesRefused, match=rf"{pipe}: not a regular file"):
        ingest(store, [pipe])
    with pytest.raises(BadFile, match=rf"no kline file found.*; {pipe}: not a regular file"):
        ingest(store, [pipe.parent])
    rates = tmp_path / "XUSDT-fundingRate-2021-04.csv"
    os.mkfifo(rates)
    with pytest.raises(BadFile, match="not a regular file"):
        ingest_funding(store, [rates])


def test_a_named_pipe_as_checksum_is_not_waited_for(store: ClickHouseStore, tmp_path: Path) -> None:
    file = put(tmp_path / "files", NAME, rows(1))
    checksum = Path(f"{file}.CHECKSUM")
    os.mkfifo(checksum)
    with pytest.raises(FilesRefused, match=rf"{checksum}: not a regular file"):
        ingest(store, [file])


# -- funding -----------------------------------------------------------------------------------------------------------

RATES = b"calc_time,funding_interval_hours,last_funding_rate\n1619337600005,8,0.0001\n"


def test_rates_belong_to_their_perpetual(store: ClickHouseStore, tmp_path: Path) -> None:
    folder = tmp_path / "futures"
    put(folder / "um" / "monthly" / "fundingRate" / "BTCUSDT", "BTCUSDT-fundingRate-2021-04", RATES)
    put(folder / "um" / "monthly" / "fundingRate" / "币安人生USDT", "币安人生USDT-fundingRate-2021-04", RATES)
    put(tmp_path / "loose", "BTCUSD_PERP-fundingRate-2021-04", RATES)
    assert ingest_funding(store, [tmp_path]) == {
        "BINANCE-UM:BTCUSDT": 1,
        "BINANCE-UM:币安人生USDT": 1,
        "BINANCE-CM:BTCUSD_PERP": 1,
    }
    loose = put(tmp_path / "loose", "ETHUSDT-fundingRate-2021-04", RATES)
    assert ingest_funding(store, [loose]) == {"ETHUSDT": 1}, "with candles that are stored without a market"
    assert ingest_funding(store, [loose], market="um") == {"BINANCE-UM:ETHUSDT": 1}
    with pytest.raises(BadInput, match="say um, not cm: nothing is stored"):
        ingest_funding(store, [folder], market="cm")
    with pytest.raises(BadInput, match="market 'spot' has no funding: expected um or cm"):
        ingest_funding(store, [loose], market="spot")


def test_a_checksum_beside_rates_counts(store: ClickHouseStore, tmp_path: Path) -> None:
    file = put(tmp_path / "files", "ETHUSDT-fundingRate-2021-04", RATES)
    Path(f"{file}.CHECKSUM").write_text(f"{'0' * 64}  {file.name}")
    with pytest.raises(BadFile, match=r"its sha256 is [0-9a-f]+, its \.CHECKSUM has 000"):
        ingest_funding(store, [tmp_path / "files"])
    assert store.funding("ETHUSDT").t.tolist() == []


def test_rates_in_a_zip_have_the_zips_name(store: ClickHouseStore, tmp_path: Path) -> None:
    file = put(tmp_path, "ETHUSDT-fundingRate-2021-04", RATES, member="XRPUSDT-fundingRate-2021-04.csv")
    with pytest.raises(BadFile, match="the file in the zip is XRPUSDT"):
        ingest_funding(store, [file])
