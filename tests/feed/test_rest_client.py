"""The REST client's limits: alone, with other clients of the same IP address, and after a refusal."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill.errors import ExchangeDown
from candlemill.exchanges.base import Exchange
from candlemill.exchanges.binance.adapter import Binance
from candlemill.feed.rest_client import COOLDOWN_SECONDS_MAX, Cooldown, Rest
from candlemill.feed.web_client import WebClient

from loadtests.exchange_simulator.faults import NONE, Menu
from loadtests.exchange_simulator.market import Market, synthetic
from loadtests.exchange_simulator.run import Stage, adapter
from loadtests.exchange_simulator.torture import Victim
from loadtests.exchange_simulator.victim import Orders

START = 1_709_164_800_000
DAY_MS = 86_400_000
WEIGHT = 120


def market() -> Market:
    return synthetic(1, ["BTCUSDT", "ETHUSDT"], START, 3 * 1440, calm=True)


def only(**faults: float) -> Menu:
    return msgspec.structs.replace(NONE, **faults)


@contextlib.asynccontextmanager
async def rest(stage: Stage, exchange: Exchange, seed: int, cooldown: Cooldown | None = None) -> AsyncIterator[Rest]:
    with contextlib.closing(WebClient(8)) as web_client:
        yield Rest(exchange, web_client, stage.ours, random.Random(seed), cooldown)


async def send_many(client: Rest, times: int, at_once: int = 8) -> int:
    """Send requests as a feed does, `at_once` in parallel; return how many succeeded."""
    slots, answered = asyncio.Semaphore(at_once), 0

    async def one() -> None:
        nonlocal answered
        async with slots:
            with contextlib.suppress(ExchangeDown):
                candles, _ = await client.candles("BTCUSDT", START, START + 10 * 60_000)
                answered += len(candles) >= 10

    await asyncio.gather(*(one() for _ in range(times)))
    return answered


@pytest.mark.parametrize("clients", [1, 3])
def test_several_clients_of_one_address_stay_within_its_limit(clients: int) -> None:
    """The clients share only the total weight that the exchange reports."""

    async def run() -> None:
        async with Stage(market(), START + DAY_MS, 20, 1, weight=WEIGHT) as stage, contextlib.AsyncExitStack() as stack:
            exchange = adapter("binance", stage.ports, WEIGHT)
            all_ = [await stack.enter_async_context(rest(stage, exchange, k)) for k in range(clients)]
            assert await asyncio.gather(*(send_many(each, 90 // clients, at_once=2) for each in all_)) == (
                [90 // clients] * clients
            )
            counts = stage.simulator.counts
            assert counts["over_the_limit"] == counts["requested_while_forbidden"] == 0

    asyncio.run(run())


def test_a_refusal_stops_all_processes_of_the_machine_until_the_cooldown_ends(tmp_path: Path) -> None:
    async def run() -> None:
        menu = only(too_many=0.12, ban=0.01)
        async with Stage(market(), START + DAY_MS, 60, 3, menu) as stage, contextlib.AsyncExitStack() as stack:
            exchange = adapter("binance", stage.ports)
            files = [Cooldown(tmp_path / "silence") for _ in range(2)]  # two processes
            all_ = [await stack.enter_async_context(rest(stage, exchange, k, files[k])) for k in range(2)]
            assert sum(await asyncio.gather(*(send_many(each, 20) for each in all_))) >= 35
            counts = stage.simulator.counts
            assert counts["too_many"] >= 2 and counts["requested_while_forbidden"] == 0

    asyncio.run(run())


def test_two_processes_avoid_a_ban(tmp_path: Path) -> None:
    """Two REST downloads on one machine with frequent refusals: each respects the cooldown of the other."""

    async def run() -> None:
        menu = only(too_many=0.08)
        base = START + 3 * DAY_MS - 3_600_000
        async with Stage(market(), base, 60, 2, menu, weight=WEIGHT, shared=True) as stage:
            orders = Orders(
                "", stage.ports, stage.market.symbols, stage.clock.base_ms, stage.clock.start, 60.0, 1, str(tmp_path),
                exchange="binanceus", span=(START, START + 2 * DAY_MS), weight=WEIGHT,
            )  # fmt: skip
            both = [Victim(orders) for _ in range(2)]
            for k, victim in enumerate(both):
                await victim.start(dsn=f"chdb://{tmp_path / f'db{k}'}")
            assert await asyncio.gather(*(victim.ended(300) for victim in both)) == [0, 0]
            assert [victim.standing.rows for victim in both] == [2 * 2 * 1440] * 2
            counts = stage.simulator.counts
            assert counts["too_many"] and counts["requested_while_forbidden"] == counts["over_the_limit"] == 0

    asyncio.run(run())


def test_a_cooldown_is_stored_in_a_file_and_an_impossible_one_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "exchange"
    one, other = Cooldown(file), Cooldown(file)
    assert one.until(1000) == other.until(1000) == 0
    one.extend(1000, 61_000)
    assert other.until(1000) == 61_000
    other.extend(1000, 31_000)  # a shorter one does not end a longer one
    assert one.until(1000) == 61_000 == Cooldown(file).until(2000)
    one.extend(1000, 2 * 1000 * COOLDOWN_SECONDS_MAX)
    assert Cooldown(file).until(1000) == 0
    (tmp_path / "file").write_text("")
    nowhere = Cooldown(tmp_path / "file" / "below")
    nowhere.extend(0, 5000)
    assert nowhere.until(0) == 5000


def test_the_first_request_is_alone_at_the_start_and_after_a_refusal() -> None:
    """A new process does not know the weight that its IP address has used."""

    async def run() -> None:
        async with Stage(market(), START + DAY_MS, 60, 1) as stage:
            exchange = adapter("binance", stage.ports)
            async with rest(stage, exchange, 1) as client:
                in_flight, most, two = 0, list[int](), asyncio.Event()
                once = client._once

                async def counted(request):  # type: ignore[no-untyped-def]
                    nonlocal in_flight
                    in_flight += 1
                    most.append(in_flight)
                    if in_flight > 1:
                        two.set()
                    try:
                        if len(most) > 1:  # the second one is answered when another has been sent beside it
                            await asyncio.wait_for(two.wait(), 300)
                        return await once(request)
                    finally:
                        in_flight -= 1

                client._once = counted  # type: ignore[method-assign]
                await send_many(client, 12, at_once=4)
                assert most[0] == 1 and max(most) > 1
                stage.simulator.dice.menu = only(too_many=1.0)
                sending = asyncio.ensure_future(send_many(client, 12, at_once=4))
                async with asyncio.timeout(300):
                    while client.refused < 2:
                        await asyncio.sleep(0.01)
                stage.simulator.dice.menu = NONE
                most.clear()
                two.clear()
                assert await sending >= 11
                assert most[0] == 1 and max(most) > 1

    asyncio.run(run())


def test_refusals_in_a_row_wait_longer_each_and_a_success_ends_the_row() -> None:
    refused, fine = (429, {"Retry-After": "10"}, b"{}"), (200, {}, b"{}")
    answers, waits = [refused, refused, refused, fine, refused, fine], list[float]()

    class Answers(WebClient):
        async def request(self, *arguments: Any, **more: Any) -> Any:
            return answers.pop(0)

    class Noted(Cooldown):
        def extend(self, now: int, until: int) -> None:
            waits.append((until - now) / 1000)
            super().extend(now, until)

    class Highest(random.Random):
        def random(self) -> float:
            return 1.0

    class Stepped:
        now = START

        def now_ms(self) -> int:
            return self.now

        async def sleep(self, seconds: float) -> None:
            self.now += int(1000 * seconds)

        def real_seconds(self, seconds: float) -> float:
            return seconds

    async def run() -> None:
        with contextlib.closing(Answers(1)) as web_client:
            client = Rest(Binance(), web_client, Stepped(), Highest(), Noted())
            while answers:
                with contextlib.suppress(ExchangeDown):
                    await client.get(client.exchange.time_request(), bytes)

    asyncio.run(run())
    assert waits == [10, 20, 30, 10]
