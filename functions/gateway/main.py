"""gateway: the REST interface and the dashboard. Stateless: any number of instances.

Events out: dev.candlemill.backtest.requested.v1, one per job that is to run

Run it alone: K_SINK=http://broker/ CANDLEMILL_CLICKHOUSE_DSN=http://… python functions/gateway/main.py
It is an ASGI app on $PORT (8080); who may ask is said by CANDLEMILL_API_KEYS, see docs/gateway.md.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its idle threads would cost memory and start-up

from candlemill.errors import CandlemillError
from candlemill.io.gateway.service import run


def main() -> int:
    try:
        run(os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080")))
    except CandlemillError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
