"""Calls of the REST interface: of a gateway in this process, or of one that runs elsewhere."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec

from candlemill.errors import BadInput, CandlemillError

BODY_LIMIT = 16 << 20  # of an answer
CONNECT_SECONDS, REPLY_SECONDS = 10, 120

Query = Mapping[str, Any]  # texts, numbers, and lists of texts


class GatewayProblem(CandlemillError):
    """What a gateway answered in place of what was requested; the text is the problem's detail."""

    code = "gateway_problem"


class Caller(Protocol):
    """A gateway that can be called."""

    async def send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request for a path with its query; return status and content."""


async def ask(caller: Caller, method: str, path: str, query: Query = {}, body: Any = None) -> Any:  # noqa: B006
    """Return the decoded answer of the REST interface. Raises GatewayProblem."""
    kept = {name: value for name, value in query.items() if value not in (None, "", [], ())}
    target = f"/api/v1/{path}" + (f"?{urlencode(kept, doseq=True)}" if kept else "")
    status, content = await caller.send(method, target, b"" if body is None else msgspec.json.encode(body))
    found = _decoded(content)
    if status >= 400:
        detail = found.get("detail") if isinstance(found, dict) else None
        raise GatewayProblem(str(detail or f"the gateway answered {status}"))
    return found


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content) if content else None
    except msgspec.DecodeError:
        raise GatewayProblem("the gateway's answer is no JSON: is the address that of a gateway?") from None


class InProcess:
    """The gateway's own app, called without a network."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        address, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "",
            "method": method, "path": address, "raw_path": address.encode(), "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"),
                        (b"content-length", str(len(body)).encode())],
            "client": ("127.0.0.1", 0), "server": ("localhost", 80), "state": {},
        }  # fmt: skip
        status, parts, is_sent = 500, list[bytes](), False

        async def receive() -> dict[str, Any]:
            nonlocal is_sent
            if is_sent:
                await asyncio.Event().wait()  # the client stays
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return status, b"".join(parts)


class OverHttp:
    """A gateway at an address, with a key where it needs one."""

    def __init__(self, url: str, key: str) -> None:
        """Raises BadInput for an address that is not one of a server."""
        import urllib3

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise BadInput(f"--url {url} is not an address like http://127.0.0.1:8080")
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=REPLY_SECONDS)
        self._pool = urllib3.PoolManager(timeout=timeout, retries=urllib3.Retry(0, redirect=0), num_pools=1)

    async def send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._send, method, path, body)

    def _send(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        import urllib3

        try:
            found = self._pool.request(
                method, self._base + path, body=body or None, headers=self._headers, preload_content=False
            )
            content = found.read(BODY_LIMIT + 1)
            found.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise GatewayProblem(f"{self._base} does not answer: {type(error).__name__}; is it running?") from None
        if len(content) > BODY_LIMIT:
            raise GatewayProblem(f"an answer of more than {BODY_LIMIT >> 20} MB: request less")
        return found.status, content
