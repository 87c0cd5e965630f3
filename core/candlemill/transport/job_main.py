"""Run a long task as a Kubernetes Job: `python -m candlemill.transport.job_main`; a JobSink mounts the event as a file.

While the database or the sink is not reachable, the task is tried again with growing pauses, as long as a Broker does.
After the last try, or if a retry cannot help, the event is sent to `CANDLEMILL_DEAD_LETTERS`, as by a Broker.
Kubernetes retries only a pod that was killed.
"""

import base64
import logging
import signal
import sys
import time
from pathlib import Path

import urllib3

from candlemill.config import DEAD_LETTERS_VARIABLE, setting
from candlemill.errors import CandlemillError, SinkDown, StoreError
from candlemill.pipeline.events import Event
from candlemill.telemetry import logs
from candlemill.transport.cloudevents import decode, encode
from candlemill.transport.functions import handler
from candlemill.transport.http import handler_context
from candlemill.transport.sink import publish
from candlemill.transport.start import end_on_sigterm

EVENT_FOLDER = "/etc/jobsink-event"
PAUSES = tuple(2**k for k in range(10))  # seconds between tries: 1, 2, 4, … 512, as in knative/base/broker.yaml
TOKEN = Path("/var/run/secrets/candlemill/token")  # for the functions, if they ask for one
REASON_BYTES = 768  # as Brokers cut it to 1024 characters of base64
SECONDS = 30.0

log = logging.getLogger("candlemill")


def main() -> int:
    """Run the task. Returns exit status 0: it is done, or sent as a dead letter. Raises SinkDown if neither can be."""
    logs.setup_once()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no Ctrl-C here: a KeyboardInterrupt is the strategy's
    path = Path(setting("K_EVENT_PATH", EVENT_FOLDER)) / "event"
    event = decode({"content-type": "application/cloudevents+json"}, path.read_bytes())
    reason = ""
    for number, pause in enumerate((*PAUSES, None), 1):
        try:
            publish(handler("execute")(event, handler_context()))
            return 0
        except CandlemillError as error:
            reason = error.public
            if not (error.retryable or isinstance(error, StoreError)):
                break
            log.warning("try %d of %d of task %s: %s", number, len(PAUSES) + 1, event.id, error)
        if pause is not None:
            time.sleep(pause)
    log.error("task %s is given up: %s", event.id, reason)
    send_dead_letter(event, reason, setting(DEAD_LETTERS_VARIABLE))
    return 0


def send_dead_letter(event: Event, reason: str, address: str) -> None:
    """Send the event as a dead letter. Raises SinkDown if it is not accepted."""
    headers, body = encode(event)
    headers |= {
        "ce-knativeerrordest": "a long task",
        "ce-knativeerrorcode": "422",
        "ce-knativeerrordata": base64.b64encode(reason.encode()[:REASON_BYTES]).decode(),
    }
    if TOKEN.exists():
        headers["Authorization"] = f"Bearer {TOKEN.read_text().strip()}"
    try:
        status = urllib3.request("POST", address, body=body, headers=headers, timeout=SECONDS, retries=5).status
    except urllib3.exceptions.HTTPError as error:
        raise SinkDown(f"the dead letter was not accepted: {error}") from None
    if not 200 <= status < 300:
        raise SinkDown(f"the dead letter was not accepted: {address} answered {status}")


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main())
