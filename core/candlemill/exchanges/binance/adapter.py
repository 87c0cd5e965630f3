"""Binance spot, and Binance.US with the same API. Source: github.com/binance/binance-spot-api-docs.

Uses combined streams (`/stream`) with subscription messages, so that subscriptions can change. Times are milliseconds,
or microseconds if `timeUnit` requests them; the magnitude shows which.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from candlemill.errors import BadMessage
from candlemill.exchanges.base import (
    DECODE_ERRORS,
    Candle,
    GoingAway,
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

_OTHER = (Other(),)
_GOING_AWAY = (GoingAway(),)


class _Kline(msgspec.Struct, gc=False):
    t: int
    s: str
    i: str
    o: str
    c: str
    h: str
    l: str  # noqa: E741
    v: str
    x: bool


class _Data(msgspec.Struct, gc=False):
    s: str
    k: _Kline


class _Combined(msgspec.Struct, gc=False):
    stream: str
    data: _Data


class _Anything(msgspec.Struct):
    """Keys that distinguish all other messages: `id` and `code` of responses, `e` of events."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    id: int | str | None = None
    code: int | None = None
    msg: str = ""
    error: Any = None


class _Event(msgspec.Struct):
    e: str = ""


_Row = tuple[int, str, str, str, str, str, int, str, int, str, str, str]


class _Filter(msgspec.Struct):
    filterType: str
    tickSize: str = ""
    stepSize: str = ""


class _Symbol(msgspec.Struct):
    symbol: str
    status: str
    baseAssetPrecision: int
    filters: list[_Filter] = []


class _Info(msgspec.Struct):
    symbols: list[_Symbol]


class _Time(msgspec.Struct):
    serverTime: int


class _Problem(msgspec.Struct):
    code: int
    msg: str


_combined = msgspec.json.Decoder(_Combined)
_raw_kline = msgspec.json.Decoder(_Data)
_anything = msgspec.json.Decoder(_Anything)
_event = msgspec.json.Decoder(_Event)
_rows = msgspec.json.Decoder(list[_Row])
_info = msgspec.json.Decoder(_Info)
_time = msgspec.json.Decoder(_Time)
_problem = msgspec.json.Decoder(_Problem)


class Binance:
    name = "binance"
    limits = Limits(
        streams_per_connection=1000,  # of 1024
        streams_per_message=200,
        messages_per_second=3.0,  # of 5, pongs included
        connects=200,  # of 300
        connects_seconds=300,
        connection_seconds=86_400,
        weight=6000,
        weight_seconds=60,
        ban_seconds=120,
        rows=1000,
    )
    ping = ""
    ping_seconds = 0
    windowed = False

    def __init__(self) -> None:
        self.rest_url = "https://data-api.binance.vision"
        self.stream_url = "wss://data-stream.binance.vision/stream"
        self.archive_url = "https://data.binance.vision"
        self.listing_url = "https://s3-ap-northeast-1.amazonaws.com/data.binance.vision"  # the same files

    def store_name(self, symbol: str) -> str:
        return symbol

    def subscribe(self, symbols: Sequence[str], number: int) -> str:
        return self._method("SUBSCRIBE", symbols, number)

    def unsubscribe(self, symbols: Sequence[str], number: int) -> str:
        return self._method("UNSUBSCRIBE", symbols, number)

    @staticmethod
    def _method(name: str, symbols: Sequence[str], number: int) -> str:
        params = [f"{symbol.lower()}@kline_1m" for symbol in symbols]
        return msgspec.json.encode({"method": name, "params": params, "id": number}).decode()

    def decode(self, raw: bytes | str) -> Sequence[Message]:
        try:
            found = _combined.decode(raw)
        except DECODE_ERRORS:
            return _decode_rare(raw)
        return (_candle(found.data),)

    def candles_request(self, symbol: str, start: int, rows: int) -> RestRequest:
        query = {"symbol": symbol, "interval": "1m", "startTime": str(start), "limit": str(rows)}
        return RestRequest("/api/v3/klines", query, 2)

    def candles(self, symbol: str, body: bytes) -> list[Candle]:
        """Candles in ascending order, none marked as final, since the last one may be unfinished."""
        found = [candle(symbol, r[0], r[1], r[2], r[3], r[4], r[5], False) for r in decoded(_rows, body)]
        return sorted(found, key=lambda row: row.t)

    def time_request(self) -> RestRequest:
        return RestRequest("/api/v3/time", {}, 1)

    def time(self, body: bytes) -> int:
        return checked_time(decoded(_time, body).serverTime)

    def rules_request(self) -> RestRequest:
        return RestRequest("/api/v3/exchangeInfo", {}, 20)

    def rules(self, body: bytes) -> list[SymbolRules]:
        out = []
        for s in decoded(_info, body).symbols:
            tick = next((f.tickSize for f in s.filters if f.filterType == "PRICE_FILTER"), "")
            step = next((f.stepSize for f in s.filters if f.filterType == "LOT_SIZE"), "")
            digits = min(max(s.baseAssetPrecision, 0), 8)
            out.append(SymbolRules(symbol_name(s.symbol), s.status, tick, step, digits))
        return out

    def used_weight(self, headers: Mapping[str, str]) -> int | None:
        text = headers.get("X-MBX-USED-WEIGHT-1M", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        if status < 400 or status >= 500:
            return None
        try:
            text = _problem.decode(body).msg
        except DECODE_ERRORS:
            text = "no reason given"
        if status in (403, 418):
            return Refusal("ban", text)
        return Refusal("limit" if status == 429 else "request", text)


class BinanceUS(Binance):
    name = "binanceus"
    limits = msgspec.structs.replace(Binance.limits, weight=1200)

    def __init__(self) -> None:
        self.rest_url = "https://api.binance.us"
        self.stream_url = "wss://stream.binance.us:9443/stream"
        self.archive_url = self.listing_url = ""

    def store_name(self, symbol: str) -> str:
        return f"BINANCEUS:{symbol}"


def _candle(data: _Data) -> Candle:
    k = data.k
    if k.i != "1m":
        raise BadMessage(f"{shown(data.s)}: a candle of {shown(k.i)}, not of 1m")
    if k.s != data.s:
        raise BadMessage(f"a candle of {shown(k.s)} in a message about {shown(data.s)}")
    return candle(symbol_name(k.s), k.t, k.o, k.h, k.l, k.c, k.v, k.x)


def _decode_rare(raw: bytes | str) -> Sequence[Message]:
    """Decode all messages except candles of combined streams: responses, shutdowns, other and single streams."""
    found = decoded(_anything, raw)
    event = found.e
    if found.data:
        event = decoded(_event, found.data).e
        if event == "kline":
            return (_candle(decoded(_raw_kline, found.data)),)
    elif event == "kline":
        return (_candle(decoded(_raw_kline, raw)),)
    if event == "serverShutdown":
        return _GOING_AWAY
    if found.code is not None or found.error is not None:
        text = found.msg or shown(found.error)
        return (Reply(found.id if isinstance(found.id, int) else -1, text or f"code {found.code}"),)
    if isinstance(found.id, int):
        return (Reply(found.id, ""),)
    if event or found.stream:
        return _OTHER
    raise BadMessage(f"{shown(raw)} is not a known message")
