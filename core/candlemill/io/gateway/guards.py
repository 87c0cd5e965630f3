"""Who may ask: origins, hosts, headers.

A browser lets any page send requests to localhost, so a request that a page of another origin makes is refused; an
attacker's name that resolves to 127.0.0.1 is refused by the Host header.
"""

from typing import Any
from urllib.parse import urlsplit

from litestar import Request, Response

from candlemill.io.gateway.problems import Forbidden

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


def check_host(request: Request[Any, Any, Any], hosts: frozenset[str]) -> None:
    """Raises Forbidden where the Host header names none of `hosts`; where there are none, any will do."""
    host = request.headers.get("host", "")
    if hosts and urlsplit(f"//{host}").hostname not in hosts:
        raise Forbidden(f"host {host[:100]!r} is not served here: ask for {', '.join(sorted(hosts))}")


def check_origin(request: Request[Any, Any, Any], allowed: frozenset[str]) -> None:
    """Raises Forbidden for a page of another origin, unless that is `allowed`."""
    origin = request.headers.get("origin")
    if origin is None or origin in allowed:
        return
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden(
            f"requests from pages of {origin[:100]!r} are not taken: set CANDLEMILL_CORS_ORIGINS to allow it"
        )


async def add_headers(response: Response[Any]) -> Response[Any]:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
