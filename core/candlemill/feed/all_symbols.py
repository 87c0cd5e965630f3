"""Download the whole history of an exchange: all symbols with one quote, also those that were delisted.

The archive lists which symbols there were, the exchange which of them trade. An interrupted call is continued by the
same call: files that are stored are not fetched again.
"""

from contextlib import closing
from typing import Final

from tqdm import tqdm

from candlemill.errors import BadInput, BadMessage, ExchangeDown, NoData
from candlemill.feed.archive_listing import ArchiveListing, SymbolFiles
from candlemill.feed.download import Downloader, DownloadReport
from candlemill.feed.rest_client import CLOSED_MS
from candlemill.feed.web_client import HttpResponse
from candlemill.intervals import Interval

LISTING_BYTES_MAX: Final = 8_000_000
LISTING_SECONDS: Final = 60
LIVE: Final = frozenset({"TRADING", "HALT", "END_OF_DAY", "CANCEL_ONLY"})  # the others have no new candles


class HistoryDownloader(Downloader):
    """Downloads the history of all symbols with one quote."""

    async def run_all(self, quote: str, span: Interval | None) -> DownloadReport:
        """Store the candles of `start <= t < end` (ms; None: all) of all symbols that end with `quote`.

        A symbol whose download fails is noted, and the others are downloaded. Raises BadInput for an exchange without a
        listed archive, NoData for a quote of no symbol, and ExchangeDown when the listing cannot be read.
        """
        if not self._exchange.listing_url:
            raise BadInput(f"{self._exchange.name} has no archive that lists its symbols: name them with --symbol")
        self.report = DownloadReport()
        with closing(self._client):
            await self._rest.sync()
            listing = ArchiveListing(self._list, self._clock.sleep, self._rng)
            known = await listing.symbols()
            live = {rule.symbol for rule in await self._rest.rules() if rule.status in LIVE}
            names = sorted(name for name in known | live if name.endswith(quote) and name != quote)
            if not names:
                raise NoData(f"none of {len(known):,} symbols of {self._exchange.name}'s archive ends with {quote}")
            await self._learn_rules([name for name in names if name in live])
            self._bar = tqdm(total=len(names), desc="ingest", unit="symbol", delay=1, disable=None, dynamic_ncols=True)
            with self._bar:
                for name in names:
                    await self._history(name, await listing.files(name) if name in known else None, name in live, span)
                    self._bar.update(1)
        return self.report

    async def _history(self, symbol: str, files: SymbolFiles | None, live: bool, span: Interval | None) -> None:
        """Download one symbol; a failure becomes a note."""
        try:
            found = await self._span(symbol, files, live, span)
            if found is not None:
                await self._symbol(symbol, *found, rest=live)
            self.report.symbols.append(self._exchange.store_name(symbol))
        except (ExchangeDown, BadMessage) as error:
            self.report.notes.append(f"{symbol} is not complete, call again: {error}")

    async def _span(self, symbol: str, files: SymbolFiles | None, live: bool, span: Interval | None) -> Interval | None:
        """Return the span that is not stored yet; None if there is nothing to fetch."""
        now = (self._rest.now() - CLOSED_MS) // 60_000 * 60_000
        if files is None or not files.all:  # listed since a few hours
            if not live:
                return None
            start, end = await self._all(symbol)
        else:
            start, end = await self._missing(files, live), now if live else files.all[-1].end
        if span is not None:
            start, end = max(start, span[0]), min(end, span[1])
        return (start, min(end, now)) if start < min(end, now) else None

    async def _missing(self, files: SymbolFiles, live: bool) -> int:
        """Return the start of the first file that is not stored; of a live symbol at least its last month is read."""
        stored = await self._in_store(self._store.archive_files, [file.name for file in files.all])
        lacking = [file.start for file in files.all if file.name not in stored]
        if lacking:
            return lacking[0]
        return (files.months or files.days)[-1].start if live else files.all[-1].end

    async def _list(self, query: dict[str, str]) -> HttpResponse:
        return await self._client.request(
            "GET",
            f"{self._exchange.listing_url}/",
            query=query,
            seconds=self._clock.real_seconds(LISTING_SECONDS),
            max_bytes=LISTING_BYTES_MAX,
        )
