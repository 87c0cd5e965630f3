"""Numbers of candles of a job's ranges, against sums over its days."""

from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.pipeline.cache_keys import JobData
from candlemill.stored_days import Day
from hypothesis import given
from hypothesis import strategies as st

MINUTES = DAY_MS // MINUTE_MS
DAYS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, MINUTES - 1), st.integers(0, MINUTES - 1)), unique_by=lambda day: day[0]
)
TIMES = st.tuples(st.integers(-1, 10 * MINUTES), st.integers(0, 11 * MINUTES)).filter(lambda span: span[0] < span[1])


@given(DAYS, TIMES, TIMES, st.booleans())
def test_bars_of_a_range(
    drawn: list[tuple[int, int, int]], job: tuple[int, int], span: tuple[int, int], before: bool
) -> None:
    """At least the candles of its whole days, at most those of all that it touches; none outside the job's days."""
    days = []
    for number, one, other in sorted(drawn):
        first, last = sorted((one, other))
        at = number * DAY_MS
        days.append(Day(at, last - first + 1, at + first * MINUTE_MS, at + last * MINUTE_MS, "counted"))
    start, end = (minute * MINUTE_MS for minute in span)
    job_start, job_end = (minute * MINUTE_MS for minute in job)
    of_job = [day for day in days if day.start + DAY_MS > job_start and day.start < job_end]
    touched = [day for day in of_job if day.start + DAY_MS > start and day.start < end]
    whole = [day for day in touched if start <= day.first and day.last < end]
    found = JobData(days, None, job_start, job_end, before).bars(start, end)
    assert found == (sum(day.rows for day in whole), sum(day.rows for day in touched))
