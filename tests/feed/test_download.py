"""Downloads from the archive and over REST: complete, verified, resumable, and updated after corrections."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from candlemill.cli.candles import check, span_of
from candlemill.errors import BadInput, BadMessage, ExchangeDown, UnknownName
from candlemill.exchanges.binance.archive import files_of
from candlemill.feed.download import Downloader, DownloadReport
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import parse_range
from hypothesis import given
from hypothesis import strategies as st

from loadtests.exchange_simulator.faults import Menu
from loadtests.exchange_simulator.market import MINUTE_MS, Correction, synthetic
from loadtests.exchange_simulator.run import Stage, adapter, differences, digests_true

START = 1_711_929_600_000  # 2024-04-01
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
ARCHIVE_FAULTS = Menu(server_error=0.1, cut_body=0.3, stale_checksum=0.15, broken_body=0.05, too_many=0.02)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


async def fetch(
    stage: Stage, store: ClickHouseStore, folder: Path, days: float, symbols: list[str] | None = None
) -> DownloadReport:
    loader = Downloader(adapter("binance", stage.ports), store, stage.ours, folder)
    now = stage.clock.now_ms()
    span = (START, int(START + days * DAY_MS)) if days else None
    report = await loader.run(symbols or stage.market.symbols, span)
    end = min(now, span[1] if span else now) - 2 * MINUTE_MS
    names = {symbol: symbol for symbol in symbols or stage.market.symbols}
    assert differences(store, stage.market, names, START, end) == {}
    assert digests_true(store, list(names))
    return report


def test_month_files_day_files_and_rest(store: ClickHouseStore, tmp_path: Path) -> None:
    """The last 36 days: one file of a month, files of days, and the last hours over REST."""
    market = synthetic(3, ["BTCUSDT", "ETHUSDT"], START, 50 * 1440)
    market.corrections = []

    async def run() -> None:
        async with Stage(market, START + 36 * DAY_MS + HOUR_MS, 1, 1) as stage:
            begin = stage.clock.now_ms()
            report = await fetch(stage, store, tmp_path / "files", 40)
            assert report.files == 2 * (1 + 5) and report.unchanged == 0
            assert 2 * 24 * 60 <= report.rest_rows <= 2 * 26 * 60  # yesterday is published 3 hours after its end
            assert list((tmp_path / "files").iterdir()) == []
            again = await fetch(stage, store, tmp_path / "files", 40)
            minutes = (stage.clock.now_ms() - begin) // MINUTE_MS + 2
            assert (again.files, again.unchanged) == (0, 12) and again.stored <= 2 * minutes
            assert stage.simulator.counts["over_the_limit"] == 0

    asyncio.run(run())
    for symbol in market.symbols:  # minutes that neither files nor REST have are outages
        first, last = min(market.rows[symbol]), START + 36 * DAY_MS
        gone = set(range(first, last, MINUTE_MS)) - market.rows[symbol].keys()
        known = {t for a, b in store.outages(symbol) for t in range(a, b, MINUTE_MS) if first <= t < last}
        assert len(known ^ gone) == 0
    found, text = check(store, market.symbols)
    assert any(row["outages"] for row in found["symbols"].values()) and "at the exchange" in text
    assert not any(row["missing"] for row in found["symbols"].values())


def test_corrected_files_are_found_by_their_checksum(store: ClickHouseStore, tmp_path: Path) -> None:
    market = synthetic(4, ["BTCUSDT"], START, 60 * 1440, calm=True)
    base = START + 45 * DAY_MS
    rows = market.first["BTCUSDT"]
    for t in (START + 5 * DAY_MS, START + 40 * DAY_MS):  # in a month's file, and in a day's
        o, h, low, c, v = rows[t]
        market.corrections.append(Correction(base + DAY_MS, "BTCUSDT", t, (o, h, low, c, v + 5)))

    async def run() -> None:
        async with Stage(market, base, 1, 1) as stage:
            first = await fetch(stage, store, tmp_path, 44.9)
            stage.change(1.0, 2 * DAY_MS)
            second = await fetch(stage, store, tmp_path, 44.9)
            assert first.stored > 60_000 and second.stored == 2 and second.files == 2

    asyncio.run(run())


async def fetched_at_last(stage: Stage, store: ClickHouseStore, folder: Path, days: float) -> None:
    """Fetch again, as a user does, where all attempts of one request met a fault: one request in a hundred."""
    for _ in range(9):
        with suppress(ExchangeDown, BadMessage):
            await fetch(stage, store, folder, days)
            return
    await fetch(stage, store, folder, days)


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_of_archive_and_exchange_lose_no_candles(store: ClickHouseStore, tmp_path: Path, seed: int) -> None:
    """Cut downloads, outdated checksums and refusals: REST fills in what the archive lacks."""
    market = synthetic(seed, ["BTCUSDT", "ETHUSDT"], START, 20 * 1440)
    market.corrections = []

    async def run() -> None:
        async with Stage(market, START + 12 * DAY_MS + HOUR_MS, 600, seed, ARCHIVE_FAULTS) as stage:
            for _ in range(3):
                stage.change(600.0)
                await fetched_at_last(stage, store, tmp_path / "files", 12)
                stage.simulator.dice.menu = ARCHIVE_FAULTS
            assert stage.simulator.counts["requested_while_forbidden"] == 0

    asyncio.run(run())


def test_a_month_file_does_not_overwrite_day_files(store: ClickHouseStore, tmp_path: Path) -> None:
    """Day files are authoritative: a month's file is used only for months without stored candles."""
    market = synthetic(6, ["BTCUSDT"], START, 60 * 1440, calm=True)

    async def run() -> None:
        async with Stage(market, START + 40 * DAY_MS, 1, 1) as stage:
            await fetch(stage, store, tmp_path, 3)
            report = await fetch(stage, store, tmp_path, 30)
            assert (report.files, report.unchanged) == (27, 3)

    asyncio.run(run())


def test_complete_history(store: ClickHouseStore, tmp_path: Path) -> None:
    market = synthetic(7, ["BTCUSDT", "NEWUSDT"], START, 4 * 1440, calm=True)
    for rows in (market.rows["NEWUSDT"], market.first["NEWUSDT"]):  # listed later
        for t in [t for t in rows if t < START + DAY_MS + 7 * HOUR_MS]:
            del rows[t]

    async def run() -> None:
        async with Stage(market, START + 3 * DAY_MS + HOUR_MS, 1, 1) as stage:
            report = await fetch(stage, store, tmp_path, 0)
            assert report.outage_minutes == 0 and report.symbols == ["BTCUSDT", "NEWUSDT"]
            with pytest.raises(UnknownName, match="did you mean 'BTCUSDT'"):
                await fetch(stage, store, tmp_path, 1, ["BTCUST"])
            future = Downloader(adapter("binance", stage.ports), store, stage.ours, tmp_path)
            with pytest.raises(BadInput, match="in the future"):
                await future.run(["BTCUSDT"], (START + 9 * DAY_MS, START + 10 * DAY_MS))
            other = Downloader(adapter("bybit", stage.ports), store, stage.ours, tmp_path)
            with pytest.raises(BadInput, match="give --from or --days"):
                await other.run(["BTCUSDT"], None)
            await other.run(["BTCUSDT"], (START, START + 2 * DAY_MS))
            assert differences(store, market, {"BTCUSDT": "BYBIT:BTCUSDT"}, START, START + 2 * DAY_MS) == {}

    asyncio.run(run())


@given(st.integers(0, 800), st.integers(1, 500), st.sets(st.integers(0, 40), max_size=3))
def test_files_cover_every_whole_day_once(first: int, length: int, months: set[int]) -> None:
    start, end = START + first * DAY_MS, START + (first + length) * DAY_MS
    by_days = {parse_range(f"{2024 + (3 + m) // 12}-{(3 + m) % 12 + 1:02d}")[0] for m in months}
    files = files_of("X", start, end, by_days)
    covered = [day for file in files for day in range(file.start, file.end, DAY_MS)]
    assert covered == list(range(start, end, DAY_MS))
    assert not any(file.is_month and file.start in by_days for file in files)
    assert all(file.name in file.path for file in files) and len({file.name for file in files}) == len(files)


class Args(msgspec.Struct):
    days: int | None = None
    first: str | None = None
    last: str | None = None
    all: bool = False


def test_range_of_the_command_line() -> None:
    now = START + 10 * DAY_MS + 5 * HOUR_MS
    assert span_of(Args(days=2), now) == (START + 8 * DAY_MS, now)  # type: ignore[arg-type]
    assert span_of(Args(first="2023-01", last="2023-12"), now) == parse_range("2023")  # type: ignore[arg-type]
    assert span_of(Args(all=True), now) is None  # type: ignore[arg-type]
    for bad in (Args(), Args(days=1, all=True), Args(last="2023", all=True), Args(days=0), Args(first="x")):
        with pytest.raises(BadInput):
            span_of(bad, now)  # type: ignore[arg-type]
