"""The exchanges that are known, by name."""

from collections.abc import Callable

from candlemill.errors import UnknownName
from candlemill.exchange import Exchange
from candlemill.exchanges.binance import Binance, BinanceUS
from candlemill.exchanges.bybit import Bybit

_MAKERS: dict[str, Callable[[], Exchange]] = {"binance": Binance, "binanceus": BinanceUS, "bybit": Bybit}


def exchange(name: str, rest: str = "", stream: str = "", archive: str | None = None) -> Exchange:
    """An adapter by name, with other addresses where they are given; raises UnknownName."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise UnknownName("exchange", name, sorted(_MAKERS), "known are " + ", ".join(sorted(_MAKERS)))
    found = maker()
    found.rest_url = (rest or found.rest_url).rstrip("/")
    found.stream_url = (stream or found.stream_url).rstrip("/")
    if archive is not None and found.archive_url:
        found.archive_url = archive.rstrip("/")
    return found
