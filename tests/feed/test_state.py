"""The feed's state machine with a simulated clock: no sockets, no waiting."""

import json
import random
from itertools import pairwise
from typing import Any

from candlemill.exchanges.base import MINUTE_MS, Candle
from candlemill.exchanges.registry import exchange
from candlemill.feed.connections import BACKOFF_MS_MAX, Close, Open, Send, Tuning
from candlemill.feed.gaps import RETRY_MS_MAX, SETTLED_MS, GapTracker
from candlemill.feed.state import Action, BackfillRequest, Feed, Outage
from candlemill.intervals import IntervalSet
from hypothesis import given, settings
from hypothesis import strategies as st

T = 1_709_164_800_000
HOUR = 3_600_000


def minute(k: int) -> int:
    return T + k * MINUTE_MS


# -- intervals and gaps -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 12))))
def test_interval_sets_behave_like_sets(steps: list[tuple[bool, int, int]]) -> None:
    spans, expected = IntervalSet(), set[int]()
    for add, start, length in steps:
        (spans.add if add else spans.remove)(start, start + length)
        expected = expected | set(range(start, start + length)) if add else expected - set(range(start, start + length))
        listed = list(spans)
        assert {t for a, b in listed for t in range(a, b)} == expected
        assert all(a < b for a, b in listed) and all(x[1] < y[0] for x, y in pairwise(listed))
        assert spans.total() == len(expected) and all((t in spans) == (t in expected) for t in range(55))
        assert {t for a, b in spans.within(10, 20) for t in range(a, b)} == expected & set(range(10, 20))


@settings(max_examples=150)
@given(st.data())
def test_every_minute_is_recorded_once_or_is_an_outage(data: st.DataObject) -> None:
    """With late, duplicate, reordered and lost candles, the store finally has all candles of the exchange."""
    has = data.draw(st.lists(st.booleans(), min_size=1, max_size=40), "exchange")
    has += [True]  # an outage is recognised by a later candle
    tracker, got, outages = GapTracker(T), list[int](), IntervalSet()
    now = T
    for step in range(len(has)):
        now = minute(step + 1) + 8_000
        for k in data.draw(st.lists(st.integers(max(0, step - 5), step), max_size=3), "stream"):
            if has[k] and tracker.record(minute(k)):
                got.append(minute(k))
        tracker.mark_overdue((now - 8_000) // MINUTE_MS * MINUTE_MS)
        if data.draw(st.booleans(), "lose") and got:
            lost = got.pop(data.draw(st.integers(0, len(got) - 1)))
            tracker.mark_missing([(lost, lost + MINUTE_MS)])
        back_fill(
            tracker, has, now, got, outages, data.draw(st.booleans(), "succeeds"), data.draw(st.integers(1, 5), "rows")
        )
    for _ in range(300):
        now += RETRY_MS_MAX
        back_fill(tracker, has, now, got, outages, True, 5)
    assert sorted(got) == [minute(k) for k, there in enumerate(has) if there]
    assert {t for a, b in outages for t in range(a, b, MINUTE_MS)} == {minute(k) for k, x in enumerate(has) if not x}
    assert not tracker.gaps and tracker.next == minute(len(has))


def back_fill(
    tracker: GapTracker, has: list[bool], now: int, got: list[int], outages: IntervalSet, succeeds: bool, rows: int
) -> None:
    span = tracker.open_request(now, rows)
    if span is None:
        return
    assert tracker.open_request(now, rows) is None  # one at a time
    if not succeeds:
        tracker.request_failed(now)
        return
    found = [minute(k) for k, there in enumerate(has) if there and span[0] <= minute(k) <= now - MINUTE_MS]
    new, missing = tracker.fill(found[: rows + 1], len(found) > rows, now)
    got += new
    for a, b in missing:
        assert b <= now - SETTLED_MS
        outages.add(a, b)


# -- connections -------------------------------------------------------------------------------------------------------


class World:
    """Simulates a feed second by second; the connections in `alive` deliver each minute's final candle."""

    def __init__(self, symbols: list[str], name: str = "binance", **tuning: int) -> None:
        self.feed = Feed(exchange(name), Tuning(**tuning), random.Random(1))
        self.now = T
        self.alive: dict[int, set[str]] = {}
        self.opened_at: dict[int, int] = {}
        self.closed: list[tuple[int, str]] = []
        self.sent: list[tuple[int, int, Any]] = []
        self.requests: list[BackfillRequest] = []
        self.outages: list[Outage] = []
        self.stored: list[Candle] = []
        self.reachable = True
        self.silent_connections: set[int] = set()
        self.silent_symbols: set[str] = set()
        self.feed.follow({symbol: GapTracker(T) for symbol in symbols})

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1000
            if self.now % MINUTE_MS == 1000:
                for number, symbols in list(self.alive.items()):
                    for symbol in sorted(
                        symbols - self.silent_symbols if number not in self.silent_connections else ()
                    ):
                        self.feed.received(number, final(symbol, self.now - 1000 - MINUTE_MS), self.now)
            self.feed.tick(self.now)
            self.execute_actions()

    def execute_actions(self) -> None:
        self.stored += self.feed.new_candles
        self.feed.new_candles.clear()
        while actions := self.feed.pop_actions():
            for action in actions:
                self.execute(action)

    def execute(self, action: Action) -> None:
        if isinstance(action, Open):
            self.opened_at[action.connection] = self.now
            if self.reachable:
                self.alive[action.connection] = set()
                self.feed.opened(action.connection, self.now)
            else:
                self.feed.closed(action.connection, self.now)
        elif isinstance(action, Close):
            self.alive.pop(action.connection, None)
            self.closed.append((action.connection, action.why))
        elif isinstance(action, Send):
            message = json.loads(action.text)
            self.sent.append((self.now, action.connection, message))
            if "params" in message and action.connection in self.alive:
                names = {param.split("@")[0].upper() for param in message["params"]}
                change = set.union if message["method"] == "SUBSCRIBE" else set.difference
                self.alive[action.connection] = change(self.alive[action.connection], names)
        elif isinstance(action, BackfillRequest):
            self.requests.append(action)
        else:
            self.outages.append(action)


def final(symbol: str, t: int, volume: int = 1) -> bytes:
    k = {"t": t, "T": t + 59_999, "s": symbol, "i": "1m", "o": "1", "c": "1", "h": "1", "l": "1", "v": str(volume)}
    data = {"e": "kline", "E": t, "s": symbol, "k": k | {"x": True}}
    return json.dumps({"stream": f"{symbol.lower()}@kline_1m", "data": data}).encode()


def test_a_handover_loses_no_candle_and_needs_no_request() -> None:
    world = World(["AUSDT", "BUSDT"])
    world.run(26 * 3600 + 2)
    assert [c.t for c in world.stored if c.symbol == "AUSDT"] == [minute(k) for k in range(26 * 60)]
    assert not world.requests
    first, second = world.opened_at
    assert 20.6 * HOUR <= world.opened_at[second] - world.opened_at[first] < 23.1 * HOUR
    assert world.closed == [(first, "replaced by its successor")]
    assert 1 <= world.feed.counts.duplicates <= 4  # minutes that both connections delivered


def test_a_server_shutdown_starts_a_handover() -> None:
    world = World(["AUSDT"])
    world.run(600)
    world.feed.received(1, b'{"e":"serverShutdown","E":1}', world.now)
    world.run(200)
    assert len(world.opened_at) == 2 and list(world.alive) == [max(world.opened_at)]
    assert not world.requests and len(world.stored) == 13


def test_a_lost_connection_is_reopened_and_lost_candles_are_requested() -> None:
    world = World(["AUSDT"])
    world.run(300)
    world.reachable = False
    world.alive.clear()
    world.feed.closed(1, world.now)
    world.run(200)
    world.reachable = True
    world.run(100)
    assert len(world.alive) == 1
    assert world.requests[0] == BackfillRequest("AUSDT", minute(4), minute(5))


def test_back_off_grows_to_its_maximum_and_respects_the_connection_limit() -> None:
    world = World([f"S{k}USDT" for k in range(8)], streams=1)
    world.reachable = False
    world.run(3600)
    starts = sorted(world.opened_at.values())
    window = [sum(1 for other in starts if at <= other < at + 300_000) for at in starts]
    assert max(window) <= world.feed.exchange.limits.connects
    late = [b - a for a, b in zip(starts[-80::8], starts[-72::8], strict=False)]
    assert all(gap <= BACKOFF_MS_MAX + 1000 for gap in late)
    assert len(starts) < 8 * (3600 / 30 + 8)


def test_a_refused_connection_waits_for_the_maximum_back_off() -> None:
    world = World(["AUSDT"])
    world.run(300)
    for refused, least, most in ((False, 0, 1_500), (True, BACKOFF_MS_MAX // 2, BACKOFF_MS_MAX + 500)):
        (number,) = world.alive
        world.alive.clear()
        broken = world.now
        world.feed.closed(number, broken, refused)
        world.run(200)
        (number,) = world.alive
        assert least <= world.opened_at[number] - broken <= most


def test_the_connection_limit_holds_when_many_connections_are_lost() -> None:
    world = World([f"S{k}USDT" for k in range(250)], streams=1)
    world.run(30)
    assert len(world.opened_at) == world.feed.exchange.limits.connects == 200
    world.run(300)
    assert len(world.alive) == 250


def test_a_silent_connection_is_replaced() -> None:
    world = World(["AUSDT"])
    world.run(120)
    world.silent_connections.add(1)
    world.run(240)
    assert (1, "silent") in world.closed and len(world.alive) == 1 and world.feed.connections.counts.timeouts == 1


def test_a_silent_symbol_is_subscribed_again() -> None:
    world = World(["AUSDT", "BUSDT"])
    world.silent_symbols = {"AUSDT"}
    world.run(300)
    methods = [message["method"] for _, _, message in world.sent]
    assert methods == ["SUBSCRIBE", "UNSUBSCRIBE", "SUBSCRIBE"] and not world.closed
    assert [message["params"] for _, _, message in world.sent][1:] == [["ausdt@kline_1m"]] * 2


def test_symbols_change_without_a_new_connection() -> None:
    world = World(["AUSDT", "BUSDT"])
    world.run(100)
    trackers = {s: world.feed.trackers[s] for s in ("BUSDT",)} | {"CUSDT": GapTracker(minute(2))}
    world.feed.follow(trackers)
    world.run(100)
    assert world.alive == {1: {"BUSDT", "CUSDT"}} and not world.closed
    world.feed.received(1, final("AUSDT", minute(1)), world.now)
    assert world.feed.counts.foreign == 1 and not world.feed.new_candles
    world.feed.follow({})
    world.run(5)
    assert not world.alive


def test_many_symbols_share_connections_and_messages_respect_the_rate_limit() -> None:
    world = World([f"S{k}USDT" for k in range(2300)], streams=1000)
    world.run(60)
    assert sorted(len(symbols) for symbols in world.alive.values()) == [300, 1000, 1000]
    for number in world.alive:
        times = [at for at, connection, _ in world.sent if connection == number]
        assert all(b - a >= 333 for a, b in pairwise(times))
    assert max(len(message["params"]) for _, _, message in world.sent) <= 200


def test_pings_are_sent_as_messages_where_the_exchange_requires_it() -> None:
    world = World(["AUSDT"], "bybit")
    world.run(100)
    pings = [at for at, _, message in world.sent if message == {"op": "ping"}]
    assert len(pings) == 4


def test_unfinished_future_and_foreign_candles_are_rejected() -> None:
    world = World(["AUSDT"])
    world.run(10)
    unfinished = final("AUSDT", T).replace(b'"x": true', b'"x": false')
    for raw in (unfinished, final("AUSDT", minute(999)), final("ZUSDT", T), b"{}", b"\xff"):
        world.feed.received(1, raw, world.now)
    assert not world.feed.new_candles
    counts = world.feed.counts
    assert (counts.unfinished, counts.bad, counts.foreign) == (1, 3, 1)


def test_a_candle_is_taken_up_to_two_minutes_ahead_of_the_clock() -> None:
    """Clocks differ a little; a candle of a far minute would turn all minutes before it into gaps."""
    for ahead, taken in ((2 * MINUTE_MS - 1, 1), (2 * MINUTE_MS, 0), (3 * MINUTE_MS, 0)):
        world = World(["AUSDT"])
        world.run(10)
        candle = minute(5)
        world.feed.received(1, final("AUSDT", candle), candle - ahead)
        assert (len(world.feed.new_candles), world.feed.counts.bad) == (taken, 1 - taken)


def test_conflicting_final_candles_are_requested_over_rest() -> None:
    world = World(["AUSDT"])
    world.run(62)
    assert len(world.stored) == 1
    world.feed.received(1, final("AUSDT", T, volume=2), world.now)
    world.run(2)
    assert world.requests == [BackfillRequest("AUSDT", T, minute(1))] and world.feed.counts.conflicts == 1
    right = Candle("AUSDT", T, 1, 1, 1, 1, 2, False)
    world.feed.backfilled(world.requests[-1], [right], False, world.now)
    assert world.feed.new_candles == [right]


def test_an_outage_is_requested_until_a_later_candle_proves_it() -> None:
    world = World(["AUSDT"])
    world.run(120)
    world.silent_symbols = {"AUSDT"}
    for _ in range(20):
        world.run(60)
        if world.requests:
            world.feed.backfilled(world.requests[-1], [], False, world.now)
    requested = len(world.requests)
    assert 4 <= requested <= 12  # with growing back-off
    world.silent_symbols = set()
    world.run(2 * RETRY_MS_MAX // 1000)
    there = [Candle("AUSDT", minute(k), 1, 1, 1, 1, 1, False) for k in range(21, 40)]
    world.feed.backfilled(world.requests[-1], there, False, world.now)
    world.run(60)
    (outage,) = world.outages
    assert (outage.start, outage.end) == (world.requests[-1].start, minute(21))
    assert world.feed.counts.outage_minutes == (outage.end - outage.start) // MINUTE_MS
    assert len(world.requests) == requested + 1 and not world.feed.trackers["AUSDT"].gaps


def test_no_requests_while_paused() -> None:
    world = World(["AUSDT"])
    world.feed.paused = True
    world.silent_symbols = {"AUSDT"}
    world.run(300)
    assert not world.requests
    world.feed.paused = False
    world.run(2)
    assert len(world.requests) == 1


def test_lag_is_the_age_of_the_last_present_minute() -> None:
    world = World(["AUSDT"])
    world.run(600)
    assert world.feed.lag_ms("AUSDT", world.now) < MINUTE_MS
    world.feed.mark_missing("AUSDT", [(minute(2), minute(3))])  # a gap does not count as lag
    assert world.feed.lag_ms("AUSDT", world.now) < MINUTE_MS and world.feed.gap_minutes() == 1
    world.silent_symbols = {"AUSDT"}
    world.run(600)
    assert 9 * MINUTE_MS <= world.feed.lag_ms("AUSDT", world.now) <= 11 * MINUTE_MS


def test_the_response_to_an_outdated_request_is_ignored() -> None:
    """A symbol is dropped and followed again while a request is open: the old response does not fill the new gaps."""
    world = World(["AUSDT"])
    world.silent_symbols = {"AUSDT"}
    world.run(200)
    old = world.requests[-1]
    world.feed.follow({})
    world.feed.follow({"AUSDT": GapTracker(minute(3), [(minute(-9), minute(-5))])})
    world.run(2)
    assert world.requests[-1].start == minute(-9)
    late = [Candle("AUSDT", minute(k), 1, 1, 1, 1, 1, False) for k in range(3)]
    world.feed.backfilled(old, late, False, world.now + HOUR)
    assert not world.feed.new_candles and not world.outages and world.feed.gap_minutes() >= 4
    world.feed.backfilled(world.requests[-1], late, False, world.now + HOUR)
    world.run(1)
    assert [(o.start, o.end) for o in world.outages] == [(minute(-9), minute(-5))]
