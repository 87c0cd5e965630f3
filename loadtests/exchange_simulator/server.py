"""The simulator itself: streams over a market, a clock and dice, beside the REST interface of `rest`."""

import asyncio
import contextlib
import heapq
import itertools
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import msgspec
from candlemill.transport.asgi import serving
from websockets.asyncio.server import Request, Response, ServerConnection
from websockets.asyncio.server import serve as serve_streams
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from loadtests.exchange_simulator.faults import RUBBISH, Dice
from loadtests.exchange_simulator.market import MINUTE_MS, STEP_SECONDS, Market, Row, VirtualClock, text, unfinished
from loadtests.exchange_simulator.rest import RestInterface

HOUR_MS = 3_600_000
LIFE_MS = 24 * HOUR_MS
CLOSE_SECONDS = 0.2
DIALECTS = {"/stream": "binance", "/v5/public/spot": "bybit"}


class Ports(NamedTuple):
    """Where a simulator listens; 0 is any free one."""

    rest: int
    stream: int


FREE_PORTS = Ports(0, 0)


class Subscriber:
    """One WebSocket connection, in the words of `dialect`."""

    def __init__(self, connection: ServerConnection, dialect: str, now: int) -> None:
        self.connection, self.dialect, self.born = connection, dialect, now
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
        self.rest = RestInterface(market, clock, dice, self.counts, weight)
        self._numbers = itertools.count()
        self._names = {symbol.lower(): symbol for symbol in market.symbols}

    # -- streams -------------------------------------------------------------------------------------------------------

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a handshake that fails."""
        if urlsplit(request.path).path not in DIALECTS:
            return connection.respond(404, "no such stream\n")
        if self.dice.hits("refused_connection"):
            self.counts["refused_connection"] += 1
            return connection.respond(503, "")
        return None

    async def stream(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends."""
        assert connection.request is not None
        target = urlsplit(connection.request.path)
        subscriber = Subscriber(connection, DIALECTS[target.path], self.clock.now_ms())
        for stream in filter(None, parse_qs(target.query).get("streams", [""])[0].split("/")):
            self._subscribe(subscriber, stream.partition("@")[0].upper())
        self.subscribers.add(subscriber)
        self.counts["connections"] += 1
        try:
            async for message in connection:
                if isinstance(message, str):
                    await self._request(subscriber, message)
        except ConnectionClosed:
            pass
        finally:
            self.subscribers.discard(subscriber)

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

    async def broadcast(self) -> None:
        """Everything that time brings: updates, final candles, faults."""
        before = self.clock.now_ms()
        update_ms = MINUTE_MS // max(self.updates, 1)
        while True:
            await asyncio.sleep(max(0.002, min(STEP_SECONDS, 1 / self.clock.speed)))
            self.rest.guard.running.read()
            now = self.clock.now_ms()
            self.market.at(now)
            minutes = range(before // MINUTE_MS * MINUTE_MS, now // MINUTE_MS * MINUTE_MS, MINUTE_MS)
            update = bool(self.updates) and before // update_ms != now // update_ms
            for subscriber in list(self.subscribers):
                with contextlib.suppress(ConnectionClosed):
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
            if subscriber.connection.state is State.OPEN:
                subscriber.connection.transport.write(b"\x81\x7e\x01\x00" + b'{"stream":"btc')
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
        """End the connection without a close frame."""
        self.subscribers.discard(subscriber)
        subscriber.connection.transport.abort()

    async def _final(self, subscriber: Subscriber, symbol: str, t: int, row: Row, now: int) -> None:
        dice = self.dice
        if dice.hits("malformed"):
            self.counts["malformed"] += 1
            rubbish = dice.rng.choice(RUBBISH)
            for as_text in (True, False):  # text that is no UTF-8, too
                await subscriber.connection.send(rubbish, text=as_text)
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
        await subscriber.connection.send(raw, text=True)


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


@contextlib.asynccontextmanager
async def serve(
    simulator: Simulator, host: str = "127.0.0.1", ports: Ports = FREE_PORTS, compression: bool = True
) -> AsyncIterator[Ports]:
    """Serve while the block runs. With `compression` where the client offers it."""
    streams = serve_streams(
        simulator.stream,
        host,
        ports.stream,
        process_request=simulator.refuse,
        compression="deflate" if compression else None,
        close_timeout=CLOSE_SECONDS,
    )
    broadcast = asyncio.create_task(simulator.broadcast())
    try:
        async with serving(simulator.rest.app, host, ports.rest, grace=0) as rest, streams as server:
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it reports what is cut on purpose
            yield Ports(rest, int(server.sockets[0].getsockname()[1]))
    finally:
        broadcast.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await broadcast
