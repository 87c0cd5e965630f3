"""Loading of `functions/<name>/main.py`, and routing of events between the functions."""

import importlib.util
import sys
from collections.abc import Callable
from functools import cache

from candlemill.config import bundled
from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.telemetry import instrument

Handler = Callable[[Event, HandlerContext], list[Event]]

# Function of each event type, as in the Triggers of knative/base/triggers.yaml.
ROUTES = {
    events.REQUESTED: "split",
    events.TASKS_REQUESTED: "split",
    events.SLICE_REQUESTED: "execute",
    events.SLICE_COMPLETED: "aggregate",
    events.COMPLETED: "aggregate",
    events.FAILED: "aggregate",
    events.WATCH: "aggregate",
}
DEAD_LETTERS = "aggregate"


def function_of(event: Event) -> str:
    """Name of the function that handles an event; `other` for an unknown type."""
    return DEAD_LETTERS if event.error else ROUTES.get(event.type, instrument.OTHER)


def deliver(event: Event, context: HandlerContext) -> list[Event]:
    """Have an event handled by its function, as the Triggers do; return the events that follow."""
    return handler(function_of(event))(event, context)


@cache
def handler(name: str) -> Handler:
    """Load `handle` of `functions/<name>/main.py`, with logging, metrics and tracing."""
    path = bundled("functions") / name / "main.py"
    module_name = f"candlemill_function_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return instrument.observed(name, module.handle)
