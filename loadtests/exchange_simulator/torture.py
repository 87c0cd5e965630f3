"""Everything goes wrong for a simulated day, per seed; then the store must equal the exchange, row for row.

    python -m loadtests.exchange_simulator.torture --seeds 100 [--first 1] [--hours 24] [--speed 3600]

A feed runs as a process of its own against the simulator with the full menu of faults, with a skewed clock, and with a
database that is down for an hour, twice. Again and again it is killed with SIGKILL: while it starts, while it
back-fills, while the database is down, at any moment, and before, within and after chosen calls of the database. Every
fourth seed runs two feeds at once against one served database, which is killed too; every fifth seed the exchange is
Bybit.

Then the faults end, the feed catches up and is stopped, half a day passes, and an ingest brings the files of
the archive, corrections and all; it is killed as well, and begun again. Prints a line per seed, what went wrong in all,
and where the kills hit; exit 1 if a store differs.
"""

import argparse
import asyncio
import contextlib
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.common.ports import free_port
from loadtests.exchange_simulator.faults import NONE, Menu
from loadtests.exchange_simulator.judge import judge, judge_live
from loadtests.exchange_simulator.market import MINUTE_MS, synthetic
from loadtests.exchange_simulator.run import Stage, adapter
from loadtests.exchange_simulator.victim import Death, Orders, Standing

START_MS = 1_709_164_800_000  # 2024-02-29
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "XRPUSDT"]
DAYS = 30
PATIENCE = 240.0  # without any progress
CALM_SPEED = 300.0
LONGEST_LIFE = 9.0
KILLS_LEAST = 6  # of each feed: on a busy machine the day gets longer
ROOT = Path(__file__).parents[2]
ARCHIVE = Menu(too_many=0.02, ban=0.0, server_error=0.1, slow=0.0, broken_body=0.05, cut_body=0.1, stale_checksum=0.1)


class Victim:
    """One process; `standing` is what it last said."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.standing = Standing("not begun")
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **changes: Any) -> None:
        self.orders = msgspec.structs.replace(self.orders, **changes)
        paths = os.pathsep.join([str(ROOT), str(ROOT / "core"), os.environ.get("PYTHONPATH", "")])
        self.standing = Standing("process")
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "loadtests.exchange_simulator.victim", msgspec.json.encode(self.orders).decode(),
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths},
            stderr=None if os.environ.get("TORTURE_LOG") else asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        self._listening = asyncio.create_task(self._listen(self.process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self.standing = msgspec.json.decode(line, type=Standing)

    async def ended(self, seconds: float) -> int | None:
        """Its status, if it ends by itself within some seconds."""
        assert self.process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                status = await self.process.wait()
                await asyncio.shield(self._listening)
                return status
        return None

    async def end(self, kill: bool) -> int:
        """End it now; its status."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill() if kill else self.process.terminate()
        status = await self.process.wait()
        await self._listening
        return status

    async def stop(self, unserved: bool = False) -> None:
        """Ask it to end, as an operator does. `unserved`: its database may be away, then it says 1."""
        began = self.standing.phase not in ("process", "start")
        status = await self.end(kill=False)
        usual = {0, 1} if unserved else {0}
        if status not in usual and (began or status != -15):  # -15: it had only just begun to start
            raise RuntimeError(f"the feed ended with {status} when requested to stop")


async def haunt(victim: Victim, chance: random.Random, ends: float, kills: Counter[str], unserved: bool) -> None:
    """Start it and end it, in ever other ways, until `ends` and so often at least; it runs when this returns.
    `unserved`: its database is killed, too."""
    left = KILLS_LEAST
    while True:
        fate = chance.choice(["write", "write", "soon", "live", "live", "back-fill", "database down", "stop"])
        await victim.start(death=_death(chance) if fate == "write" else None)
        if left <= 0 and time.monotonic() >= ends:
            return
        status = await victim.ended(await _life(victim, fate, chance))
        left -= 1
        if status is None and fate == "stop":
            await victim.stop(unserved)
            kills["stopped"] += 1
        else:
            kills[victim.standing.phase] += 1
            if status is None:
                await victim.end(kill=True)
            elif status != -9:  # the database that it wanted to open was killed: whoever runs feeds starts them again
                kills["ended by itself"] += 1
                await asyncio.sleep(0.3)


async def _life(victim: Victim, fate: str, chance: random.Random) -> float:
    """Wait for the moment that fate is about; returns for how many seconds more it may live."""
    if fate == "soon":
        return math.exp(chance.uniform(math.log(0.2), math.log(3)))
    phases = {"live": ["live"], "stop": ["live", "back-fill"]}.get(fate, [fate])
    last = time.monotonic() + LONGEST_LIFE
    gone = asyncio.ensure_future(victim.ended(LONGEST_LIFE))
    while time.monotonic() < last and not gone.done() and victim.standing.phase not in phases:
        await asyncio.sleep(0.02)
    gone.cancel()
    return chance.uniform(0, 5 if fate in ("live", "stop") else 0.4)


def _death(chance: random.Random) -> Death:
    number = int(math.exp(chance.uniform(0, math.log(80))))
    return Death(number, chance.choice(["before", "during", "after"]), chance.uniform(0, 8))


class Served:
    """`candlemill db`, for several processes, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.dsn = f"http://127.0.0.1:{self.port}/default"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "candlemill", "db", "--port", str(self.port),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "CANDLEMILL_CLICKHOUSE_DSN": f"chdb://{self.folder / 'db'}"},
        )  # fmt: skip
        assert self.process.stderr is not None
        await self.process.stderr.readline()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def haunt(self, chance: random.Random, ends: float, down: list[float], seconds: float) -> None:
        """Kill it now and then; at the times `down` (real) it stays away for so long. It runs when this returns."""
        sudden = [time.monotonic() + chance.uniform(0, ends - time.monotonic()) for _ in range(2)]
        for at, away in sorted([*((t, 0.0) for t in sudden), *((t, seconds) for t in down)]):
            await asyncio.sleep(max(at - time.monotonic(), 0))
            await self.kill()
            await asyncio.sleep(away)
            await self.start()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()


async def torture(seed: int, hours: float, speed: float, folder: Path) -> dict[str, Any]:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # so that its victims end with it
    chance = random.Random(seed)
    pair, name = seed % 4 == 0, "bybit" if seed % 5 == 3 else "binance"
    if pair:  # three processes have to keep up
        hours, speed = hours / 3, speed / 6
    market = synthetic(seed, SYMBOLS, START_MS, 1440 * DAYS)
    history, new_days = chance.choice([(1, 9), (10, 18)])  # days: so all of it is the feed's business
    base = START_MS + history * DAY_MS + chance.randrange(DAY_MS // MINUTE_MS) * MINUTE_MS
    skew = chance.choice([0, 0, 90_000, -90_000, 3_600_000])
    down = [base + int(chance.uniform(*part) * hours * HOUR_MS) for part in ((0.15, 0.4), (0.5, 0.8))]
    kills: Counter[str] = Counter()
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(Stage(market, base, speed, seed, Menu(), skew, shared=True))
        orders = Orders(
            f"chdb://{folder / 'db'}", stage.ports, SYMBOLS, base, stage.clock.start, speed, seed, str(folder), skew,
            [(t, t + HOUR_MS) for t in down], name, chance.choice([60, 400_000]), new_days,
        )  # fmt: skip
        ends = began + hours * 3600 / speed
        haunted = []
        server = Served(folder) if pair else None
        if server:
            await server.start()
            stack.push_async_callback(server.kill)
            orders = msgspec.structs.replace(orders, dsn=server.dsn, down=[])
            times = [began + (t - base) / 1000 / speed for t in down]
            haunted.append(server.haunt(random.Random(seed), ends, times, 3600 / speed))
        victims = [Victim(msgspec.structs.replace(orders, seed=seed + k)) for k in range(2 if pair else 1)]
        for k, victim in enumerate(victims):
            stack.push_async_callback(_end, victim)
            haunted.append(haunt(victim, random.Random(seed * 10 + k), ends, kills, pair))
        await asyncio.gather(*haunted)

        calm = await _calm(stage, victims)
        counts = Counter(stage.simulator.counts)
        for victim in victims:
            await victim.stop()
        if server:
            await server.stop()
        live = judge_live(folder, market, name, SYMBOLS, START_MS, calm, alone=not pair)
        stage.change(CALM_SPEED, DAY_MS // 2 + HOUR_MS)
        found = await _nightly(folder, stage, orders, chance, kills)
    return {
        "seed": seed, "exchange": name, "feeds": len(victims), "days": history, "kills": dict(kills),
        "faults": {k: n for k, n in counts.items() if k not in ("messages", "requests", "connections")},
        "live": live, "files": found, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


async def _end(victim: Victim) -> None:
    if victim.process is not None:
        await victim.end(kill=True)


async def _calm(stage: Stage, victims: list[Victim]) -> int:
    """The faults end, the feeds start a last time and catch up; returns until when everything must be there."""
    stage.simulator.dice.menu = NONE
    for subscriber in list(stage.simulator.subscribers):
        stage.simulator.abort(subscriber)
    calm = stage.clock.now_ms()
    stage.change(CALM_SPEED)
    for victim in victims:
        await victim.end(kill=True)
        await victim.start(death=None, base_ms=stage.clock.base_ms, start=stage.clock.start, speed=CALM_SPEED, down=[])
    began = last = time.monotonic()
    done: list[object] = []
    while any(victim.standing.until_ms < calm for victim in victims):
        await asyncio.sleep(0.1)
        for victim in victims:
            if victim.process and victim.process.returncode is not None:
                raise RuntimeError(f"the feed ended with {victim.process.returncode} though nothing is wrong any more")
        now, before = time.monotonic(), done
        done = [(v.standing.until_ms, v.standing.rows, v.standing.requests) for v in victims]
        last = now if done != before else last
        if now > last + PATIENCE or now > began + 10 * PATIENCE:
            raise TimeoutError(f"{[v.standing for v in victims]}, but {calm} is to be reached")
    return calm


async def _nightly(
    folder: Path, stage: Stage, orders: Orders, chance: random.Random, kills: Counter[str]
) -> dict[str, Any]:
    """The operator's nightly ingest: killed, begun again until it ends, and once more, to find nothing to do."""
    span = (START_MS, stage.clock.now_ms() - 10 * MINUTE_MS)
    stage.simulator.dice.menu = ARCHIVE
    orders = msgspec.structs.replace(
        orders, dsn=f"chdb://{folder / 'db'}", base_ms=stage.clock.base_ms, start=stage.clock.start, speed=CALM_SPEED,
        span=span, down=[],
    )  # fmt: skip
    victim = Victim(orders)
    for death in (Death(chance.randint(1, 8), chance.choice(["before", "during", "after"]), 1.0), None, None):
        if death is None:
            stage.simulator.dice.menu = NONE
        await victim.start(death=death)
        status = await victim.ended(10 * PATIENCE)
        if status == -9:
            kills[f"ingest: {victim.standing.phase}"] += 1
        elif status:
            raise RuntimeError(f"the ingest ended with {status}")
    with ClickHouseStore(orders.dsn) as store:
        exchange = adapter(orders.exchange, stage.ports)
        names = {symbol: exchange.store_name(symbol) for symbol in SYMBOLS}
        market = stage.market.at(span[1])
        end = span[1] // MINUTE_MS * MINUTE_MS
        return judge(store, names, market.rows, market.rows, START_MS, end) | {"again": victim.standing.rows}


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--seeds", type=int, default=10)
    ask.add_argument("--first", type=int, default=1)
    ask.add_argument("--hours", type=float, default=24.0)
    ask.add_argument("--speed", type=float, default=3600.0)
    args = ask.parse_args()
    bad, faults, kills = 0, Counter[str](), Counter[str]()
    for seed in range(args.first, args.first + args.seeds):
        with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as name:
            try:
                found = asyncio.run(torture(seed, args.hours, args.speed, Path(name)))
            except Exception as error:
                found = {"seed": seed, "error": f"{type(error).__name__}: {error}"}
        wrong = "error" in found or any(any(found[k].values()) for k in ("live", "files"))
        bad += wrong
        faults.update(found.pop("faults", {}))
        kills.update(found.get("kills", {}))
        print(("BAD  " if wrong else "same ") + msgspec.json.encode(found).decode(), flush=True)
    print("what went wrong: " + ", ".join(f"{name} {n:,}" for name, n in faults.most_common()))
    print("where kills hit: " + ", ".join(f"{name} {n:,}" for name, n in kills.most_common()))
    print(f"{args.seeds - bad} of {args.seeds} seeds ended equal to the exchange")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
