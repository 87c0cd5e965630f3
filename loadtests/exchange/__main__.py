"""The simulator as a command. See the package."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from loadtests.exchange.faults import NONE, Dice, Menu
from loadtests.exchange.market import VirtualClock, real, synthetic
from loadtests.exchange.server import Simulator, serve

DAY_MS = 86_400_000


async def simulate(args: argparse.Namespace) -> None:
    if args.data:
        market = real(args.data)
        begin = min(t for rows in market.rows.values() for t in rows) + args.history * DAY_MS
    else:
        now = int(time.time() * 1000)
        begin = now if args.speed == 1 else now - 2 * DAY_MS
        first = begin // DAY_MS * DAY_MS - args.history * DAY_MS
        minutes = (args.history + args.days) * 1440
        market = synthetic(args.seed, args.symbols.split(","), first, minutes, calm=not args.faults)
    clock = VirtualClock(begin, time.time(), args.speed)
    dice = Dice(args.seed, Menu() if args.faults else NONE)
    runner, port = await serve(Simulator(market, clock, dice, args.updates), args.host, args.port)
    print(f"an exchange on http://{args.host}:{port}, {', '.join(market.symbols[:8])}", file=sys.stderr, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def main() -> None:
    ask = argparse.ArgumentParser(prog="python -m loadtests.exchange", description=__doc__)
    ask.add_argument("--host", default="127.0.0.1")
    ask.add_argument("--port", type=int, default=9000)
    ask.add_argument("--symbols", default="BTCUSDT,ETHUSDT,XRPUSDT")
    ask.add_argument("--data", type=Path, help="a folder of kline files: real candles, at their own times")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--speed", type=float, default=1.0, help="how much faster than ours its time runs")
    ask.add_argument("--history", type=int, default=3, help="days before it begins")
    ask.add_argument("--days", type=int, default=30, help="days after")
    ask.add_argument("--updates", type=int, default=30, help="unfinished candles per symbol and minute")
    ask.add_argument("--faults", action="store_true", help="everything on the menu goes wrong")
    try:
        asyncio.run(simulate(ask.parse_args()))
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
