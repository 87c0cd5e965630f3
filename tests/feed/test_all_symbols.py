"""The whole history of an exchange: delisted symbols too, page by page, resumed after an interruption."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from candlemill.errors import BadInput, ExchangeDown, NoData
from candlemill.feed.all_symbols import HistoryDownloader
from candlemill.feed.archive_listing import ArchiveListing
from candlemill.feed.download import DownloadReport
from candlemill.feed.web_client import HttpResponse
from candlemill.store.clickhouse import ClickHouseStore
from conftest import Cli

from loadtests.exchange_simulator.faults import Menu
from loadtests.exchange_simulator.market import MINUTE_MS, Market, synthetic
from loadtests.exchange_simulator.run import Stage, adapter, differences, digests_true

START = 1_711_929_600_000  # 2024-04-01
DAY_MS = 86_400_000
FAST = 20.0  # a ban of a minute is waited for within seconds
FAULTS = Menu(server_error=0.1, cut_body=0.2, stale_checksum=0.1, too_many=0.02)
NAMES = ["BTCUSDT", "OLDUSDT", "ETHBTC", "GONEUSDT", "NEWUSDT"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        yield opened


def history() -> Market:
    """BTC trades all the time; OLD ends with a month, GONE within one; NEW begins today, without a file."""
    market = synthetic(3, NAMES, START, 45 * 1440, calm=True)
    market.corrections = []
    spans = {"OLDUSDT": (0, 30), "GONEUSDT": (3, 34), "NEWUSDT": (44, 45), "ETHBTC": (0, 2)}
    for name, (first, end) in spans.items():
        kept = {t: row for t, row in market.rows[name].items() if START + first * DAY_MS <= t < START + end * DAY_MS}
        market.rows[name] = market.first[name] = kept
    market.delisted = {"OLDUSDT", "GONEUSDT"}
    return market


async def fetch(stage: Stage, store: ClickHouseStore, folder: Path) -> tuple[DownloadReport, int]:
    """The report of a run, and until when it must have stored all: what comes after its start may be missing."""
    end = stage.clock.now_ms() - 2 * MINUTE_MS
    downloader = HistoryDownloader(adapter("binance", stage.ports), store, stage.ours, folder)
    return await downloader.run_all("USDT", None), end


def test_delisted_symbols_come_with_the_others(store: ClickHouseStore, tmp_path: Path) -> None:
    market = history()

    async def run() -> None:
        async with Stage(market, START + 44 * DAY_MS + DAY_MS // 2, 1, 1) as stage:
            report, end = await fetch(stage, store, tmp_path / "files")
            assert report.symbols == ["BTCUSDT", "GONEUSDT", "NEWUSDT", "OLDUSDT"]
            assert report.notes == []
            names = {name: name for name in report.symbols}
            assert differences(store, market, names, START, end) == {}
            assert digests_true(store, report.symbols)
            again, later = await fetch(stage, store, tmp_path / "files")
            minutes = (later - end) // MINUTE_MS + 3  # of two live symbols
            assert (again.files, again.stored <= 2 * minutes) == (0, True)

    asyncio.run(run())
    assert store.symbols() == ["BTCUSDT", "GONEUSDT", "NEWUSDT", "OLDUSDT"]


def test_an_interrupted_history_goes_on_under_faults(store: ClickHouseStore, tmp_path: Path) -> None:
    market = history()

    async def run() -> None:
        async with Stage(market, START + 44 * DAY_MS + DAY_MS // 2, FAST, 1, FAULTS) as stage:
            first = asyncio.create_task(fetch(stage, store, tmp_path / "files"))
            while not store.symbols():
                assert not first.done(), "it ended before it stored anything"
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            report, end = await fetch(stage, store, tmp_path / "files")
            for _ in range(5):  # a symbol whose files fail too often is noted, and left to the next call
                if not any("is not complete" in note for note in report.notes):
                    break
                report, end = await fetch(stage, store, tmp_path / "files")
            names = {name: name for name in report.symbols}
            assert sorted(names) == ["BTCUSDT", "GONEUSDT", "NEWUSDT", "OLDUSDT"]
            assert differences(store, market, names, START, end) == {}

    asyncio.run(run())


def listing(*pages: str | int) -> ArchiveListing:
    """A listing whose requests are answered with these bodies or statuses, the last one again and again."""
    waiting = list(pages)

    async def get(query: dict[str, str]) -> HttpResponse:
        page = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return HttpResponse(page, {}, b"") if isinstance(page, int) else HttpResponse(200, {}, page.encode())

    async def sleep(seconds: float) -> None: ...

    return ArchiveListing(get, sleep, random.Random(1))


def page(*names: str, following: str = "") -> str:
    rows = "".join(f"<Contents><Key>{name}</Key></Contents>" for name in names)
    more = f"<IsTruncated>true</IsTruncated><NextMarker>{following}</NextMarker>" if following else ""
    return f"<ListBucketResult>{more}{rows}</ListBucketResult>"


def test_files_are_those_of_months_and_the_days_after_them() -> None:
    months = page(
        "a/AUSDT-1m-2024-04.zip", "a/AUSDT-1m-2024-04.zip.CHECKSUM", "a/AUSDT-1m-2024-13.zip", "a/BUSDT-1m-2024-05.zip"
    )
    days = page("a/AUSDT-1m-2024-04-30.zip", "a/AUSDT-1m-2024-05-01.zip")
    found = asyncio.run(listing(months, days).files("AUSDT"))
    assert [file.name for file in found.all] == ["AUSDT-1m-2024-04.zip", "AUSDT-1m-2024-05-01.zip"]


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ((503,), "status 503"),
        (("<html>", "{}"), "no listing"),
        ((page("a", following="b"), page("c", following="b")), "does not go on after 'b'"),
    ],
)
def test_a_listing_that_does_not_end_is_an_error(pages: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(ExchangeDown, match=message):
        asyncio.run(listing(*pages).symbols())


def test_what_is_refused(store: ClickHouseStore, tmp_path: Path) -> None:
    async def ask() -> None:
        async with Stage(history(), START + 40 * DAY_MS, 1, 1) as stage:
            exchange = adapter("binance", stage.ports)
            with pytest.raises(NoData, match="ends with XYZ"):
                await HistoryDownloader(exchange, store, stage.ours, tmp_path).run_all("XYZ", None)
            exchange.listing_url = ""
            with pytest.raises(BadInput, match="no archive that lists"):
                await HistoryDownloader(exchange, store, stage.ours, tmp_path).run_all("USDT", None)

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--all-symbols",), "needs --quote"),
        (("--all-symbols", "--symbol", "BTCUSDT", "--quote", "USDT"), "not both"),
        (("--quote", "USDT"), "belongs to --all-symbols"),
    ],
)
def test_what_does_not_go_together(run: Cli, arguments: tuple[str, ...], message: str) -> None:
    code, _, err = run("ingest", *arguments)
    assert (code, message in err) == (2, True)
