"""The feed as a state machine: what happened goes in, what is to be done comes out. No sockets, no clock, no store.

Symbols are spread over lines. A line keeps one connection open, or two for a while: before a connection reaches its
longest life, or when the server says that it goes, a successor is opened, and the old one is closed when the successor
has delivered for a minute. Candles that both deliver count once. Whatever a break, a silence or a broken message loses
shows as a minute that did not come, and is asked for over REST (`Minutes`).

`now` is the exchange's time in ms, never later than it really is.
"""

import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from candlemill.errors import BadMessage
from candlemill.exchange import MINUTE_MS, Candle, Exchange, GoingAway, Message, Reply
from candlemill.minutes import Minutes, Span

CONNECTING_MS: Final = 20_000
BACKOFF_MS: Final = 1_000
BACKOFF_MS_MAX: Final = 60_000
STEADY_MS: Final = 60_000
"""A connection that lived this long was a good one: the next back-off starts small again."""


class Tuning(msgspec.Struct, frozen=True):
    """What may be set. Durations in ms."""

    grace_ms: int = 8_000  # after its end, a minute that has not come is asked for
    silence_ms: int = 90_000  # a connection without a message for so long is dead
    quiet_ms: int = 200_000  # a symbol without a message for so long is subscribed anew
    handover_ms: int = 82_800_000  # 23 h, less up to a tenth
    overlap_ms: int = 75_000  # a successor's time beside its predecessor
    questions: int = 8  # open at a time
    streams: int = 400  # per connection


class Open(msgspec.Struct, frozen=True):
    """Open a connection."""

    connection: int


class Close(msgspec.Struct, frozen=True):
    connection: int
    why: str


class Send(msgspec.Struct, frozen=True):
    connection: int
    text: str


class Question(msgspec.Struct, frozen=True):
    """Ask for the candles of `start <= t < end`; the answer may go on after `end`."""

    symbol: str
    start: int
    end: int


class Outage(msgspec.Struct, frozen=True):
    """The exchange itself has no candles there."""

    symbol: str
    start: int
    end: int


Action = Open | Close | Send | Question | Outage


class _Connection:
    def __init__(self, number: int, line: "_Line", now: int) -> None:
        self.number = number
        self.line = line
        self.begun = now
        self.opened = 0  # when; 0 while it is being opened
        self.heard = now
        self.subscribed: set[str] = set()
        self.outbox: deque[str] = deque()
        self.send_at = 0
        self.ping_at = 0
        self.leave_at = 0


class _Line:
    """Symbols that travel together."""

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {}  # and when each was heard
        self.current: _Connection | None = None
        self.successor: _Connection | None = None
        self.retry_at = 0
        self.tries = 0


class Counts(msgspec.Struct):
    """What has happened since the start."""

    candles: int = 0
    unfinished: int = 0
    duplicates: int = 0
    conflicts: int = 0
    foreign: int = 0
    others: int = 0
    bad: int = 0
    connects: int = 0
    breaks: int = 0
    silences: int = 0
    resubscribed: int = 0
    refused: int = 0
    filled: int = 0
    outage_minutes: int = 0


class Feed:
    """Drive it with `want`, `opened`, `received`, `closed`, `tick`, `answered`; then do what `actions` holds, and
    store what `fresh` holds. Both are the caller's to empty."""

    def __init__(self, exchange: Exchange, tuning: Tuning, rng: random.Random) -> None:
        self.exchange = exchange
        self.tuning = tuning
        self.actions: list[Action] = []
        self.fresh: list[Candle] = []
        self.counts = Counts()
        self.last_problem = ""
        self.paused = False  # ask nothing: what comes could not be kept
        self.minutes: dict[str, Minutes] = {}
        self._latest: dict[str, Candle] = {}
        self._lines: list[_Line] = []
        self._line_of: dict[str, _Line] = {}
        self._connections: dict[int, _Connection] = {}
        self._connects: deque[int] = deque()
        self._numbers = 0
        self._open_questions = 0
        self._rng = rng

    # -- what is wanted ------------------------------------------------------------------------------------------------

    def want(self, accounts: dict[str, Minutes]) -> None:
        """Follow exactly these symbols from now on; known ones keep their accounts."""
        for symbol in [s for s in self.minutes if s not in accounts]:
            self._drop(symbol)
        room = min(self.tuning.streams, self.exchange.limits.streams_per_connection)
        added: dict[int, list[str]] = {}
        for symbol, account in accounts.items():
            if symbol in self.minutes:
                continue
            self.minutes[symbol] = account
            at = next((k for k, line in enumerate(self._lines) if len(line.symbols) < room), len(self._lines))
            if at == len(self._lines):
                self._lines.append(_Line())
            self._lines[at].symbols[symbol] = 0
            self._line_of[symbol] = self._lines[at]
            added.setdefault(at, []).append(symbol)
        for at, symbols in added.items():
            for connection in self._of(self._lines[at]):
                if connection.opened:
                    self._subscribe(connection, symbols)

    def _drop(self, symbol: str) -> None:
        if self.minutes.pop(symbol).asked is not None:
            self._open_questions -= 1
        self._latest.pop(symbol, None)
        line = self._line_of.pop(symbol)
        del line.symbols[symbol]
        for connection in self._of(line):
            if symbol in connection.subscribed:
                connection.subscribed.discard(symbol)
                self._say(connection, "unsubscribe", [symbol])

    @staticmethod
    def _of(line: _Line) -> list[_Connection]:
        return [c for c in (line.current, line.successor) if c is not None]

    # -- connections ---------------------------------------------------------------------------------------------------

    def opened(self, number: int, now: int) -> None:
        connection = self._connections.get(number)
        if connection is None:
            self.actions.append(Close(number, "not wanted any more"))
            return
        connection.opened = connection.heard = connection.send_at = now
        connection.ping_at = now + 1000 * self.exchange.ping_seconds
        connection.leave_at = now + int(self._life_ms() * self._rng.uniform(0.9, 1.0))
        for symbol in connection.line.symbols:
            connection.line.symbols[symbol] = now
        self._subscribe(connection, list(connection.line.symbols))

    def closed(self, number: int, now: int) -> None:
        """A connection ended, or could not be opened."""
        connection = self._connections.pop(number, None)
        if connection is not None:
            self.counts.breaks += 1
            self._lost(connection, now)

    def _lost(self, connection: _Connection, now: int) -> None:
        line = connection.line
        if line.successor is connection:
            line.successor = None
        elif line.successor is not None:
            line.current, line.successor = line.successor, None
        else:
            line.current = None
        if connection.opened and now - connection.opened >= STEADY_MS:
            line.tries = 0
        delay = min(BACKOFF_MS << min(line.tries, 10), BACKOFF_MS_MAX)
        line.retry_at = now + int(delay * self._rng.uniform(0.5, 1.0))
        line.tries += 1

    def received(self, number: int, raw: bytes | str, now: int) -> None:
        connection = self._connections.get(number)
        if connection is None:
            return
        connection.heard = now
        try:
            messages = self.exchange.decode(raw)
        except BadMessage as error:
            self.counts.bad += 1
            self.last_problem = str(error)
            return
        for message in messages:
            if type(message) is Candle:
                self._candle(connection, message, now)
            else:
                self._control(connection, message, now)

    def _candle(self, connection: _Connection, candle: Candle, now: int) -> None:
        line = connection.line
        if candle.symbol not in line.symbols:
            self.counts.foreign += 1
            return
        line.symbols[candle.symbol] = now
        if not candle.final:
            self.counts.unfinished += 1
            return
        account = self.minutes[candle.symbol]
        if candle.t >= now + 2 * MINUTE_MS:  # it would hide every minute until then
            self.counts.bad += 1
            self.last_problem = f"{candle.symbol}: a final candle of {candle.t}, which is yet to come"
        elif account.final(candle.t):
            self.counts.candles += 1
            self._latest[candle.symbol] = candle
            self.fresh.append(candle)
        else:
            self.counts.duplicates += 1
            latest = self._latest.get(candle.symbol)
            if latest is not None and latest.t == candle.t and latest != candle:  # which is right, REST will say
                self.counts.conflicts += 1
                account.missing([(candle.t, candle.t + MINUTE_MS)])

    def _control(self, connection: _Connection, message: Message, now: int) -> None:
        if isinstance(message, GoingAway):
            self._hand_over(connection, now)
        elif isinstance(message, Reply) and message.problem:
            self.counts.refused += 1
            self.last_problem = message.problem
        else:
            self.counts.others += 1

    def _hand_over(self, connection: _Connection, now: int) -> None:
        line = connection.line
        if line.current is connection and line.successor is None:
            line.successor = self._open(line, now)

    def _open(self, line: _Line, now: int) -> _Connection | None:
        limits = self.exchange.limits
        while self._connects and self._connects[0] <= now - 1000 * limits.connects_seconds:
            self._connects.popleft()
        if len(self._connects) >= limits.connects:
            return None
        self._connects.append(now)
        self._numbers += 1
        self.counts.connects += 1
        connection = _Connection(self._numbers, line, now)
        self._connections[connection.number] = connection
        self.actions.append(Open(connection.number))
        return connection

    def _close(self, connection: _Connection, why: str) -> None:
        """Close on purpose; that it was closed is then no news."""
        self._connections.pop(connection.number, None)
        self.actions.append(Close(connection.number, why))

    def _subscribe(self, connection: _Connection, symbols: Sequence[str]) -> None:
        connection.subscribed.update(symbols)
        self._say(connection, "subscribe", symbols)

    def _say(self, connection: _Connection, what: str, symbols: Sequence[str]) -> None:
        size = self.exchange.limits.streams_per_message
        make = self.exchange.subscribe if what == "subscribe" else self.exchange.unsubscribe
        for k in range(0, len(symbols), size):
            self._numbers += 1
            connection.outbox.append(make(symbols[k : k + size], self._numbers))

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Call a few times a second."""
        for line in self._lines:
            self._tend(line, now)
        closed_until = (now - self.tuning.grace_ms) // MINUTE_MS * MINUTE_MS
        free = 0 if self.paused else self.tuning.questions - self._open_questions
        rows = self.exchange.limits.rows - 1
        for symbol, account in self.minutes.items():
            if account.next < closed_until:
                account.overdue(closed_until)
            if free > 0 and account.holes and (span := account.question(now, rows)) is not None:
                self.actions.append(Question(symbol, *span))
                self._open_questions += 1
                free -= 1

    def _tend(self, line: _Line, now: int) -> None:
        if not line.symbols:
            for connection in self._of(line):
                self._close(connection, "no symbols left")
            line.current = line.successor = None
            return
        for connection in self._of(line):
            self._watch(connection, now)
        current, successor = line.current, line.successor
        if current is None:
            if now >= line.retry_at:
                line.current = self._open(line, now)
            return
        if not current.opened:
            return
        if successor is None and now >= max(current.leave_at, line.retry_at):
            line.successor = self._open(line, now)
        elif successor is not None and successor.opened and now - successor.opened >= self.tuning.overlap_ms:
            self._close(current, "its successor took over")
            line.current, line.successor = successor, None

    def _life_ms(self) -> int:
        longest = self.exchange.limits.connection_seconds * 1000
        return min(self.tuning.handover_ms, longest * 23 // 24) if longest else 1 << 60

    def _watch(self, connection: _Connection, now: int) -> None:
        """Send what waits, ping, and give up a connection that is dead or a subscription that is."""
        if not connection.opened:
            if now - connection.begun > CONNECTING_MS:
                self._close(connection, "no answer")
                self._lost(connection, now)
            return
        if connection.outbox and now >= connection.send_at:
            self.actions.append(Send(connection.number, connection.outbox.popleft()))
            connection.send_at = now + int(1000 / self.exchange.limits.messages_per_second)
        if self.exchange.ping and now >= connection.ping_at:
            self.actions.append(Send(connection.number, self.exchange.ping))
            connection.ping_at = now + 1000 * self.exchange.ping_seconds
        if now - connection.heard > self.tuning.silence_ms:
            self.counts.silences += 1
            self._close(connection, "silent")
            self._lost(connection, now)
        elif connection is connection.line.current and not connection.outbox:
            self._wake(connection, now)

    def _wake(self, connection: _Connection, now: int) -> None:
        """Subscribe anew what has gone quiet. Symbols that do not trade are quiet too: rarely, and some at a time."""
        heard = connection.line.symbols
        quiet = [symbol for symbol, at in heard.items() if now - at > self.tuning.quiet_ms]
        quiet = quiet[: self.exchange.limits.streams_per_message]
        if not quiet:
            return
        self.counts.resubscribed += len(quiet)
        for symbol in quiet:
            heard[symbol] = now
        self._say(connection, "unsubscribe", quiet)
        self._say(connection, "subscribe", quiet)

    # -- history -------------------------------------------------------------------------------------------------------

    def answered(self, symbol: str, candles: Sequence[Candle], full: bool, now: int) -> None:
        """The answer to a question: closed candles in time order, `full` if the exchange may have more."""
        account = self._account(symbol)
        if account is None:
            return
        wanted, lacking = account.answered([candle.t for candle in candles], full, now)
        chosen = set(wanted)
        self.fresh += [candle for candle in candles if candle.t in chosen]
        self.counts.filled += len(wanted)
        for start, end in lacking:
            self.counts.outage_minutes += (end - start) // MINUTE_MS
            self.actions.append(Outage(symbol, start, end))

    def unanswered(self, symbol: str, now: int) -> None:
        account = self._account(symbol)
        if account is not None:
            account.unanswered(now)

    def _account(self, symbol: str) -> Minutes | None:
        account = self.minutes.get(symbol)
        if account is None or account.asked is None:  # unsubscribed meanwhile
            return None
        self._open_questions -= 1
        return account

    def missing(self, symbol: str, spans: Iterable[Span]) -> None:
        """These are not in the store, or in doubt: have them asked for."""
        if symbol in self.minutes:
            self.minutes[symbol].missing(spans)

    # -- figures -------------------------------------------------------------------------------------------------------

    def lag_ms(self, symbol: str, now: int) -> int:
        """How long ago the last minute that is there ended, but for the one that is under way. Older holes are gaps."""
        return max(0, now - self.minutes[symbol].edge() - MINUTE_MS)

    def connected(self) -> int:
        return sum(1 for connection in self._connections.values() if connection.opened)

    def hole_minutes(self) -> int:
        return sum(account.holes.total() for account in self.minutes.values()) // MINUTE_MS
