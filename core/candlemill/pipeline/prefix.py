"""Merged prefixes: the slices at the beginning of a job as one slice, for jobs whose range grows.

The outcome of a prefix is one more row of `slice_outcomes`, with the cache key of the slice from the job's start to a
month's start. So it is found only with the same set, candles and code, and a job that finds it reads one row for each
set instead of one for each slice.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from candlemill.backtests.merge import Outcomes, merged_prefix
from candlemill.backtests.plan import Plan
from candlemill.backtests.slice import SliceOutcomes
from candlemill.pipeline.cache_keys import CacheKeys, ParamSetKey
from candlemill.pipeline.outcomes import rows_of
from candlemill.pipeline.reuse import reusable
from candlemill.pipeline.rows import OutcomeRow

PREFIX_SLICES = 8  # slices from which on a prefix is kept: fewer are read as fast


def prefix_rows(
    cache_keys: CacheKeys, sets: Mapping[int, ParamSetKey], plan: Plan, outcomes: Outcomes
) -> list[OutcomeRow]:
    """Return the outcomes to store of merged sets on the plan's prefix, which ends where later jobs are cut too."""
    ends = [k for k in range(PREFIX_SLICES, plan.slices) if _is_month_start(plan.cuts[k])]
    if not ends or not reusable(plan):
        return []
    found = [one for point in sets if (one := merged_prefix(outcomes, point, ends[-1])) is not None]
    if not found:
        return []
    done = SliceOutcomes(outcomes.days(ends[-1]).tolist(), found)
    return rows_of(cache_keys, sets, (plan.cuts[0], plan.cuts[ends[-1]]), done, True)


def _is_month_start(ms: int) -> bool:
    return datetime.fromtimestamp(ms / 1000, UTC).day == 1
