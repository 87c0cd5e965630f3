"""Waves: hand out a job's tasks, as many at once as executors can have under way; the end of one sets off another.

split writes into the plan what is to do, in a fixed order, and how many *lanes* there are. It requests the tasks of the
first places, one for each lane; when that of place p is done, aggregate requests that of place p + lanes. So nothing is
counted and nothing is remembered: a copy of an event leads to a copy of the same event (which is not published twice,
see `PublishDeduplicator`), and a lost one holds up one lane. The watch finds that, and split begins new lanes with what
is missing then.

Lanes are handed out as shares of shares, so that nobody publishes many events for one.

The tasks of a batch do not run side by side: they would end together, and everyone who hears of one of them would find
the batch complete, and merge it. So some batches take turns: the first task of each, then the second of each.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

import msgspec

from candlemill.backtests.plan import READ_SECONDS, SET_SECONDS, Plan
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import sees_panel
from candlemill.pipeline import events
from candlemill.pipeline.context import Waves
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import request_of
from candlemill.pipeline.reuse import reusable
from candlemill.pipeline.rows import JobRow
from candlemill.pipeline.tasks import sized, step_seconds

EVENTS_AT_ONCE = 128  # at most, for one event
GROUP_SLICES = 256  # of one task at most: its event names their bounds
GROUP_OUTCOMES = 8_192  # of one task at most: they are held in memory
RANGES_KEPT = 256  # in a plan, which is read with each event
TURNS = 8  # a batch's next task starts when so small a share of the lanes has been handed out since the one before

Range = tuple[int, int]


def grouped(spec: Spec, plan: Plan, waves: Waves | None) -> Plan:
    """Return the plan with the size of its tasks and the number of its lanes. Of a panel only a batch's first slice is
    a task: nobody can guess how the others start, and aggregate requests them in order."""
    lanes = waves.tasks if waves else 0
    if sees_panel(spec.strategy):
        return msgspec.structs.replace(plan, group=plan.slices, lanes=lanes)
    group = 1
    if waves is not None:
        sets = min(plan.batch, plan.points)
        bars = plan.bars / plan.slices
        seconds = bars * (READ_SECONDS + sets * SET_SECONDS) + step_seconds(spec, bars * 60_000, sets)
        fitting = int(waves.seconds / seconds) if seconds else plan.slices
        group = max(1, min(fitting, GROUP_SLICES, GROUP_OUTCOMES // sets, plan.slices))
    return msgspec.structs.replace(plan, group=group, lanes=lanes)


def ranges_of(numbers: Iterable[int], most: int | None = None) -> list[Range]:
    """Return ascending numbers as ranges; with `most`, not more than so many, by including the shortest gaps."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1][1] = number + 1
        else:
            found.append([number, number + 1])
    if most is not None and len(found) > most:
        gaps = sorted(range(1, len(found)), key=lambda k: found[k - 1][1] - found[k][0])
        firsts = [0, *sorted(gaps[: most - 1]), len(found)]
        found = [[found[a][0], found[b - 1][1]] for a, b in pairwise(firsts)]
    return [(first, last) for first, last in found]


def with_todo(plan: Plan, todo: Sequence[int], checks: Sequence[int]) -> Plan:
    """Return the plan with the tasks to run and the batches to merge, both ascending. A task that is done may be among
    the former: it takes an executor a moment. Without any, a batch is checked, so that the job ends."""
    most = RANGES_KEPT if plan.lanes else None
    left = checks if todo or checks else [0]
    return msgspec.structs.replace(plan, todo=ranges_of(todo, most), checks=ranges_of(left, most))


def first_wave(job: JobRow, spec: Spec, plan: Plan) -> list[Event]:
    """Return the events that begin a job's lanes."""
    return handed_out(job, spec, plan, 0, plan.lanes or _length(plan.todo) + _length(plan.checks))


def next_task(job: JobRow, spec: Spec, plan: Plan, place: int | None) -> list[Event]:
    """Return the event that follows in its lane when what `place` names is done."""
    if place is None or not plan.lanes:
        return []
    return handed_out(job, spec, plan, place + plan.lanes, place + plan.lanes + 1)


def handed_out(job: JobRow, spec: Spec, plan: Plan, first: int, last: int) -> list[Event]:
    """Return the events of the places `first` to `last - 1` of a plan's tasks and checks, or requests for shares."""
    last = min(last, _length(plan.todo) + _length(plan.checks))
    if plan.lanes and last - first > EVENTS_AT_ONCE:
        width = share_width(last - first)
        shares = [events.TasksRequested(job.job_id, at, min(at + width, last)) for at in range(first, last, width)]
        return [_made(job, events.TASKS_REQUESTED, share) for share in shares]
    return [_event(job, spec, plan, place, number) for place, number in enumerate(_numbers(plan, first, last), first)]


def share_width(places: int) -> int:
    """Return the size of shares that are handed out in few steps, with about as many events in each."""
    steps = 2
    while EVENTS_AT_ONCE**steps < places:
        steps += 1
    events_each = math.ceil(math.pow(places, 1 / steps))
    return math.ceil(places / min(EVENTS_AT_ONCE, events_each))


def _event(job: JobRow, spec: Spec, plan: Plan, place: int, number: int) -> Event:
    if place >= _length(plan.todo):
        check = events.SliceCompleted(job.job_id, number, 0, "", place)
        return _made(job, events.SLICE_COMPLETED, check)
    batch, part = divmod(number, plan.batch_tasks)
    cuts = task_cuts(spec, plan, part)
    first, count = plan.batch_points(batch)
    task = events.SliceRequested(
        job.job_id, job.data_digest, spec, batch, first, count, part * plan.group, cuts,
        run=plan.run, place=place if plan.lanes else None, known=reusable(plan),
    )  # fmt: skip
    return sized(_made(job, events.SLICE_REQUESTED, task), task, request_of(job) or events.Requested(spec))


def _made(job: JobRow, kind: str, data: msgspec.Struct) -> Event:
    return msgspec.structs.replace(events.make("split", kind, job.job_id, data), since=job.started_ms)


def task_cuts(spec: Spec, plan: Plan, part: int) -> list[int]:
    """Return the bounds of the slices of a batch's task number `part`."""
    first = part * plan.group
    return plan.cuts[first : first + (1 if sees_panel(spec.strategy) else plan.group) + 1]


def _length(ranges: Sequence[Range]) -> int:
    return sum(last - first for first, last in ranges)


def _numbers(plan: Plan, first: int, last: int) -> Iterator[int]:
    """Yield what is at the places `first` to `last - 1`: numbers of tasks, then of batches to check."""
    ranges = (*plan.todo, *plan.checks)
    before = [0, *accumulate(high - low for low, high in ranges)]
    tasks = _length(plan.todo)
    for place in range(first, last):
        at = in_turns(place, tasks, plan.batch_tasks, plan.lanes) if place < tasks else place
        k = bisect_right(before, at) - 1
        yield ranges[k][0] + at - before[k]


def in_turns(place: int, tasks: int, batch_tasks: int, lanes: int) -> int:
    """Return which of the `tasks`, in the order of their numbers, is at a place. Without lanes, or with few: the one of
    that number. Every `lanes // TURNS` batches take turns."""
    block = max(1, lanes // TURNS) * batch_tasks
    start = place // block * block
    size = min(block, tasks - start)
    rounds, longer = divmod(size, batch_tasks)  # the first `longer` parts are those of one batch more
    at = place - start
    if at < longer * (rounds + 1):
        part, batch = divmod(at, rounds + 1)
    else:
        part, batch = divmod(at - longer * (rounds + 1), rounds)
        part += longer
    return start + batch * batch_tasks + part
