"""Who may send requests to the gateway, from which pages, and how many and how large.

A browser lets any page send requests to localhost, so requests from a page of another origin are refused. The Host
header is checked too: it refuses an attacker's name that resolves to 127.0.0.1.
"""

import re
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import msgspec
from litestar import Request
from litestar.config.cors import CORSConfig
from litestar.datastructures import MutableScopeHeaders
from litestar.exceptions import NotFoundException
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.types import Message, Scope

from candlemill.config import KEYS_VARIABLE, LIMIT_VARIABLE, ORIGINS_VARIABLE, setting
from candlemill.errors import BadInput, UnsafeHost
from candlemill.gateway.api_keys import ApiKeys
from candlemill.gateway.problems import Forbidden, KeysUnreadable, NoAccess
from candlemill.telemetry import logs
from candlemill.transport.asgi import is_loopback

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
BODY_LIMIT: Final = 256 * 1024  # bytes of a request's body
NO_KEYS: Final = "off"
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
GUARDED = ("/api/", "/metrics")  # the rest has no data: dashboard files, documentation, probes


class AccessPolicy(msgspec.Struct, frozen=True):
    """Access policy: allowed `hosts` (none: any), `origins` of pages that are allowed beside the gateway's own, valid
    `keys` (None: no key needed), and requests per minute of one caller (None: no limit)."""

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    keys: ApiKeys | None = None
    per_minute: int | None = REQUESTS_PER_MINUTE

    def check(self, request: Request[Any, Any, Any]) -> None:
        """Check a request. Raises Forbidden, NoAccess, KeysUnreadable, NotFoundException."""
        path = request.scope["path"]  # not of `request.url`, which is built from the Host header
        if "\0" in path:  # no file has such a name, and opening it is an error
            raise NotFoundException("no path has a NUL in it")
        host = request.headers.get("host", "")
        name = _address(f"//{host}").hostname
        if self.hosts and name not in self.hosts:
            raise Forbidden(f"host {host[:100]!r} is not served here: ask for {', '.join(sorted(self.hosts))}")
        origin = request.headers.get("origin")
        if origin is not None and origin not in self.origins and _address(origin).netloc != host:
            raise Forbidden(f"pages of {origin[:100]!r} may not ask: CANDLEMILL_CORS_ORIGINS says which may")
        if self.keys is not None and re.sub("/+", "/", path).startswith(GUARDED):
            logs.add_fields(key=self.keys.name_of(_key(request)))

    def limits(self) -> RateLimitConfig | None:
        return (
            None
            if self.per_minute is None
            else RateLimitConfig(
                ("minute", self.per_minute), exclude=["^/healthz$", "^/readyz$"], identifier_for_request=self._caller
            )
        )

    def _caller(self, request: Request[Any, Any, Any]) -> str:
        """Return the name to count requests by: the key's owner, else the client's network. Unknown keys and
        the addresses inside an IPv6 network are not counted apart: a client can invent any number of both."""
        with suppress(NoAccess, KeysUnreadable):
            if self.keys is not None:
                return f"key {self.keys.name_of(_key(request))}"
        return _network(request.client.host) if request.client else ""

    def cors(self) -> CORSConfig | None:
        headers = ["authorization", "content-type", "x-api-key", "last-event-id"]
        return CORSConfig(sorted(self.origins), ["GET", "POST", "PUT", "DELETE"], headers) if self.origins else None


def access_of(host: str) -> AccessPolicy:
    """Return the access policy. Without keys, the gateway serves loopback only, unless keys are disabled explicitly.
    Raises UnsafeHost, BadInput."""
    given = setting(KEYS_VARIABLE)
    origins = frozenset(filter(None, setting(ORIGINS_VARIABLE).replace(",", " ").split()))
    if is_loopback(host) and not given:
        return AccessPolicy(LOOPBACK_NAMES, origins, None, None)
    if not given:
        raise UnsafeHost(
            f"refusing to listen on {host} without keys: {KEYS_VARIABLE}=FILE names those who may ask "
            f"(`candlemill key NAME >> FILE`), {KEYS_VARIABLE}={NO_KEYS} lets anyone"
        )
    keys = None if given == NO_KEYS else ApiKeys(Path(given))
    limit = setting(LIMIT_VARIABLE, str(REQUESTS_PER_MINUTE))
    if not limit.isdecimal() or not int(limit):
        raise BadInput(f"{LIMIT_VARIABLE}={limit!r} is not a whole number from 1 on")
    return AccessPolicy(frozenset(), origins, keys, int(limit))


def _key(request: Request[Any, Any, Any]) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    found = key.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if not found:
        raise NoAccess("a key is needed: send it as `Authorization: Bearer KEY`; `candlemill key NAME` makes one")
    return found


def _address(text: str) -> SplitResult:
    """Parse an address. Raises Forbidden for an invalid one."""
    try:
        found = urlsplit(text)
        found.port  # noqa: B018 raises if the port is not a number
        return found
    except ValueError:
        raise Forbidden(f"{text[:100]!r} is no address") from None


def _network(host: str) -> str:
    """Return an IPv4 address as it is; of an IPv6 address the network, whose owner has all its addresses."""
    with suppress(ValueError):
        if ip_address(host).version == 6:
            return str(ip_network((host, 64), strict=False))
    return host


async def add_headers(message: Message, scope: Scope) -> None:
    """Add the security headers to every response, whether it comes from a route or not."""
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders(message)
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
