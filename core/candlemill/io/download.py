"""History of symbols from an exchange: files of its public archive where there are any, REST for the rest.

Files are fetched several at a time, verified by their `.CHECKSUM`, and remembered by it: asking again fetches only what
is new, and what the exchange has replaced since. A download that broke off goes on where it was.
"""

import asyncio
import contextlib
import hashlib
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from tqdm import tqdm

from candlemill.archive import ArchiveFile, days_of, files_of
from candlemill.binance import ZIP_BYTES_MAX, verify_checksum
from candlemill.engine.tape import DAY_MS
from candlemill.errors import BadFile, BadInput, ExchangeDown, NotThere, UnknownName
from candlemill.exchange import MINUTE_MS, Candle, Exchange
from candlemill.io.feedstore import FeedStore
from candlemill.io.healing import correct, holes_of
from candlemill.io.ingest import ingest
from candlemill.io.rest import CLOSED_MS, Clock, Rest, Silence, read_bounded, reason
from candlemill.minutes import SETTLED_MS, Span, Spans
from candlemill.plan import months_of

AT_ONCE: Final = 6
TRIES: Final = 6
SECONDS: Final = 120
PIECE: Final = 2**18
GROUP: Final = 64  # files that are stored together, and that the folder may hold
REST_ROWS_AT_ONCE: Final = 50_000

T = TypeVar("T")


class Report(msgspec.Struct):
    """What a download did. `stored` candles were new or different."""

    files: int = 0
    unchanged: int = 0
    rest_rows: int = 0
    stored: int = 0
    outage_minutes: int = 0
    symbols: list[str] = []
    notes: list[str] = []

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    def text(self) -> str:
        names = ", ".join(self.symbols[:8]) + (f" and {len(self.symbols) - 8} more" if len(self.symbols) > 8 else "")
        lines = [
            f"{self.files:,} files fetched, {self.unchanged:,} unchanged, {self.rest_rows:,} candles over REST, "
            f"{self.stored:,} new or changed: {names}"
        ]
        if self.outage_minutes:
            lines.append(
                f"{self.outage_minutes:,} minutes are missing at the exchange itself: candlemill coverage --check"
            )
        return "\n".join(lines + self.notes)


class Downloader:
    """`folder` keeps files on their way. Symbols are the exchange's own names."""

    def __init__(
        self, exchange: Exchange, store: FeedStore, clock: Clock, folder: Path, silence: Silence | None = None
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._clock = clock
        self._folder = folder
        self._rng = random.Random()
        self._silence = silence
        self._pool = ThreadPoolExecutor(1, "store")
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self, symbols: Sequence[str], span: Span | None) -> Report:
        """Bring `start <= t < end` (ms; None: all there is) of the symbols into the store.

        Raises UnknownName, BadInput for a span that has not begun, and ExchangeDown when nothing answers any more;
        what is stored until then stays, and the same call goes on from there.
        """
        self.report = Report()
        connector = aiohttp.TCPConnector(limit=AT_ONCE + 2)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            self._rest = Rest(self._exchange, self._session, self._clock, self._rng, self._silence)
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

    async def _all(self, symbol: str) -> Span:
        if self._exchange.windowed:
            raise BadInput(f"{self._exchange.name} does not say where {symbol} begins: give --from or --days")
        first, _ = await self._rest.candles(symbol, 0, 0)
        now = self._rest.now()
        return (first[0].t // DAY_MS * DAY_MS if first else now, now)

    async def _in_store(self, job: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, job, *arguments)

    # -- one symbol ----------------------------------------------------------------------------------------------------

    async def _symbol(self, symbol: str, start: int, end: int) -> None:
        rest = Spans([(start, end)])
        if self._exchange.archive_url:
            for covered in await self._files(symbol, start, end):
                rest.remove(covered.start, covered.end)
        name = self._exchange.store_name(symbol)
        for a, b in rest:
            await self._read(symbol, a, b)
        # What files and answers left open: the exchange lacks it, or says it now.
        first = await self._in_store(self._first, name)
        for a, b in await self._in_store(holes_of, self._store, name, max(start, first), end):
            if not any(x <= a and b <= y for x, y in rest):
                await self._read(symbol, a, b)

    def _first(self, name: str) -> int:
        days = self._store.days(name)
        return min((day.first for day in days if day.rows), default=1 << 62)

    async def _files(self, symbol: str, start: int, end: int) -> list[ArchiveFile]:
        """Fetch and store what the archive has of it; returns the files whose candles are stored."""
        by_days = await self._in_store(self._months_by_days, symbol, start, end)
        wanted = files_of(symbol, start, end, by_days)
        done: list[ArchiveFile] = []
        while wanted:
            group, wanted = wanted[:GROUP], wanted[GROUP:]
            known = await self._in_store(self._store.archive_files, [file.name for file in group])
            outcomes = await asyncio.gather(*(self._fetch(file, known.get(file.name, "")) for file in group))
            fetched = {file: sha for file, sha in zip(group, outcomes, strict=True) if sha}
            stored = await self._in_store(self._store_files, fetched, known)
            done += stored
            again = [file for file in group if file not in stored and file.is_month]
            wanted = [day for file in again for day in days_of(symbol, file.start, file.end)] + wanted
        return done

    def _months_by_days(self, symbol: str, start: int, end: int) -> set[int]:
        """Months of which the store has candles, but not from the month's file."""
        months = [month.start for month in months_of(self._store.days(symbol, start, end))]
        files = [file for file in files_of(symbol, start, end, frozenset()) if file.is_month]
        known = self._store.archive_files([file.name for file in files])
        return set(months) - {file.start for file in files if file.name in known}

    def _store_files(self, fetched: dict[ArchiveFile, str], known: dict[str, str]) -> list[ArchiveFile]:
        """Store fetched files; one that is refused is named in the report, and left to REST."""
        stored = [file for file, sha in fetched.items() if known.get(file.name) == sha]
        self.report.unchanged += len(stored)
        new = [file for file in fetched if file not in stored]
        good: list[ArchiveFile] = []
        try:
            self._ingest(new)
            good = new
        except (BadFile, BadInput):
            for file in new:  # one of them is refused: which?
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
            self.report.stored += ingest(self._store, paths, quiet=True).stored

    # -- files ---------------------------------------------------------------------------------------------------------

    async def _fetch(self, file: ArchiveFile, known: str) -> str:
        """Have the file in the folder, unless its sha256 is `known`; returns its sha256, or nothing where it is not
        published, or not as its checksum says."""
        async with self._turns:
            for k in range(TRIES):
                if k:
                    await self._clock.sleep(self._rng.uniform(0.5, 1.0) * 2**k)
                try:
                    text = (await self._get(f"{file.path}.CHECKSUM")).decode("utf-8", "replace")
                    sha = text[:64].lower()
                    if sha == known:
                        self._bar.update((file.end - file.start) // DAY_MS)
                        return sha
                    data = await self._resume(file)
                    verify_checksum(data, text, file.name)
                except NotThere:
                    return ""
                except BadFile as error:  # stale, or replaced in between: fetch both again
                    (self._folder / f"{file.name}.part").unlink(missing_ok=True)
                    problem: Exception = error
                    continue
                except ExchangeDown as error:
                    problem = error
                    continue
                (self._folder / f"{file.name}.part").replace(self._folder / file.name)
                self._bar.update((file.end - file.start) // DAY_MS)
                return hashlib.sha256(data).hexdigest()
            self.report.notes.append(f"passed over {file.name}, for REST instead: {problem}")
            return ""

    async def _resume(self, file: ArchiveFile) -> bytes:
        """The whole file, going on from what is there of it already."""
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{file.name}.part"
        begin = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={begin}-"} if begin else {}
        with self._answers(file.path):
            async with self._session.get(
                self._exchange.archive_url + file.path, headers=headers, timeout=self._timeout()
            ) as answer:
                if answer.status == 416:  # it is all there, or it is another file by now
                    return part.read_bytes()
                self._check(answer.status, file.path)
                with part.open("ab" if answer.status == 206 else "wb") as out:
                    async for piece in answer.content.iter_chunked(PIECE):
                        out.write(piece)
                        if out.tell() > ZIP_BYTES_MAX:
                            raise BadFile(file.name, None, f"more than {ZIP_BYTES_MAX} bytes")
        return part.read_bytes()

    async def _get(self, path: str) -> bytes:
        with self._answers(path):
            async with self._session.get(self._exchange.archive_url + path, timeout=self._timeout()) as answer:
                self._check(answer.status, path)
                return await read_bounded(answer, ZIP_BYTES_MAX)

    def _timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=self._clock.patience(SECONDS))

    @contextlib.contextmanager
    def _answers(self, path: str) -> Any:
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise ExchangeDown(f"{self._exchange.name}'s archive, {path}: {reason(error)}") from None

    @staticmethod
    def _check(status: int, path: str) -> None:
        if status in (403, 404):  # the archive's store answers 403 for what it does not have
            raise NotThere(path)
        if status not in (200, 206):
            raise ExchangeDown(f"the archive, {path}: status {status}")

    # -- REST ----------------------------------------------------------------------------------------------------------

    async def _read(self, symbol: str, start: int, end: int) -> None:
        """Read `start <= t < end` over REST, store what differs, and note what the exchange lacks."""
        name = self._exchange.store_name(symbol)
        at, found, more = start, list[Candle](), True
        while more:
            candles, full = await self._rest.candles(symbol, at, end)
            found += [candle for candle in candles if candle.t < end]
            at = candles[-1].t + MINUTE_MS if candles else at
            more = bool(candles) and full and at < end
            if not more or len(found) >= REST_ROWS_AT_ONCE:
                await self._in_store(self._keep, name, found, start, min(at, end))
                self._bar.update(max(0, (at - start) // DAY_MS))
                start, found = at, []

    def _keep(self, name: str, candles: list[Candle], start: int, end: int) -> None:
        self.report.rest_rows += len(candles)
        if candles:
            self.report.stored += correct(self._store, name, candles, len(str(self._scales[name])) - 1)
        first = self._first(name)
        settled = (self._rest.now() - SETTLED_MS) // MINUTE_MS * MINUTE_MS
        lacking = holes_of(self._store, name, max(start, first), min(end, settled))
        self._store.put_outages([(name, a, b) for a, b in lacking])
        self.report.outage_minutes += sum(b - a for a, b in lacking) // MINUTE_MS
