"""Publish events to `K_SINK` in parallel."""

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import urllib3

from candlemill.config import setting
from candlemill.errors import SinkDown
from candlemill.pipeline.events import Event
from candlemill.telemetry import instrument, tracing
from candlemill.transport.cloudevents import bounded_line, encode

PUBLISH_THREADS = 16  # per process
PUBLISH_SECONDS = 30
PUBLISH_RETRIES = 3
TOKEN = Path("/oidc/token")  # identity of the sender, if Eventing requires it; a SinkBinding mounts and renews it
_retries = urllib3.Retry(
    PUBLISH_RETRIES,
    redirect=False,
    allowed_methods=None,  # events are idempotent
    status_forcelist=[429, 502, 503, 504],
    backoff_factor=0.2,
    raise_on_status=False,
)
_sink = urllib3.PoolManager(maxsize=PUBLISH_THREADS, timeout=PUBLISH_SECONDS, retries=_retries)
_publishers = ThreadPoolExecutor(PUBLISH_THREADS, "publish")  # threads start on demand


def publish(events: Sequence[Event]) -> None:
    """POST events to `K_SINK` in parallel. Raises SinkDown unless all are accepted.

    An in-memory channel responds only after its subscribers, so sequential requests would take the sum of their times.
    """
    if not events:
        return
    with tracing.inside("publish", "producer", {"candlemill.pipeline.events": len(events)}):
        _publish(events)


def _publish(events: Sequence[Event]) -> None:
    sink = setting("K_SINK")
    if not sink:
        raise SinkDown("K_SINK is not set: set it to the address that receives events")
    if len(events) == 1:
        post(sink, events[0])
        return
    sent = [_publishers.submit(post, sink, event) for event in events]
    done, waiting = wait(sent, return_when=FIRST_EXCEPTION)
    for one in waiting:  # after a failure, the Broker's retry publishes all of them again
        one.cancel()
    for one in done:
        one.result()


def post(sink: str, event: Event) -> None:
    """POST one event to an address, with a few retries. Raises SinkDown unless it is accepted."""
    headers, body = encode(event)
    if TOKEN.exists():
        headers["Authorization"] = f"Bearer {TOKEN.read_text().strip()}"
    try:
        status = _sink.request("POST", sink, body=body, headers=headers).status
    except urllib3.exceptions.HTTPError as error:
        raise _sink_down(f"the event sink does not answer: {bounded_line(str(error))}") from None
    if not 200 <= status < 300:
        raise _sink_down(f"the event sink answered {status} to a {event.type}")


def _sink_down(reason: str) -> SinkDown:
    instrument.SINK_ERRORS.add()
    return SinkDown(reason)
