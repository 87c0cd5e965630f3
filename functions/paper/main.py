"""paper: decide on candles as the feed stores them, and publish the decisions to K_SINK. Needs one replica.

No events come in. Settings come from the environment: CANDLEMILL_PAPER_REQUEST, a request as of POST /api/v1/backtest
without a range; CANDLEMILL_PAPER_FROM; PORT (8080) for /healthz and /metrics. No order is ever placed.

Run it alone: python functions/paper/main.py
"""

import sys

from candlemill.config import dsn, setting
from candlemill.errors import CandlemillError
from candlemill.paper.request import order_of
from candlemill.paper.service import run_beside_store
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.telemetry import logs
from candlemill.transport.waiting import open_when_up

HANDED_OVER_SECONDS = 600.0  # longer than the end of an old revision's pod takes


def main() -> int:
    try:
        logs.setup_once()
        order = order_of(setting("CANDLEMILL_PAPER_REQUEST"), setting("CANDLEMILL_PAPER_FROM"), setting("K_SINK"))
        host, port = "0.0.0.0", int(setting("PORT", "8080"))
        store = open_when_up(lambda: ClickHouseStore(dsn()), host, port, "/livez")
        if store is not None:
            with store:
                run_beside_store(
                    store, order, lambda rows: None, host=host, port=port, handed_over_seconds=HANDED_OVER_SECONDS
                )
    except CandlemillError as error:
        print(f"candlemill: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
