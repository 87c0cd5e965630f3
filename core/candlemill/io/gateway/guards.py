"""Who may ask, and how often.

A browser lets any page send requests to localhost, so a request that a page of another origin makes is refused; an
attacker's name that resolves to 127.0.0.1 is refused by the Host header.
"""

from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec
from litestar import Request
from litestar.config.cors import CORSConfig
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import NotFoundException
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.types import Message, Scope

from candlemill.io import logs
from candlemill.io.gateway.keys import Keys
from candlemill.io.gateway.problems import Forbidden, NoAccess

POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
REQUESTS_PER_MINUTE: Final = 6_000
GUARDED = ("/api/", "/metrics")  # the rest has no data: the dashboard's files, the documentation, probes


class Access(msgspec.Struct, frozen=True):
    """`hosts` by which it may be asked (none: any), `origins` whose pages may ask beside its own, `keys` of those who
    may (None: anyone), and how many requests a minute each may send (None: any number)."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    keys: Keys | None = None
    per_minute: int | None = REQUESTS_PER_MINUTE

    def check(self, request: Request[Any, Any, Any]) -> None:
        """Raises Forbidden, NoAccess, NotFoundException."""
        if "\0" in request.scope["path"]:  # no file has such a name, and to look for it is an error
            raise NotFoundException("no path has a NUL in it")
        host = request.headers.get("host", "")
        if self.hosts and _address(f"//{host}").hostname not in self.hosts:
            raise Forbidden(f"host {host[:100]!r} is not served here: ask for {', '.join(sorted(self.hosts))}")
        origin = request.headers.get("origin")
        if origin is not None and origin not in self.origins and _address(origin).netloc != host:
            raise Forbidden(f"pages of {origin[:100]!r} may not ask: CANDLEMILL_CORS_ORIGINS says which may")
        if self.keys is not None and request.url.path.startswith(GUARDED):
            logs.tell(key=self.keys.name_of(_key(request)))

    def limits(self) -> RateLimitConfig | None:
        return (
            None
            if self.per_minute is None
            else RateLimitConfig(
                ("minute", self.per_minute), exclude=["^/healthz$", "^/readyz$"], identifier_for_request=self._caller
            )
        )

    def _caller(self, request: Request[Any, Any, Any]) -> str:
        """Who is counted: whose key it is, else an address. Unknown keys are anybody's to think up, and so are the
        addresses of an IPv6 network."""
        with suppress(NoAccess):
            if self.keys is not None:
                return f"key {self.keys.name_of(_key(request))}"
        return _network(request.client.host) if request.client else ""

    def cors(self) -> CORSConfig | None:
        headers = ["authorization", "content-type", "x-api-key", "last-event-id"]
        return CORSConfig(sorted(self.origins), ["GET", "POST", "DELETE"], headers) if self.origins else None


def _key(request: Request[Any, Any, Any]) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    found = key.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not found:
        raise NoAccess("a key is needed: send it as `Authorization: Bearer KEY`; `candlemill key NAME` makes one")
    return found


def _address(text: str) -> SplitResult:
    """Raises Forbidden for what is no address at all."""
    try:
        return urlsplit(text)
    except ValueError:
        raise Forbidden(f"{text[:100]!r} is no address") from None


def _network(host: str) -> str:
    """An address; of IPv6 the network that its owner has all addresses of."""
    with suppress(ValueError):
        if ip_address(host).version == 6:
            return str(ip_network((host, 64), strict=False))
    return host


async def add_headers(message: Message, scope: Scope) -> None:
    """To every answer, whether it comes from a route or not."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders(message)
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
