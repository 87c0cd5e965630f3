"""Loading `functions/<name>/main.py`, the same files everywhere, and the routing between them."""

import importlib.util
import sys
from collections.abc import Callable
from functools import cache

from candlemill import events
from candlemill.events import Event
from candlemill.io import telemetry
from candlemill.io.settings import bundled
from candlemill.ledger import Runtime

Handler = Callable[[Event, Runtime], list[Event]]

# Which function a type goes to: the Triggers of knative/ say the same.
ROUTES = {
    events.REQUESTED: "split",
    events.SLICE_REQUESTED: "execute",
    events.SLICE_COMPLETED: "aggregate",
    events.COMPLETED: "aggregate",
    events.FAILED: "aggregate",
    events.WATCH: "aggregate",
}
DEAD_LETTERS = "aggregate"


def function_of(event: Event) -> str:
    """Which function an event is for; `other` for one that is for none."""
    return DEAD_LETTERS if event.error else ROUTES.get(event.type, telemetry.OTHER)


@cache
def handler(name: str) -> Handler:
    """The `handle` of `functions/<name>/main.py`, loaded by path: every file is called main. It tells what it does."""
    path = bundled("functions") / name / "main.py"
    module_name = f"candlemill_function_{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return telemetry.observed(name, module.handle)
