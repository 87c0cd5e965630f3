"""The interface of an exchange adapter, its messages, and strict parsers of their values. No I/O.

An adapter names the endpoints and decodes their messages: into candles, control messages, or BadMessage. Prices and
volumes are the decimal text times 10^8, exactly; a volume may exceed 64 bits here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from candlemill.errors import BadMessage
from candlemill.exchanges.binance.kline_csv import PRICE_MAX, TIME_MS_END, TIME_MS_MIN

MINUTE_MS: Final = 60_000
VOLUME_MAX: Final = 10**30
_DIGITS_MAX: Final = 40
_SHOWN_MAX: Final = 80

DECODE_ERRORS: Final = (msgspec.MsgspecError, ValueError, RecursionError)  # all that a decoder can raise


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One-minute candle; `symbol` is the exchange's name, `t` the open time in ms. Only final candles are stored."""

    symbol: str
    t: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    final: bool


class Reply(msgspec.Struct, frozen=True):
    """Response to a subscription; `problem` is empty on success."""

    id: int
    problem: str


class GoingAway(msgspec.Struct, frozen=True):
    """Announcement that the server will close this connection."""


class Other(msgspec.Struct, frozen=True):
    """A valid message that is irrelevant to candles."""


Message = Candle | Reply | GoingAway | Other


class SymbolRules(msgspec.Struct, frozen=True):
    """Trading rules of a symbol. `volume_digits`: decimals of its volumes, at most 8."""

    symbol: str
    status: str
    tick: str
    step: str
    volume_digits: int


class RestRequest(msgspec.Struct, frozen=True):
    """GET request: path, query, and its weight in the exchange's rate limit."""

    path: str
    query: dict[str, str]
    weight: int


class Limits(msgspec.Struct, frozen=True):
    """Limits of an exchange. Durations in seconds."""

    streams_per_connection: int
    streams_per_message: int
    messages_per_second: float
    connects: int  # new connections within `connects_seconds`
    connects_seconds: int
    connection_seconds: int  # maximum age of a connection; 0: unlimited
    weight: int  # of requests within `weight_seconds`
    weight_seconds: int
    ban_seconds: int  # cooldown after a ban without a Retry-After
    rows: int  # candles per request


class Exchange(Protocol):
    """Exchange adapter. Symbols have the exchange's names; `store_name` is a symbol's name in the store.

    Candles of `decode` are final if the message says so; those of `candles` never are: the clock decides.
    """

    name: str
    limits: Limits
    rest_url: str
    stream_url: str
    archive_url: str  # empty if there is no public archive
    listing_url: str  # where the archive lists its files; empty if it does not
    ping: str  # message to send every `ping_seconds`; empty if WebSocket pings suffice
    ping_seconds: int
    windowed: bool  # a response covers `rows` minutes only: an empty one proves nothing about later minutes

    def store_name(self, symbol: str) -> str: ...
    def subscribe(self, symbols: Sequence[str], number: int) -> str: ...
    def unsubscribe(self, symbols: Sequence[str], number: int) -> str: ...
    def decode(self, raw: bytes | str) -> Sequence[Message]: ...
    def candles_request(self, symbol: str, start: int, rows: int) -> RestRequest: ...
    def candles(self, symbol: str, body: bytes) -> list[Candle]: ...
    def time_request(self) -> RestRequest: ...
    def time(self, body: bytes) -> int: ...
    def rules_request(self) -> RestRequest: ...
    def rules(self, body: bytes) -> list[SymbolRules]: ...
    def used_weight(self, headers: Mapping[str, str]) -> int | None: ...
    def refusal(self, status: int, body: bytes) -> "Refusal | None": ...


class Refusal(msgspec.Struct, frozen=True):
    """Reason of a refused request: rate limit, ban, or invalid request."""

    kind: str  # "limit", "ban", "request"
    text: str


def decoded(decoder: Any, raw: Any) -> Any:
    """Decode bytes with a msgspec decoder. Raises BadMessage if they do not match the documentation."""
    try:
        return decoder.decode(raw)
    except DECODE_ERRORS as error:
        raise BadMessage(f"does not match the documentation: {shown(str(error))}") from None


def shown(value: object) -> str:
    """Short `repr` of a value for an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def scaled(text: str) -> int:
    """Decimal text times 10^8, exactly. Raises BadMessage unless it consists of ASCII digits and one point."""
    digits = text.replace(".", "", 1)
    if not (digits.isdigit() and digits.isascii()) or len(digits) > _DIGITS_MAX:
        raise BadMessage(f"{shown(text)} is not a decimal number")
    if text[-9:-8] == "." and len(text) > 9:  # Binance's format
        return int(digits)
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0")
    if not whole or text.endswith(".") or len(fraction) > 8:
        raise BadMessage(f"{shown(text)} is not a decimal number of at most 8 decimals")
    return int(whole + fraction.ljust(8, "0"))


def open_time(t: int) -> int:
    """Open time in ms, from ms or µs. Raises BadMessage unless it is a whole minute from 2009 to 2099."""
    if t >= TIME_MS_END:
        t, rest = divmod(t, 1000)
        if rest:
            raise BadMessage(f"open time {t}{rest:03} is not a whole minute")
    if not TIME_MS_MIN <= t < TIME_MS_END or t % MINUTE_MS:
        raise BadMessage(f"open time {t} is not a whole minute from 2009 to 2099")
    return t


def candle(symbol: str, t: int, open_: str, high: str, low: str, close: str, volume: str, final: bool) -> Candle:
    """Candle from the fields of a message. Raises BadMessage for impossible prices, volumes or times."""
    o, h, low_, c, v = scaled(open_), scaled(high), scaled(low), scaled(close), scaled(volume)
    if not (0 < low_ <= o <= h <= PRICE_MAX and low_ <= c <= h):
        raise BadMessage(f"{symbol}: open {open_}, high {high}, low {low}, close {close} are not prices of a candle")
    if v > VOLUME_MAX:
        raise BadMessage(f"{symbol}: volume {shown(volume)} is more than 10^22")
    return Candle(symbol, open_time(t), o, h, low_, c, v, final)


def checked_time(t: int) -> int:
    """Time of an exchange in ms. Raises BadMessage unless it lies from 2009 to 2099."""
    if not TIME_MS_MIN <= t < TIME_MS_END:
        raise BadMessage(f"{shown(t)} is not a time in ms from 2009 to 2099")
    return t


def symbol_name(text: str) -> str:
    """Symbol of a message. Raises BadMessage unless it has 1 to 40 printable characters without spaces."""
    if not 0 < len(text) <= 40 or not text.isprintable() or " " in text:
        raise BadMessage(f"{shown(text)} is not a symbol")
    return text
