"""Access log, metrics and tracing of each request, except of probes."""

import logging
import time
from typing import Any, Final

from litestar import Response, get
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from candlemill.gateway.problems import answer
from candlemill.telemetry import instrument, logs, prometheus, tracing

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})

log = logging.getLogger("candlemill.gateway")


@get("/metrics", include_in_schema=False)
async def metrics() -> Response[Any]:
    """Of this process; in `candlemill serve` that is all of it."""
    found = prometheus.page()
    return (
        answer(404, "not_found", prometheus.NOT_INSTALLED) if found is None else Response(found[0], media_type=found[1])
    )


class AccessLog:
    """ASGI middleware that records each request. It is the outermost layer, so that it records refused requests too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["path"] not in PROBES:
            await self._request(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _request(self, scope: Any, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in METHODS else instrument.OTHER
        above = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), "")
        began, seconds, status = time.perf_counter(), 0.0, 0

        async def sending(message: Message) -> None:
            nonlocal seconds, status
            if message["type"] == "http.response.start":
                seconds, status = time.perf_counter() - began, message["status"]
            await send(message)

        with tracing.span(method, "server", above) as span, logs.about(trace=tracing.trace_id()) as about:
            try:
                await self._app(scope, receive, sending)
            finally:
                route = scope.get("path_template") or instrument.OTHER
                if job := scope.get("path_params", {}).get("job_id"):
                    about.setdefault("job", job[:32])
                instrument.REQUESTS.observe(seconds, method, route, str(status or "none"))
                more = {"method": method, "route": route, "status": status, "ms": round(seconds * 1000, 2)}
                log.info("%s %s %d", method, route, status, extra=more)
                if span is not None:
                    _describe(span, method, route, status, about)


def _describe(span: Any, method: str, route: str, status: int, about: dict[str, Any]) -> None:
    span.update_name(f"{method} {route}")
    span.set_attribute("http.request.method", method)
    span.set_attribute("http.route", route)
    span.set_attribute("http.response.status_code", status)
    if "job" in about:
        span.set_attribute("candlemill.job", about["job"])
    if not 0 < status < 500:
        from opentelemetry.trace import StatusCode

        span.set_status(StatusCode.ERROR)
