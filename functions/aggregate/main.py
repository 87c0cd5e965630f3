"""aggregate: verify the state at each slice boundary, request repairs of wrong guesses, merge, and write the result.

It also receives dead letters and ends their jobs as failed, continues a portfolio or a walk-forward after each of its
jobs, and restarts stalled jobs.

Event in:  dev.candlemill.slice.completed.v1, dev.candlemill.backtest.completed.v1 and .failed.v1,
           dev.candlemill.jobs.watch.v1, and dead letters of any type
Events out: dev.candlemill.slice.requested.v1 (the next task, repairs),
            dev.candlemill.backtest.completed.v1 or .failed.v1,
            dev.candlemill.backtest.requested.v1 (a workflow's next job, and stalled jobs)

Run it alone: functions-framework --source functions/aggregate/main.py --target main
"""

from typing import Any

from candlemill.pipeline import aggregate
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event


def handle(event: Event, context: HandlerContext) -> list[Event]:
    """Handle one event, under every transport; returns the resulting events."""
    return aggregate.aggregate(event, context)


def main(request: Any) -> Any:
    """Handle one HTTP request: the target of functions-framework (Flask)."""
    from candlemill.transport.http import respond  # local runs need no HTTP

    return respond(request, handle)
