"""Traces by OpenTelemetry, where the environment says where they go; without that nothing of it is imported.

What is under way is known by its `traceparent` (W3C Trace Context) in either case: it comes with requests and events,
and goes on with the events that follow from them, so that a trace is not torn where one part is not traced.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318   spans go there as OTLP in protobuf over HTTP
    OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_BSP_*, OTEL_SDK_DISABLED and others as OpenTelemetry has them
"""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

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
    """The traceparent of what is under way; empty where it belongs to no trace."""
    return _current.get()


def trace_id() -> str:
    return _current.get()[3:35]


def valid(traceparent: str) -> str:
    """A traceparent as it came; empty where it is none: whoever sent it, it is no reason to refuse a request."""
    return traceparent if TRACEPARENT.fullmatch(traceparent) else ""


@contextmanager
def continued(traceparent: str) -> Iterator[None]:
    """What is done in the block belongs to a trace that began elsewhere."""
    token = _current.set(valid(traceparent))
    try:
        yield
    finally:
        _current.reset(token)


def wanted() -> bool:
    """Whether the environment asks for traces."""
    given = os.environ.get
    off = given("OTEL_SDK_DISABLED", "").lower() == "true" or given("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not off and any(given(name) for name in ENDPOINTS)


@contextmanager
def span(
    name: str, kind: Kind, parent: str | None = None, attributes: Mapping[str, Any] | None = None
) -> "Iterator[Span | None]":
    """A span around the block, of the trace `parent`, else of the one under way, else of a new one. None where nothing
    is traced: then the block is of the parent itself."""
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
    """A span where there is a trace under way: what is done for nobody's request begins none."""
    return span(name, kind, None, attributes) if _current.get() else nullcontext()


def record(name: str, kind: Kind, seconds: float, attributes: Mapping[str, Any], error: Exception | None) -> None:
    """A span, of the trace under way, of what has just ended after so many seconds in another process."""
    tracer = _tracer()
    if tracer is None:
        return
    end = time.time_ns()
    found = _started(tracer, name, kind, _current.get(), attributes, end - int(seconds * 1e9))
    if error is not None:
        _mark_failed(found, error)
    found.end(end)


def switch_off() -> None:
    """This process is not traced, whatever the environment says: another one tells what it does."""
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
    """This process's, made when it is first asked for: after any fork."""
    if not _made:
        with _lock:
            if not _made:
                _made.append(_make() if wanted() else None)
    return _made[0]


def _make() -> "Tracer | None":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces are asked for, and OpenTelemetry is not installed: pip install 'candlemill[tracing]'")
        return None
    given = os.environ.get
    named = given("OTEL_SERVICE_NAME") or "service.name" in given("OTEL_RESOURCE_ATTRIBUTES", "")
    service = {} if named else {"service.name": given("K_SERVICE") or SERVICE}
    provider = TracerProvider(resource=Resource.create(service))  # flushes when the process ends
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer(SERVICE)
