"""The feed's state machine under a clock that the test holds: no sockets, no waiting."""

import json
import random
from itertools import pairwise
from typing import Any

from candlemill.exchange import MINUTE_MS, Candle
from candlemill.exchanges import exchange
from candlemill.feed import Action, Feed, Outage, Question
from candlemill.lines import BACKOFF_MS_MAX, Close, Open, Send, Tuning
from candlemill.minutes import RETRY_MS_MAX, SETTLED_MS, Minutes, Spans
from hypothesis import given, settings
from hypothesis import strategies as st

T = 1_709_164_800_000
HOUR = 3_600_000


def minute(k: int) -> int:
    return T + k * MINUTE_MS


# -- stretches and minutes ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 12))))
def test_spans_are_sets_of_minutes(steps: list[tuple[bool, int, int]]) -> None:
    spans, expected = Spans(), set[int]()
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
def test_every_minute_is_had_once_or_known_to_be_an_outage(data: st.DataObject) -> None:
    """Whatever comes late, twice, out of order or not at all: in the end all that the exchange has is there."""
    has = data.draw(st.lists(st.booleans(), min_size=1, max_size=40), "exchange")
    has += [True]  # an outage shows when it is over
    account, got, outages = Minutes(T), list[int](), Spans()
    now = T
    for step in range(len(has)):
        now = minute(step + 1) + 8_000
        for k in data.draw(st.lists(st.integers(max(0, step - 5), step), max_size=3), "stream"):
            if has[k] and account.final(minute(k)):
                got.append(minute(k))
        account.overdue((now - 8_000) // MINUTE_MS * MINUTE_MS)
        if data.draw(st.booleans(), "lose") and got:
            lost = got.pop(data.draw(st.integers(0, len(got) - 1)))
            account.missing([(lost, lost + MINUTE_MS)])
        asks(account, has, now, got, outages, data.draw(st.booleans(), "answers"), data.draw(st.integers(1, 5), "rows"))
    for _ in range(300):
        now += RETRY_MS_MAX
        asks(account, has, now, got, outages, True, 5)
    assert sorted(got) == [minute(k) for k, there in enumerate(has) if there]
    assert {t for a, b in outages for t in range(a, b, MINUTE_MS)} == {minute(k) for k, x in enumerate(has) if not x}
    assert not account.holes and account.next == minute(len(has))


def asks(account: Minutes, has: list[bool], now: int, got: list[int], outages: Spans, answers: bool, rows: int) -> None:
    span = account.question(now, rows)
    if span is None:
        return
    assert account.question(now, rows) is None  # one at a time
    if not answers:
        account.unanswered(now)
        return
    found = [minute(k) for k, there in enumerate(has) if there and span[0] <= minute(k) <= now - MINUTE_MS]
    wanted, lacking = account.answered(found[: rows + 1], len(found) > rows, now)
    got += wanted
    for a, b in lacking:
        assert b <= now - SETTLED_MS
        outages.add(a, b)


# -- connections -------------------------------------------------------------------------------------------------------


class World:
    """Drives a feed second by second; `alive` connections deliver every minute's final candle."""

    def __init__(self, symbols: list[str], name: str = "binance", **tuning: int) -> None:
        self.feed = Feed(exchange(name), Tuning(**tuning), random.Random(1))
        self.now = T
        self.alive: dict[int, set[str]] = {}
        self.opened_at: dict[int, int] = {}
        self.closed: list[tuple[int, str]] = []
        self.sent: list[tuple[int, int, Any]] = []
        self.questions: list[Question] = []
        self.outages: list[Outage] = []
        self.stored: list[Candle] = []
        self.reachable = True
        self.deaf: set[int] = set()
        self.quiet: set[str] = set()
        self.feed.want({symbol: Minutes(T) for symbol in symbols})

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1000
            if self.now % MINUTE_MS == 1000:
                for number, symbols in list(self.alive.items()):
                    for symbol in sorted(symbols - self.quiet if number not in self.deaf else ()):
                        self.feed.received(number, final(symbol, self.now - 1000 - MINUTE_MS), self.now)
            self.feed.tick(self.now)
            self.obey()

    def obey(self) -> None:
        self.stored += self.feed.fresh
        self.feed.fresh.clear()
        while actions := self.feed.take():
            for action in actions:
                self.do(action)

    def do(self, action: Action) -> None:
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
            said = json.loads(action.text)
            self.sent.append((self.now, action.connection, said))
            if "params" in said and action.connection in self.alive:
                names = {param.split("@")[0].upper() for param in said["params"]}
                change = set.union if said["method"] == "SUBSCRIBE" else set.difference
                self.alive[action.connection] = change(self.alive[action.connection], names)
        elif isinstance(action, Question):
            self.questions.append(action)
        else:
            self.outages.append(action)


def final(symbol: str, t: int, volume: int = 1) -> bytes:
    k = {"t": t, "T": t + 59_999, "s": symbol, "i": "1m", "o": "1", "c": "1", "h": "1", "l": "1", "v": str(volume)}
    data = {"e": "kline", "E": t, "s": symbol, "k": k | {"x": True}}
    return json.dumps({"stream": f"{symbol.lower()}@kline_1m", "data": data}).encode()


def test_a_day_with_a_handover_misses_nothing_and_asks_nothing() -> None:
    world = World(["AUSDT", "BUSDT"])
    world.run(26 * 3600 + 2)
    assert [c.t for c in world.stored if c.symbol == "AUSDT"] == [minute(k) for k in range(26 * 60)]
    assert not world.questions
    first, second = world.opened_at
    assert 20.6 * HOUR <= world.opened_at[second] - world.opened_at[first] < 23.1 * HOUR
    assert world.closed == [(first, "its successor took over")]
    assert 1 <= world.feed.counts.duplicates <= 4  # the minute that both delivered


def test_going_away_is_a_handover() -> None:
    world = World(["AUSDT"])
    world.run(600)
    world.feed.received(1, b'{"e":"serverShutdown","E":1}', world.now)
    world.run(200)
    assert len(world.opened_at) == 2 and list(world.alive) == [max(world.opened_at)]
    assert not world.questions and len(world.stored) == 13


def test_a_cut_connection_comes_back_and_what_was_lost_is_asked_for() -> None:
    world = World(["AUSDT"])
    world.run(300)
    world.reachable = False
    world.alive.clear()
    world.feed.closed(1, world.now)
    world.run(200)
    world.reachable = True
    world.run(100)
    assert len(world.alive) == 1
    assert world.questions[0] == Question("AUSDT", minute(4), minute(5))


def test_back_off_grows_to_a_cap_with_jitter_and_stays_within_the_limit() -> None:
    world = World([f"S{k}USDT" for k in range(8)], streams=1)
    world.reachable = False
    world.run(3600)
    starts = sorted(world.opened_at.values())
    window = [sum(1 for other in starts if at <= other < at + 300_000) for at in starts]
    assert max(window) <= world.feed.exchange.limits.connects
    late = [b - a for a, b in zip(starts[-80::8], starts[-72::8], strict=False)]
    assert all(gap <= BACKOFF_MS_MAX + 1000 for gap in late)
    assert len(starts) < 8 * (3600 / 30 + 8)


def test_connects_are_limited_even_when_many_lines_break_at_once() -> None:
    world = World([f"S{k}USDT" for k in range(250)], streams=1)
    world.run(30)
    assert len(world.opened_at) == world.feed.exchange.limits.connects == 200
    world.run(300)
    assert len(world.alive) == 250


def test_a_silent_connection_is_given_up() -> None:
    world = World(["AUSDT"])
    world.run(120)
    world.deaf.add(1)
    world.run(240)
    assert (1, "silent") in world.closed and len(world.alive) == 1 and world.feed.lines.counts.silences == 1


def test_a_quiet_symbol_is_subscribed_anew_while_the_others_go_on() -> None:
    world = World(["AUSDT", "BUSDT"])
    world.quiet = {"AUSDT"}
    world.run(300)
    methods = [said["method"] for _, _, said in world.sent]
    assert methods == ["SUBSCRIBE", "UNSUBSCRIBE", "SUBSCRIBE"] and not world.closed
    assert [said["params"] for _, _, said in world.sent][1:] == [["ausdt@kline_1m"]] * 2


def test_subscriptions_change_on_the_way() -> None:
    world = World(["AUSDT", "BUSDT"])
    world.run(100)
    accounts = {s: world.feed.minutes[s] for s in ("BUSDT",)} | {"CUSDT": Minutes(minute(2))}
    world.feed.want(accounts)
    world.run(100)
    assert world.alive == {1: {"BUSDT", "CUSDT"}} and not world.closed
    world.feed.received(1, final("AUSDT", minute(1)), world.now)
    assert world.feed.counts.foreign == 1 and not world.feed.fresh
    world.feed.want({})
    world.run(5)
    assert not world.alive


def test_many_symbols_are_spread_and_said_slowly_enough() -> None:
    world = World([f"S{k}USDT" for k in range(2300)], streams=1000)
    world.run(60)
    assert sorted(len(symbols) for symbols in world.alive.values()) == [300, 1000, 1000]
    for number in world.alive:
        times = [at for at, connection, _ in world.sent if connection == number]
        assert all(b - a >= 333 for a, b in pairwise(times))
    assert max(len(said["params"]) for _, _, said in world.sent) <= 200


def test_pings_where_the_protocol_wants_messages() -> None:
    world = World(["AUSDT"], "bybit")
    world.run(100)
    pings = [at for at, _, said in world.sent if said == {"op": "ping"}]
    assert len(pings) == 4


def test_unfinished_future_and_foreign_candles_never_pass() -> None:
    world = World(["AUSDT"])
    world.run(10)
    unfinished = final("AUSDT", T).replace(b'"x": true', b'"x": false')
    for raw in (unfinished, final("AUSDT", minute(999)), final("ZUSDT", T), b"{}", b"\xff"):
        world.feed.received(1, raw, world.now)
    assert not world.feed.fresh
    counts = world.feed.counts
    assert (counts.unfinished, counts.bad, counts.foreign) == (1, 3, 1)


def test_finals_that_disagree_are_settled_by_rest() -> None:
    world = World(["AUSDT"])
    world.run(62)
    assert len(world.stored) == 1
    world.feed.received(1, final("AUSDT", T, volume=2), world.now)
    world.run(2)
    assert world.questions == [Question("AUSDT", T, minute(1))] and world.feed.counts.conflicts == 1
    right = Candle("AUSDT", T, 1, 1, 1, 1, 2, False)
    world.feed.answered(world.questions[-1], [right], False, world.now)
    assert world.feed.fresh == [right]


def test_an_outage_is_asked_for_until_it_is_over_and_then_no_more() -> None:
    world = World(["AUSDT"])
    world.run(120)
    world.quiet = {"AUSDT"}
    for _ in range(20):
        world.run(60)
        if world.questions:
            world.feed.answered(world.questions[-1], [], False, world.now)
    asked = len(world.questions)
    assert 4 <= asked <= 12  # ever more rarely
    world.quiet = set()
    world.run(2 * RETRY_MS_MAX // 1000)
    there = [Candle("AUSDT", minute(k), 1, 1, 1, 1, 1, False) for k in range(21, 40)]
    world.feed.answered(world.questions[-1], there, False, world.now)
    world.run(60)
    assert [(o.start, o.end) for o in world.outages] == [(world.questions[-1].start, minute(21))]
    assert len(world.questions) == asked + 1 and not world.feed.minutes["AUSDT"].holes


def test_nothing_is_asked_while_the_store_is_full() -> None:
    world = World(["AUSDT"])
    world.feed.paused = True
    world.quiet = {"AUSDT"}
    world.run(300)
    assert not world.questions
    world.feed.paused = False
    world.run(2)
    assert len(world.questions) == 1


def test_lag_is_the_age_of_the_last_minute_that_is_there() -> None:
    world = World(["AUSDT"])
    world.run(600)
    assert world.feed.lag_ms("AUSDT", world.now) < MINUTE_MS
    world.feed.missing("AUSDT", [(minute(2), minute(3))])  # a gap is no lag
    assert world.feed.lag_ms("AUSDT", world.now) < MINUTE_MS and world.feed.hole_minutes() == 1
    world.quiet = {"AUSDT"}
    world.run(600)
    assert 9 * MINUTE_MS <= world.feed.lag_ms("AUSDT", world.now) <= 11 * MINUTE_MS


def test_an_answer_to_what_was_asked_before_is_no_answer() -> None:
    """A symbol is left and followed again while a question is under way: the old answer says nothing of the new one."""
    world = World(["AUSDT"])
    world.quiet = {"AUSDT"}
    world.run(200)
    old = world.questions[-1]
    world.feed.want({})
    world.feed.want({"AUSDT": Minutes(minute(3), [(minute(-9), minute(-5))])})
    world.run(2)
    assert world.questions[-1].start == minute(-9)
    late = [Candle("AUSDT", minute(k), 1, 1, 1, 1, 1, False) for k in range(3)]
    world.feed.answered(old, late, False, world.now + HOUR)
    assert not world.feed.fresh and not world.outages and world.feed.hole_minutes() >= 4
    world.feed.answered(world.questions[-1], late, False, world.now + HOUR)
    world.run(1)
    assert [(o.start, o.end) for o in world.outages] == [(minute(-9), minute(-5))]
