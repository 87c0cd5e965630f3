"""Rows about what need not be computed again: a range of ten years that grows by a day."""

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from lab import Lab, environment
from market import FIRST_OF_TEN, SYMBOL
from measure import Row, milliseconds

SETS = {"one set": {}, "100 sets": {"fast": list(range(5, 55, 5)), "slow": list(range(110, 310, 20))}}
SECONDS = 900

# In a process of its own, as embedded stores want it: each job is prepared and run by a home that knows nothing yet.
GROWING = """
import json, sys, time
from candlemill.io.jobs import Home, Options, run_job
from candlemill.io.store import Store
from candlemill.model import parse_range, resolve
told = json.load(sys.stdin)
def seconds(store, last, fee):
    spec = resolve(symbol=told["symbol"], strategy="sma_cross", span=parse_range(f"{told['first']}-01-01..{last}"),
                   params={} if told["grid"] else {"fast": 10, "slow": 50}, grid=told["grid"], fee=fee)
    begin = time.perf_counter_ns()
    run_job(Home(store), spec, Options(workers=1), lambda done, known: None)
    return time.perf_counter_ns() - begin
with Store(told["dsn"]) as store:
    seconds(store, f"{told['first']}-02-01", 999)
    print(json.dumps([[seconds(store, told["last"][k], fee) for k in (0, 1)] for fee in told["fees"]]))
"""


def rows_reuse(lab: Lab) -> Iterator[Row]:
    """Ten years of minutes and then a day more, beside the ten years."""
    last = FIRST_OF_TEN + 9
    for what, grid in SETS.items():
        asked = {
            "dsn": f"chdb://{lab.ten_years_store}",
            "symbol": SYMBOL,
            "first": FIRST_OF_TEN,
            "last": [f"{last}-12-30", f"{last}-12-31"],
            "grid": grid,
            "fees": list(range(1, 1 + lab.rounds(9))),  # another fee is another job
        }
        command = [sys.executable, "-c", GROWING]
        done = subprocess.run(
            command, input=json.dumps(asked), env=environment(lab.ten_years_store), capture_output=True, text=True,
            timeout=SECONDS, check=True,
        )  # fmt: skip
        pairs = json.loads(done.stdout)
        whole, day = (int(median(pair[k] for pair in pairs)) for k in (0, 1))
        share = median(pair[1] / pair[0] for pair in pairs)
        name = f"reuse: ten years and a day more, {what}"
        yield Row(name, milliseconds(day), f"whole {milliseconds(whole)}", share, "<= 0.05 x", "", {"pairs": pairs})
