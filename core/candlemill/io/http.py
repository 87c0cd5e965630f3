"""The functions' HTTP side: CloudEvents in (binary or structured), CloudEvents out to `K_SINK`.

Answers follow the Broker's rules: 202 and no body when done, 422 for poison (never retried, goes to the dead letter),
503 where trying again can help.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import urllib3
from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent, from_http, to_binary

from candlemill.errors import BadInput, CandlemillError, StoreDown
from candlemill.events import EVENT_BYTES_LIMIT, Event
from candlemill.io.functions import Handler
from candlemill.io.settings import dsn
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.ledger import Runtime
from candlemill.plan import Day

BODY_LIMIT = 2 * EVENT_BYTES_LIMIT  # a structured event carries its data escaped
PUBLISH_THREADS = 16
PUBLISH_SECONDS = 30
INDEX_SECONDS = 2.0

Response = tuple[str, int, dict[str, str]]


def respond(request: Any, handle: Handler) -> Response:
    """Serve one request of functions-framework (a Flask request)."""
    if request.method == "GET":
        return ("ok\n", 200, {}) if request.path == "/healthz" else ("not found\n", 404, {})
    try:
        event = decode(dict(request.headers), request.get_data())
        publish(handle(event, runtime()))
    except BadInput as error:
        return _problem(422, error)
    except CandlemillError as error:
        return _problem(503 if error.retryable else 422, error)
    return "", 202, {}


def _problem(status: int, error: CandlemillError) -> Response:
    body = {"title": error.code, "status": status, "detail": str(error)}
    return json.dumps(body), status, {"Content-Type": "application/problem+json"}


def decode(headers: dict[str, str], body: bytes) -> Event:
    """A CloudEvent from an HTTP request. Raises BadInput for anything else."""
    if len(body) > BODY_LIMIT:
        raise BadInput(f"the body has {len(body):,} bytes, the limit is {BODY_LIMIT:,}")
    try:
        found = from_http({k.lower(): v for k, v in headers.items()}, body, data_unmarshaller=lambda data: data)
    except (GenericException, ValueError, TypeError, AttributeError) as error:
        raise BadInput(
            f"not a CloudEvent: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    attributes = found.get_attributes()
    return Event(
        id=str(attributes["id"]),
        source=str(attributes["source"]),
        type=str(attributes["type"]),
        data=_data(found.get_data()),
        partitionkey=str(attributes.get("partitionkey", "")),
        error=_dead_letter_reason(attributes),
    )


def _data(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    return (data if isinstance(data, str) else json.dumps(data)).encode()


def _dead_letter_reason(attributes: Any) -> str:
    """What the Broker says of a delivery that it gave up; empty for an ordinary event."""
    if "knativeerrorcode" not in attributes:
        return ""
    where = attributes.get("knativeerrordest", "a function")
    return f"{where} answered {attributes['knativeerrorcode']}"


def encode(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of an event in binary mode."""
    attributes = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "partitionkey": event.partitionkey,
        "datacontenttype": "application/json",
    }
    headers, body = to_binary(CloudEvent(attributes, event.data), data_marshaller=lambda data: data)
    return headers, body


_sink = urllib3.PoolManager(maxsize=PUBLISH_THREADS, timeout=PUBLISH_SECONDS, retries=False)


def publish(events: Sequence[Event]) -> None:
    """POST events to `K_SINK`, several at a time. Raises StoreDown unless all of them were taken.

    An in-memory channel answers only after its subscribers have, so one after the other would add their times up.
    """
    if not events:
        return
    sink = os.environ.get("K_SINK", "")
    if not sink:
        raise BadInput("K_SINK is not set: there is nowhere to send events to")
    with ThreadPoolExecutor(min(PUBLISH_THREADS, len(events))) as pool:
        for status in pool.map(lambda event: _post(sink, event), events):
            if status >= 300:
                raise StoreDown(f"the event sink answered {status}")


def _post(sink: str, event: Event) -> int:
    headers, body = encode(event)
    try:
        return int(_sink.request("POST", sink, body=body, headers=headers).status)
    except urllib3.exceptions.HTTPError as error:
        raise StoreDown(f"the event sink does not answer: {error}") from None


class FreshIndex:
    """The store's metadata index, read again when it is older than two seconds and changed only if it differs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._days: dict[str, tuple[float, list[Day]]] = {}

    def symbols(self) -> list[str]:
        return self._store.symbols()

    def days(self, symbol: str) -> list[Day]:
        read_at, days = self._days.get(symbol, (-INDEX_SECONDS, []))
        if time.monotonic() - read_at > INDEX_SECONDS:
            now = self._store.days(symbol)
            days = days if now == days else now
            self._days[symbol] = (time.monotonic(), days)
        return days


_runtime: Runtime | None = None
_lock = threading.Lock()


def runtime() -> Runtime:
    """This process's connections, made at the first request."""
    global _runtime
    with _lock:
        if _runtime is None:
            store = Store(dsn())
            index = FreshIndex(store)
            _runtime = Runtime(store, index, Tapes(index.days, store), lambda: time.time_ns() // 1_000_000)
        return _runtime
