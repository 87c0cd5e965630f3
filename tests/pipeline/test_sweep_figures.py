"""Guards of sweeps: what merged batches leave adds up to the guards of all results."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.backtests.daily import pack
from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.plan import Plan
from candlemill.backtests.resolve import resolve
from candlemill.errors import StoreDown
from candlemill.guards import matrix
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.rows import JobRow, ResultRow, scores_of
from candlemill.pipeline.sweep_figures import part_of, sweep_figures
from hypothesis import given, settings

START, DAY_MS, DAYS = 1_609_459_200_000, 86_400_000, 60
SPEC = resolve(
    symbol="X",
    strategy="sma_cross",
    span=(START, START + DAYS * DAY_MS),
    params={},
    grid={"fast": [2, 3, 4, 5], "slow": [3, 4, 5, 9]},  # some points are no sets
    account="units",
)
JOB = JobRow("j" * 32, "merging", "", "", "d" * 64, 0)


class Results:
    """A store with a sweep's results, and what its batches have left."""

    def __init__(self, rows: list[ResultRow], parts: dict[int, str]) -> None:
        self._rows, self._parts = rows, parts

    def sweep_parts(self, sweep: str, merged: str) -> dict[int, str]:
        return self._parts

    def sweep_scores(self, sweep: str) -> Any:
        return scores_of(self._rows)

    def sweep_daily(self, sweep: str, ids: list[str]) -> dict[str, str]:
        return {row.job_id: row.daily for row in self._rows if row.job_id in ids}


def results(seed: int) -> list[ResultRow]:
    random = np.random.default_rng(seed)
    rows = []
    for number, params, _ in grid_points(SPEC, 0, SPEC.combinations):
        profits = random.integers(-(10**12), 10**12, DAYS) * random.integers(0, 2)  # some never trade
        score = int(random.integers(-3, 3))  # few values, so that many sets are equally good
        own, daily = job_id(SPEC.single(params), JOB.data_digest), pack(list(range(DAYS)), profits.tolist())
        rows.append(ResultRow(own, "sma_cross", 0, score, 0, 0, JOB.job_id, "", daily, number))
    return rows


def guards(rows: list[ResultRow], parts: dict[int, str], batch: int) -> str:
    runtime: Any = HandlerContext(Results(rows, parts), None, None, lambda: 0)  # type: ignore[arg-type]
    return sweep_figures(JOB, SPEC, Plan([SPEC.start, SPEC.end], batch, SPEC.combinations, DAYS), runtime)


@settings(max_examples=60)
@given(st.integers(0, 1 << 20), st.integers(1, 16), st.integers(1, 16))
def test_parts_give_the_guards_of_all_results(seed: int, batch: int, limit: int) -> None:
    rows = results(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix, "SETS_LIMIT", limit)
        numbers = range(-(-SPEC.combinations // batch))
        parts = {k: part_of(SPEC, [row for row in rows if row.number // batch == k]) for k in numbers}
        expected = guards(rows, dict.fromkeys(numbers, ""), batch)
        assert expected.startswith('{"best"')
        assert guards(rows, parts, batch) == expected
        assert guards(rows, parts | {0: ""}, batch) == expected  # one batch was merged by an earlier release
    del parts[0]
    with pytest.raises(StoreDown):  # a replica lags
        guards(rows, parts, batch)
