"""Exchange adapters by name."""

from collections.abc import Callable
from urllib.parse import urlsplit

from candlemill.errors import BadInput, UnknownName
from candlemill.exchanges.base import Exchange
from candlemill.exchanges.binance.adapter import Binance, BinanceUS
from candlemill.exchanges.bybit import Bybit

_MAKERS: dict[str, Callable[[], Exchange]] = {"binance": Binance, "binanceus": BinanceUS, "bybit": Bybit}
NAMES = sorted(_MAKERS)


def exchange(name: str, rest: str = "", stream: str = "", archive: str | None = None) -> Exchange:
    """Create an adapter, with other addresses if given. Raises UnknownName, and BadInput for an invalid address."""
    maker = _MAKERS.get(name)
    if maker is None:
        raise UnknownName("exchange", name, NAMES, "known are " + ", ".join(NAMES))
    found = maker()
    found.rest_url = _address(rest or found.rest_url, "http")
    found.stream_url = _address(stream or found.stream_url, "ws")
    if archive and found.archive_url:
        found.archive_url = found.listing_url = _address(archive, "http")
    elif archive is not None:
        found.archive_url = found.listing_url = ""
    return found


def _address(text: str, scheme: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in (scheme, f"{scheme}s") or not parts.hostname:
        raise BadInput(f"{text!r} is no address: write it like {scheme}s://host or {scheme}://host:port")
    return text.rstrip("/")
