"""The simulator itself: an aiohttp application over a market, a clock and dice."""

import asyncio
import contextlib
import hashlib
import heapq
import io
import itertools
import logging
import zipfile
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from loadtests.exchange.faults import RUBBISH, Dice
from loadtests.exchange.guard import Guard
from loadtests.exchange.market import MINUTE_MS, Market, Row, VirtualClock, text, unfinished

HOUR_MS = 3_600_000
LIFE_MS = 24 * HOUR_MS


class Subscriber:
    """One WebSocket connection, in the words of `dialect`."""

    def __init__(self, socket: web.WebSocketResponse, request: web.Request, dialect: str, now: int) -> None:
        self.socket, self.request, self.dialect, self.born = socket, request, dialect, now
        self.symbols: dict[str, bool] = {}  # whether each is silent
        self.silent = False
        self.ends_at = 0
        self.waiting: list[tuple[int, int, str, int, Row]] = []  # due, number, symbol, minute, row
        self.requests: deque[int] = deque()


class Simulator:
    """`updates` are the unfinished candles that each symbol sends per virtual minute; `weight` is another limit for
    requests than the exchange's own."""

    def __init__(self, market: Market, clock: VirtualClock, dice: Dice, updates: int = 2, weight: int = 0) -> None:
        self.market, self.clock, self.dice, self.updates = market, clock, dice, updates
        self.counts: Counter[str] = Counter()
        self.subscribers: set[Subscriber] = set()
        self._numbers = itertools.count()
        self._guard = Guard(clock, dice, self.counts, weight)
        self._names = {symbol.lower(): symbol for symbol in market.symbols}
        self.app = web.Application()
        self.app.add_routes(
            [
                web.get("/stream", self._stream),
                web.get("/v5/public/spot", self._stream),
                web.get("/api/v3/klines", self._klines),
                web.get("/api/v3/time", self._time),
                web.get("/api/v3/exchangeInfo", self._info),
                web.get("/v5/market/kline", self._bybit_klines),
                web.get("/v5/market/time", self._bybit_time),
                web.get("/v5/market/instruments-info", self._bybit_info),
                web.get("/data/spot/{span}/klines/{symbol}/1m/{file}", self._file),
            ]
        )
        self.app.cleanup_ctx.append(self._running)

    async def _running(self, app: web.Application) -> Any:
        task = asyncio.create_task(self._broadcast())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    # -- streams -------------------------------------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        dialect = "bybit" if request.path.startswith("/v5/") else "binance"
        if self.dice.hits("refused_connection"):
            self.counts["refused_connection"] += 1
            return web.Response(status=503)
        socket = web.WebSocketResponse(compress=False, timeout=0.2)
        try:
            await socket.prepare(request)
        except ConnectionError:  # it changed its mind
            return web.Response(status=500)
        subscriber = Subscriber(socket, request, dialect, self.clock.now_ms())
        for stream in filter(None, request.query.get("streams", "").split("/")):
            self._subscribe(subscriber, stream.partition("@")[0].upper())
        self.subscribers.add(subscriber)
        self.counts["connections"] += 1
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._request(subscriber, message.data)
        finally:
            self.subscribers.discard(subscriber)
        return socket

    async def _request(self, subscriber: Subscriber, said: str) -> None:
        now = self.clock.now_ms()
        subscriber.requests.append(now)
        while subscriber.requests and subscriber.requests[0] <= now - 1000:
            subscriber.requests.popleft()
        if subscriber.dialect == "binance" and len(subscriber.requests) > 5:
            self.counts["too_many_messages"] += 1
            self.abort(subscriber)
            return
        found = msgspec.json.decode(said)
        if subscriber.dialect == "bybit":
            names = [arg.removeprefix("kline.1.") for arg in found.get("args", ())]
            answer = {"success": True, "ret_msg": "", "op": found["op"], "req_id": found.get("req_id", "")}
            if found["op"] == "ping":
                answer |= {"ret_msg": "pong", "op": "ping"}
            on = found["op"] == "subscribe"
        else:
            names = [self._names.get(param.partition("@")[0], "") for param in found["params"]]
            answer, on = {"result": None, "id": found["id"]}, found["method"] == "SUBSCRIBE"
        for name in names:
            if on:
                self._subscribe(subscriber, name)
            else:
                subscriber.symbols.pop(name, None)
        if not subscriber.silent:
            await self._say(subscriber, msgspec.json.encode(answer))

    def _subscribe(self, subscriber: Subscriber, symbol: str) -> None:
        if symbol not in self.market.rows:
            self.counts["unknown_symbol"] += 1
        elif self.dice.hits("ignored_subscription"):
            self.counts["ignored_subscription"] += 1
        else:
            subscriber.symbols[symbol] = False

    async def _broadcast(self) -> None:
        """Everything that time brings: updates, final candles, faults."""
        before = self.clock.now_ms()
        update_ms = MINUTE_MS // max(self.updates, 1)
        while True:
            await asyncio.sleep(max(0.002, min(0.25, 1 / self.clock.speed)))
            now = self.clock.now_ms()
            self.market.at(now)
            minutes = range(before // MINUTE_MS * MINUTE_MS, now // MINUTE_MS * MINUTE_MS, MINUTE_MS)
            update = bool(self.updates) and before // update_ms != now // update_ms
            for subscriber in list(self.subscribers):
                with contextlib.suppress(ConnectionError, RuntimeError):
                    await self._serve(subscriber, now, (now - before) / HOUR_MS, minutes, update)
            before = now

    async def _serve(self, subscriber: Subscriber, now: int, hours: float, minutes: range, update: bool) -> None:
        if await self._befalls(subscriber, now, hours):
            return
        if subscriber.silent:
            return
        for symbol, quiet in list(subscriber.symbols.items()):
            if quiet:
                continue
            if self.dice.hits_within("symbol_silence", hours):
                self.counts["symbol_silence"] += 1
                subscriber.symbols[symbol] = True
                continue
            found = self.market.rows[symbol]
            for t in minutes:
                if t in found:
                    await self._final(subscriber, symbol, t, self.market.first[symbol][t], now)
            t = now // MINUTE_MS * MINUTE_MS
            if update and t in found:
                await self._say(subscriber, frame(subscriber.dialect, symbol, t, unfinished(found[t]), False, now))
        while subscriber.waiting and subscriber.waiting[0][0] <= now:
            _, _, symbol, t, row = heapq.heappop(subscriber.waiting)
            await self._say(subscriber, frame(subscriber.dialect, symbol, t, row, True, now))

    async def _befalls(self, subscriber: Subscriber, now: int, hours: float) -> bool:
        """Whether the connection ends here."""
        dice = self.dice
        if now - subscriber.born > LIFE_MS or (subscriber.ends_at and now >= subscriber.ends_at):
            self.counts["ended"] += 1
        elif dice.hits_within("cut", hours):
            self.counts["cut"] += 1
        elif dice.hits_within("half_frame", hours):
            self.counts["half_frame"] += 1
            transport = subscriber.request.transport
            if transport is not None:
                transport.write(b"\x81\x7e\x01\x00" + b'{"stream":"btc')
        else:
            if dice.hits_within("goes_away", hours):
                self.counts["goes_away"] += 1
                subscriber.ends_at = now + 10 * MINUTE_MS
                event = {"e": "serverShutdown", "E": now}
                await self._say(subscriber, msgspec.json.encode({"stream": "!serverShutdown", "data": event}))
            if not subscriber.silent and dice.hits_within("silence", hours):
                self.counts["silence"] += 1
                subscriber.silent = True
            return False
        self.abort(subscriber)
        return True

    def abort(self, subscriber: Subscriber) -> None:
        self.subscribers.discard(subscriber)
        transport = subscriber.request.transport
        if transport is not None:
            transport.abort()

    async def _final(self, subscriber: Subscriber, symbol: str, t: int, row: Row, now: int) -> None:
        dice = self.dice
        if dice.hits("malformed"):
            self.counts["malformed"] += 1
            rubbish = dice.rng.choice(RUBBISH)
            with contextlib.suppress(UnicodeDecodeError):
                await subscriber.socket.send_str(rubbish.decode())
            await subscriber.socket.send_bytes(rubbish)
        if dice.hits("lost_final"):
            self.counts["lost_final"] += 1
            return
        if dice.hits("wrong_final"):
            self.counts["wrong_final"] += 1
            await self._say(subscriber, frame(subscriber.dialect, symbol, t, (*row[:4], row[4] + 1), True, now))
            return
        for name, least, most in (("late", 1, 20 * MINUTE_MS), ("reordered", MINUTE_MS, 2 * MINUTE_MS)):
            if dice.hits(name):
                self.counts[name] += 1
                due = now + dice.rng.randint(least, most)
                heapq.heappush(subscriber.waiting, (due, next(self._numbers), symbol, t, row))
                return
        raw = frame(subscriber.dialect, symbol, t, row, True, now)
        await self._say(subscriber, raw)
        if dice.hits("duplicate"):
            self.counts["duplicate"] += 1
            await self._say(subscriber, raw)

    async def _say(self, subscriber: Subscriber, raw: bytes) -> None:
        self.counts["messages"] += 1
        await subscriber.socket.send_str(raw.decode())

    # -- REST ----------------------------------------------------------------------------------------------------------

    async def _answer(self, found: object) -> web.StreamResponse:
        body = msgspec.json.encode(found)
        if self.dice.hits("broken_body"):
            self.counts["broken_body"] += 1
            body = self.dice.rng.choice([body[: len(body) // 2], *RUBBISH])
        return web.Response(body=body, content_type="application/json", headers=self._guard.headers)

    async def _klines(self, request: web.Request) -> web.StreamResponse:
        if (fault := await self._guard.check(2)) is not None:
            return fault
        query, now = request.query, self.clock.now_ms()
        if query["symbol"] not in self.market.rows:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        start, limit = int(query["startTime"]), min(int(query["limit"]), 1000)
        found = [] if self._forgets() else self.market.window(query["symbol"], start, limit, now)
        rows = [(t, *map(text, row), t + MINUTE_MS - 1, "0.0", 1, "0.0", "0.0", "0") for t, row in found]
        if self.dice.hits("cut_body"):
            self.counts["cut_body"] += 1
            body = msgspec.json.encode(rows)
            answer = web.StreamResponse(headers={"Content-Length": str(len(body) + 10)})
            await answer.prepare(request)
            await answer.write(body)
            if request.transport is not None:
                request.transport.abort()
            return answer
        return await self._answer(rows)

    def _forgets(self) -> bool:
        self.counts["empty_answer"] += (empty := self.dice.hits("empty_answer"))
        return empty

    async def _time(self, request: web.Request) -> web.StreamResponse:
        return await self._guard.check(1) or await self._answer({"serverTime": self.clock.now_ms()})

    async def _info(self, request: web.Request) -> web.StreamResponse:
        if (fault := await self._guard.check(20)) is not None:
            return fault
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
        ]
        symbols = [
            {"symbol": symbol, "status": "TRADING", "baseAssetPrecision": 8, "filters": filters}
            for symbol in self.market.symbols
        ]
        return await self._answer({"timezone": "UTC", "rateLimits": [], "symbols": symbols})

    async def _bybit_klines(self, request: web.Request) -> web.StreamResponse:
        if (fault := await self._guard.check(1, "bybit")) is not None:
            return fault
        query, now = request.query, self.clock.now_ms()
        end = int(query["end"])
        found = self.market.window(query["symbol"], int(query["start"]), 1 << 20, min(now, end + MINUTE_MS))
        rows = [(str(t), *map(text, row), "0") for t, row in found if t <= end][::-1][: int(query["limit"])]
        if self._forgets():
            rows = []
        return await self._answer(self._enveloped({"symbol": query["symbol"], "category": "spot", "list": rows}))

    async def _bybit_time(self, request: web.Request) -> web.StreamResponse:
        return await self._guard.check(1, "bybit") or await self._answer(self._enveloped({}))

    async def _bybit_info(self, request: web.Request) -> web.StreamResponse:
        if (fault := await self._guard.check(1, "bybit")) is not None:
            return fault
        rows = [
            {
                "symbol": symbol,
                "status": "Trading",
                "lotSizeFilter": {"basePrecision": "0.00000001"},
                "priceFilter": {"tickSize": "0.01"},
            }
            for symbol in self.market.symbols
        ]
        return await self._answer(self._enveloped({"category": "spot", "list": rows}))

    def _enveloped(self, result: object) -> dict[str, object]:
        return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": self.clock.now_ms()}

    # -- the archive ---------------------------------------------------------------------------------------------------

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Days are published 3 hours after their end, months 30 hours after theirs; both follow corrections."""
        symbol, name = request.match_info["symbol"], request.match_info["file"]
        checksum = name.endswith(".CHECKSUM")
        name = name.removesuffix(".CHECKSUM")
        data = self._zip(symbol, name, request.match_info["span"])
        if data is None:
            return web.Response(status=404)
        if self.dice.hits("server_error"):
            return web.Response(status=503)
        if checksum:
            digest = hashlib.sha256(data).hexdigest()
            if self.dice.hits("stale_checksum"):
                digest = hashlib.sha256(b"stale").hexdigest()
            return web.Response(text=f"{digest}  {name}")
        begin = request.http_range.start or 0
        headers = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
        body = data[begin:]
        if self.dice.hits("cut_body") and len(body) > 10:
            self.counts["cut_file"] += 1
            answer = web.StreamResponse(status=206 if begin else 200, headers=headers)
            answer.content_length = len(body)
            await answer.prepare(request)
            await answer.write(body[: len(body) // 2])
            if request.transport is not None:
                request.transport.abort()
            return answer
        return web.Response(body=body, status=206 if begin else 200, headers=headers)

    def _zip(self, symbol: str, name: str, span: str) -> bytes | None:
        now = self.clock.now_ms()
        if symbol not in self.market.rows or not name.startswith(f"{symbol}-1m-") or not name.endswith(".zip"):
            return None
        stem = name.removesuffix(".zip")
        parts = [int(part) for part in stem.removeprefix(f"{symbol}-1m-").split("-")]
        first = datetime(parts[0], parts[1], parts[2] if len(parts) > 2 else 1, tzinfo=UTC)
        start = int(first.timestamp()) * 1000
        if span == "daily":
            end, published = start + LIFE_MS, 3 * HOUR_MS
        else:
            after = datetime(parts[0] + parts[1] // 12, parts[1] % 12 + 1, 1, tzinfo=UTC)
            end, published = int(after.timestamp()) * 1000, 30 * HOUR_MS
        if now < end + published:
            return None
        found = self.market.at(now).rows[symbol]
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


def frame(dialect: str, symbol: str, t: int, row: Row, final: bool, now: int) -> bytes:
    """A candle as the exchange's stream says it."""
    o, h, low, c, v = map(text, row)
    if dialect == "bybit":
        kline = {"start": t, "end": t + MINUTE_MS - 1, "interval": "1", "open": o, "close": c, "high": h, "low": low}
        kline |= {"volume": v, "turnover": "0", "confirm": final, "timestamp": now}
        return msgspec.json.encode({"topic": f"kline.1.{symbol}", "data": [kline], "ts": now, "type": "snapshot"})
    k: dict[str, Any] = {"t": t, "T": t + MINUTE_MS - 1, "s": symbol, "i": "1m", "f": 1, "L": 2, "o": o, "c": c}
    k |= {"h": h, "l": low, "v": v, "n": 2, "x": final, "q": "0.00000000", "V": "0.0", "Q": "0.0", "B": "0"}
    data = {"e": "kline", "E": now, "s": symbol, "k": k}
    return msgspec.json.encode({"stream": f"{symbol.lower()}@kline_1m", "data": data})


async def serve(simulator: Simulator, host: str = "127.0.0.1", port: int = 0) -> tuple[web.AppRunner, int]:
    """Start it; returns what to clean up, and the port."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # clients that are killed hang up in mid-answer
    runner = web.AppRunner(simulator.app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, int(runner.addresses[0][1])
