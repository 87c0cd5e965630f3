"""feed: follows an exchange's candles and keeps the store complete. Always on: one replica at least, more do no harm.

No events. Settings come from the environment: CANDLEMILL_FEED_SYMBOLS (comma-separated), CANDLEMILL_FEED_EXCHANGE
(binance), addresses in CANDLEMILL_FEED_REST, _STREAM and _ARCHIVE, PORT (8080) for /healthz and /metrics.

Run it alone: python functions/feed/main.py
"""

import os
import sys

from candlemill.errors import BadInput, CandlemillError
from candlemill.exchanges import exchange
from candlemill.io.feed import Settings
from candlemill.io.feedservice import run_service
from candlemill.io.settings import dsn


def main() -> int:
    given = os.environ.get
    symbols = [symbol.strip().upper() for symbol in given("CANDLEMILL_FEED_SYMBOLS", "").split(",") if symbol.strip()]
    try:
        if not symbols:
            raise BadInput("CANDLEMILL_FEED_SYMBOLS names no symbol: set it to something like BTCUSDT,ETHUSDT")
        adapter = exchange(
            given("CANDLEMILL_FEED_EXCHANGE", "binance"),
            given("CANDLEMILL_FEED_REST", ""),
            given("CANDLEMILL_FEED_STREAM", ""),
            given("CANDLEMILL_FEED_ARCHIVE"),
        )
        run_service(adapter, symbols, dsn(), Settings(), host="0.0.0.0", port=int(given("PORT", "8080")))
    except CandlemillError as error:
        print(f"candlemill: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
