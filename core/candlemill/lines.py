"""Connections as a state machine: which are opened, when and for which symbols, and when one has to go. No sockets.

Symbols are spread over lines. A line keeps one connection open, or two for a while: before a connection reaches its
longest life, or when the server says that it goes, a successor is opened, and the old one is closed when the successor
has delivered for a minute. A connection that is silent is replaced; a symbol that is silent is subscribed anew.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from candlemill.exchange import Exchange

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


class Counts(msgspec.Struct):
    """What has happened to connections since the start."""

    connects: int = 0
    breaks: int = 0
    silences: int = 0
    resubscribed: int = 0


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

    def connections(self) -> list[_Connection]:
        return [c for c in (self.current, self.successor) if c is not None]


class Lines:
    """Drive it with what happens; then do what `actions` holds, which is the caller's to empty."""

    def __init__(self, exchange: Exchange, tuning: Tuning, rng: random.Random) -> None:
        self.actions: list[Open | Close | Send] = []
        self.counts = Counts()
        self.connected_at = 0  # when a connection was last open; at first, when the first tick came
        self._exchange = exchange
        self._tuning = tuning
        self._rng = rng
        self._lines: list[_Line] = []
        self._line_of: dict[str, _Line] = {}
        self._connections: dict[int, _Connection] = {}
        self._connects: deque[int] = deque()
        self._numbers = 0

    # -- symbols -------------------------------------------------------------------------------------------------------

    def add(self, symbols: Iterable[str]) -> None:
        """Follow these symbols too."""
        room = min(self._tuning.streams, self._exchange.limits.streams_per_connection)
        added: dict[int, list[str]] = {}
        for symbol in symbols:
            at = next((k for k, line in enumerate(self._lines) if len(line.symbols) < room), len(self._lines))
            if at == len(self._lines):
                self._lines.append(_Line())
            self._lines[at].symbols[symbol] = 0
            self._line_of[symbol] = self._lines[at]
            added.setdefault(at, []).append(symbol)
        for at, some in added.items():
            for connection in self._lines[at].connections():
                if connection.opened:
                    self._subscribe(connection, some)

    def drop(self, symbol: str) -> None:
        line = self._line_of.pop(symbol)
        del line.symbols[symbol]
        for connection in line.connections():
            if symbol in connection.subscribed:
                connection.subscribed.discard(symbol)
                self._say(connection, self._exchange.unsubscribe, [symbol])

    def _subscribe(self, connection: _Connection, symbols: Sequence[str]) -> None:
        connection.subscribed.update(symbols)
        self._say(connection, self._exchange.subscribe, symbols)

    def _say(self, connection: _Connection, make: Callable[[Sequence[str], int], str], symbols: Sequence[str]) -> None:
        size = self._exchange.limits.streams_per_message
        for k in range(0, len(symbols), size):
            self._numbers += 1
            connection.outbox.append(make(symbols[k : k + size], self._numbers))

    # -- what happens --------------------------------------------------------------------------------------------------

    def opened(self, number: int, now: int) -> None:
        connection = self._connections.get(number)
        if connection is None:
            self.actions.append(Close(number, "not wanted any more"))
            return
        connection.opened = connection.heard = connection.send_at = now
        connection.ping_at = now + 1000 * self._exchange.ping_seconds
        connection.leave_at = now + int(self._life_ms() * self._rng.uniform(0.9, 1.0))
        for symbol in connection.line.symbols:
            connection.line.symbols[symbol] = now
        self._subscribe(connection, list(connection.line.symbols))

    def _life_ms(self) -> int:
        longest = self._exchange.limits.connection_seconds * 1000
        return min(self._tuning.handover_ms, longest * 23 // 24) if longest else 1 << 60

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

    def heard(self, number: int, now: int) -> bool:
        """A message came; whether the connection is still one of ours."""
        connection = self._connections.get(number)
        if connection is None:
            return False
        connection.heard = now
        return True

    def carries(self, number: int, symbol: str, now: int) -> bool:
        """The message was about `symbol`; whether that travels here."""
        symbols = self._connections[number].line.symbols
        if symbol not in symbols:
            return False
        symbols[symbol] = now
        return True

    def leaving(self, number: int, now: int) -> None:
        """The server is about to close the connection."""
        connection = self._connections[number]
        line = connection.line
        if line.current is connection and line.successor is None:
            line.successor = self._open(line, now)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        if self.connected() or not self.connected_at:
            self.connected_at = now
        for line in self._lines:
            self._tend(line, now)

    def _tend(self, line: _Line, now: int) -> None:
        if not line.symbols:
            for connection in line.connections():
                self._close(connection, "no symbols left")
            line.current = line.successor = None
            return
        for connection in line.connections():
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
        elif successor is not None and successor.opened and now - successor.opened >= self._tuning.overlap_ms:
            self._close(current, "its successor took over")
            line.current, line.successor = successor, None

    def _open(self, line: _Line, now: int) -> _Connection | None:
        limits = self._exchange.limits
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

    def _watch(self, connection: _Connection, now: int) -> None:
        """Send what waits, ping, and give up a connection that is dead or a subscription that is."""
        if not connection.opened:
            if now - connection.begun > CONNECTING_MS:
                self._close(connection, "no answer")
                self._lost(connection, now)
            return
        if connection.outbox and now >= connection.send_at:
            self.actions.append(Send(connection.number, connection.outbox.popleft()))
            connection.send_at = now + int(1000 / self._exchange.limits.messages_per_second)
        if self._exchange.ping and now >= connection.ping_at:
            self.actions.append(Send(connection.number, self._exchange.ping))
            connection.ping_at = now + 1000 * self._exchange.ping_seconds
        if now - connection.heard > self._tuning.silence_ms:
            self.counts.silences += 1
            self._close(connection, "silent")
            self._lost(connection, now)
        elif connection is connection.line.current and not connection.outbox:
            self._wake(connection, now)

    def _wake(self, connection: _Connection, now: int) -> None:
        """Subscribe anew what has gone quiet. Symbols that do not trade are quiet too: rarely, and some at a time."""
        heard = connection.line.symbols
        quiet = [symbol for symbol, at in heard.items() if now - at > self._tuning.quiet_ms]
        quiet = quiet[: self._exchange.limits.streams_per_message]
        if not quiet:
            return
        self.counts.resubscribed += len(quiet)
        for symbol in quiet:
            heard[symbol] = now
        self._say(connection, self._exchange.unsubscribe, quiet)
        self._say(connection, self._exchange.subscribe, quiet)

    def connected(self) -> int:
        return sum(1 for connection in self._connections.values() if connection.opened)
