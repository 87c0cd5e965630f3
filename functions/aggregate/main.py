"""aggregate: checks every hand-over of state, has wrong guesses repaired, merges, writes the result row.

It is also where dead letters go, a job that cannot finish ends as failed, with its reason; where a portfolio or a
walk-forward goes on when one of its jobs has ended; and where jobs are found that nothing is heard of.

Event in:  dev.candlemill.slice.completed.v1, dev.candlemill.backtest.completed.v1 and .failed.v1,
           dev.candlemill.jobs.watch.v1, and dead letters of any type
Events out: dev.candlemill.slice.requested.v1 (repairs), dev.candlemill.backtest.completed.v1 or .failed.v1,
            dev.candlemill.backtest.requested.v1 (a campaign's next job, and jobs that are driven on)

Run it alone: functions-framework --source functions/aggregate/main.py --target main
"""

from typing import Any

from candlemill import service
from candlemill.events import Event
from candlemill.ledger import Runtime


def handle(event: Event, runtime: Runtime) -> list[Event]:
    """The function itself, the same under every transport."""
    return service.aggregate(event, runtime)


def main(request: Any) -> Any:
    """The HTTP target (a Flask request in, a Flask response out)."""
    from candlemill.io.http import respond  # the local home needs no HTTP

    return respond(request, handle)
