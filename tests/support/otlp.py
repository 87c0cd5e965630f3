"""A collector of OpenTelemetry traces on localhost: OTLP in protobuf over HTTP, decoded by its own library."""

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE_SECONDS = 300


class Found(msgspec.Struct, frozen=True):
    """One span. Ids are hexadecimal, `kind` as in the protocol: 2 server, 3 client, 4 producer, 5 consumer."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    service: str
    attributes: dict[str, Any]
    failed: bool


class Collector:
    def __init__(self) -> None:
        self.spans: list[Found] = []
        self._changed = threading.Condition()

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._changed:
            for of_service in request.resource_spans:
                service = _plain(of_service.resource.attributes)["service.name"]
                for scope in of_service.scope_spans:
                    self.spans += [_found(span, service) for span in scope.spans]
            self._changed.notify_all()

    def named(self, name: str) -> list[Found]:
        return [span for span in self.spans if span.name == name]

    def wait_for(self, *names: str) -> None:
        """Until there is a span of each name."""
        end = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while missing := [name for name in names if not self.named(name)]:
                left = end - time.monotonic()
                assert left > 0, f"no span {missing[0]!r} among {sorted({span.name for span in self.spans})}"
                self._changed.wait(left)


def _found(span: Any, service: str) -> Found:
    ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
    return Found(span.name, span.kind, *ids, service, _plain(span.attributes), span.status.code == 2)


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collecting() -> Iterator[tuple[Collector, dict[str, str]]]:
    """A collector, and the environment of those that send to it."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces", self.path
            collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            yield collector, {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        finally:
            server.shutdown()
