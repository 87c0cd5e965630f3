"""What goes wrong, how often, from a seed. Rates are per virtual hour of a connection, per candle, or per request."""

import random

import msgspec


class Menu(msgspec.Struct, frozen=True):
    """Everything on it by default."""

    cut: float = 0.4  # the connection ends without a word
    half_frame: float = 0.2  # and in the middle of a frame
    goes_away: float = 0.1  # serverShutdown, then the end
    silence: float = 0.2  # the connection stays and says nothing more
    symbol_silence: float = 0.3  # one symbol says nothing more, until it is subscribed again
    refused_connection: float = 0.15  # of all attempts
    ignored_subscription: float = 0.05  # of all subscriptions
    lost_final: float = 0.01  # per final candle
    duplicate: float = 0.05
    late: float = 0.03  # a final candle comes after minutes
    reordered: float = 0.03  # a final candle comes after the next one
    wrong_final: float = 0.005  # a final candle whose volume REST does not confirm
    malformed: float = 0.03  # per final candle: rubbish before it
    too_many: float = 0.03  # 429
    ban: float = 0.005  # 418 out of the blue
    server_error: float = 0.05
    slow: float = 0.08
    broken_body: float = 0.04
    empty_answer: float = 0.01  # a well-formed answer that says: no candles
    cut_body: float = 0.03
    stale_checksum: float = 0.1  # of archive files


NONE = Menu(**dict.fromkeys(Menu.__struct_fields__, 0.0))

RUBBISH = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":"x"}}}',
    b'{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":60000,"s":"BTCUSDT"',
    b'{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","p":"1"}}',
    b'{"code":3,"msg":"Invalid JSON"}',
    b"\xff\xfe\x00",
    b'"' + b"a" * 5000 + b'"',
    b"[" * 2000,
    b"<html>504</html>",
)


class Dice:
    """One per simulator; `menu` may be changed while it runs."""

    def __init__(self, seed: int, menu: Menu) -> None:
        self.menu = menu
        self.rng = random.Random(seed)

    def hits(self, name: str) -> bool:
        rate = getattr(self.menu, name)
        return bool(rate) and self.rng.random() < rate

    def hits_within(self, name: str, hours: float) -> bool:
        rate = getattr(self.menu, name)
        return bool(rate) and self.rng.random() < rate * hours
