"""A long task as a Kubernetes Job: `python -m candlemill.io.jobtask`, with the event in the file that a JobSink mounts.

A Job that fails is tried again by Kubernetes. Where that cannot help, the event goes to `CANDLEMILL_DEAD_LETTERS`, as
a Broker sends what it gives up.
"""

import base64
import os
import sys
from pathlib import Path

import urllib3

from candlemill.errors import CandlemillError, SinkDown, StoreError
from candlemill.events import Event
from candlemill.io import logs
from candlemill.io.functions import handler
from candlemill.io.http import decode, encode, publish, runtime

EVENT_FOLDER = "/etc/jobsink-event"
REASON_BYTES = 768  # as Brokers cut it: 1024 in base64
SECONDS = 30.0


def main() -> int:
    """0 when the task is done or given up, 1 where another try may help."""
    logs.setup_once()
    path = Path(os.environ.get("K_EVENT_PATH", EVENT_FOLDER)) / "event"
    event = decode({"content-type": "application/cloudevents+json"}, path.read_bytes())
    try:
        publish(handler("execute")(event, runtime()))
    except CandlemillError as error:
        if error.retryable or isinstance(error, StoreError):
            return 1
        give_up(event, str(error), os.environ["CANDLEMILL_DEAD_LETTERS"])
    return 0


def give_up(event: Event, reason: str, address: str) -> None:
    """Send the event as a dead letter. Raises SinkDown where it is not taken."""
    headers, body = encode(event)
    headers |= {
        "ce-knativeerrordest": "a long task",
        "ce-knativeerrorcode": "422",
        "ce-knativeerrordata": base64.b64encode(reason.encode()[:REASON_BYTES]).decode(),
    }
    try:
        status = urllib3.request("POST", address, body=body, headers=headers, timeout=SECONDS, retries=5).status
    except urllib3.exceptions.HTTPError as error:
        raise SinkDown(f"dead letters are not taken: {error}") from None
    if not 200 <= status < 300:
        raise SinkDown(f"dead letters are not taken: {address} answered {status}")


if __name__ == "__main__":
    sys.exit(main())
