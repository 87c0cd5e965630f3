"""State machine of the stream connections: when to open and close them, and their subscriptions. No I/O.

Symbols are divided into groups; each group has one connection. Before a connection reaches its maximum age, or when the
server announces that it closes, a successor is opened; both run for `overlap_ms`, then the old one is closed. A
connection without messages is replaced; a symbol without messages is subscribed again.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from candlemill.exchanges.base import Exchange

BACKOFF_MS: Final = 1_000
BACKOFF_MS_MAX: Final = 60_000
STEADY_MS: Final = 60_000
"""After a connection of at least this age the back-off starts again from its minimum."""


class Tuning(msgspec.Struct, frozen=True):
    """Settings of connections and back-fill. Durations in ms."""

    grace_ms: int = 8_000  # after the end of a minute, until a missing candle is requested
    connecting_ms: int = 20_000  # until a connection that does not open is given up
    silence_ms: int = 90_000  # without messages, until a connection is replaced
    quiet_ms: int = 200_000  # without messages, until a symbol is subscribed again
    handover_ms: int = 82_800_000  # maximum age of a connection, 23 h; minus a random part of up to 10 %
    overlap_ms: int = 75_000  # of a connection and its successor
    requests: int = 8  # for history, at the same time
    streams: int = 400  # per connection


class Open(msgspec.Struct, frozen=True):
    """Open a connection."""

    connection: int


class Close(msgspec.Struct, frozen=True):
    """Close a connection."""

    connection: int
    why: str


class Send(msgspec.Struct, frozen=True):
    """Send a text message."""

    connection: int
    text: str


class Counts(msgspec.Struct):
    """Counters of connections since the start."""

    connects: int = 0
    lost: int = 0
    timeouts: int = 0
    resubscribed: int = 0


class _Connection:
    def __init__(self, number: int, group: "_Group", now: int) -> None:
        self.number = number
        self.group = group
        self.started = now
        self.opened = 0  # ms; 0 until it is open
        self.last_message = now
        self.subscribed: set[str] = set()
        self.outbox: deque[str] = deque()
        self.send_at = 0
        self.ping_at = 0
        self.replace_at = 0


class _Group:
    """Symbols that share a connection."""

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {}  # with the time of the last message
        self.current: _Connection | None = None
        self.successor: _Connection | None = None
        self.retry_at = 0
        self.failures = 0

    def connections(self) -> list[_Connection]:
        return [c for c in (self.current, self.successor) if c is not None]


class ConnectionManager:
    """Turns events (`opened`, `closed`, `tick` …) into `actions`, which the caller executes and clears."""

    def __init__(self, exchange: Exchange, tuning: Tuning, rng: random.Random) -> None:
        self.actions: list[Open | Close | Send] = []
        self.counts = Counts()
        self.connected_at = 0  # when a connection was last open; before the first one, the first tick
        self._exchange = exchange
        self._tuning = tuning
        self._rng = rng
        self._groups: list[_Group] = []
        self._group_of: dict[str, _Group] = {}
        self._connections: dict[int, _Connection] = {}
        self._connect_times: deque[int] = deque()
        self._numbers = 0

    # -- symbols -------------------------------------------------------------------------------------------------------

    def add(self, symbols: Iterable[str]) -> None:
        """Also follow these symbols."""
        size = min(self._tuning.streams, self._exchange.limits.streams_per_connection)
        added: dict[int, list[str]] = {}
        for symbol in symbols:
            at = next((k for k, group in enumerate(self._groups) if len(group.symbols) < size), len(self._groups))
            if at == len(self._groups):
                self._groups.append(_Group())
            self._groups[at].symbols[symbol] = 0
            self._group_of[symbol] = self._groups[at]
            added.setdefault(at, []).append(symbol)
        for k, new in added.items():
            for connection in self._groups[k].connections():
                if connection.opened:
                    self._subscribe(connection, new)

    def drop(self, symbol: str) -> None:
        group = self._group_of.pop(symbol)
        del group.symbols[symbol]
        for connection in group.connections():
            if symbol in connection.subscribed:
                connection.subscribed.discard(symbol)
                self._enqueue(connection, self._exchange.unsubscribe, [symbol])

    def _subscribe(self, connection: _Connection, symbols: Sequence[str]) -> None:
        connection.subscribed.update(symbols)
        self._enqueue(connection, self._exchange.subscribe, symbols)

    def _enqueue(
        self, connection: _Connection, make: Callable[[Sequence[str], int], str], symbols: Sequence[str]
    ) -> None:
        size = self._exchange.limits.streams_per_message
        for k in range(0, len(symbols), size):
            self._numbers += 1
            connection.outbox.append(make(symbols[k : k + size], self._numbers))

    # -- events --------------------------------------------------------------------------------------------------------

    def opened(self, number: int, now: int) -> None:
        connection = self._connections.get(number)
        if connection is None:
            self.actions.append(Close(number, "no longer needed"))
            return
        connection.opened = connection.last_message = connection.send_at = now
        connection.ping_at = now + 1000 * self._exchange.ping_seconds
        connection.replace_at = now + int(self._max_age_ms() * self._rng.uniform(0.9, 1.0))
        for symbol in connection.group.symbols:
            connection.group.symbols[symbol] = now
        self._subscribe(connection, list(connection.group.symbols))

    def _max_age_ms(self) -> int:
        longest = self._exchange.limits.connection_seconds * 1000
        return min(self._tuning.handover_ms, longest * 23 // 24) if longest else 1 << 60

    def closed(self, number: int, now: int, refused: bool = False) -> None:
        """Handle the end of a connection or a failed attempt; `refused` enforces the maximum back-off."""
        connection = self._connections.pop(number, None)
        if connection is not None:
            self.counts.lost += 1
            self._on_lost(connection, now, refused)

    def _on_lost(self, connection: _Connection, now: int, refused: bool = False) -> None:
        group = connection.group
        if group.successor is connection:
            group.successor = None
        elif group.successor is not None:
            group.current, group.successor = group.successor, None
        else:
            group.current = None
        if connection.opened and now - connection.opened >= STEADY_MS:
            group.failures = 0
        delay = BACKOFF_MS_MAX if refused else min(BACKOFF_MS << min(group.failures, 10), BACKOFF_MS_MAX)
        group.retry_at = now + int(delay * self._rng.uniform(0.5, 1.0))
        group.failures += 1

    def record_message(self, number: int, now: int) -> bool:
        """Record a message on a connection; return whether the connection is still in use."""
        connection = self._connections.get(number)
        if connection is None:
            return False
        connection.last_message = now
        return True

    def record_symbol(self, number: int, symbol: str, now: int) -> bool:
        """Record a message about `symbol`; return whether the connection's group has this symbol."""
        symbols = self._connections[number].group.symbols
        if symbol not in symbols:
            return False
        symbols[symbol] = now
        return True

    def server_closing(self, number: int, now: int) -> None:
        """Open a successor, since the server will soon close the connection."""
        connection = self._connections[number]
        group = connection.group
        if group.current is connection and group.successor is None:
            group.successor = self._open(group, now)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        if self.connected() or not self.connected_at:
            self.connected_at = now
        for group in self._groups:
            self._update_group(group, now)

    def _update_group(self, group: _Group, now: int) -> None:
        if not group.symbols:
            for connection in group.connections():
                self._close(connection, "no symbols left")
            group.current = group.successor = None
            return
        for connection in group.connections():
            self._update_connection(connection, now)
        current, successor = group.current, group.successor
        if current is None:
            if now >= group.retry_at:
                group.current = self._open(group, now)
            return
        if not current.opened:
            return
        if successor is None and now >= max(current.replace_at, group.retry_at):
            group.successor = self._open(group, now)
        elif successor is not None and successor.opened and now - successor.opened >= self._tuning.overlap_ms:
            self._close(current, "replaced by its successor")
            group.current, group.successor = successor, None

    def _open(self, group: _Group, now: int) -> _Connection | None:
        limits = self._exchange.limits
        while self._connect_times and self._connect_times[0] <= now - 1000 * limits.connects_seconds:
            self._connect_times.popleft()
        if len(self._connect_times) >= limits.connects:
            return None
        self._connect_times.append(now)
        self._numbers += 1
        self.counts.connects += 1
        connection = _Connection(self._numbers, group, now)
        self._connections[connection.number] = connection
        self.actions.append(Open(connection.number))
        return connection

    def _close(self, connection: _Connection, why: str) -> None:
        """Close the connection and ignore its later `closed` event."""
        self._connections.pop(connection.number, None)
        self.actions.append(Close(connection.number, why))

    def _update_connection(self, connection: _Connection, now: int) -> None:
        """Send queued messages and pings; replace the connection or renew subscriptions that deliver nothing."""
        if not connection.opened:
            if now - connection.started > self._tuning.connecting_ms:
                self._close(connection, "no response")
                self._on_lost(connection, now)
            return
        if connection.outbox and now >= connection.send_at:
            self.actions.append(Send(connection.number, connection.outbox.popleft()))
            connection.send_at = now + int(1000 / self._exchange.limits.messages_per_second)
        if self._exchange.ping and now >= connection.ping_at:
            self.actions.append(Send(connection.number, self._exchange.ping))
            connection.ping_at = now + 1000 * self._exchange.ping_seconds
        if now - connection.last_message > self._tuning.silence_ms:
            self.counts.timeouts += 1
            self._close(connection, "silent")
            self._on_lost(connection, now)
        elif connection is connection.group.current and not connection.outbox:
            self._resubscribe(connection, now)

    def _resubscribe(self, connection: _Connection, now: int) -> None:
        """Subscribe again to symbols without messages, a few at a time: symbols without trades have none either."""
        last_messages = connection.group.symbols
        quiet = [symbol for symbol, at in last_messages.items() if now - at > self._tuning.quiet_ms]
        quiet = quiet[: self._exchange.limits.streams_per_message]
        if not quiet:
            return
        self.counts.resubscribed += len(quiet)
        for symbol in quiet:
            last_messages[symbol] = now
        self._enqueue(connection, self._exchange.unsubscribe, quiet)
        self._enqueue(connection, self._exchange.subscribe, quiet)

    def connected(self) -> int:
        return sum(1 for connection in self._connections.values() if connection.opened)
