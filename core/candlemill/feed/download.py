"""Download the history of symbols: files of the exchange's public archive where they exist, REST for the rest.

Files are fetched in parallel and verified by their `.CHECKSUM`, which the store keeps: a second call fetches only files
that are new or replaced. An interrupted download is resumed.
"""

import asyncio
import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from tqdm import tqdm

from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadFile, BadInput, ExchangeDown, NotThere, UnknownName
from candlemill.exchanges.base import MINUTE_MS, Candle, Exchange
from candlemill.exchanges.binance.archive import ArchiveFile, days_of, files_of
from candlemill.exchanges.binance.kline_files import ZIP_BYTES_MAX, verify_checksum
from candlemill.feed.backfill import correct, missing_intervals
from candlemill.feed.gaps import SETTLED_MS
from candlemill.feed.rest_client import CLOSED_MS, Clock, Cooldown, Rest
from candlemill.feed.web_client import HttpResponse, RequestFailed, ResponseTooLarge, WebClient
from candlemill.ingest.candles import ingest
from candlemill.intervals import Interval, IntervalSet
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import months_of

CONCURRENCY: Final = 6
ATTEMPTS: Final = 6
TIMEOUT_SECONDS: Final = 120
FILES_PER_GROUP: Final = 64  # files that are stored together; also the most that the folder holds
REST_ROWS_PER_WRITE: Final = 50_000

T = TypeVar("T")


class DownloadReport(msgspec.Struct):
    """Summary of a download. `stored`: candles that were new or different."""

    files: int = 0
    unchanged: int = 0
    rest_rows: int = 0
    stored: int = 0
    outage_minutes: int = 0
    symbols: list[str] = []
    notes: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

    def text(self) -> str:
        names = ", ".join(self.symbols[:8]) + (f" and {len(self.symbols) - 8} more" if len(self.symbols) > 8 else "")
        lines = [
            f"{self.files:,} files fetched, {self.unchanged:,} unchanged, {self.rest_rows:,} candles over REST, "
            f"{self.stored:,} new or changed: {names}"
        ]
        if self.outage_minutes:
            lines.append(f"{self.outage_minutes:,} minutes are missing at the exchange: candlemill coverage --check")
        return "\n".join(lines + self.notes)


class Downloader:
    """Downloads history into the store. `folder` holds temporary files; symbols have the exchange's names."""

    def __init__(
        self, exchange: Exchange, store: ClickHouseStore, clock: Clock, folder: Path, cooldown: Cooldown | None = None
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._clock = clock
        self._folder = folder
        self._rng = random.Random()
        self._pool = ThreadPoolExecutor(1, "store")
        self._slots = asyncio.Semaphore(CONCURRENCY)
        self._client = WebClient(CONCURRENCY)
        self._rest = Rest(exchange, self._client, clock, self._rng, cooldown)

    async def run(self, symbols: Sequence[str], span: Interval | None) -> DownloadReport:
        """Store the candles of `start <= t < end` (ms; None: all) of the symbols.

        Raises UnknownName, BadInput for a span in the future, and ExchangeDown when all retries fail. Candles that are
        already stored stay; the same call continues from there.
        """
        self.report = DownloadReport()
        with closing(self._client):
            await self._rest.sync()
            await self._learn_rules(symbols)
            spans = {symbol: span or await self._all(symbol) for symbol in dict.fromkeys(symbols)}
            now = self._rest.now()
            spans = {
                symbol: (a, min(b, (now - CLOSED_MS) // MINUTE_MS * MINUTE_MS)) for symbol, (a, b) in spans.items()
            }
            if span is not None and span[0] >= now:
                raise BadInput("the range begins in the future: nothing to ingest")
            days = [max(1, (b - a) // DAY_MS) for a, b in spans.values()]
            self._bar = tqdm(total=sum(days), desc="ingest", unit="day", delay=1, disable=None, dynamic_ncols=True)
            with self._bar:
                for (symbol, (start, end)), done in zip(spans.items(), itertools.accumulate(days), strict=True):
                    await self._symbol(symbol, start, end)
                    self.report.symbols.append(self._exchange.store_name(symbol))
                    self._bar.update(done - self._bar.n)
        return self.report

    async def _learn_rules(self, symbols: Sequence[str]) -> None:
        rules = {rule.symbol: rule for rule in await self._rest.rules()}
        for symbol in symbols:
            if symbol not in rules:
                raise UnknownName("symbol", symbol, sorted(rules), f"{self._exchange.name} does not list it")
        scales = await self._in_store(self._store.scales)
        self._scales = {}
        for symbol in symbols:
            name = self._exchange.store_name(symbol)
            self._scales[name] = scales.get(name, 10 ** rules[symbol].volume_digits)
        new = {
            self._exchange.store_name(s): (rules[s], self._scales[self._exchange.store_name(s)])
            for s in symbols
            if self._exchange.store_name(s) not in scales
        }
        await self._in_store(self._store.put_rules, new)

    async def _all(self, symbol: str) -> Interval:
        if self._exchange.windowed:
            raise BadInput(
                f"{self._exchange.name} does not publish the first candle of {symbol}: give --from or --days"
            )
        first, _ = await self._rest.candles(symbol, 0, 0)
        now = self._rest.now()
        return (first[0].t // DAY_MS * DAY_MS if first else now, now)

    async def _in_store(self, job: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, job, *arguments)

    # -- one symbol ----------------------------------------------------------------------------------------------------

    async def _symbol(self, symbol: str, start: int, end: int, rest: bool = True) -> None:
        """Download a span of a symbol; without `rest`, from the archive only: REST has no delisted symbols."""
        if not rest:
            await self._files(symbol, start, end)
            return
        await self._symbol_of_both(symbol, start, end)

    async def _symbol_of_both(self, symbol: str, start: int, end: int) -> None:
        rest = IntervalSet([(start, end)])
        if self._exchange.archive_url:
            for covered in await self._files(symbol, start, end):
                rest.remove(covered.start, covered.end)
        name = self._exchange.store_name(symbol)
        for a, b in rest:
            await self._read(symbol, a, b)
        # Read the remaining gaps over REST once: the exchange has them, or they are outages.
        first = await self._in_store(self._first, name)
        for a, b in await self._in_store(missing_intervals, self._store, name, max(start, first), end):
            if not any(x <= a and b <= y for x, y in rest):
                await self._read(symbol, a, b)

    def _first(self, name: str) -> int:
        days = self._store.days(name)
        return min((day.first for day in days if day.rows), default=1 << 62)

    async def _files(self, symbol: str, start: int, end: int) -> list[ArchiveFile]:
        """Fetch and store the archive's files of the span; return the files whose candles are stored."""
        by_days = await self._in_store(self._months_by_days, symbol, start, end)
        files = files_of(symbol, start, end, by_days)
        done: list[ArchiveFile] = []
        while files:
            group, files = files[:FILES_PER_GROUP], files[FILES_PER_GROUP:]
            known = await self._in_store(self._store.archive_files, [file.name for file in group])
            outcomes = await asyncio.gather(*(self._fetch(file, known.get(file.name, "")) for file in group))
            fetched = {file: sha for file, sha in zip(group, outcomes, strict=True) if sha}
            stored = await self._in_store(self._store_files, fetched, known)
            done += stored
            again = [file for file in group if file not in stored and file.is_month]
            files = [day for file in again for day in days_of(symbol, file.start, file.end)] + files
        return done

    def _months_by_days(self, symbol: str, start: int, end: int) -> set[int]:
        """Starts of the months of which candles are stored, but not from the month's file."""
        months = [month.start for month in months_of(self._store.days(symbol, start, end))]
        files = [file for file in files_of(symbol, start, end, frozenset()) if file.is_month]
        known = self._store.archive_files([file.name for file in files])
        return set(months) - {file.start for file in files if file.name in known}

    def _store_files(self, fetched: dict[ArchiveFile, str], known: dict[str, str]) -> list[ArchiveFile]:
        """Store fetched files; report a file that is refused, whose candles REST provides."""
        stored = [file for file, sha in fetched.items() if known.get(file.name) == sha]
        self.report.unchanged += len(stored)
        new = [file for file in fetched if file not in stored]
        good: list[ArchiveFile] = []
        try:
            self._ingest(new)
            good = new
        except (BadFile, BadInput):
            for file in new:  # find the refused one
                try:
                    self._ingest([file])
                    good.append(file)
                except (BadFile, BadInput) as error:
                    self.report.notes.append(f"refused {error}")
        self._store.put_archive_files({file.name: fetched[file] for file in good})
        for file in new:
            (self._folder / file.name).unlink(missing_ok=True)
        self.report.files += len(good)
        return stored + good

    def _ingest(self, files: Iterable[ArchiveFile]) -> None:
        paths = [self._folder / file.name for file in files]
        if paths:
            self.report.stored += ingest(self._store, paths, quiet=True, market="spot").stored

    # -- files ---------------------------------------------------------------------------------------------------------

    async def _fetch(self, file: ArchiveFile, known: str) -> str:
        """Download the file into the folder, unless its sha256 is `known`.

        Returns its sha256, or "" if it is not published or does not match its checksum after all retries.
        """
        async with self._slots:
            for k in range(ATTEMPTS):
                if k:
                    await self._clock.sleep(self._rng.uniform(0.5, 1.0) * 2**k)
                try:
                    checksum = await self._checksum(file.path)
                    sha = checksum[:64].lower()
                    if sha == known:
                        self._bar.update((file.end - file.start) // DAY_MS)
                        return sha
                    data = await self._resume(file)
                    verify_checksum(data, checksum, file.name)
                except NotThere:
                    return ""
                except (BadFile, ResponseTooLarge) as error:  # outdated, or just replaced: fetch both again
                    (self._folder / f"{file.name}.part").unlink(missing_ok=True)
                    problem: Exception = error
                    continue
                except (ExchangeDown, RequestFailed) as error:
                    problem = error
                    continue
                (self._folder / f"{file.name}.part").replace(self._folder / file.name)
                self._bar.update((file.end - file.start) // DAY_MS)
                return hashlib.sha256(data).hexdigest()
            self.report.notes.append(f"skipped {file.name}, REST is used instead: {problem}")
            return ""

    async def _checksum(self, path: str) -> str:
        response = await self._get(f"{path}.CHECKSUM")
        self._check(response.status, path)
        return response.body.decode("utf-8", "replace")

    async def _resume(self, file: ArchiveFile) -> bytes:
        """Download the file, or the rest of it, and return all its bytes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{file.name}.part"
        begin = part.stat().st_size if part.exists() else 0
        try:
            response = await self._get(file.path, begin)
        except RequestFailed as error:
            if error.partial is not None:
                _append_part(part, error.partial)
            raise
        if response.status != 416:  # 416: the part is complete, or the file was replaced
            self._check(response.status, file.path)
            _append_part(part, response)
        return part.read_bytes()

    async def _get(self, path: str, begin: int = 0) -> HttpResponse:
        """Request a file of the archive, from the byte `begin` on."""
        return await self._client.request(
            "GET",
            self._exchange.archive_url + path,
            headers={"Range": f"bytes={begin}-"} if begin else {},
            seconds=self._clock.real_seconds(TIMEOUT_SECONDS),
            max_bytes=ZIP_BYTES_MAX - begin,
        )

    @staticmethod
    def _check(status: int, path: str) -> None:
        if status in (403, 404):  # the archive answers 403 for missing files
            raise NotThere(path)
        if status not in (200, 206):
            raise ExchangeDown(f"the archive, {path}: status {status}")

    # -- REST ----------------------------------------------------------------------------------------------------------

    async def _read(self, symbol: str, start: int, end: int) -> None:
        """Read `start <= t < end` over REST, store candles that differ, and record outages."""
        name = self._exchange.store_name(symbol)
        at, candles_read, more = start, list[Candle](), True
        while more:
            candles, full = await self._rest.candles(symbol, at, end)
            candles_read += [candle for candle in candles if candle.t < end]
            at = candles[-1].t + MINUTE_MS if candles else at
            more = bool(candles) and full and at < end
            if not more or len(candles_read) >= REST_ROWS_PER_WRITE:
                await self._in_store(self._store_candles, name, candles_read, start, min(at, end))
                self._bar.update(max(0, (at - start) // DAY_MS))
                start, candles_read = at, []

    def _store_candles(self, name: str, candles: list[Candle], start: int, end: int) -> None:
        self.report.rest_rows += len(candles)
        if candles:
            self.report.stored += correct(self._store, name, candles, len(str(self._scales[name])) - 1)
        first = self._first(name)
        settled = (self._rest.now() - SETTLED_MS) // MINUTE_MS * MINUTE_MS
        missing = missing_intervals(self._store, name, max(start, first), min(end, settled))
        self._store.put_outages([(name, a, b) for a, b in missing])
        self.report.outage_minutes += sum(b - a for a, b in missing) // MINUTE_MS


def _append_part(part: Path, response: HttpResponse) -> None:
    """Write a downloaded part of a file; append it if the response continues the file (206)."""
    if response.status in (200, 206):
        with part.open("ab" if response.status == 206 else "wb") as out:
            out.write(response.body)
