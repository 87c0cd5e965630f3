"""Asking within an exchange's limits: alone, beside others behind the same address, and after a refusal."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from candlemill.errors import ExchangeDown
from candlemill.exchange import Exchange
from candlemill.io.rest import SILENCE_SECONDS_MAX, Rest, Silence

from loadtests.exchange.faults import NONE, Menu
from loadtests.exchange.market import Market, synthetic
from loadtests.exchange.run import Stage, adapter
from loadtests.exchange.torture import Victim
from loadtests.exchange.victim import Orders

START = 1_709_164_800_000
DAY_MS = 86_400_000
WEIGHT = 120


def market() -> Market:
    return synthetic(1, ["BTCUSDT", "ETHUSDT"], START, 3 * 1440, calm=True)


def nothing_but(**faults: float) -> Menu:
    return msgspec.structs.replace(NONE, **faults)


@contextlib.asynccontextmanager
async def rest(stage: Stage, exchange: Exchange, seed: int, silence: Silence | None = None) -> AsyncIterator[Rest]:
    async with aiohttp.ClientSession() as session:
        yield Rest(exchange, session, stage.ours, random.Random(seed), silence)


async def ask_much(asker: Rest, times: int, at_once: int = 8) -> int:
    """As a feed asks: some questions at a time. Returns how many were answered."""
    turns, answered = asyncio.Semaphore(at_once), 0

    async def one() -> None:
        nonlocal answered
        async with turns:
            with contextlib.suppress(ExchangeDown):
                candles, _ = await asker.candles("BTCUSDT", START, START + 10 * 60_000)
                answered += len(candles) >= 10

    await asyncio.gather(*(one() for _ in range(times)))
    return answered


@pytest.mark.parametrize("askers", [1, 3])
def test_several_behind_one_address_stay_under_its_limit(askers: int) -> None:
    """They know of each other only by what the exchange says that all of them weigh."""

    async def run() -> None:
        async with Stage(market(), START + DAY_MS, 20, 1, weight=WEIGHT) as stage, contextlib.AsyncExitStack() as stack:
            exchange = adapter("binance", stage.port, WEIGHT)
            all_ = [await stack.enter_async_context(rest(stage, exchange, k)) for k in range(askers)]
            assert await asyncio.gather(*(ask_much(each, 90 // askers, at_once=2) for each in all_)) == (
                [90 // askers] * askers
            )
            counts = stage.simulator.counts
            assert counts["over_the_limit"] == counts["asked_while_forbidden"] == 0

    asyncio.run(run())


def test_after_a_refusal_nobody_on_this_machine_asks_until_the_time_is_over(tmp_path: Path) -> None:
    async def run() -> None:
        menu = nothing_but(too_many=0.12, ban=0.01)
        async with Stage(market(), START + DAY_MS, 60, 3, menu) as stage, contextlib.AsyncExitStack() as stack:
            exchange = adapter("binance", stage.port)
            files = [Silence(tmp_path / "silence") for _ in range(2)]  # two processes
            all_ = [await stack.enter_async_context(rest(stage, exchange, k, files[k])) for k in range(2)]
            assert sum(await asyncio.gather(*(ask_much(each, 20) for each in all_))) >= 35
            counts = stage.simulator.counts
            assert counts["too_many"] >= 2 and counts["asked_while_forbidden"] == 0

    asyncio.run(run())


def test_two_processes_and_no_ban(tmp_path: Path) -> None:
    """Two ingests over REST, on one machine, refused again and again: neither asks while the other was told not to."""

    async def run() -> None:
        menu = nothing_but(too_many=0.08)
        async with Stage(market(), START + 3 * DAY_MS - 3_600_000, 60, 2, menu, weight=WEIGHT) as stage:
            orders = Orders(
                "", stage.port, stage.market.symbols, stage.clock.base_ms, stage.clock.start, 60.0, 1, str(tmp_path),
                exchange="binanceus", span=(START, START + 2 * DAY_MS), weight=WEIGHT,
            )  # fmt: skip
            both = [Victim(orders) for _ in range(2)]
            for k, victim in enumerate(both):
                await victim.start(dsn=f"chdb://{tmp_path / f'db{k}'}")
            assert await asyncio.gather(*(victim.ended(60) for victim in both)) == [0, 0]
            assert [victim.standing.rows for victim in both] == [2 * 2 * 1440] * 2
            counts = stage.simulator.counts
            assert counts["too_many"] and counts["asked_while_forbidden"] == counts["over_the_limit"] == 0

    asyncio.run(run())


def test_silence_is_kept_in_a_file_and_a_foolish_one_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "exchange"
    one, other = Silence(file), Silence(file)
    assert one.until(1000) == other.until(1000) == 0
    one.keep(1000, 61_000)
    assert other.until(1000) == 61_000
    other.keep(1000, 31_000)  # a shorter one does not end a longer one
    assert one.until(1000) == 61_000 == Silence(file).until(2000)
    one.keep(1000, 2 * 1000 * SILENCE_SECONDS_MAX)
    assert Silence(file).until(1000) == 0
    (tmp_path / "file").write_text("")
    nowhere = Silence(tmp_path / "file" / "below")
    nowhere.keep(0, 5000)
    assert nowhere.until(0) == 5000


def test_the_first_question_is_asked_alone_and_so_is_the_first_after_a_refusal() -> None:
    """A process that has just started does not know what its address has spent."""

    async def run() -> None:
        async with Stage(market(), START + DAY_MS, 60, 1) as stage:
            exchange = adapter("binance", stage.port)
            async with rest(stage, exchange, 1) as asker:
                under_way, most = 0, []
                once = asker._once

                async def watched(ask):  # type: ignore[no-untyped-def]
                    nonlocal under_way
                    under_way += 1
                    most.append(under_way)
                    try:
                        return await once(ask)
                    finally:
                        under_way -= 1

                asker._once = watched  # type: ignore[method-assign]
                await ask_much(asker, 12, at_once=4)
                assert most[:2] == [1, 1] and max(most) > 1
                stage.simulator.dice.menu = nothing_but(too_many=1.0)
                asking = asyncio.ensure_future(ask_much(asker, 12, at_once=4))
                while asker.refused < 2:
                    await asyncio.sleep(0.01)
                stage.simulator.dice.menu = NONE
                most.clear()
                assert await asking >= 11
                assert most[0] == 1 and max(most) > 1

    asyncio.run(run())
