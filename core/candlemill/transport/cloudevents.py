"""Conversion of CloudEvents from and to HTTP requests, in binary and structured mode."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from cloudevents.conversion import to_binary
from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent, from_http

from candlemill.errors import BadInput
from candlemill.pipeline.events import EVENT_BYTES_LIMIT, Event
from candlemill.telemetry import tracing

BODY_LIMIT = 2 * EVENT_BYTES_LIMIT  # structured events have their data in base64 or with whitespace
ATTRIBUTE_LIMIT = 256
REQUIRED_HEADERS = ("ce-specversion", "ce-id", "ce-source", "ce-type")
ERRORS = ("dest", "code", "data")  # attributes of a dead letter, after `knativeerror`
UNANSWERED = frozenset({"-1", "0", "429", "502", "504"})  # codes of dead letters; 503 may be a function's
DETAIL_LIMIT = 500  # characters of an error's text, in responses and in reasons

# A PingSource cannot choose the type of its events. The Trigger accepts only those of knative/base/watch.yaml.
ALIASES = {"dev.knative.sources.ping": "dev.candlemill.jobs.watch.v1"}


def bounded_line(text: str) -> str:
    """Reduce a text to one line of at most DETAIL_LIMIT printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * DETAIL_LIMIT]).split())
    return line if len(line) <= DETAIL_LIMIT else line[: DETAIL_LIMIT - 1] + "…"


def decode(headers: Mapping[str, str], body: bytes) -> Event:
    """Parse a CloudEvent from an HTTP request. Raises BadInput for other requests.

    Data must be JSON, except in a dead letter, which may have failed for that reason.
    """
    if len(body) > BODY_LIMIT:
        raise BadInput(f"the body has {len(body):,} bytes, the limit is {BODY_LIMIT:,}")
    names = {name.lower(): value for name, value in headers.items()}
    kind = names.get("content-type", "").partition(";")[0].strip().lower()
    traceparent_header = names.get("traceparent", "")
    if kind.startswith("application/cloudevents") and kind != "application/cloudevents+json":
        raise BadInput(f"not a CloudEvent in binary or structured mode: {kind} is not supported")
    if kind == "application/cloudevents+json":
        names = {"content-type": kind}  # all attributes are in the body
    elif missing := [name for name in REQUIRED_HEADERS if name not in names]:
        raise BadInput(
            f"not a CloudEvent: there is neither {missing[0]} nor the content type application/cloudevents+json"
        )
    names = {name: unquote(value) for name, value in names.items()}  # the HTTP binding percent-encodes header values
    try:
        found = from_http(names, body, data_unmarshaller=lambda data: data)
    except (GenericException, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"not a CloudEvent: {bounded_line(str(error)) or type(error).__name__}") from None
    attributes = found.get_attributes()
    event = Event(
        id=_attribute(attributes, "id"),
        source=_attribute(attributes, "source"),
        type=ALIASES.get(kind := _attribute(attributes, "type"), kind),
        data=_data(found.get_data()),
        partitionkey=_attribute(attributes, "partitionkey", required=False),
        work=_attribute(attributes, "work", required=False),
        traceparent=tracing.valid(str(attributes.get("traceparent", ""))) or tracing.valid(traceparent_header),
        error=_dead_letter_reason(attributes),
        unanswered=_is_unanswered(attributes),
    )
    if not event.error:
        _check_json(event)
    return event


def is_dead_letter(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a request brings a dead letter, even if it cannot be decoded."""
    names = {name.lower() for name in headers}
    return any(f"ce-knativeerror{name}" in names for name in ERRORS) or (
        "ce-id" not in names and any(f'"knativeerror{name}"'.encode() in body for name in ERRORS)
    )


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
        raise BadInput(f"event {event.id}: the data is not JSON: {bounded_line(str(error))}") from None


def _dead_letter_reason(attributes: Mapping[str, Any]) -> str:
    """Reason why the Broker stopped delivering an event; empty for an ordinary event."""
    dest, code, data = (attributes.get(f"knativeerror{name}") for name in ERRORS)
    if dest is None and code is None and data is None:
        return ""
    summary = f"{dest or 'a function'} answered {code or 'with an error'}"
    detail = _error_detail(str(data or ""))
    return bounded_line(f"{summary}: {detail}" if detail else summary)


def _is_unanswered(attributes: Mapping[str, Any]) -> bool:
    """Whether a dead letter was given up without an answer of a function: Knative's queues were full or too slow.

    Serving's activator answers 503 when its queue is full and 504 when a request has waited for `timeoutSeconds`;
    Eventing gives the code -1 where nothing answered. A function's own 503 says why as `application/problem+json`.
    """
    code, data = (str(attributes.get(f"knativeerror{name}", "")) for name in ("code", "data"))
    return code in UNANSWERED or (code == "503" and not _problem(data))


def _error_detail(data: str) -> str:
    """Text of an error's body: base64, cut to 1024 characters, or plain text from older Brokers."""
    detail = _problem(data).get("detail")
    return detail if isinstance(detail, str) else _error_text(data)


def _problem(data: str) -> dict[str, Any]:
    """An error's body as a problem of ours; empty if it is something else."""
    try:
        problem = json.loads(_error_text(data))
    except (ValueError, RecursionError):
        return {}
    return problem if isinstance(problem, dict) else {}


def _error_text(data: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", data):
        try:
            return base64.b64decode(data[: len(data) // 4 * 4]).decode(errors="ignore")
        except binascii.Error:
            return data
    return data


def encode(event: Event) -> tuple[dict[str, str], bytes]:
    """Return headers and body of an event in binary mode."""
    attributes = {
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "datacontenttype": "application/json",
    }
    for name in ("partitionkey", "work", "traceparent"):
        if value := getattr(event, name):  # an attribute may be absent, but not empty
            attributes[name] = value
    headers, body = to_binary(CloudEvent(attributes, event.data), data_marshaller=lambda data: data)
    return headers, body
