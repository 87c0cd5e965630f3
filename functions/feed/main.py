"""feed: follow an exchange's candles and keep the store complete. Needs at least one replica; more are harmless.

No events. Settings come from the environment: CANDLEMILL_FEED_SYMBOLS (comma-separated), CANDLEMILL_FEED_EXCHANGE
(binance), addresses in CANDLEMILL_FEED_REST, _STREAM and _ARCHIVE, PORT (8080) for /healthz and /metrics.

Run it alone: python functions/feed/main.py
"""

import sys

from candlemill.config import dsn, is_set, setting
from candlemill.errors import BadInput, CandlemillError
from candlemill.exchanges.registry import exchange
from candlemill.feed.live import Settings
from candlemill.feed.service import run_service
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.telemetry import logs
from candlemill.transport.waiting import open_when_up


def main() -> int:
    symbols = [symbol.strip().upper() for symbol in setting("CANDLEMILL_FEED_SYMBOLS").split(",") if symbol.strip()]
    try:
        if not symbols:
            raise BadInput("CANDLEMILL_FEED_SYMBOLS names no symbol: set it to symbols such as BTCUSDT,ETHUSDT")
        adapter = exchange(
            setting("CANDLEMILL_FEED_EXCHANGE", "binance"),
            setting("CANDLEMILL_FEED_REST"),
            setting("CANDLEMILL_FEED_STREAM"),
            setting("CANDLEMILL_FEED_ARCHIVE") if is_set("CANDLEMILL_FEED_ARCHIVE") else None,
        )
        logs.setup_once()
        host, port = "0.0.0.0", int(setting("PORT", "8080"))
        store = open_when_up(lambda: ClickHouseStore(dsn()), host, port, "/livez")
        if store is not None:
            run_service(adapter, symbols, store, Settings(), host=host, port=port)
    except CandlemillError as error:
        print(f"candlemill: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
