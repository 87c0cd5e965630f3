"""Decoding of exchange messages: all real messages decode, and no bytes crash a decoder."""

import json
import random
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from candlemill.errors import BadMessage, UnknownName
from candlemill.exchanges.base import Candle, GoingAway, Other, Reply, SymbolRules, scaled
from candlemill.exchanges.binance.kline_csv import PRICE_MAX
from candlemill.exchanges.registry import NAMES, exchange
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[2].parent / "shared" / "data" / "fixtures"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"real messages are not at {FIXTURES}")
BINANCE, BYBIT = exchange("binance"), exchange("bybit")
T = 1_633_998_480_000


def fixture(number: str) -> Any:
    return json.loads(next(FIXTURES.glob(f"{number}_*.json")).read_text())["body"]


def kline(**changes: Any) -> dict[str, Any]:
    k = {
        "t": T,
        "T": T + 59_999,
        "s": "NKNUSDT",
        "i": "1m",
        "f": 1,
        "L": 2,
        "o": "0.3527",
        "c": "0.3528",
        "h": "0.3529",
    }
    k |= {"l": "0.3522", "v": "25877.00000000", "n": 30, "x": True, "q": "9", "V": "5", "Q": "2", "B": "0"} | changes
    return {"stream": "nknusdt@kline_1m", "data": {"e": "kline", "E": T, "s": k["s"], "k": k}}


def push(**changes: Any) -> dict[str, Any]:
    k = {"start": T, "end": T + 59_999, "interval": "1", "open": "0.3527", "close": "0.3528", "high": "0.3529"}
    k |= {"low": "0.3522", "volume": "25877", "turnover": "9", "confirm": True, "timestamp": T} | changes
    return {"topic": "kline.1.NKNUSDT", "data": [k], "ts": T, "type": "snapshot"}


def raw(message: object) -> bytes:
    return json.dumps(message).encode()


EXPECTED = Candle("NKNUSDT", T, 35_270_000, 35_290_000, 35_220_000, 35_280_000, 2_587_700_000_000, True)


# -- real messages -----------------------------------------------------------------------------------------------------


@needs_fixtures
def test_every_real_message_decodes() -> None:
    kinds: Counter[str] = Counter()
    for file in sorted((FIXTURES / "captures").glob("*.txt")):
        for line in filter(None, file.read_text().splitlines()[1:]):
            text = line.split(": ", 1)[1]
            (message,) = BINANCE.decode(text)
            kinds[type(message).__name__] += 1
            if "@kline_1m" in text[:40]:
                assert isinstance(message, Candle)
                expected = json.loads(text)["data"]["k"]
                prices = (message.open, message.high, message.low, message.close, message.volume)
                assert prices == tuple(int(Decimal(expected[name]) * 10**8) for name in "ohlcv")
                assert (message.t, message.symbol, message.final) == (expected["t"], expected["s"], expected["x"])
            else:
                assert isinstance(message, Other)
    assert kinds == {"Other": 869, "Candle": 15}
    for number in ("01", "02", "03", "04"):
        for row in fixture(number):
            BINANCE.decode(row["raw"])


@needs_fixtures
def test_documented_control_messages() -> None:
    shown = fixture("05")
    assert BINANCE.decode(raw(shown["serverShutdown_raw"])) == (GoingAway(),)
    assert BINANCE.decode(raw(shown["serverShutdown_combined"])) == (GoingAway(),)
    assert BINANCE.decode(raw(shown["subscribe_response"])) == (Reply(1, ""),)
    assert BINANCE.decode(raw(shown["list_response"])) == (Reply(3, ""),)
    for text in shown["error_frames"]:
        (reply,) = BINANCE.decode(text.replace("%s", "7"))
        assert isinstance(reply, Reply) and reply.problem
    with pytest.raises(BadMessage, match="not prices of a candle"):  # the documentation's example opens below its low
        BINANCE.decode(raw(shown["raw_kline"]))


@needs_fixtures
def test_real_rest_responses() -> None:
    rows = fixture("06")["klines"]
    with pytest.raises(BadMessage, match="not prices of a candle"):  # an example with the open time of another unit
        BINANCE.candles("X", raw([[*rows[0][:1], "0", *rows[0][2:]]]))
    hour = BINANCE.candles("BTCUSDT", raw(fixture("07")))
    assert [c.t for c in hour] == sorted(c.t for c in hour) and hour[0].close == 2_804_111_000_000
    for row in fixture("08"):
        (found,) = BINANCE.candles("BTCUSDT", raw([row]))
        assert found.t == row[0] and not found.final
    assert BINANCE.time(raw(fixture("06")["time"])) == 1_499_827_319_559
    old = {rule.symbol: rule for rule in BINANCE.rules(raw(fixture("09")))}
    new = {rule.symbol: rule for rule in BINANCE.rules(raw(fixture("10")))}
    assert (old["DOGEUSDT"].tick, new["DOGEUSDT"].tick) == ("0.00010000", "0.00001000")
    assert (new["SHIBUSDT"].volume_digits, new["BTTCUSDT"].volume_digits, new["BTCUSDT"].volume_digits) == (2, 1, 8)
    assert old["BCCBTC"].status == "BREAK" and old["ETHBTC"].step == "0.00010000"
    assert BINANCE.rules(raw(fixture("11")))[0].symbol == "ETHBTC"


@needs_fixtures
def test_refusals() -> None:
    bodies = fixture("13")
    ban = BINANCE.refusal(418, bodies["http_418"]["body"].encode())
    assert ban is not None and ban.kind == "ban" and "banned until" in ban.text
    waf = BINANCE.refusal(403, bodies["waf_403_is_html"].encode())
    assert waf is not None and waf.kind == "ban"
    assert BINANCE.refusal(400, raw(fixture("06")["error"])).kind == "request"  # type: ignore[union-attr]
    assert BINANCE.refusal(200, b"") is None and BINANCE.refusal(502, b"") is None
    assert BINANCE.used_weight({"X-MBX-USED-WEIGHT-1M": "2"}) == 2 and BINANCE.used_weight({}) is None
    assert BYBIT.refusal(200, b'{"retCode":10006,"retMsg":"Too many visits!"}').kind == "limit"  # type: ignore[union-attr]
    assert BYBIT.refusal(200, b'{"retCode":0}') is None


# -- candles ----------------------------------------------------------------------------------------------------------


def test_both_exchanges_decode_the_same_candle() -> None:
    assert list(BINANCE.decode(raw(kline()))) == [EXPECTED]
    assert list(BINANCE.decode(raw(kline()["data"]))) == [EXPECTED]  # a single stream, without the envelope
    assert list(BYBIT.decode(raw(push()))) == [EXPECTED]
    body = {"retCode": 0, "retMsg": "OK", "time": T, "result": {"symbol": "NKNUSDT", "category": "spot", "list": [
        [str(T + 60_000), "1", "1", "1", "1", "0", "0"], [str(T), "0.3527", "0.3529", "0.3522", "0.3528", "25877", "9"],
    ]}}  # fmt: skip
    assert [c.t for c in BYBIT.candles("NKNUSDT", raw(body))] == [T, T + 60_000]
    assert BYBIT.time(raw(body)) == T


def test_microseconds_are_read_by_their_magnitude() -> None:
    assert list(BINANCE.decode(raw(kline(t=T * 1000)))) == [EXPECTED]
    with pytest.raises(BadMessage, match="not a whole minute"):
        BINANCE.decode(raw(kline(t=T * 1000 + 1)))


@pytest.mark.parametrize(
    "change",
    [
        {"t": T + 1}, {"t": 0}, {"t": -T}, {"t": 10**20}, {"t": str(T)}, {"t": T + 0.5}, {"i": "1h"},
        {"s": ""}, {"s": "A B"}, {"o": "0.36"}, {"c": "0.3"}, {"h": "0.3521"}, {"l": "0"}, {"l": "-1"},
        {"o": "1e-1"}, {"o": ""}, {"o": "."}, {"o": ".5"}, {"o": "5."}, {"o": "0.352700001"}, {"o": " 0.3527"},
        {"o": "0_3527"}, {"o": "٣"}, {"o": 0.3527}, {"o": None}, {"h": "9" * 30}, {"v": "-1"}, {"v": "9" * 39},
        {"v": "nan"}, {"x": 1}, {"x": "true"},
    ],
)  # fmt: skip
def test_invalid_candles_are_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(BadMessage) as caught:
        BINANCE.decode(raw(kline(**change)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    names = {"t": "start", "o": "open", "c": "close", "h": "high", "l": "low", "v": "volume", "x": "confirm"}
    if (key := next(iter(change))) in names:
        with pytest.raises(BadMessage):
            BYBIT.decode(raw(push(**{names[key]: change[key]})))


def test_a_message_with_two_symbols_is_rejected() -> None:
    message = kline()
    message["data"]["s"] = "OTHERUSDT"
    with pytest.raises(BadMessage, match="in a message about"):
        BINANCE.decode(raw(message))


@given(st.integers(0, 10**30), st.integers(0, 8), st.booleans())
def test_decimals_are_exact(value: int, drop: int, pad: bool) -> None:
    value -= value % 10**drop
    text = f"{value // 10**8}.{value % 10**8:08}"
    assert scaled(text if pad else text[: len(text) - drop].rstrip(".")) == value


def test_a_volume_may_exceed_64_bits() -> None:
    (found,) = BINANCE.decode(raw(kline(v="448145609988.00")))
    assert isinstance(found, Candle) and found.volume == 44_814_560_998_800_000_000 > 2**64


# -- fuzzing -----------------------------------------------------------------------------------------------------------


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
HOSTILE = st.sampled_from(
    [10**30, -(10**30), 2**63, -1, 0, 1e308, -0.0, "", "1e5", "-1", "\u0663", "9" * 50, [], {}, None]
)


def check_decoders(name: str, data: bytes) -> None:
    """Check that every decoder returns valid values or raises BadMessage."""
    adapter = exchange(name)
    for read in (adapter.decode, lambda body: adapter.candles("BTCUSDT", body), adapter.rules, adapter.time):
        try:
            found = read(data)
        except BadMessage as error:
            assert "\n" not in str(error) and len(str(error)) < 400
            continue
        if isinstance(found, int):
            assert 1_230_768_000_000 <= found < 4_102_444_800_000
        for each in found if isinstance(found, list | tuple) else ():
            if isinstance(each, Candle):
                assert (
                    0 < each.low <= min(each.open, each.close) <= max(each.open, each.close) <= each.high <= PRICE_MAX
                )
                assert each.t % 60_000 == 0 and each.volume >= 0 and (read == adapter.decode or not each.final)
            elif isinstance(each, SymbolRules):
                assert 0 <= each.volume_digits <= 8 and each.symbol
    for status in (200, 400, 403, 418, 429):
        adapter.refusal(status, data)


@given(st.sampled_from(NAMES), st.binary(max_size=300) | JSON.map(raw))
@example("binance", b"[" * 5_000)
@example("bybit", b'{"a":' * 5_000)
@example("binance", b'{"id":99999999999999999999999999999}')
@example("binance", b'{"code":1e999,"id":1}')
@example("bybit", '{"success":true,"req_id":"²"}'.encode())
def test_no_bytes_crash_a_decoder(name: str, data: bytes) -> None:
    check_decoders(name, data)


ROW = [T, "0.3527", "0.3529", "0.3522", "0.3528", "25877.00000000", T + 59_999, "9.0", 30, "5.0", "2.0", "0"]
FILTERS = [{"filterType": "PRICE_FILTER", "tickSize": "0.0001"}, {"filterType": "LOT_SIZE", "stepSize": "0.1"}]
INFO = {"symbols": [{"symbol": "NKNUSDT", "status": "TRADING", "baseAssetPrecision": 8, "filters": FILTERS}]}
LISTED = {"symbol": "NKNUSDT", "status": "Trading"}
LISTED |= {"lotSizeFilter": {"basePrecision": "0.01"}, "priceFilter": {"tickSize": "1"}}


def enveloped(rows: list[Any]) -> dict[str, Any]:
    return {"retCode": 0, "retMsg": "OK", "time": T, "result": {"symbol": "NKNUSDT", "category": "spot", "list": rows}}


GENUINE: dict[str, list[Any]] = {
    "binance": [
        kline(), kline()["data"], [ROW, [T + 60_000, *ROW[1:]]], INFO, {"serverTime": T}, {"result": None, "id": 1},
        {"code": -1121, "msg": "Invalid symbol."}, {"stream": "!x", "data": {"e": "serverShutdown", "E": T}},
    ],
    "bybit": [
        push(), enveloped([[str(T), "1", "1", "1", "1", "0", "0"]]), enveloped([LISTED]), enveloped([]),
        {"success": True, "ret_msg": "", "op": "subscribe", "req_id": "1"}, {"retCode": 10006, "retMsg": "Too many"},
    ],
}  # fmt: skip
GENUINE["binanceus"] = GENUINE["binance"]


def damaged(message: Any, draw: Any) -> Any:
    """Replace one part of the message, at any depth, by any value."""
    if isinstance(message, dict | list) and message and draw(st.integers(0, 5)):
        keys = list(message) if isinstance(message, dict) else list(range(len(message)))
        key, out = draw(st.sampled_from(keys)), message.copy()
        out[key] = damaged(message[key], draw)
        return out
    return draw(JSON | HOSTILE)


def test_every_kind_of_genuine_message_decodes() -> None:
    """Check the messages that the next test damages."""
    for name, messages in GENUINE.items():
        adapter = exchange(name)
        for message in messages:
            decoded = 0
            for read in (adapter.decode, lambda body, a=adapter: a.candles("X", body), adapter.rules, adapter.time):
                try:
                    decoded += read(raw(message)) is not None  # type: ignore[operator]
                except BadMessage:
                    continue
            assert decoded or any(adapter.refusal(status, raw(message)) for status in (200, 400)), message


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(NAMES), st.data())
def test_no_damaged_message_crashes_a_decoder(name: str, data: st.DataObject) -> None:
    """Streams and REST: one part is replaced, or some bytes are overwritten, cut or inserted."""
    message = data.draw(st.sampled_from(GENUINE[name]))
    check_decoders(name, raw(damaged(message, data.draw)))
    good, at, piece = raw(message), data.draw(st.integers(0, 400)), data.draw(st.binary(max_size=6))
    check_decoders(name, good[:at] if data.draw(st.booleans()) else good[:at] + piece + good[at + len(piece) :])


def test_adapters_by_name() -> None:
    assert [exchange(name).store_name("X") for name in NAMES] == ["X", "BINANCEUS:X", "BYBIT:X"]
    assert exchange("bybit", rest="http://here/", stream="ws://here").rest_url == "http://here"
    with pytest.raises(UnknownName, match="did you mean 'binance'"):
        exchange("binanc")


@pytest.mark.parametrize("name", NAMES)
def test_subscriptions_name_every_symbol_once(name: str) -> None:
    adapter, symbols = exchange(name), [f"S{k}USDT" for k in random.Random(1).sample(range(999), 20)]
    message = json.loads(adapter.subscribe(symbols, 7))
    params = message.get("params") or message["args"]
    assert len(params) == 20 and all(symbol.lower() in json.dumps(params).lower() for symbol in symbols)
    assert json.loads(adapter.unsubscribe(symbols, 8)) != message
