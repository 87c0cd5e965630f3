"""The functions' HTTP side: CloudEvents in (binary or structured), CloudEvents out to `K_SINK`.

Answers follow the Broker's rules: 202 and no body when done, 422 for poison (never retried, goes to the dead letter),
503 where trying again can help, 500 for a bug. The Broker hands the first 768 bytes of an error's body on with the
dead letter, so bodies are short.
"""

import base64
import binascii
import json
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import urllib3
from cloudevents.conversion import to_binary
from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent, from_http

from candlemill.errors import BadInput, CandlemillError, SinkDown, StoreError
from candlemill.events import COMPLETED, EVENT_BYTES_LIMIT, FAILED, SLICE_REQUESTED, Event
from candlemill.io import logs, meters, plugins, telemetry, tracing
from candlemill.io.clock import clock_ms
from candlemill.io.functions import Handler, function_of
from candlemill.io.settings import dsn
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.ledger import Funding, Ledger, Runtime
from candlemill.model import SCALE
from candlemill.plan import Day

BODY_LIMIT = 2 * EVENT_BYTES_LIMIT  # a structured event carries its data in base64 or spaced out
ATTRIBUTE_LIMIT = 256
REQUIRED_HEADERS = ("ce-specversion", "ce-id", "ce-source", "ce-type")
DETAIL_LIMIT = 500  # characters of an error's text, in answers and in reasons
PUBLISH_THREADS = 16  # per process, whatever the number of requests
PUBLISH_SECONDS = 30
PUBLISH_RETRIES = 3
ASKED_LIMIT = 65_536
SAID_ONCE = frozenset({SLICE_REQUESTED, COMPLETED, FAILED})
TOKEN = Path("/oidc/token")  # who sends, where Eventing asks for it: a SinkBinding mounts it, and renews it
# A PingSource cannot choose its events' type. Its Trigger lets those of knative/base/watch.yaml through only.
ALIASES = {"dev.knative.sources.ping": "dev.candlemill.jobs.watch.v1"}

Response = tuple[str, int, dict[str, str]]

log = logging.getLogger("candlemill")


def respond(request: Any, handle: Handler) -> Response:
    """Serve one request of functions-framework (a Flask request)."""
    logs.setup_once()
    if request.method in ("GET", "HEAD"):
        return _page(request.path)
    if request.method != "POST":
        return _problem(405, "method_not_allowed", f"{request.method} is not POST")
    event = None
    try:
        event = decode(dict(request.headers), _body(request))
        with telemetry.handling(function_of(event), event):
            world = runtime()
            with _asked.new(handle(event, world), world.ledger) as answer:
                publish(telemetry.followed(event, answer))
    except CandlemillError as error:
        if event is None:
            log.warning("not taken: %s", _line(str(error)))
        return _problem(_status(error), error.code, str(error))
    except Exception as error:
        if event is None:
            log.exception("internal error")
        return _problem(500, "internal", f"internal error: {type(error).__name__}; the log of this function has more")
    return "", 202, {}


def _page(path: str) -> Response:
    if path == "/healthz":
        return "ok\n", 200, {}
    if path != "/metrics":
        return _problem(404, "not_found", "there are /healthz and /metrics")
    found = meters.page()
    if found is None:
        return _problem(404, "not_found", meters.NOT_INSTALLED)
    return found[0].decode(), 200, {"Content-Type": found[1]}


def _status(error: CandlemillError) -> int:
    """Refusals of the database are tried again too: most are overload, and the rest ends as a dead letter anyway."""
    return 503 if error.retryable or isinstance(error, StoreError) else 422


def _problem(status: int, title: str, detail: str) -> Response:
    body = {"title": title, "status": status, "detail": _line(detail)}
    return json.dumps(body, ensure_ascii=False), status, {"Content-Type": "application/problem+json"}


def _line(text: str) -> str:
    """One bounded line of printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * DETAIL_LIMIT]).split())
    return line if len(line) <= DETAIL_LIMIT else line[: DETAIL_LIMIT - 1] + "…"


def _body(request: Any) -> bytes:
    """The request's body. An oversized one is read to its end without being kept, or its sender would not hear why."""
    pieces, size = [], 0
    while piece := request.stream.read(BODY_LIMIT):
        size += len(piece)
        if size <= BODY_LIMIT:
            pieces.append(piece)
    if size > BODY_LIMIT:
        raise BadInput(f"the body has {size:,} bytes, the limit is {BODY_LIMIT:,}")
    return b"".join(pieces)


# -- events in and out ---------------------------------------------------------------------------------------------


def decode(headers: Mapping[str, str], body: bytes) -> Event:
    """A CloudEvent from an HTTP request. Raises BadInput for anything else.

    Data must be JSON, except in a dead letter: that it was not may be why it is one.
    """
    if len(body) > BODY_LIMIT:
        raise BadInput(f"the body has {len(body):,} bytes, the limit is {BODY_LIMIT:,}")
    names = {name.lower(): value for name, value in headers.items()}
    kind = names.get("content-type", "").partition(";")[0].strip().lower()
    of_request = names.get("traceparent", "")
    if kind.startswith("application/cloudevents") and kind != "application/cloudevents+json":
        raise BadInput(f"not a CloudEvent in binary or structured mode: {kind} is not taken")
    if kind == "application/cloudevents+json":
        names = {"content-type": kind}  # all attributes are in the body
    elif missing := [name for name in REQUIRED_HEADERS if name not in names]:
        raise BadInput(
            f"not a CloudEvent: neither {missing[0]} nor the content type application/cloudevents+json is there"
        )
    names = {name: unquote(value) for name, value in names.items()}  # the HTTP binding percent-encodes header values
    try:
        found = from_http(names, body, data_unmarshaller=lambda data: data)
    except (GenericException, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"not a CloudEvent: {_line(str(error)) or type(error).__name__}") from None
    attributes = found.get_attributes()
    event = Event(
        id=_attribute(attributes, "id"),
        source=_attribute(attributes, "source"),
        type=ALIASES.get(kind := _attribute(attributes, "type"), kind),
        data=_data(found.get_data()),
        partitionkey=_attribute(attributes, "partitionkey", required=False),
        work=_attribute(attributes, "work", required=False),
        traceparent=tracing.valid(str(attributes.get("traceparent", ""))) or tracing.valid(of_request),
        error=_dead_letter_reason(attributes),
    )
    if not event.error:
        _check_json(event)
    return event


def _attribute(attributes: Mapping[str, Any], name: str, required: bool = True) -> str:
    value = attributes.get(name, "")
    if not isinstance(value, str) or len(value) > ATTRIBUTE_LIMIT or (required and not value):
        raise BadInput(f"not a CloudEvent: {name} is not text of 1 to {ATTRIBUTE_LIMIT} characters")
    return value


def _data(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    return data.encode() if isinstance(data, str) else b""


def _check_json(event: Event) -> None:
    if len(event.data) > EVENT_BYTES_LIMIT:
        raise BadInput(f"the event's data has {len(event.data):,} bytes, the limit is {EVENT_BYTES_LIMIT:,}")
    try:
        json.loads(event.data)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"event {event.id}: the data is not JSON: {_line(str(error))}") from None


def _dead_letter_reason(attributes: Mapping[str, Any]) -> str:
    """What the Broker says of a delivery that it gave up; empty for an ordinary event."""
    dest, code, data = (attributes.get(f"knativeerror{name}") for name in ("dest", "code", "data"))
    if dest is None and code is None and data is None:
        return ""
    said = f"{dest or 'a function'} answered {code or 'with an error'}"
    detail = _error_detail(str(data or ""))
    return _line(f"{said}: {detail}" if detail else said)


def _error_detail(data: str) -> str:
    """The text of an error's body, which comes in base64, cut to 1024 characters; older Brokers send it as it is."""
    text = data
    if re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", data):
        try:
            text = base64.b64decode(data[: len(data) // 4 * 4]).decode(errors="ignore")
        except binascii.Error:
            text = data
    try:
        problem = json.loads(text)
    except (ValueError, RecursionError):
        return text
    detail = problem.get("detail") if isinstance(problem, dict) else None
    return detail if isinstance(detail, str) else text


def encode(event: Event) -> tuple[dict[str, str], bytes]:
    """Headers and body of an event in binary mode."""
    attributes = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "datacontenttype": "application/json",
    }
    for name in ("partitionkey", "work", "traceparent"):
        if value := getattr(event, name):  # an attribute may be absent, never empty
            attributes[name] = value
    headers, body = to_binary(CloudEvent(attributes, event.data), data_marshaller=lambda data: data)
    return headers, body


_retries = urllib3.Retry(
    PUBLISH_RETRIES,
    redirect=False,
    allowed_methods=None,  # saying an event twice does no harm
    status_forcelist=[429, 502, 503, 504],
    backoff_factor=0.2,
    raise_on_status=False,
)
_sink = urllib3.PoolManager(maxsize=PUBLISH_THREADS, timeout=PUBLISH_SECONDS, retries=_retries)
_publishers = ThreadPoolExecutor(PUBLISH_THREADS, "publish")  # starts its threads when they are needed


def publish(events: Sequence[Event]) -> None:
    """POST events to `K_SINK`, several at a time. Raises SinkDown unless all of them were taken.

    An in-memory channel answers only after its subscribers have, so one after the other would add their times up.
    """
    if not events:
        return
    with tracing.inside("publish", "producer", {"candlemill.events": len(events)}):
        _publish(events)


def _publish(events: Sequence[Event]) -> None:
    sink = os.environ.get("K_SINK", "")
    if not sink:
        raise SinkDown("K_SINK is not set: there is nowhere to send events to")
    if len(events) == 1:
        _post(sink, events[0])
        return
    posts = [_publishers.submit(_post, sink, event) for event in events]
    done, waiting = wait(posts, return_when=FIRST_EXCEPTION)
    for post in waiting:  # one has failed: all are said again when the Broker tries again
        post.cancel()
    for post in done:
        post.result()


def _post(sink: str, event: Event) -> None:
    headers, body = encode(event)
    if TOKEN.exists():
        headers["Authorization"] = f"Bearer {TOKEN.read_text().strip()}"
    try:
        status = _sink.request("POST", sink, body=body, headers=headers).status
    except urllib3.exceptions.HTTPError as error:
        raise _not_taken(f"the event sink does not answer: {_line(str(error))}") from None
    if not 200 <= status < 300:
        raise _not_taken(f"the event sink answered {status} to a {event.type}")


def _not_taken(reason: str) -> SinkDown:
    telemetry.SINK_ERRORS.add()
    return SinkDown(reason)


class Asked:
    """The repairs that this process has asked for, and the ends of jobs that it has told, so that it says them once.

    Many completions lead to the same repair: the last ones of a batch, and every duplicate. Each copy of a repair is
    completed, and each completion would lead to copies of the next one: without this they multiply along a chain.
    Those that come after a job's end lead to word of it. A job that is started again may say the same again, which is
    why the start takes part in the key.
    """

    def __init__(self) -> None:
        self._said: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._saying: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    @contextmanager
    def new(self, events: Sequence[Event], ledger: Ledger) -> Iterator[list[Event]]:
        """Those of `events` that are to be published; said where that succeeds. Raises SinkDown where another thread
        is at one of them: it may fail, and then somebody has to come again."""
        keys = self._keys_of(events, ledger)
        with self._lock:
            old = keys & self._said.keys()
            new = keys - old
            if new & self._saying:
                raise SinkDown("another delivery is about to say the same: ask again")
            self._saying |= new
        said = {name for name, _ in old}
        try:
            yield [event for event in events if event.id not in said]
            with self._lock:
                self._said.update(dict.fromkeys(new))
                while len(self._said) > ASKED_LIMIT:
                    self._said.popitem(last=False)
        finally:
            with self._lock:
                self._saying -= new

    @staticmethod
    def _keys_of(events: Sequence[Event], ledger: Ledger) -> set[tuple[str, int]]:
        own = [event for event in events if event.source == "/candlemill/aggregate" and event.type in SAID_ONCE]
        jobs = ledger.job_rows(list(dict.fromkeys(event.partitionkey for event in own))) if own else {}
        started = {name: job.started_ms for name, job in jobs.items()}
        return {(event.id, started[event.partitionkey]) for event in own if event.partitionkey in started}


_asked = Asked()


# -- the world -----------------------------------------------------------------------------------------------------


class RequestIndex:
    """The store's metadata index, read once per request (a request has a thread to itself): never from an earlier
    request, or a task would be refused whose candles came a moment ago, and never twice, or its end might see other
    candles than its beginning. A symbol's days stay the same object while they are equal."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest: dict[str, list[Day]] = {}
        self._request = threading.local()

    def renew(self) -> None:
        self._request.days, self._request.funding = {}, {}

    def symbols(self) -> list[str]:
        return self._store.symbols()

    def days(self, symbol: str) -> list[Day]:
        seen: dict[str, list[Day]] = self._request.days
        if symbol not in seen:
            now = self._store.days(symbol)
            latest = self._latest.get(symbol)
            self._latest[symbol] = seen[symbol] = latest if latest is not None and latest == now else now
        return seen[symbol]

    def volume_scale(self, symbol: str) -> int:
        return self._store.volume_scale(symbol) or SCALE

    def funding(self, symbol: str) -> Funding:
        seen: dict[str, Funding] = self._request.funding
        if symbol not in seen:
            seen[symbol] = self._store.funding(symbol)
        return seen[symbol]


_made: tuple[Runtime, RequestIndex] | None = None
_lock = threading.Lock()


def runtime() -> Runtime:
    """This process's connections and strategies, made at the first request, with the index as it is now."""
    global _made
    with _lock:
        if _made is None:
            for problem in plugins.load_offered():
                log.error("%s", problem)
            store = Store(dsn())
            index = RequestIndex(store)
            _made = (Runtime(store, index, Tapes(index.days, store), clock_ms, telemetry.looked), index)
    world, index = _made
    index.renew()
    return world
