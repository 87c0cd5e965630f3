"""HTTP interface of the functions: receives CloudEvents (binary or structured) and sends CloudEvents to `K_SINK`.

Statuses follow the Broker's rules: 202 without a body on success, 401 for a caller without the token that is needed,
422 for an event that always fails (no retry, becomes a dead letter; what already is one is logged, counted), 503 if a
retry can help, 500 for a bug. The Broker adds the first 768 bytes of an error's body to the dead letter, so bodies are
short.
"""

import json
import logging
import math
import threading
from typing import Any

import msgspec

from candlemill import config
from candlemill.backtests.plan import TASKS_LIMIT
from candlemill.errors import BadInput, CallerRefused, CandlemillError, StoreError
from candlemill.pipeline.context import HandlerContext, Unchanged, Waves
from candlemill.pipeline.events import Event
from candlemill.pipeline.tasks import LONG_TASK_SECONDS
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import RequestIndex
from candlemill.strategies import loader
from candlemill.telemetry import instrument, logs, prometheus
from candlemill.transport.callers import CallerCheck, allowed
from candlemill.transport.cloudevents import BODY_LIMIT, bounded_line, decode, is_dead_letter
from candlemill.transport.dedup import PublishDeduplicator
from candlemill.transport.functions import Handler, function_of
from candlemill.transport.sink import publish
from candlemill.units import clock_ms, monotonic_ms

Response = tuple[str, int, dict[str, str]]

log = logging.getLogger("candlemill")


def respond(request: Any, handle: Handler) -> Response:
    """Handle one request of functions-framework (a Flask request)."""
    logs.setup_once()
    if request.method in ("GET", "HEAD"):
        return _page(request.path)
    if request.method != "POST":
        return _problem(405, "method_not_allowed", f"{request.method} is not POST")
    event, headers, body = None, dict(request.headers), b""
    try:
        body = _body(request)
        if (check := caller_check()) is not None:
            check(headers)
        event = decode(headers, body)
        with instrument.handling(function_of(event), event):
            context = handler_context()
            with _published.new(handle(event, context)) as results:
                publish(instrument.outgoing(event, results))
    except CandlemillError as error:
        if isinstance(error, CallerRefused):
            instrument.REFUSED_CALLERS.add()
        elif _status(error) == 422 and is_dead_letter(headers, body):
            return _last_sink(event, body, error, error.public)
        if event is None:
            log.warning("not taken: %s", bounded_line(str(error)))
        return _problem(_status(error), error.code, error.public)
    except Exception as error:
        if is_dead_letter(headers, body):
            return _last_sink(event, body, error, f"internal error: {type(error).__name__}")
        if event is None:
            log.exception("internal error")
        return _problem(500, "internal", f"internal error: {type(error).__name__}; see the log of this function")
    return "", 202, {}


def _last_sink(event: Event | None, body: bytes, error: Exception, reason: str) -> Response:
    """Log and count a dead letter that cannot be handled, so that it is not delivered again.
    Its job, if it has one, is found by the watch."""
    instrument.refuse_dead_letter(event, bounded_line(body.decode(errors="replace")), bounded_line(reason), error)
    return "", 202, {}


def _page(path: str) -> Response:
    if path == "/healthz":
        return "ok\n", 200, {}
    if path != "/metrics":
        return _problem(404, "not_found", "there are only /healthz and /metrics")
    found = prometheus.page()
    if found is None:
        return _problem(404, "not_found", prometheus.NOT_INSTALLED)
    return found[0].decode(), 200, {"Content-Type": found[1]}


def _status(error: CandlemillError) -> int:
    """HTTP status of an error. Errors of the database are retried: most are overload, others end as dead letters."""
    if isinstance(error, CallerRefused):
        return 401
    return 503 if error.retryable or isinstance(error, StoreError) else 422


def _problem(status: int, title: str, detail: str) -> Response:
    body = {"title": title, "status": status, "detail": bounded_line(detail)}
    return json.dumps(body, ensure_ascii=False), status, {"Content-Type": "application/problem+json"}


def _body(request: Any) -> bytes:
    """Body of a request. An oversized one is read to its end and discarded, so that the client receives the error."""
    chunks, size = [], 0
    while chunk := request.stream.read(BODY_LIMIT):
        size += len(chunk)
        if size <= BODY_LIMIT:
            chunks.append(chunk)
    if size > BODY_LIMIT:
        raise BadInput(f"the body has {size:,} bytes, the limit is {BODY_LIMIT:,}")
    return b"".join(chunks)


# -- context -------------------------------------------------------------------------------------------------------


_published = PublishDeduplicator()
_context: tuple[HandlerContext, RequestIndex] | None = None
_check: list[CallerCheck | None] = []  # once it is known, what checks callers
_lock = threading.Lock()


def caller_check() -> CallerCheck | None:
    """Return what checks this function's callers; None where they need no token. Raises BadInput."""
    with _lock:
        if not _check:
            accepted = allowed()
            _check.append(None if accepted is None else CallerCheck(accepted))
        return _check[0]


def waves() -> Waves:
    """How this process's settings have tasks handed out. Raises BadInput."""
    tasks = _number(config.TASKS_VARIABLE, config.TASKS_UNDER_WAY, 1, TASKS_LIMIT)
    return Waves(int(tasks), _number(config.TASK_SECONDS_VARIABLE, config.TASK_SECONDS, 0, LONG_TASK_SECONDS))


def _number(name: str, default: float, least: float, most: float) -> float:
    text = config.setting(name)
    try:
        found = float(text) if text else default
    except ValueError:
        found = math.nan
    if not least <= found <= most:
        raise BadInput(f"{name}={text[:40]} is not a number from {least:g} to {most:g}")
    return found


def handler_context() -> HandlerContext:
    """Return this process's handler context, created at the first request, with a current index."""
    global _context
    with _lock:
        if _context is None:
            for problem in loader.load_offered():
                log.error("%s", problem)
            store = ClickHouseStore(config.dsn())
            index = RequestIndex(store)
            candles, unchanged = CandleReader(index.days, store), Unchanged(monotonic_ms)
            context = HandlerContext(store, index, candles, clock_ms, instrument.on_cache_lookup)
            _context = (
                msgspec.structs.replace(
                    context, recall=index.recall, renew=index.renew, waves=waves(), unchanged=unchanged
                ),
                index,
            )
    context, index = _context
    index.renew()
    return context
