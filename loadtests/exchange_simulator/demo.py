"""make demo-live: three hours of a faulty exchange in half a minute, and the proof that the store has all of it."""

import asyncio
import tempfile
from pathlib import Path

from candlemill.store.clickhouse import ClickHouseStore

from loadtests.exchange_simulator.faults import Menu
from loadtests.exchange_simulator.market import synthetic
from loadtests.exchange_simulator.run import Stage, audited, differences, digests_true, with_feed

START_MS = 1_709_164_800_000
DAY_MS = 86_400_000
SECONDS = 20
SPEED = 600.0


async def demo(folder: Path) -> int:
    market = synthetic(1, ["BTCUSDT", "ETHUSDT", "XRPUSDT"], START_MS, 10 * 1440)
    market.corrections = []
    with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
        async with Stage(market, START_MS + 3 * DAY_MS, SPEED, 1, Menu(), skew_ms=90_000) as stage:
            feed = stage.feed(store)
            begin = stage.clock.now_ms()
            print(
                f"an exchange with every fault on the menu, {SPEED:.0f} times as fast as the clock; one feed follows it"
            )

            async def watch() -> int:
                for _ in range(SECONDS // 2):
                    await asyncio.sleep(2)
                    counts, batches = feed.feed.counts, feed.batches.counts
                    hours = (stage.clock.now_ms() - begin) / 3_600_000
                    print(
                        f"{hours:5.1f} h: {batches.rows:6,} candles stored, {counts.candles:5,} live, "
                        f"{counts.filled:6,} over REST, {feed.feed.connections.counts.lost:3} connections broken, "
                        f"{counts.bad:3} messages refused"
                    )
                print("the faults end, the feed catches up")
                return await audited(stage, feed)

            end = await with_feed(feed, watch)
            faults = {name: n for name, n in stage.simulator.counts.items() if name not in ("messages", "requests")}
        names = {symbol: symbol for symbol in market.symbols}
        wrong = differences(store, market, names, begin - DAY_MS, end)
        rows = sum(len(store.times(symbol, begin - DAY_MS, end)) for symbol in names)
        print("what went wrong: " + ", ".join(f"{name} {n}" for name, n in sorted(faults.items(), key=lambda x: -x[1])))
        same = not wrong and digests_true(store, list(names))
        print(f"{rows:,} candles, {'the same as the exchange, row for row' if same else f'DIFFERENT: {wrong}'}")
        return 0 if same else 1


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="candlemill-live-") as name:
        return asyncio.run(demo(Path(name)))


if __name__ == "__main__":
    raise SystemExit(main())
