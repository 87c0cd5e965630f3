"""What the feed needs to know of an exchange, and what an exchange says: values only, no sockets.

An adapter names the endpoints and decodes what they send, strictly: bytes become candles, control messages, or
BadMessage. Prices and volumes are the decimal text times 10^8, exactly; a volume may pass 64 bits here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from candlemill.engine.klines import PRICE_MAX, TIME_MS_END, TIME_MS_MIN
from candlemill.errors import BadMessage

MINUTE_MS: Final = 60_000
VOLUME_MAX: Final = 10**30
_DIGITS_MAX: Final = 40
_SHOWN_MAX: Final = 80

UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)  # what a decoder raises, whatever it is given


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One minute of a symbol, named as the exchange names it; `t` is its open time in ms. Only final ones are kept."""

    symbol: str
    t: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    final: bool


class Reply(msgspec.Struct, frozen=True):
    """The answer to a subscription; `problem` is empty where it was granted."""

    id: int
    problem: str


class GoingAway(msgspec.Struct, frozen=True):
    """The server is about to close this connection."""


class Other(msgspec.Struct, frozen=True):
    """A well-formed message that says nothing about candles."""


Message = Candle | Reply | GoingAway | Other


class Rules(msgspec.Struct, frozen=True):
    """A symbol's trading rules. `volume_digits` are the decimals that its volumes can have, at most 8."""

    symbol: str
    status: str
    tick: str
    step: str
    volume_digits: int


class Ask(msgspec.Struct, frozen=True):
    """A GET request: path, query, and what it weighs against the exchange's limit."""

    path: str
    query: dict[str, str]
    weight: int


class Limits(msgspec.Struct, frozen=True):
    """What an exchange allows. Durations in seconds."""

    streams_per_connection: int
    streams_per_message: int
    messages_per_second: float
    connects: int  # new connections within `connects_seconds`
    connects_seconds: int
    connection_seconds: int  # the longest life of a connection; 0 is no limit
    weight: int  # of requests within `weight_seconds`
    weight_seconds: int
    ban_seconds: int  # how long to wait after a ban that names no time
    rows: int  # per request of candles


class Exchange(Protocol):
    """An adapter. Symbols are the exchange's own names; `store_name` is what a symbol is called in the store."""

    name: str
    limits: Limits
    rest_url: str
    stream_url: str
    archive_url: str  # empty where there are no public files
    ping: str  # what to send every `ping_seconds`; empty where the protocol's own pings do
    ping_seconds: int
    windowed: bool  # whether an answer ends `rows` minutes after its start, so that an empty one says nothing of later

    def store_name(self, symbol: str) -> str: ...
    def subscribe(self, symbols: Sequence[str], number: int) -> str: ...
    def unsubscribe(self, symbols: Sequence[str], number: int) -> str: ...
    def decode(self, raw: bytes | str) -> Sequence[Message]: ...
    def ask_candles(self, symbol: str, start: int, rows: int) -> Ask: ...
    def candles(self, symbol: str, body: bytes) -> list[Candle]: ...
    def ask_time(self) -> Ask: ...
    def time(self, body: bytes) -> int: ...
    def ask_rules(self) -> Ask: ...
    def rules(self, body: bytes) -> list[Rules]: ...
    def used_weight(self, headers: Mapping[str, str]) -> int | None: ...
    def refusal(self, status: int, body: bytes) -> "Refusal | None": ...


class Refusal(msgspec.Struct, frozen=True):
    """Why a request was refused: too many of them, or a ban, or a fault of the request itself."""

    kind: str  # "limit", "ban", "request"
    text: str


def decoded(decoder: Any, raw: Any) -> Any:
    """What a msgspec decoder makes of bytes from outside. Raises BadMessage where that is not as documented."""
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        raise BadMessage(f"not as documented: {shown(str(error))}") from None


def shown(value: object) -> str:
    """A value for a message, bounded."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def scaled(text: str) -> int:
    """Decimal text times 10^8, exactly; raise BadMessage for anything but plain ASCII digits and one point."""
    digits = text.replace(".", "", 1)
    if not (digits.isdigit() and digits.isascii()) or len(digits) > _DIGITS_MAX:
        raise BadMessage(f"{shown(text)} is not a decimal number")
    if text[-9:-8] == "." and len(text) > 9:  # as Binance writes them
        return int(digits)
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    if not whole or text.endswith(".") or len(fraction) > 8:
        raise BadMessage(f"{shown(text)} is not a decimal number of at most 8 decimals")
    return int(whole + fraction.ljust(8, "0"))


def open_time(t: int) -> int:
    """A candle's open time in ms from ms or µs; raise BadMessage unless it is a plausible whole minute."""
    if t >= TIME_MS_END:
        t, rest = divmod(t, 1000)
        if rest:
            raise BadMessage(f"open time {t}{rest:03} is not a whole minute")
    if not TIME_MS_MIN <= t < TIME_MS_END or t % MINUTE_MS:
        raise BadMessage(f"open time {t} is not a whole minute from 2009 to 2099")
    return t


def candle(symbol: str, t: int, open_: str, high: str, low: str, close: str, volume: str, final: bool) -> Candle:
    """A candle from an exchange's own fields; raise BadMessage if it cannot be one."""
    o, h, low_, c, v = scaled(open_), scaled(high), scaled(low), scaled(close), scaled(volume)
    if not (0 < low_ <= o <= h <= PRICE_MAX and low_ <= c <= h):
        raise BadMessage(f"{symbol}: open {open_}, high {high}, low {low}, close {close} are no candle's prices")
    if v > VOLUME_MAX:
        raise BadMessage(f"{symbol}: volume {shown(volume)} is beyond all bounds")
    return Candle(symbol, open_time(t), o, h, low_, c, v, final)


def plausible(t: int) -> int:
    """A moment in ms that an exchange names; raise BadMessage for one that cannot be."""
    if not TIME_MS_MIN <= t < TIME_MS_END:
        raise BadMessage(f"{shown(t)} is no time from 2009 to 2099, in ms")
    return t


def symbol_name(text: str) -> str:
    """A symbol that a message names; raise BadMessage for what no symbol can be."""
    if not 0 < len(text) <= 40 or not text.isprintable() or " " in text:
        raise BadMessage(f"{shown(text)} is no symbol")
    return text
