"""Bybit spot, API version 5. Source: bybit-exchange.github.io/docs/v5.

Differences from Binance: responses have an envelope with a code, rows are text in descending order, a message may have
several candles, pings are messages, and limits count requests.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from candlemill.errors import BadMessage
from candlemill.exchanges.base import (
    DECODE_ERRORS,
    MINUTE_MS,
    Candle,
    Limits,
    Message,
    Other,
    Refusal,
    Reply,
    RestRequest,
    SymbolRules,
    candle,
    checked_time,
    decoded,
    shown,
    symbol_name,
)

_TOPIC = "kline.1."
_TOO_MANY = 10006
_OTHER = (Other(),)


class _Kline(msgspec.Struct, gc=False):
    start: int
    interval: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    confirm: bool


class _Push(msgspec.Struct, gc=False):
    topic: str
    data: list[_Kline]


class _Anything(msgspec.Struct):
    op: str = ""
    topic: str = ""
    success: bool | None = None
    ret_msg: str = ""
    req_id: str = ""


class _Rows(msgspec.Struct):
    symbol: str
    list: list[tuple[str, str, str, str, str, str, str]]


class _Lot(msgspec.Struct):
    basePrecision: str = ""


class _Price(msgspec.Struct):
    tickSize: str = ""


class _Symbol(msgspec.Struct):
    symbol: str
    status: str
    lotSizeFilter: _Lot
    priceFilter: _Price


class _Symbols(msgspec.Struct):
    list: list[_Symbol]


class _Envelope(msgspec.Struct):
    retCode: int
    retMsg: str = ""
    result: msgspec.Raw = msgspec.Raw(b"{}")
    time: int = 0


_push = msgspec.json.Decoder(_Push)
_anything = msgspec.json.Decoder(_Anything)
_envelope = msgspec.json.Decoder(_Envelope)
_rows = msgspec.json.Decoder(_Rows)
_symbols = msgspec.json.Decoder(_Symbols)


class Bybit:
    name = "bybit"
    limits = Limits(
        streams_per_connection=500,
        streams_per_message=10,
        messages_per_second=20.0,
        connects=300,  # of 500
        connects_seconds=300,
        connection_seconds=0,
        weight=150,  # of 600: no header shows the requests of other clients with our IP address
        weight_seconds=5,
        ban_seconds=600,
        rows=1000,
    )
    ping = '{"op":"ping"}'
    ping_seconds = 20
    windowed = True

    def __init__(self) -> None:
        self.rest_url = "https://api.bybit.com"
        self.stream_url = "wss://stream.bybit.com/v5/public/spot"
        self.archive_url = self.listing_url = ""

    def store_name(self, symbol: str) -> str:
        return f"BYBIT:{symbol}"

    def subscribe(self, symbols: Sequence[str], number: int) -> str:
        return self._operation("subscribe", symbols, number)

    def unsubscribe(self, symbols: Sequence[str], number: int) -> str:
        return self._operation("unsubscribe", symbols, number)

    @staticmethod
    def _operation(name: str, symbols: Sequence[str], number: int) -> str:
        args = [_TOPIC + symbol for symbol in symbols]
        return msgspec.json.encode({"op": name, "req_id": str(number), "args": args}).decode()

    def decode(self, raw: bytes | str) -> Sequence[Message]:
        try:
            found = _push.decode(raw)
        except DECODE_ERRORS:
            return _decode_rare(raw)
        if not found.topic.startswith(_TOPIC):
            raise BadMessage(f"candles of the topic {shown(found.topic)}, which was not subscribed")
        symbol = symbol_name(found.topic[len(_TOPIC) :])
        out = []
        for k in found.data:
            if k.interval != "1":
                raise BadMessage(f"{symbol}: a candle of {shown(k.interval)} minutes, not of 1")
            out.append(candle(symbol, k.start, k.open, k.high, k.low, k.close, k.volume, k.confirm))
        return out

    def candles_request(self, symbol: str, start: int, rows: int) -> RestRequest:
        query = {"category": "spot", "symbol": symbol, "interval": "1", "limit": str(rows)}
        query |= {
            "start": str(start),
            "end": str(start + rows * MINUTE_MS - 1),
        }  # the end selects the page, since rows are in descending order
        return RestRequest("/v5/market/kline", query, 1)

    def candles(self, symbol: str, body: bytes) -> list[Candle]:
        found = _result(_rows, body)
        out = [candle(symbol, _whole(r[0]), r[1], r[2], r[3], r[4], r[5], False) for r in found.list]
        return sorted(out, key=lambda row: row.t)

    def time_request(self) -> RestRequest:
        return RestRequest("/v5/market/time", {}, 1)

    def time(self, body: bytes) -> int:
        return checked_time(_envelope_of(body).time)

    def rules_request(self) -> RestRequest:
        return RestRequest("/v5/market/instruments-info", {"category": "spot"}, 1)

    def rules(self, body: bytes) -> list[SymbolRules]:
        out = []
        for s in _result(_symbols, body).list:
            step = s.lotSizeFilter.basePrecision
            digits = min(len(step.partition(".")[2].rstrip("0")), 8) if step else 8
            status = "TRADING" if s.status == "Trading" else s.status.upper()
            out.append(SymbolRules(symbol_name(s.symbol), status, s.priceFilter.tickSize, step, digits))
        return out

    def used_weight(self, headers: Mapping[str, str]) -> int | None:
        return None

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        if status == 403:
            return Refusal("ban", "access too frequent")
        if status == 429:
            return Refusal("limit", "too many requests")
        if 400 <= status < 500:
            return Refusal("request", f"status {status}")
        if status == 200:
            try:
                found = _envelope.decode(body)
            except DECODE_ERRORS:
                return None  # decoding the body reports it
            if found.retCode == _TOO_MANY:
                return Refusal("limit", found.retMsg)
            if found.retCode:
                return Refusal("request", found.retMsg or f"code {found.retCode}")
        return None


def _decode_rare(raw: bytes | str) -> Sequence[Message]:
    found = decoded(_anything, raw)
    if found.topic.startswith("kline."):
        raise BadMessage(f"{shown(raw)} is not a candle as documented")
    if found.op in ("ping", "pong") or found.ret_msg == "pong":
        return _OTHER
    if found.success is not None:
        number = int(found.req_id) if found.req_id.isascii() and found.req_id.isdigit() else -1
        return (Reply(number, "" if found.success else found.ret_msg or "refused"),)
    if found.op or found.topic:
        return _OTHER
    raise BadMessage(f"{shown(raw)} is not a known message")


def _envelope_of(body: bytes) -> Any:
    found = decoded(_envelope, body)
    if found.retCode:
        raise BadMessage(f"code {found.retCode}: {shown(found.retMsg)}")
    return found


def _result(decoder: Any, body: bytes) -> Any:
    return decoded(decoder, _envelope_of(body).result)


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise BadMessage(f"{shown(text)} is not a time")
    return int(text)
