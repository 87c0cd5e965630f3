"""What an exchange's public archive holds: all its symbols, delisted ones too, and the files of each.

The archive is a bucket that answers as S3 does (ListObjects, version 1, with a delimiter).
Source: github.com/binance/binance-public-data.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from html import unescape
from typing import Final

import msgspec

from candlemill.errors import ExchangeDown
from candlemill.exchanges.binance.archive import ArchiveFile, archive_file
from candlemill.exchanges.binance.markets import is_symbol
from candlemill.feed.web_client import HttpResponse, RequestFailed

PAGES_MAX: Final = 200  # of 1,000 names each
ATTEMPTS: Final = 6
ROOT: Final = "data/spot/{span}/klines/"
_FOLDERS: Final = re.compile(r"<CommonPrefixes><Prefix>([^<]{1,1024})</Prefix></CommonPrefixes>")
_KEYS: Final = re.compile(r"<Key>([^<]{1,1024})</Key>")
_NEXT: Final = re.compile(r"<NextMarker>([^<]{1,1024})</NextMarker>")

Get = Callable[[dict[str, str]], Awaitable[HttpResponse]]
Sleep = Callable[[float], Awaitable[None]]


class SymbolFiles(msgspec.Struct, frozen=True):
    """Files of a symbol: of months, and of the days after the last of these months; both in order of time."""

    months: list[ArchiveFile]
    days: list[ArchiveFile]

    @property
    def all(self) -> list[ArchiveFile]:
        return [*self.months, *self.days]


class ArchiveListing:
    """Names in the archive. `get` requests a page of the listing by its query."""

    def __init__(self, get: Get, sleep: Sleep, rng: random.Random) -> None:
        self._get, self._sleep, self._rng = get, sleep, rng

    async def symbols(self) -> set[str]:
        """Return all symbols of which there is a file of a month or of a day. Raises ExchangeDown."""
        found: set[str] = set()
        for span in ("monthly", "daily"):
            folders, _ = await self._names(ROOT.format(span=span))
            found |= {folder.rstrip("/").rpartition("/")[2] for folder in folders}
        return {name for name in found if is_symbol(name)}

    async def files(self, symbol: str) -> SymbolFiles:
        """Return the files of a symbol's minutes. Raises ExchangeDown."""
        months, days = [
            sorted(filter(None, (archive_file(symbol, key) for key in keys)), key=lambda file: file.start)
            for keys in await asyncio.gather(*(self._keys(symbol, span) for span in ("monthly", "daily")))
        ]
        end = months[-1].end if months else 0
        return SymbolFiles(months, [file for file in days if file.start >= end])

    async def _keys(self, symbol: str, span: str) -> list[str]:
        return (await self._names(f"{ROOT.format(span=span)}{symbol}/1m/"))[1]

    async def _names(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return the folders and the files with a prefix, page by page."""
        folders: list[str] = []
        keys: list[str] = []
        marker = ""
        for _ in range(PAGES_MAX):
            page = await self._page(prefix, marker)
            folders += [unescape(name) for name in _FOLDERS.findall(page)]
            keys += [unescape(name) for name in _KEYS.findall(page)]
            if "<IsTruncated>true</IsTruncated>" not in page:
                return folders, keys
            following = _NEXT.search(page)
            if following is None or unescape(following[1]) <= marker:
                raise ExchangeDown(f"the archive's listing of {prefix} does not go on after {marker!r}")
            marker = unescape(following[1])
        raise ExchangeDown(f"the archive's listing of {prefix} has more than {PAGES_MAX:,} pages")

    async def _page(self, prefix: str, marker: str) -> str:
        query = {"delimiter": "/", "prefix": prefix} | ({"marker": marker} if marker else {})
        problem = ""
        for k in range(ATTEMPTS):
            if k:
                await self._sleep(self._rng.uniform(0.5, 1.0) * 2**k)
            try:
                response = await self._get(query)
            except RequestFailed as error:
                problem = str(error)
                continue
            page = response.body.decode("utf-8", "replace")
            if response.status == 200 and "</ListBucketResult>" in page:
                return page
            problem = f"status {response.status}" if response.status != 200 else "an answer that is no listing"
        raise ExchangeDown(f"the archive's listing of {prefix}: {problem}")
