"""The times of connections, to the millisecond."""

import random
from collections.abc import Callable

import pytest
from candlemill.exchanges.binance.adapter import Binance
from candlemill.feed.connections import (
    BACKOFF_MS,
    STEADY_MS,
    Close,
    ConnectionManager,
    Open,
    Send,
    Tuning,
)

T = 1_700_000_000_000
TUNING = Tuning()


class Longest(random.Random):
    """Always the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        return b


def manager(symbols: int = 1, streams: int = 400) -> ConnectionManager:
    made = ConnectionManager(Binance(), Tuning(streams=streams), Longest())
    made.add(f"S{k}USDT" for k in range(symbols))
    return made


def done(made: ConnectionManager, now: int) -> list[Open | Close | Send]:
    """What a tick at this time sets off."""
    made.actions.clear()
    made.tick(now)
    return list(made.actions)


def opened(made: ConnectionManager, now: int) -> int:
    """Open a connection at this time, send what it has to; return its number."""
    (action,) = done(made, now)
    assert isinstance(action, Open)
    made.opened(action.connection, now)
    assert [type(one) for one in done(made, now)] == [Send]
    return action.connection


@pytest.mark.parametrize(("lived", "delay"), [(STEADY_MS - 1, BACKOFF_MS * 8), (STEADY_MS, BACKOFF_MS)])
def test_a_steady_connection_begins_the_back_off_anew(lived: int, delay: int) -> None:
    made, now = manager(), T
    for k in range(3):
        (action,) = done(made, now)
        made.closed(action.connection, now)
        assert done(made, now + (BACKOFF_MS << k) - 1) == []
        now += BACKOFF_MS << k
    made.closed(opened(made, now), now + lived)
    now += lived
    assert done(made, now + delay - 1) == []
    assert [type(one) for one in done(made, now + delay)] == [Open]


def test_what_connects_too_long_is_closed() -> None:
    made = manager()
    (action,) = done(made, T)
    assert done(made, T + TUNING.connecting_ms) == []
    (closed,) = done(made, T + TUNING.connecting_ms + 1)
    assert closed == Close(action.connection, "no response")


def test_what_is_silent_too_long_is_replaced() -> None:
    made = manager()
    number = opened(made, T)
    made.record_symbol(number, "S0USDT", T + 5)
    made.record_message(number, T + 5)
    assert done(made, T + 5 + TUNING.silence_ms) == []
    assert done(made, T + 6 + TUNING.silence_ms) == [Close(number, "silent")]
    assert made.counts.timeouts == made.counts.connects == 1


def test_a_quiet_symbol_is_subscribed_again_once() -> None:
    made = manager()
    number = opened(made, T)

    def alive(now: int) -> int:
        made.record_message(number, now)
        return now

    assert done(made, alive(T + TUNING.quiet_ms)) == [] and made.counts.resubscribed == 0
    sent: list[Open | Close | Send] = []
    for wait in range(1, 4_000, 100):
        sent += done(made, alive(T + TUNING.quiet_ms + wait))
    assert [type(one) for one in sent] == [Send, Send] and made.counts.resubscribed == 1


def test_a_handover_overlaps() -> None:
    made = manager()
    first = opened(made, T)

    def alive(number: int, now: int) -> int:
        made.record_message(number, now)
        made.record_symbol(number, "S0USDT", now)
        return now

    old = T + min(TUNING.handover_ms, Binance().limits.connection_seconds * 1000 * 23 // 24)
    assert done(made, alive(first, old - 1)) == []
    (action,) = done(made, alive(first, old))
    assert isinstance(action, Open)
    made.opened(action.connection, old)
    assert [type(one) for one in done(made, old)] == [Send]
    assert done(made, alive(first, old + TUNING.overlap_ms - 1)) == []
    made.record_message(action.connection, old + TUNING.overlap_ms)
    assert done(made, old + TUNING.overlap_ms) == [Close(first, "replaced by its successor")]
    made.closed(first, old + TUNING.overlap_ms)
    assert made.connected() == 1 and made.counts.lost == 0


def test_the_limit_of_connects_is_one_of_any_span() -> None:
    limits = Binance().limits
    made = manager(symbols=limits.connects + 1, streams=1)
    assert len(done(made, T)) == limits.connects
    for now, number in ((T + 1000 * limits.connects_seconds - 1, 0), (T + 1000 * limits.connects_seconds, 1)):
        for connection in list(made._connections):
            made._connections[connection].started = now  # none is given up meanwhile
        assert len(done(made, now)) == number


def test_messages_keep_to_the_rate() -> None:
    limits = Binance().limits
    count: Callable[[list[Open | Close | Send]], int] = lambda found: sum(isinstance(one, Send) for one in found)  # noqa: E731
    made = manager(symbols=2 * limits.streams_per_message, streams=2 * limits.streams_per_message)
    (action,) = done(made, T)
    assert isinstance(action, Open)
    made.opened(action.connection, T)
    wait = int(1000 / limits.messages_per_second)
    assert [count(done(made, T + after)) for after in (0, wait - 1, wait, 2 * wait)] == [1, 0, 1, 0]
