"""The simulator as a command. See the package."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from loadtests.exchange_simulator.faults import NONE, Dice, Menu
from loadtests.exchange_simulator.market import VirtualClock, real, synthetic
from loadtests.exchange_simulator.server import Ports, Simulator, serve

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
    simulator = Simulator(market, clock, dice, args.updates)
    wanted = Ports(args.port, args.stream_port or (args.port and args.port + 1))
    async with serve(simulator, args.host, wanted, args.compression) as ports:
        where = f"http://{args.host}:{ports.rest}, its streams on ws://{args.host}:{ports.stream}"
        print(f"an exchange on {where}: {', '.join(market.symbols[:8])}", file=sys.stderr, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    ask = argparse.ArgumentParser(prog="python -m loadtests.exchange_simulator", description=__doc__)
    ask.add_argument("--host", default="127.0.0.1")
    ask.add_argument("--port", type=int, default=9000, help="of REST and files; 0 takes any free one")
    ask.add_argument("--stream-port", type=int, default=0, help="of the streams; as a rule the next one")
    ask.add_argument("--no-compression", dest="compression", action="store_false", help="of the streams")
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
