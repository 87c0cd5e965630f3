"""Times jobs on a store, for `rows_reuse`: python benchmarks/extend.py STORE ROUNDS prints nanoseconds as JSON.

A job of its own process is not what is measured here: starting one takes longer than what these jobs do.
"""

import json
import sys
import time
from collections.abc import Sequence

from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import DAY_MS
from candlemill.local.runner import JobRunner, Options, run_job
from candlemill.pipeline import reuse
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.column_cache import ColumnCache
from candlemill.store.day_index import FrozenIndex
from candlemill.stored_days import Day
from data.market import SYMBOL

GRIDS: dict[int, dict[str, list[object]]] = {
    1: {},
    100: {"fast": list(range(5, 51, 5)), "slow": list(range(110, 201, 10))},
    1_000: {"fast": list(range(5, 101, 5)), "slow": list(range(110, 601, 10))},
}
COMPLETE: dict[str, Sequence[Day]] = {}
YEAR_MS = 365 * DAY_MS


def main() -> None:
    folder, rounds = sys.argv[1], int(sys.argv[2])
    with ClickHouseStore(f"chdb://{folder}") as store:
        store.keep()  # as a session and a study do
        start, end = JobRunner(store).full_span(SYMBOL)
        fees = iter(range(1, 1_000_000))  # another fee is another job, of which nothing is known
        timed(store, spec(1, start, end, next(fees)), 1)  # what only the first one pays
        extended: dict[int, list[list[int]]] = {1: [], 100: []}
        kept: dict[int, list[list[int]]] = {1: [], 1_000: []}
        for _ in range(rounds):
            for sets, times in extended.items():
                fee = next(fees)
                store.columns = ColumnCache()  # the ten years are read, as after the store was opened
                times.append([timed(store, spec(sets, start, at, fee)) for at in (end - DAY_MS, end, end)])
            for sets, times in kept.items():
                times.append([timed(store, spec(sets, end - YEAR_MS, end, next(fees)), k) for k in LIMITS])
    print(json.dumps({"extended": extended, "kept": kept}))


LIMITS = (reuse.OUTCOMES_KEPT, 0)  # with a limit of 0 nothing is looked up or kept


def spec(sets: int, start: int, end: int, fee: int) -> Spec:
    params = {} if GRIDS[sets] else {"fast": 10, "slow": 50}
    return resolve(
        symbol=SYMBOL,
        strategy="sma_cross",
        span=(start, end),
        params=params,
        grid=GRIDS[sets],
        fee=fee,
        account="units",
    )


def timed(store: ClickHouseStore, job: Spec, kept: int = reuse.OUTCOMES_KEPT) -> int:
    reuse.OUTCOMES_KEPT = kept
    begin = time.perf_counter_ns()
    run_job(JobRunner(store, FrozenIndex(store, complete=COMPLETE)), job, Options(workers=1), lambda done, known: None)
    return time.perf_counter_ns() - begin


if __name__ == "__main__":
    main()
