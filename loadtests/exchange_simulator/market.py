"""What the simulated exchange knows: candles, its outages, its corrections. The truth that a store must end with."""

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from candlemill.exchanges.binance.kline_files import clean
from candlemill.feed.rest_client import Clock
from candlemill.ingest.files import find_kline_files, load

MINUTE_MS: Final = 60_000
FINISHED_MS: Final = 2_000  # after a minute's end REST still shows the unfinished candle for so long
SCALE: Final = 10**8
STEP_SECONDS: Final = 0.02
Row = tuple[int, int, int, int, int]


class VirtualClock(Clock):
    """Time that starts at `base_ms` when this machine's clock shows `start`, and runs `speed` times as fast. Several
    processes can have the same."""

    def __init__(self, base_ms: int, start: float, speed: float, skew_ms: int = 0) -> None:
        self.base_ms, self.start, self.speed, self.skew_ms = base_ms, start, speed, skew_ms

    def now_ms(self) -> int:
        passed = (time.time() - self.start) * 1000 * self.speed
        return int(self.base_ms + passed) + self.skew_ms

    def change(self, speed: float, jump_ms: int = 0) -> None:
        """Go on at another speed, some time ahead."""
        now = time.time()
        self.base_ms = int(self.base_ms + (now - self.start) * 1000 * self.speed) + jump_ms
        self.start, self.speed = now, speed

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / self.speed)


class RunningTime:
    """Seconds in which this process runs: between two readings pass `STEP_SECONDS` at most, so what waits for a core or
    stands still loses nothing. Something has to read it all the time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_at = time.monotonic()
        self._seconds = 0.0

    def read(self) -> float:
        with self._lock:
            now = time.monotonic()
            self._seconds += min(now - self._read_at, STEP_SECONDS)
            self._read_at = now
            return self._seconds


class PatientClock(VirtualClock):
    """The virtual time of one process alone, which passes only while that runs: bans, silences and the exchange's
    candles then are as long for the process on a busy machine as on an idle one."""

    def __init__(self, base_ms: int, speed: float) -> None:
        super().__init__(base_ms, 0.0, speed)
        self._running = RunningTime()

    def now_ms(self) -> int:
        return int(self.base_ms + (self._running.read() - self.start) * 1000 * self.speed)

    def change(self, speed: float, jump_ms: int = 0) -> None:
        now = self._running.read()
        self.base_ms += int((now - self.start) * 1000 * self.speed) + jump_ms
        self.start, self.speed = now, speed

    async def sleep(self, seconds: float) -> None:
        end = self.now_ms() + 1000 * seconds
        while (left := (end - self.now_ms()) / 1000 / self.speed) > 0:
            await asyncio.sleep(min(left, STEP_SECONDS))
        await asyncio.sleep(0)


class SkewedClock(Clock):
    """A clock that is ahead of another."""

    def __init__(self, clock: VirtualClock, skew_ms: int) -> None:
        self._clock, self._skew_ms = clock, skew_ms

    def now_ms(self) -> int:
        return self._clock.now_ms() + self._skew_ms

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class Correction(msgspec.Struct, frozen=True):
    """From `at_ms` on, the candle of a minute is another one."""

    at_ms: int
    symbol: str
    t: int
    row: Row


class Market:
    """Candles by symbol and minute: open, high, low, close, volume, times 10^8."""

    def __init__(self, rows: dict[str, dict[int, Row]], corrections: Sequence[Correction] = ()) -> None:
        self.first = {symbol: dict(found) for symbol, found in rows.items()}
        self.corrections = sorted(corrections, key=lambda c: c.at_ms)
        self._applied = 0
        self.rows = {symbol: dict(found) for symbol, found in rows.items()}
        self.delisted: set[str] = set()  # only the archive has them

    @property
    def live(self) -> list[str]:
        return [symbol for symbol in self.rows if symbol not in self.delisted]

    @property
    def symbols(self) -> list[str]:
        return list(self.rows)

    def at(self, now: int) -> "Market":
        """This market as it is at `now`."""
        while self._applied < len(self.corrections) and self.corrections[self._applied].at_ms <= now:
            done = self.corrections[self._applied]
            self.rows[done.symbol][done.t] = done.row
            self._applied += 1
        return self

    def window(self, symbol: str, start: int, rows: int, now: int) -> list[tuple[int, Row]]:
        """As REST answers: from the first candle at or after `start`, the unfinished one last."""
        found = self.at(now).rows[symbol]
        out = []
        t = -(-max(start, min(found, default=now)) // MINUTE_MS) * MINUTE_MS
        while t <= now and len(out) < rows:
            if t in found:
                out.append((t, found[t] if t + MINUTE_MS + FINISHED_MS <= now else unfinished(found[t])))
            t += MINUTE_MS
        return out


def unfinished(row: Row) -> Row:
    """What a candle looks like before its end: never like the final one."""
    o, h, low, _, v = row
    return o, max(o, (o + h) // 2), min(o, (o + low) // 2), o, v // 3 + 1


def synthetic(seed: int, symbols: Sequence[str], start_ms: int, minutes: int, calm: bool = False) -> Market:
    """A seeded market: random walks, minutes without a trade, and unless `calm` outages and corrections."""
    chance = random.Random(seed)
    common = [] if calm else [_stretch(chance, minutes) for _ in range(chance.randint(0, 2))]
    rows: dict[str, dict[int, Row]] = {}
    corrections = []
    for k, symbol in enumerate(symbols):
        rng = np.random.default_rng([seed, k])
        gone = np.zeros(minutes, bool)
        own = [] if calm else [_stretch(chance, minutes) for _ in range(chance.randint(0, 2))]
        for a, b in (*common, *own):
            gone[a:b] = True
        rows[symbol] = _walk(rng, start_ms, minutes, gone)
        times = list(rows[symbol])
        for _ in range(0 if calm else chance.randint(0, 4)):
            t = chance.choice(times)
            o, h, low, c, v = rows[symbol][t]
            at = t + MINUTE_MS + chance.randint(1, 600) * MINUTE_MS
            corrections.append(Correction(at, symbol, t, (o, h, low, c, v + chance.randint(1, 10**9))))
    return Market(rows, corrections)


def _stretch(chance: random.Random, minutes: int) -> tuple[int, int]:
    a = chance.randrange(minutes)
    return a, min(minutes, a + chance.choice([1, 2, 7, 30, 90, 150]))


def _walk(rng: np.random.Generator, start_ms: int, minutes: int, gone: np.ndarray) -> dict[int, Row]:
    traded = rng.random(minutes) >= 0.05
    close = 3_000_000 + np.cumsum(rng.integers(-500, 501, minutes) * traded)
    close = np.maximum(close, 1000)
    open_ = np.concatenate(([3_000_000], close[:-1]))
    spread = rng.integers(0, 300, (2, minutes)) * traded
    high, low = np.maximum(open_, close) + spread[0], np.maximum(np.minimum(open_, close) - spread[1], 1)
    volume = rng.integers(1, 10**12, minutes) * traded
    tick = SCALE // 100
    table = np.stack([open_ * tick, high * tick, low * tick, close * tick, volume], axis=1).tolist()
    return {start_ms + k * MINUTE_MS: tuple(row) for k, row in enumerate(table) if not gone[k]}


def real(folder: Path) -> Market:
    """The candles of kline files, at their own times."""
    rows: dict[str, dict[int, Row]] = {}
    for file in find_kline_files([folder]).files:
        symbol, candles = load(file.path, 8)
        tidy = clean(candles)
        columns = (getattr(tidy, name).tolist() for name in ("open", "high", "low", "close", "volume"))
        rows.setdefault(symbol, {}).update(zip(tidy.t.tolist(), zip(*columns, strict=True), strict=True))
    return Market(rows)


def text(value: int) -> str:
    """A scaled integer as the exchange writes it, with eight decimals."""
    whole, fraction = divmod(value, SCALE)
    return f"{whole}.{fraction:08}"
