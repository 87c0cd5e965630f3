"""execute: run one task, a batch of parameter sets over some slices. Stateless; scales from zero.

Event in:  dev.candlemill.slice.requested.v1
Events out: dev.candlemill.slice.completed.v1, after the outcomes are stored

Run it alone: functions-framework --source functions/execute/main.py --target main
"""

# ruff: noqa: E402
import gc
from typing import Any

SERVED = __name__ == "main"  # by functions-framework, whose pods start on demand
if SERVED:
    gc.disable()  # imports make no garbage: without looking for it, a seventh less is computed until a pod is ready

from candlemill.pipeline import execute
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event

if SERVED:
    gc.freeze()
    gc.enable()


def handle(event: Event, context: HandlerContext) -> list[Event]:
    """Handle one event, under every transport; returns the resulting events."""
    return execute.execute(event, context)


def main(request: Any) -> Any:
    """Handle one HTTP request: the target of functions-framework (Flask)."""
    from candlemill.transport.http import respond  # local runs need no HTTP

    return respond(request, handle)
