"""split: divide a requested backtest into tasks, one per slice and batch of parameter sets, and a portfolio or a
walk-forward into jobs.

Event in:  dev.candlemill.backtest.requested.v1, dev.candlemill.tasks.requested.v1 (a share of a large job)
Events out: dev.candlemill.slice.requested.v1, for the first tasks that are not computed yet, or
            dev.candlemill.tasks.requested.v1, if these are many; dev.candlemill.slice.completed.v1 for parts that are
            known; for a workflow dev.candlemill.backtest.requested.v1, one per job

Run it alone: functions-framework --source functions/split/main.py --target main
"""

from typing import Any

from candlemill.pipeline import split
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event


def handle(event: Event, context: HandlerContext) -> list[Event]:
    """Handle one event, under every transport; returns the resulting events."""
    return split.split(event, context)


def main(request: Any) -> Any:
    """Handle one HTTP request: the target of functions-framework (Flask)."""
    from candlemill.transport.http import respond  # local runs need no HTTP

    return respond(request, handle)
