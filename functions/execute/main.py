"""execute: one task, some parameter sets over one slice. Stateless; scales from zero to many.

Event in:  dev.candlemill.slice.requested.v1
Events out: dev.candlemill.slice.completed.v1, after the partial results are in the store

Run it alone: functions-framework --source functions/execute/main.py --target main
"""

from typing import Any

from candlemill import service
from candlemill.events import Event
from candlemill.ledger import Runtime


def handle(event: Event, runtime: Runtime) -> list[Event]:
    """The function itself, the same under every transport."""
    return service.execute(event, runtime)


def main(request: Any) -> Any:
    """The HTTP target (a Flask request in, a Flask response out)."""
    from candlemill.io.http import respond  # the local home needs no HTTP

    return respond(request, handle)
