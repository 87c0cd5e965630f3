"""State machine of the feed: turns events into actions. No I/O, no clock.

`ConnectionManager` keeps connections open; `GapTracker` tracks a symbol's missing minutes. A candle that arrives on two
connections counts once. A minute that is lost, for any reason, is overdue after a while and is requested over REST.

`now` is the exchange's time in ms, or earlier; never later.
"""

import random
from collections.abc import Iterable, Sequence

import msgspec

from candlemill.errors import BadMessage
from candlemill.exchanges.base import MINUTE_MS, Candle, Exchange, GoingAway, Message, Reply
from candlemill.feed.connections import Close, ConnectionManager, Open, Send, Tuning
from candlemill.feed.gaps import GapTracker
from candlemill.intervals import Interval


class BackfillRequest(msgspec.Struct, frozen=True):
    """Request the candles of `start <= t < end` (ms) over REST; the response may contain later ones."""

    symbol: str
    start: int
    end: int


class Outage(msgspec.Struct, frozen=True):
    """An interval for which the exchange has no candles."""

    symbol: str
    start: int
    end: int


Action = Open | Close | Send | BackfillRequest | Outage


class Counts(msgspec.Struct):
    """Counters of messages and minutes since the start."""

    candles: int = 0
    unfinished: int = 0
    duplicates: int = 0
    conflicts: int = 0
    foreign: int = 0
    others: int = 0
    bad: int = 0
    refused: int = 0
    filled: int = 0
    outage_minutes: int = 0


class Feed:
    """Live candles and back-fill of a set of symbols.

    After each event (`follow`, `opened`, `received`, `closed`, `tick`, `backfilled`, `backfill_failed`) the caller
    executes the actions of `pop_actions`, and stores and clears `new_candles`.
    """

    def __init__(self, exchange: Exchange, tuning: Tuning, rng: random.Random) -> None:
        self.exchange = exchange
        self.tuning = tuning
        self.connections = ConnectionManager(exchange, tuning, rng)
        self.new_candles: list[Candle] = []
        self.counts = Counts()
        self.last_problem = ""
        self.paused = False  # no new back-fill requests, because the buffer is full
        self.trackers: dict[str, GapTracker] = {}
        self._latest: dict[str, Candle] = {}
        self._actions: list[BackfillRequest | Outage] = []
        self._open_requests = 0

    def pop_actions(self) -> list[Action]:
        """Return and clear the pending actions."""
        actions: list[Action] = [*self.connections.actions, *self._actions]
        self.connections.actions.clear()
        self._actions.clear()
        return actions

    def follow(self, trackers: dict[str, GapTracker]) -> None:
        """Follow exactly these symbols; symbols that are already followed keep their trackers."""
        for symbol in [s for s in self.trackers if s not in trackers]:
            if self.trackers.pop(symbol).requested is not None:
                self._open_requests -= 1
            self._latest.pop(symbol, None)
            self.connections.drop(symbol)
        new = {symbol: tracker for symbol, tracker in trackers.items() if symbol not in self.trackers}
        self.trackers |= new
        self.connections.add(new)

    # -- live ----------------------------------------------------------------------------------------------------------

    def opened(self, number: int, now: int) -> None:
        self.connections.opened(number, now)

    def closed(self, number: int, now: int, refused: bool = False) -> None:
        """Handle the end of a connection or a failed attempt; `refused` if an early retry is useless."""
        self.connections.closed(number, now, refused)

    def received(self, number: int, raw: bytes | str, now: int) -> None:
        if not self.connections.record_message(number, now):
            return
        try:
            messages = self.exchange.decode(raw)
        except BadMessage as error:
            self._bad_message(str(error))
            return
        for message in messages:
            if type(message) is Candle:
                self._candle(number, message, now)
            else:
                self._control(number, message, now)

    def _candle(self, number: int, candle: Candle, now: int) -> None:
        if not self.connections.record_symbol(number, candle.symbol, now):
            self.counts.foreign += 1
            return
        if not candle.final:
            self.counts.unfinished += 1
            return
        tracker = self.trackers[candle.symbol]
        if candle.t >= now + 2 * MINUTE_MS:  # accepting it would mark all minutes before it as gaps
            self._bad_message(f"{candle.symbol}: a final candle of {candle.t}, which is in the future")
        elif tracker.record(candle.t):
            self.counts.candles += 1
            self._latest[candle.symbol] = candle
            self.new_candles.append(candle)
        else:
            self.counts.duplicates += 1
            latest = self._latest.get(candle.symbol)
            if latest is not None and latest.t == candle.t and latest != candle:  # REST decides which one is right
                self.counts.conflicts += 1
                tracker.mark_missing([(candle.t, candle.t + MINUTE_MS)])

    def _control(self, number: int, message: Message, now: int) -> None:
        if isinstance(message, GoingAway):
            self.connections.server_closing(number, now)
        elif isinstance(message, Reply) and message.problem:
            self.counts.refused += 1
            self.last_problem = message.problem
        else:
            self.counts.others += 1

    def _bad_message(self, problem: str) -> None:
        self.counts.bad += 1
        self.last_problem = problem

    def tick(self, now: int) -> None:
        """Advance timers; call this a few times per second."""
        self.connections.tick(now)
        closed_until = (now - self.tuning.grace_ms) // MINUTE_MS * MINUTE_MS
        free = 0 if self.paused else self.tuning.requests - self._open_requests
        rows = self.exchange.limits.rows - 1
        for symbol, tracker in self.trackers.items():
            if tracker.next < closed_until:
                tracker.mark_overdue(closed_until)
            if free > 0 and tracker.gaps and (span := tracker.open_request(now, rows)) is not None:
                self._actions.append(BackfillRequest(symbol, *span))
                self._open_requests += 1
                free -= 1

    # -- history -------------------------------------------------------------------------------------------------------

    def backfilled(self, request: BackfillRequest, candles: Sequence[Candle], full: bool, now: int) -> None:
        """Handle the response to a request: closed candles in time order, `full` if the exchange may have more."""
        tracker = self._tracker_of(request)
        if tracker is None:
            return
        new, outages = tracker.fill([candle.t for candle in candles], full, now)
        filled = set(new)
        self.new_candles += [candle for candle in candles if candle.t in filled]
        self.counts.filled += len(new)
        for start, end in outages:
            self.counts.outage_minutes += (end - start) // MINUTE_MS
            self._actions.append(Outage(request.symbol, start, end))

    def backfill_failed(self, request: BackfillRequest, now: int) -> None:
        tracker = self._tracker_of(request)
        if tracker is not None:
            tracker.request_failed(now)

    def _tracker_of(self, request: BackfillRequest) -> GapTracker | None:
        """Tracker that this request belongs to; None if the symbol was dropped or has another open request."""
        tracker = self.trackers.get(request.symbol)
        if tracker is None or tracker.requested != (request.start, request.end):
            return None
        self._open_requests -= 1
        return tracker

    def mark_missing(self, symbol: str, spans: Iterable[Interval]) -> None:
        """Request intervals that are not in the store, or may be wrong there."""
        if symbol in self.trackers:
            self.trackers[symbol].mark_missing(spans)

    # -- metrics -------------------------------------------------------------------------------------------------------

    def lag_ms(self, symbol: str, now: int) -> int:
        """Age of the last present minute's end in ms, minus one minute for the current one. Older gaps do not count."""
        return max(0, now - self.trackers[symbol].edge() - MINUTE_MS)

    def gap_minutes(self) -> int:
        return sum(tracker.gaps.total() for tracker in self.trackers.values()) // MINUTE_MS
