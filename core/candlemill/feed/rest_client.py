"""REST client of an exchange that respects its rate limits, refusals and bans."""

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

from candlemill.errors import BadMessage, ExchangeDown, NotThere
from candlemill.exchanges.base import MINUTE_MS, Candle, Exchange, RestRequest, SymbolRules
from candlemill.feed.web_client import RequestFailed, ResponseTooLarge, WebClient

SHARE: Final = 0.8  # of the limit, since other processes with the same IP address send requests too
COOLDOWN_SECONDS_MAX: Final = 3 * 86_400  # the longest ban of any exchange
JITTER_SECONDS: Final = 2.0
TIMEOUT_SECONDS: Final = 20
RESPONSE_BYTES_MAX: Final = 64 * 2**20  # the list of all symbols and rules has about 15 MiB
COMPRESSED: Final = {"Accept-Encoding": "gzip"}
ATTEMPTS: Final = 6
CLOSED_MS: Final = 3_000  # after a candle's end, until it counts as closed: exchanges finish it with a delay
WINDOWS_MAX: Final = 60
EMPTY_RESPONSES: Final = 3  # as many empty responses prove that the exchange has no candles

log = logging.getLogger("candlemill.rest")
T = TypeVar("T")


class Clock:
    """Monotonic time of this machine in ms, and sleeping. Tests replace it by a faster clock."""

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now_ms(self) -> int:
        return int((self._start + time.monotonic()) * 1000)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def real_seconds(self, seconds: float) -> float:
        """Convert a timeout to real seconds; the faster clocks of tests return another value."""
        return seconds


class Cooldown:
    """Time (ms) until which an exchange allows no requests, after a refusal or a ban.

    Stored as the modification time of a file, shared by all processes of this machine; without a file, in memory.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._until = 0

    def until(self, now: int) -> int:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._until = self._file.stat().st_mtime_ns // 10**6
        # Ignore a time beyond the longest ban: a clock was wrong, or the file was modified.
        return self._until if self._until <= now + 1000 * COOLDOWN_SECONDS_MAX else 0

    def extend(self, now: int, until: int) -> None:
        self._until = max(self.until(now), until)
        if self._file is not None:
            with contextlib.suppress(OSError):  # without the file, other processes only get their own refusal
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.touch()
                os.utime(self._file, ns=(self._until * 10**6, self._until * 10**6))


def cooldown_of(exchange: Exchange, folder: Path) -> Cooldown:
    """Cooldown of this exchange, shared by the processes of this machine through a file in `folder`."""
    return Cooldown(folder / urlsplit(exchange.rest_url).netloc.replace(":", "-"))


class Rest:
    """Requests of one process to one exchange.

    Counts the weight of its requests, or the weight that the exchange reports for this IP address if that is more. At
    the start and after a refusal it sends one request at a time, until one succeeds.
    """

    def __init__(
        self,
        exchange: Exchange,
        client: WebClient,
        clock: Clock,
        rng: random.Random,
        cooldown: Cooldown | None = None,
    ) -> None:
        self.exchange = exchange
        self.requests = 0
        self.refused = 0
        self._client = client
        self._clock = clock
        self._rng = rng
        self._cooldown = cooldown or Cooldown()
        self._spent: deque[tuple[int, int]] = deque()  # time, weight
        self._in_flight = 0
        self._refusals = 0  # since the last success
        self._one_at_a_time = True
        self._clock_offset_ms = 0  # lower bound of the exchange's time minus ours
        self.synced = False

    def now(self) -> int:
        """The exchange's time in ms, or earlier; never later."""
        return self._clock.now_ms() + self._clock_offset_ms

    async def sync(self) -> None:
        """Read the exchange's time. The response takes time to arrive, so the result is never late."""
        time_ms = await self.get(self.exchange.time_request(), self.exchange.time)
        self._clock_offset_ms = time_ms - self._clock.now_ms()
        self.synced = True

    async def rules(self) -> list[SymbolRules]:
        return await self.get(self.exchange.rules_request(), self.exchange.rules)

    async def candles(self, symbol: str, start: int, end: int) -> tuple[list[Candle], bool]:
        """Return closed candles from `start` on, in time order, and whether the exchange may have more after them.

        The candles may continue after `end`, since only a later candle proves a gap.
        """
        rows = min(self.exchange.limits.rows, (end - start) // MINUTE_MS + 1)
        for _ in range(WINDOWS_MAX):
            closed_until = self.now() - CLOSED_MS
            found = await self._page(symbol, start, rows)
            if any(row.t < start for row in found):
                raise BadMessage(f"{symbol}: candles from {found[0].t} on, but {start} was requested")
            closed = [row for row in _unique(found) if row.t + MINUTE_MS <= closed_until]
            start += rows * MINUTE_MS
            if found or not self.exchange.windowed or start >= closed_until:
                break
            rows = self.exchange.limits.rows
        return closed, len(found) >= rows or (self.exchange.windowed and start < closed_until)

    async def _page(self, symbol: str, start: int, rows: int) -> list[Candle]:
        """Candles of one page, including an unfinished one; an empty response is verified by repetition."""
        request = self.exchange.candles_request(symbol, start, rows)
        for _ in range(EMPTY_RESPONSES):
            if found := await self.get(request, lambda body: self.exchange.candles(symbol, body)):
                return found
        return []

    async def get(self, request: RestRequest, decode: Callable[[bytes], T]) -> T:
        """Return the decoded response, with retries for missing and damaged responses.

        Raises ExchangeDown or BadMessage when all retries fail, NotThere when the request itself is refused.
        """
        problem: ExchangeDown | BadMessage = ExchangeDown("no request was sent")
        for k in range(ATTEMPTS):
            if k:
                log.log(logging.INFO if k == 1 else logging.WARNING, "%s; retrying", problem)
                await self._clock.sleep(self._rng.uniform(0.5, 1.0) * 2**k)
            await self._wait_turn(request.weight)
            try:
                return decode(await self._once(request))
            except (ExchangeDown, BadMessage) as error:
                problem = error
        raise problem

    async def _wait_turn(self, weight: int) -> None:
        """Wait until the request may be sent, and count its weight."""
        limits = self.exchange.limits
        while True:
            now = self._clock.now_ms()
            while self._spent and self._spent[0][0] <= now - 1000 * limits.weight_seconds:
                self._spent.popleft()
            spent = sum(each for _, each in self._spent)
            cooldown_until = self._cooldown.until(now)
            if now < cooldown_until:
                wait = (cooldown_until - now) / 1000 + self._rng.uniform(0, JITTER_SECONDS)
            elif spent and spent + weight > limits.weight * SHARE:
                wait = (self._spent[0][0] - now) / 1000 + limits.weight_seconds
            elif self._one_at_a_time and self._in_flight:
                wait = 1.0
            else:
                self._spent.append((now, weight))
                self._in_flight += 1
                return
            await self._clock.sleep(max(wait, 0.01))

    async def _once(self, request: RestRequest) -> bytes:
        what = f"{self.exchange.name}, {request.path}"
        self.requests += 1
        refused = self.refused
        url, seconds = self.exchange.rest_url + request.path, self._clock.real_seconds(TIMEOUT_SECONDS)
        try:
            status, headers, body = await self._client.request(
                "GET", url, query=request.query, headers=COMPRESSED, seconds=seconds, max_bytes=RESPONSE_BYTES_MAX
            )
        except ResponseTooLarge as error:
            raise BadMessage(f"{what}: {error}") from None
        except RequestFailed as error:
            raise ExchangeDown(f"{what}: {error}") from None
        finally:
            self._in_flight -= 1
        self._add_foreign_weight(self.exchange.used_weight(headers))
        refusal = self.exchange.refusal(status, body)
        if refusal is not None and refusal.kind in ("limit", "ban"):
            self.refused += 1
            wait = self._start_cooldown(headers.get("Retry-After", ""), refusal.kind)
            log.warning("%s: %d, %s; no requests for %d s", what, status, refusal.text, wait)
            raise ExchangeDown(f"{what}: {status}, {refusal.text}", wait)
        if self.refused == refused:  # no refusal since this request was sent
            self._one_at_a_time, self._refusals = False, 0
        if refusal is not None:
            raise NotThere(f"{what} with {request.query}: {status}, {refusal.text}")
        if status != 200:
            raise ExchangeDown(f"{what}: status {status}")
        return body

    def _start_cooldown(self, text: str, kind: str) -> float:
        """Start a cooldown of the length that the exchange requires; return its seconds."""
        limits = self.exchange.limits
        named = float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
        wait = max(named, 1.0) if named else float(limits.ban_seconds if kind == "ban" else limits.weight_seconds)
        # Unknown clients with the same IP address may prolong the ban when theirs ends. After repeated refusals the
        # cooldown is therefore longer than required, by a random factor.
        earlier, self._refusals = self._refusals, self._refusals + 1
        wait = min(wait * (1 + earlier * self._rng.random()), COOLDOWN_SECONDS_MAX)
        self._one_at_a_time = True
        now = self._clock.now_ms()
        self._cooldown.extend(now, now + int(1000 * wait))
        return wait

    def _add_foreign_weight(self, used: int | None) -> None:
        """Add the weight that other clients with the same IP address used, as the exchange reports it."""
        ours = sum(each for _, each in self._spent)
        if used is not None and used > ours:
            self._spent.append((self._clock.now_ms(), used - ours))


def _unique(candles: list[Candle]) -> list[Candle]:
    """Keep the last candle of each minute, in time order."""
    return list({candle.t: candle for candle in candles}.values())
