"""The simulator's HTTP side: REST as Binance and Bybit answer, and the archive's files."""

import hashlib
import io
import zipfile
from collections import Counter
from datetime import UTC, datetime

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from loadtests.exchange_simulator.faults import RUBBISH, Dice
from loadtests.exchange_simulator.guard import Guard, json_response
from loadtests.exchange_simulator.market import MINUTE_MS, Market, VirtualClock, text

HOUR_MS = 3_600_000
LISTING_PAGE = 7  # names: small, so that listings have several pages
DAY_MS = 24 * HOUR_MS


class CutResponse(Response):
    """Announces `missing` bytes more than it sends, and then hangs up."""

    def __init__(self, body: bytes, missing: int, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(body, status, {**(headers or {}), "Content-Length": str(len(body) + missing)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})


class RestInterface:
    """`weight` is another limit for requests than the exchange's own."""

    def __init__(self, market: Market, clock: VirtualClock, dice: Dice, counts: Counter[str], weight: int = 0) -> None:
        self._market, self._clock, self._dice, self._counts = market, clock, dice, counts
        self.guard = Guard(clock, dice, counts, weight)
        self.app = Starlette(
            routes=[
                Route("/api/v3/klines", self._klines),
                Route("/api/v3/time", self._time),
                Route("/api/v3/exchangeInfo", self._info),
                Route("/v5/market/kline", self._bybit_klines),
                Route("/v5/market/time", self._bybit_time),
                Route("/v5/market/instruments-info", self._bybit_info),
                Route("/data/spot/{span}/klines/{symbol}/1m/{file}", self._file),
                Route("/", self._listing),
            ]
        )

    def _answer(self, found: object) -> Response:
        body = msgspec.json.encode(found)
        if self._dice.hits("broken_body"):
            self._counts["broken_body"] += 1
            body = self._dice.rng.choice([body[: len(body) // 2], *RUBBISH])
        return Response(body, media_type="application/json", headers=self.guard.headers)

    async def _klines(self, request: Request) -> Response:
        if (fault := await self.guard.check(2)) is not None:
            return fault
        query, now = request.query_params, self._clock.now_ms()
        if query["symbol"] not in self._market.live:
            return json_response({"code": -1121, "msg": "Invalid symbol."}, 400)
        start, limit = int(query["startTime"]), min(int(query["limit"]), 1000)
        found = [] if self._forgets() else self._market.window(query["symbol"], start, limit, now)
        rows = [(t, *map(text, row), t + MINUTE_MS - 1, "0.0", 1, "0.0", "0.0", "0") for t, row in found]
        if self._dice.hits("cut_body"):
            self._counts["cut_body"] += 1
            return CutResponse(msgspec.json.encode(rows), 10)
        return self._answer(rows)

    def _forgets(self) -> bool:
        self._counts["empty_answer"] += (empty := self._dice.hits("empty_answer"))
        return empty

    async def _time(self, request: Request) -> Response:
        return await self.guard.check(1) or self._answer({"serverTime": self._clock.now_ms()})

    async def _info(self, request: Request) -> Response:
        if (fault := await self.guard.check(20)) is not None:
            return fault
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
        ]
        symbols = [
            {"symbol": symbol, "status": "TRADING", "baseAssetPrecision": 8, "filters": filters}
            for symbol in self._market.live
        ]
        return self._answer({"timezone": "UTC", "rateLimits": [], "symbols": symbols})

    async def _bybit_klines(self, request: Request) -> Response:
        if (fault := await self.guard.check(1, "bybit")) is not None:
            return fault
        query, now = request.query_params, self._clock.now_ms()
        end = int(query["end"])
        found = self._market.window(query["symbol"], int(query["start"]), 1 << 20, min(now, end + MINUTE_MS))
        rows = [(str(t), *map(text, row), "0") for t, row in found if t <= end][::-1][: int(query["limit"])]
        if self._forgets():
            rows = []
        return self._answer(self._enveloped({"symbol": query["symbol"], "category": "spot", "list": rows}))

    async def _bybit_time(self, request: Request) -> Response:
        return await self.guard.check(1, "bybit") or self._answer(self._enveloped({}))

    async def _bybit_info(self, request: Request) -> Response:
        if (fault := await self.guard.check(1, "bybit")) is not None:
            return fault
        rows = [
            {
                "symbol": symbol,
                "status": "Trading",
                "lotSizeFilter": {"basePrecision": "0.00000001"},
                "priceFilter": {"tickSize": "0.01"},
            }
            for symbol in self._market.symbols
        ]
        return self._answer(self._enveloped({"category": "spot", "list": rows}))

    def _enveloped(self, result: object) -> dict[str, object]:
        return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": self._clock.now_ms()}

    # -- the archive ---------------------------------------------------------------------------------------------------

    async def _file(self, request: Request) -> Response:
        """Days are published 3 hours after their end, months 30 hours after theirs; both follow corrections."""
        symbol, name = request.path_params["symbol"], request.path_params["file"]
        checksum = name.endswith(".CHECKSUM")
        name = name.removesuffix(".CHECKSUM")
        data = self._zip(symbol, name, request.path_params["span"])
        if data is None:
            return Response(status_code=404)
        if self._dice.hits("server_error"):
            return Response(status_code=503)
        if checksum:
            digest = hashlib.sha256(data).hexdigest()
            if self._dice.hits("stale_checksum"):
                digest = hashlib.sha256(b"stale").hexdigest()
            return PlainTextResponse(f"{digest}  {name}")
        begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if begin >= len(data):
            return Response(status_code=416)
        status = 206 if begin else 200
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        body = data[begin:]
        if self._dice.hits("cut_body") and len(body) > 10:
            self._counts["cut_file"] += 1
            half = len(body) // 2
            return CutResponse(body[:half], len(body) - half, status, headers)
        return Response(body, status, headers)

    async def _listing(self, request: Request) -> Response:
        """The archive's listing as S3 answers with a delimiter: folders and files of a prefix, page by page."""
        if self._dice.hits("server_error"):
            return Response(status_code=503)
        query = request.query_params
        prefix, marker = query["prefix"], query.get("marker", "")
        names = sorted({self._listed(key, prefix) for key in self._keys() if key.startswith(prefix)})
        page = [name for name in names if name > marker][:LISTING_PAGE]
        more = bool(page) and page[-1] != names[-1]
        rows = [
            f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" if name.endswith("/")
            else f"<Contents><Key>{name}</Key><Size>1</Size></Contents>"
            for name in page
        ]  # fmt: skip
        following = f"<NextMarker>{page[-1]}</NextMarker>" if more else ""
        text = f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{following}{''.join(rows)}"
        return PlainTextResponse(text + "</ListBucketResult>", media_type="application/xml")

    @staticmethod
    def _listed(key: str, prefix: str) -> str:
        """What a listing says of a file: its folder, if it is in one further down."""
        rest = key.removeprefix(prefix)
        return prefix + rest.partition("/")[0] + "/" if "/" in rest else key

    def _keys(self) -> list[str]:
        """All files that are published now, and their checksums."""
        now = self._clock.now_ms()
        out = []
        for symbol, found in self._market.rows.items():
            days = {t // DAY_MS for t in found}
            daily = {f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}" for day in days}
            for span, stamps in (("daily", daily), ("monthly", {stamp[:7] for stamp in daily})):
                for stamp in stamps:
                    if now >= self._published(stamp):
                        name = f"{symbol}-1m-{stamp}.zip"
                        key = f"data/spot/{span}/klines/{symbol}/1m/{name}"
                        out += [key, f"{key}.CHECKSUM"]
        return out

    @staticmethod
    def _published(stamp: str) -> int:
        """When the file of a day or a month is published, in ms."""
        parts = [int(part) for part in stamp.split("-")]
        if len(parts) == 3:
            return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1000 + DAY_MS + 3 * HOUR_MS  # type: ignore[arg-type]
        after = datetime(parts[0] + parts[1] // 12, parts[1] % 12 + 1, 1, tzinfo=UTC)
        return int(after.timestamp()) * 1000 + 30 * HOUR_MS

    def _zip(self, symbol: str, name: str, span: str) -> bytes | None:
        now = self._clock.now_ms()
        if symbol not in self._market.rows or not name.startswith(f"{symbol}-1m-") or not name.endswith(".zip"):
            return None
        stem = name.removesuffix(".zip")
        parts = [int(part) for part in stem.removeprefix(f"{symbol}-1m-").split("-")]
        first = datetime(parts[0], parts[1], parts[2] if len(parts) > 2 else 1, tzinfo=UTC)
        start = int(first.timestamp()) * 1000
        if span == "daily":
            end, published = start + DAY_MS, 3 * HOUR_MS
        else:
            after = datetime(parts[0] + parts[1] // 12, parts[1] % 12 + 1, 1, tzinfo=UTC)
            end, published = int(after.timestamp()) * 1000, 30 * HOUR_MS
        if now < end + published:
            return None
        found = self._market.at(now).rows[symbol]
        unit = 1000 if parts[0] >= 2025 else 1
        lines = [
            f"{t * unit},{','.join(map(text, found[t]))},{(t + MINUTE_MS) * unit - 1},0.0,1,0.0,0.0,0"
            for t in range(start, end, MINUTE_MS)
            if t in found
        ]
        if not lines:
            return None
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(f"{stem}.csv", (2020, 1, 1, 0, 0, 0)), "\n".join(lines) + "\n")
        return buffer.getvalue()
