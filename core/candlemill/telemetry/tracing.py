"""Traces by OpenTelemetry, if the environment sets an endpoint; otherwise OpenTelemetry is not imported.

In both cases the `traceparent` (W3C Trace Context) of requests and events is passed on to the events that result from
them, so that a trace continues across processes that are not traced.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318   endpoint of the spans: OTLP in protobuf over HTTP
    OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SDK_DISABLED and others: see OpenTelemetry
"""

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

from candlemill.config import setting

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
SERVICE: Final = "candlemill"

Kind = Literal["internal", "server", "client", "producer", "consumer"]

log = logging.getLogger("candlemill")

_current: ContextVar[str] = ContextVar("traceparent", default="")
_lock = threading.Lock()
_made: "list[Tracer | None]" = []


def current() -> str:
    """The current traceparent; empty without a trace."""
    return _current.get()


def trace_id() -> str:
    return _current.get()[3:35]


def valid(traceparent: str) -> str:
    """The traceparent if it is valid, else an empty text: an invalid one does not make a request fail."""
    return traceparent if TRACEPARENT.fullmatch(traceparent) else ""


@contextmanager
def continued(traceparent: str) -> Iterator[None]:
    """Continue the trace of `traceparent` in the block."""
    token = _current.set(valid(traceparent))
    try:
        yield
    finally:
        _current.reset(token)


def is_enabled() -> bool:
    """Whether the environment enables traces."""
    off = setting("OTEL_SDK_DISABLED").lower() == "true" or setting("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not off and any(setting(name) for name in ENDPOINTS)


@contextmanager
def span(
    name: str, kind: Kind, parent: str | None = None, attributes: Mapping[str, Any] | None = None
) -> "Iterator[Span | None]":
    """Record a span of the block, in the trace `parent`, else in the current one, else in a new one.

    Yields None if tracing is off; the block then continues the parent.
    """
    tracer = _tracer()
    before = _current.get() if parent is None else valid(parent)
    if tracer is None:
        with continued(before):
            yield None
        return
    found = _started(tracer, name, kind, before, attributes)
    inside = found.get_span_context()
    token = _current.set(f"00-{inside.trace_id:032x}-{inside.span_id:016x}-{int(inside.trace_flags):02x}")
    try:
        yield found
    except Exception as error:
        _mark_failed(found, error)
        raise
    finally:
        _current.reset(token)
        found.end()


def inside(name: str, kind: Kind, attributes: Mapping[str, Any]) -> "AbstractContextManager[Span | None]":
    """Record a span only if there is a current trace, so that background work starts none."""
    return span(name, kind, None, attributes) if _current.get() else nullcontext()


def record(name: str, kind: Kind, seconds: float, attributes: Mapping[str, Any], error: Exception | None) -> None:
    """Record a span in the current trace for work of another process that has just ended after `seconds`."""
    tracer = _tracer()
    if tracer is None:
        return
    end = time.time_ns()
    found = _started(tracer, name, kind, _current.get(), attributes, end - int(seconds * 1e9))
    if error is not None:
        _mark_failed(found, error)
    found.end(end)


def switch_off() -> None:
    """Disable tracing in this process: a worker's spans are recorded by its parent."""
    _made[:] = [None]


def _started(
    tracer: "Tracer",
    name: str,
    kind: Kind,
    parent: str,
    attributes: Mapping[str, Any] | None,
    start_ns: int | None = None,
) -> "Span":
    from opentelemetry import trace

    context = None
    if found := TRACEPARENT.fullmatch(parent):
        flags = trace.TraceFlags(int(found[3], 16))
        above = trace.SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
        context = trace.set_span_in_context(trace.NonRecordingSpan(above))
    return tracer.start_span(name, context, trace.SpanKind[kind.upper()], attributes, start_time=start_ns)


def _mark_failed(span: "Span", error: Exception) -> None:
    from opentelemetry.trace import StatusCode

    span.record_exception(error)
    span.set_status(StatusCode.ERROR, str(error))


def _tracer() -> "Tracer | None":
    """Tracer of this process, created at its first use, after any fork."""
    if not _made:
        with _lock:
            if not _made:
                _made.append(_make() if is_enabled() else None)
    return _made[0]


def _make() -> "Tracer | None":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces are enabled, but OpenTelemetry is not installed: pip install 'candlemill[tracing]'")
        return None
    named = setting("OTEL_SERVICE_NAME") or "service.name" in setting("OTEL_RESOURCE_ATTRIBUTES")
    service = {} if named else {"service.name": setting("K_SERVICE") or SERVICE}
    provider = TracerProvider(resource=Resource.create(service))  # flushes at the end of the process
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer(SERVICE)
