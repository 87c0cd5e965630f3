"""Everything goes wrong for a simulated day, per seed; then the store must equal the exchange, row for row.

    python -m loadtests.exchange.torture --seeds 100 [--first 1] [--hours 24] [--speed 7200]

A feed runs as a process of its own against the simulator with the full menu of faults, with a skewed clock, with a
database that is down for an hour, and is killed with SIGKILL at random moments; every fourth seed runs two feeds at
once against one served database. Then the faults end, the feed catches up and is asked to stop, half a day passes,
and the files of the archive are ingested, corrections and all. Prints a line per seed; exit 1 if a store differs.
Offences (asking while the exchange forbids it) count where one feed runs: two behind one address do not know of each
other's refusals.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from candlemill.io.download import Downloader
from candlemill.io.feedstore import FeedStore

from loadtests.exchange.faults import NONE, Menu
from loadtests.exchange.market import MINUTE_MS, Market, synthetic
from loadtests.exchange.run import Stage, adapter, differences, digests_true
from loadtests.exchange.victim import Orders, Standing

START_MS = 1_709_164_800_000  # 2024-02-29
DAY_MS = 86_400_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]
DAYS = 30
PATIENCE = 120.0
CALM_SPEED = 300.0
ROOT = Path(__file__).parents[2]


class Victim:
    """One process; `standing` is what it last said."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.standing = Standing(0, 0, 0, 0)

    async def start(self) -> None:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "core"), os.environ.get("PYTHONPATH", "")])
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loadtests.exchange.victim", msgspec.json.encode(self.orders).decode(),
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        self.standing = Standing(0, 0, 0, 0)
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.standing = msgspec.json.decode(line, type=Standing)

    async def end(self, kill: bool) -> None:
        if self.process.returncode is None:
            self.process.kill() if kill else self.process.terminate()
        status = await self.process.wait()
        await self._listening
        if not kill and status not in (0, -15):  # -15: it had only just begun to start
            raise RuntimeError(f"the feed ended with {status} when asked to stop")


async def torture(seed: int, hours: float, speed: float, folder: Path) -> dict[str, Any]:
    chance = random.Random(seed)
    pair = seed % 4 == 0
    if pair:  # three processes have to keep up
        hours, speed = hours / 3, speed / 6
    market = synthetic(seed, SYMBOLS, START_MS, 1440 * DAYS)
    base = START_MS + DAY_MS + chance.randrange(DAY_MS // MINUTE_MS) * MINUTE_MS
    skew = chance.choice([0, 0, 90_000, -90_000, 3_600_000])
    down_at = base + int(chance.uniform(0.2, 0.6) * hours * 3_600_000)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(Stage(market, base, speed, seed, Menu(), skew))
        server = await _served(folder) if pair else None
        if server:
            stack.callback(_kill, server[0])
        dsn = server[1] if server else f"chdb://{folder / 'db'}"
        orders = Orders(
            dsn, stage.port, SYMBOLS, base, stage.clock.start, speed, seed, skew, [(down_at, down_at + 3_600_000)],
            buffer_rows=chance.choice([60, 400_000]),
        )  # fmt: skip
        victims = [Victim(orders), *([Victim(msgspec.structs.replace(orders, seed=seed + 1))] if pair else [])]
        for victim in victims:
            stack.push_async_callback(victim.end, kill=True)
            await victim.start()
        ends = began + hours * 3600 / speed
        kills = 0
        while (left := ends - time.monotonic()) > 0:
            await asyncio.sleep(min(left, chance.uniform(4.0, 11.0)))
            if time.monotonic() < ends:
                victim = chance.choice(victims)
                await victim.end(kill=chance.random() < 0.8)
                kills += 1
                await victim.start()
        counts = dict(stage.simulator.counts)
        stage.simulator.dice.menu = NONE
        for subscriber in list(stage.simulator.subscribers):
            stage.simulator.abort(subscriber)
        calm = stage.clock.now_ms()
        for clock in (stage.clock, stage.ours):
            clock.change(CALM_SPEED)
        for victim in victims:
            await victim.end(kill=chance.random() < 0.5)
            victim.orders = msgspec.structs.replace(
                victim.orders, base_ms=stage.clock.base_ms, start=stage.clock.start, speed=CALM_SPEED
            )
            await victim.start()
        last = time.monotonic() + PATIENCE
        slow = time.monotonic()
        while any(victim.standing.until_ms < calm for victim in victims):
            await asyncio.sleep(0.1)
            if os.environ.get("TORTURE_LOG") and time.monotonic() > slow:
                slow = time.monotonic() + 2
                print([((v.standing.until_ms - calm) / 3600000, v.standing) for v in victims], file=sys.stderr)
            if time.monotonic() > last:
                raise TimeoutError(f"seed {seed}: {[v.standing for v in victims]}, but {calm} is to be reached")
        for victim in victims:
            await victim.end(kill=False)
        if server:
            server[0].terminate()
            await server[0].wait()
        live = _compare(folder, market, base, calm)
        for clock in (stage.clock, stage.ours):
            clock.change(1.0, DAY_MS // 2 + 3_600_000)
        found = await _nightly(folder, stage, market, base)
    offences = ("asked_while_forbidden", "over_the_limit", "too_many_messages")
    ordinary = ("messages", "requests", "connections")
    return {
        "seed": seed,
        "feeds": len(victims),
        "kills": kills,
        "faults": sum(number for name, number in counts.items() if name not in ordinary),
        "offences": sum(counts.get(name, 0) for name in offences),
        "live": live,
        "files": found,
        "seconds": round(time.monotonic() - began, 1),
    }


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


async def _served(folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    """`candlemill db`, for several processes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "candlemill.cli", "db", "--port", "0",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "CANDLEMILL_CLICKHOUSE_DSN": f"chdb://{folder / 'db'}"},
    )  # fmt: skip
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    return process, line.split()[-1]


def _compare(folder: Path, market: Market, start: int, end: int) -> dict[str, Any]:
    """What the feeds alone ended with: everything, but for corrections that came after their audits."""
    with FeedStore(f"chdb://{folder / 'db'}") as store:
        found = differences(store, market.at(end), {s: s for s in SYMBOLS}, start, end)
        corrected = {(c.symbol, c.t) for c in market.corrections}
        found = {k: [t for t in v if (k.split()[0], t) not in corrected] for k, v in found.items()}
        return {"differences": {k: short(v) for k, v in found.items() if v}, "digests": digests_true(store, SYMBOLS)}


def short(minutes: list[int]) -> list[int]:
    """How many, the first and the last."""
    return [len(minutes), minutes[0], minutes[-1]]


async def _nightly(folder: Path, stage: Stage, market: Market, base: int) -> dict[str, Any]:
    """The operator's nightly ingest, twice: the second one must find nothing to do."""
    with FeedStore(f"chdb://{folder / 'db'}") as store:
        span = (START_MS, stage.clock.now_ms() - 10 * MINUTE_MS)
        for _ in range(2):
            loader = Downloader(adapter("binance", stage.port), store, stage.ours, folder / "files")
            report = await loader.run(SYMBOLS, span)
        found = differences(
            store, market.at(span[1]), {s: s for s in SYMBOLS}, START_MS, span[1] // MINUTE_MS * MINUTE_MS
        )
        found = {k: short(v) for k, v in found.items()}
        return {"differences": found, "digests": digests_true(store, SYMBOLS), "again": report.stored}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seeds", type=int, default=10)
    ask.add_argument("--first", type=int, default=1)
    ask.add_argument("--hours", type=float, default=24.0)
    ask.add_argument("--speed", type=float, default=7200.0)
    args = ask.parse_args()
    bad = 0
    for seed in range(args.first, args.first + args.seeds):
        with tempfile.TemporaryDirectory(prefix="torture-") as name:
            try:
                found = asyncio.run(torture(seed, args.hours, args.speed, Path(name)))
            except Exception as error:
                found = {"seed": seed, "error": f"{type(error).__name__}: {error}"}
        wrong = "error" in found or any(
            found[k]["differences"] or not found[k]["digests"] for k in ("live", "files")
        ) or (found["offences"] and found["feeds"] == 1)  # fmt: skip
        bad += bool(wrong)
        print(("BAD  " if wrong else "same ") + msgspec.json.encode(found).decode(), flush=True)
    print(f"{args.seeds - bad} of {args.seeds} seeds ended equal to the exchange")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
