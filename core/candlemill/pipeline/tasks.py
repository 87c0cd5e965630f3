"""Names, sizes and events of tasks; tasks that may exceed a request's time become Kubernetes Jobs on a cluster.

Vectorised strategies never need that: their tasks take seconds. A bar-by-bar strategy (`Stateful.step`) runs in Python,
a thousand times slower.
"""

from collections.abc import Sequence

import msgspec

from candlemill.backtests.merge import Repair
from candlemill.backtests.plan import Plan
from candlemill.backtests.spec import Spec
from candlemill.pipeline import events
from candlemill.pipeline.events import Event, Requested, SliceRequested
from candlemill.pipeline.job_state import request_of
from candlemill.pipeline.rows import JobRow
from candlemill.strategies.base import Stateful
from candlemill.strategies.registry import REGISTERED

STEP_SECONDS = 1e-6  # the simplest step takes 0.6 of that for a bar; others several times as much
LONG_TASK_SECONDS = 60.0  # a request may take 600: the estimate may be wrong by a factor of ten
LONG = "long"


def sized(event: Event, task: SliceRequested, request: Requested) -> Event:
    """Return the event, marked if its task may be long.

    A Kubernetes Job has the name of its event, and nothing starts under the name of one that failed. So the id of a
    long task takes in which attempt it is and how often it has been requested.
    """
    if task_seconds(task) <= LONG_TASK_SECONDS:
        return event
    return msgspec.structs.replace(event, work=LONG, id=f"{event.id}-{request.attempt}-{request.retry}")


def task_seconds(task: SliceRequested) -> float:
    """Estimate a task's seconds for a bar-by-bar strategy; 0 for others."""
    if not task.repairs:
        return step_seconds(task.spec, task.cuts[-1] - task.cuts[0], task.count)
    spans = (task.cuts[one.slice - task.slice + one.count] - task.cuts[one.slice - task.slice] for one in task.repairs)
    return step_seconds(task.spec, sum(spans), 1)


def step_seconds(spec: Spec, ms: float, sets: int) -> float:
    """Estimate the seconds that a bar-by-bar strategy takes for `ms` of candles and `sets` parameter sets; 0 for
    others."""
    kind = REGISTERED.get(spec.strategy)
    if kind is None or not issubclass(kind, Stateful) or kind.step is Stateful.step:
        return 0.0
    return ms / (spec.timeframe * 60_000) * sets * STEP_SECONDS


REPAIR_EVENT_POINTS = 256
REPAIR_EVENT_SLICES = 1024


def task_name(cuts: Sequence[int], first: int, last: int, ending: str) -> str:
    """Return the name of a task, or of a part of it, whose slices lie between two of the cuts."""
    return f"{cuts[first]}-{cuts[last]}{ending}"


def guess_ending(first: int, count: int, run: int) -> str:
    return f"/{first}+{count}{run_ending(run)}"


def done_ending(plan: Plan) -> str:
    return f"/{plan.slices}x{plan.batch}{run_ending(plan.run)}"


def run_ending(run: int) -> str:
    return f"@{run}" if run else ""


def repair_events(job: JobRow, spec: Spec, plan: Plan, batch: int, repairs: list[Repair]) -> list[Event]:
    """Create one task for all repairs of a batch, or several if they do not fit into one event."""
    first, count = plan.batch_points(batch)
    out = []
    waiting = _groups(sorted(repairs, key=lambda repair: (repair.slice, repair.point)))[::-1]
    while waiting:
        group = waiting.pop()
        low, high = group[0].slice, max(repair.slice + repair.count for repair in group)
        cuts = plan.cuts[low : high + 1]
        data = events.SliceRequested(job.job_id, job.data_digest, spec, batch, first, count, low, cuts, group, plan.run)
        half = len(group) // 2
        if half and len(msgspec.json.encode(data)) > events.EVENT_BYTES_LIMIT:
            waiting += [group[half:], group[:half]]
        else:
            made = events.make("aggregate", events.SLICE_REQUESTED, job.job_id, data)
            made = msgspec.structs.replace(made, since=job.started_ms)
            out.append(sized(made, data, request_of(job) or events.Requested(spec)))
    return out


def _groups(repairs: list[Repair]) -> list[list[Repair]]:
    """Group repairs into tasks: each group is limited in number and in the slices that it spans."""
    groups: list[list[Repair]] = []
    for repair in repairs:
        last = groups[-1] if groups else []
        if last and len(last) < REPAIR_EVENT_POINTS and repair.slice - last[0].slice < REPAIR_EVENT_SLICES:
            last.append(repair)
        else:
            groups.append([repair])
    return groups
