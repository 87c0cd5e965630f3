"""gateway: serve the REST interface and the dashboard. Stateless: any number of instances.

Events out: dev.candlemill.backtest.requested.v1, one per job to run

Run it alone: K_SINK=http://broker/ CANDLEMILL_CLICKHOUSE_DSN=http://… python functions/gateway/main.py
It is an ASGI app on $PORT (8080); CANDLEMILL_API_KEYS sets who has access, see docs/gateway.md.
"""

import os
import sys

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before the import of NumPy: its idle threads cost memory and start-up time

from candlemill.config import setting
from candlemill.errors import CandlemillError
from candlemill.gateway.main import run


def main() -> int:
    try:
        run(setting("HOST", "0.0.0.0"), int(setting("PORT", "8080")))
    except CandlemillError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
