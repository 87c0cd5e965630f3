"""Asking an exchange over HTTP, within its limits: never faster than it allows, silent while it wants silence.

aiohttp is the one library for WebSocket and HTTP, client and server: the feed, its metrics page and the simulator.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import aiohttp

from candlemill.errors import BadMessage, ExchangeDown, NotThere
from candlemill.exchange import MINUTE_MS, Ask, Candle, Exchange, Rules

SHARE: Final = 0.8  # of the limit: others behind the same address ask at the same moment
SILENCE_SECONDS_MAX: Final = 3 * 86_400  # the longest ban that there is
JITTER_SECONDS: Final = 2.0
SECONDS: Final = 20
ANSWER_BYTES_MAX: Final = 64 * 2**20  # the longest, the list of all symbols with their rules, has some 15
TRIES: Final = 6
CLOSED_MS: Final = 3_000  # after a candle's end, until it is taken for closed: the exchange finishes it that late
WINDOWS: Final = 60
EMPTY_ANSWERS: Final = 3  # so often an exchange has to say that it has no candles, until it is believed

log = logging.getLogger("candlemill.rest")
T = TypeVar("T")


class Clock:
    """This machine's time in ms, which never goes back, and waiting. Tests replace it by one that runs faster."""

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now_ms(self) -> int:
        return int((self._start + time.monotonic()) * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def patience(self, seconds: float) -> float:
        """How long to wait, in real seconds, for an answer that others may wait `seconds` for."""
        return seconds


class Silence:
    """Until when (ms) an exchange wants to hear nothing from us. Kept as the time of a file, so that every process on
    this machine knows it, and one that starts again. Without a file it is this object's alone."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._until = 0

    def until(self, now: int) -> int:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._until = self._file.stat().st_mtime_ns // 10**6
        # A time beyond all bans is none: somebody's clock was wrong, or somebody touched the file.
        return self._until if self._until <= now + 1000 * SILENCE_SECONDS_MAX else 0

    def keep(self, now: int, until: int) -> None:
        self._until = max(self.until(now), until)
        if self._file is not None:
            with contextlib.suppress(OSError):  # a folder that cannot be written costs others a refusal, no more
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.touch()
                os.utime(self._file, ns=(self._until * 10**6, self._until * 10**6))


def silence_of(exchange: Exchange, folder: Path) -> Silence:
    """The one for whoever asks this exchange from here; `folder` keeps such files."""
    return Silence(folder / urlsplit(exchange.rest_url).netloc.replace(":", "-"))


class Rest:
    """Requests of one process. It counts what they weigh together, or what the exchange says that all behind our
    address weigh. After a refusal, and at first, it asks one thing at a time until it is answered."""

    def __init__(
        self,
        exchange: Exchange,
        session: aiohttp.ClientSession,
        clock: Clock,
        rng: random.Random,
        silence: Silence | None = None,
    ) -> None:
        self.exchange = exchange
        self.requests = 0
        self.refused = 0
        self._session = session
        self._clock = clock
        self._rng = rng
        self._silence = silence or Silence()
        self._spent: deque[tuple[int, int]] = deque()  # when, weight
        self._under_way = 0
        self._in_a_row = 0  # refusals since the last answer
        self._careful = True
        self._ahead_ms = 0  # the exchange's clock before ours, at least
        self.synced = False

    def now(self) -> int:
        """The exchange's time in ms, never later than it really is."""
        return self._clock.now_ms() + self._ahead_ms

    async def sync(self) -> None:
        """Learn the exchange's time. What it says is past when it arrives: that errs on the safe side."""
        said = await self.get(self.exchange.ask_time(), self.exchange.time)
        self._ahead_ms = said - self._clock.now_ms()
        self.synced = True

    async def rules(self) -> list[Rules]:
        return await self.get(self.exchange.ask_rules(), self.exchange.rules)

    async def candles(self, symbol: str, start: int, end: int) -> tuple[list[Candle], bool]:
        """Closed candles from `start` on, in time order, and whether the exchange may have more after them.

        They may go on after `end`, so that a gap before a later candle shows as one.
        """
        rows = min(self.exchange.limits.rows, (end - start) // MINUTE_MS + 1)
        for _ in range(WINDOWS):
            closed_until = self.now() - CLOSED_MS
            found = await self._page(symbol, start, rows)
            if any(row.t < start for row in found):
                raise BadMessage(f"{symbol}: candles from {found[0].t} on where {start} was asked for")
            closed = [row for row in _unique(found) if row.t + MINUTE_MS <= closed_until]
            start += rows * MINUTE_MS
            if found or not self.exchange.windowed or start >= closed_until:
                break
            rows = self.exchange.limits.rows
        return closed, len(found) >= rows or (self.exchange.windowed and start < closed_until)

    async def _page(self, symbol: str, start: int, rows: int) -> list[Candle]:
        """One request's candles, the unfinished one too. That there are none is believed only when it is said again."""
        ask = self.exchange.ask_candles(symbol, start, rows)
        for _ in range(EMPTY_ANSWERS):
            if found := await self.get(ask, lambda body: self.exchange.candles(symbol, body)):
                return found
        return []

    async def get(self, ask: Ask, decode: Callable[[bytes], T]) -> T:
        """The decoded answer. What is damaged is asked for again, like what does not come.

        Raises ExchangeDown or BadMessage when that does not help, NotThere when the request itself is refused.
        """
        problem: ExchangeDown | BadMessage = ExchangeDown("never asked")
        for k in range(TRIES):
            if k:
                log.log(logging.INFO if k == 1 else logging.WARNING, "%s; trying again", problem)
                await self._clock.sleep(self._rng.uniform(0.5, 1.0) * 2**k)
            await self._turn(ask.weight)
            try:
                return decode(await self._once(ask))
            except (ExchangeDown, BadMessage) as error:
                problem = error
        raise problem

    async def _turn(self, weight: int) -> None:
        """Wait until the request may be sent, and count it."""
        limits = self.exchange.limits
        while True:
            now = self._clock.now_ms()
            while self._spent and self._spent[0][0] <= now - 1000 * limits.weight_seconds:
                self._spent.popleft()
            spent = sum(each for _, each in self._spent)
            silent_until = self._silence.until(now)
            if now < silent_until:
                wait = (silent_until - now) / 1000 + self._rng.uniform(0, JITTER_SECONDS)
            elif spent and spent + weight > limits.weight * SHARE:
                wait = (self._spent[0][0] - now) / 1000 + limits.weight_seconds
            elif self._careful and self._under_way:
                wait = 1.0
            else:
                self._spent.append((now, weight))
                self._under_way += 1
                return
            await self._clock.sleep(max(wait, 0.01))

    async def _once(self, ask: Ask) -> bytes:
        what = f"{self.exchange.name}, {ask.path}"
        self.requests += 1
        refused = self.refused
        limit = aiohttp.ClientTimeout(total=self._clock.patience(SECONDS))
        try:
            async with self._session.get(
                self.exchange.rest_url + ask.path, params=ask.query, timeout=limit, allow_redirects=False
            ) as answer:
                body, status, headers = await read_bounded(answer), answer.status, answer.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ExchangeDown(f"{what}: {reason(error)}") from None
        finally:
            self._under_way -= 1
        self._count(self.exchange.used_weight(headers))
        refusal = self.exchange.refusal(status, body)
        if refusal is not None and refusal.kind in ("limit", "ban"):
            self.refused += 1
            wait = self._be_silent(headers.get("Retry-After", ""), refusal.kind)
            log.warning("%s: %d, %s; silent for %d s", what, status, refusal.text, wait)
            raise ExchangeDown(f"{what}: {status}, {refusal.text}", wait)
        if self.refused == refused:  # nobody was refused since this was sent
            self._careful, self._in_a_row = False, 0
        if refusal is not None:
            raise NotThere(f"{what} with {ask.query}: {status}, {refusal.text}")
        if status != 200:
            raise ExchangeDown(f"{what}: status {status}")
        return body

    def _be_silent(self, text: str, kind: str) -> float:
        """Nobody asks anything for as long as the exchange wants."""
        limits = self.exchange.limits
        named = float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
        wait = max(named, 1.0) if named else float(limits.ban_seconds if kind == "ban" else limits.weight_seconds)
        # Others behind our address, of whom we know nothing, may lengthen the same ban by asking when ours is over:
        # whoever is refused again waits longer than it was told, each by its own chance.
        again, self._in_a_row = self._in_a_row, self._in_a_row + 1
        wait = min(wait * (1 + again * self._rng.random()), SILENCE_SECONDS_MAX)
        self._careful = True
        now = self._clock.now_ms()
        self._silence.keep(now, now + int(1000 * wait))
        return wait

    def _count(self, used: int | None) -> None:
        """What the exchange counted counts, where it is more: others behind our address ask too."""
        ours = sum(each for _, each in self._spent)
        if used is not None and used > ours:
            self._spent.append((self._clock.now_ms(), used - ours))


async def read_bounded(answer: aiohttp.ClientResponse, most: int = ANSWER_BYTES_MAX) -> bytes:
    """The body, inflated. Raises BadMessage for more than `most` bytes, without taking in the rest."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > most:
            raise BadMessage(f"{answer.url.host}{answer.url.path} answers more than {most:,} bytes")
    return bytes(body)


def reason(error: Exception) -> str:
    """Why a request failed, in a few words."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}"
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def _unique(candles: list[Candle]) -> list[Candle]:
    """In time order, one per minute."""
    return list({candle.t: candle for candle in candles}.values())
