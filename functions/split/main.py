"""split: a requested backtest becomes tasks, one for each slice and batch of parameter sets; a portfolio or a
walk-forward becomes jobs.

Event in:  dev.candlemill.backtest.requested.v1
Events out: dev.candlemill.slice.requested.v1, one per task that is not computed yet; of a campaign
            dev.candlemill.backtest.requested.v1, one per job

Run it alone: functions-framework --source functions/split/main.py --target main
"""

from typing import Any

from candlemill import service
from candlemill.events import Event
from candlemill.ledger import Runtime


def handle(event: Event, runtime: Runtime) -> list[Event]:
    """The function itself, the same under every transport."""
    return service.split(event, runtime)


def main(request: Any) -> Any:
    """The HTTP target (a Flask request in, a Flask response out)."""
    from candlemill.io.http import respond  # the local home needs no HTTP

    return respond(request, handle)
