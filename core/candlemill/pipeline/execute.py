"""Execution of one task: load the outcomes that are known and compute the others."""

from collections.abc import Container, Sequence
from contextlib import suppress

import msgspec

from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.panel import run_panel_slice
from candlemill.backtests.slice import SliceOutcomes, run_slice
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import columns_read, context_bars, keeps_tapes
from candlemill.backtests.states import digest_of, split_state, states_of
from candlemill.errors import BadInput, BeingWritten
from candlemill.pipeline import events
from candlemill.pipeline.cache_keys import CacheKeys, JobData, PanelData
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event, SliceRequested
from candlemill.pipeline.marks import marks_of
from candlemill.pipeline.outcomes import rows_of
from candlemill.pipeline.panel_window import panel_window
from candlemill.pipeline.prepare import current_data, data_with
from candlemill.pipeline.rows import EXACT, GUESS, OutcomeRow, TaskRecord
from candlemill.pipeline.tasks import guess_ending, run_ending, task_name
from candlemill.strategies import Strategy


class Execution:
    """The work of a slice.requested event. Outcomes that are known to be stored are not computed again."""

    def __init__(self, task: SliceRequested, data: JobData, runtime: HandlerContext) -> None:
        points = list(grid_points(task.spec, task.first, task.count))
        self._task = task
        self._runtime = runtime
        self._data = data
        self._cache_keys = CacheKeys(task.spec, data, task.run)
        self._sets = self._cache_keys.of(points)
        self.strategies = {point: strategy for point, _, strategy in points}

    def guesses(self) -> list[OutcomeRow]:
        """Return the outcomes of each slice, from guessed start states."""
        stored = self._known(list(self.strategies)) if self._task.known else []
        known = {(row.set_key, row.slice_key) for row in stored}
        out: list[OutcomeRow] = []
        for k in range(len(self._task.cuts) - 1):
            missing = [p for p in self.strategies if (self._sets[p].key, self._slice_key(k, p)) not in known]
            if missing:
                out += self._rows(k, self._run(k, missing, None), True)
        return out

    def repairs(self) -> list[OutcomeRow]:
        """Compute each repair's slices in order, each from the end state of the slice before it."""
        repairs = self._task.repairs
        states = {repair.point: repair.start.encode() for repair in repairs}
        known = {(row.set_key, row.slice_key, row.start_state): row for row in self._known(list(states))}
        out: list[OutcomeRow] = []
        for k in range(len(self._task.cuts) - 1):
            number = self._task.slice + k
            todo = []
            for point in [r.point for r in repairs if r.slice <= number < r.slice + r.count]:
                row = known.get((self._sets[point].key, self._slice_key(k, point), digest_of(states[point])))
                if row is None:
                    todo.append(point)
                else:
                    states[point] = row.end_state.encode()
            if todo:
                done = self._run(k, todo, {point: states[point] for point in todo})
                states |= {outcome.point: outcome.end.encode() for outcome in done.outcomes}
                out += self._rows(k, done, False)
        return out

    def _known(self, points: Sequence[int]) -> list[OutcomeRow]:
        slices = {self._slice_key(k, point) for k in range(len(self._task.cuts) - 1) for point in points}
        keys = [self._sets[point].key for point in points]
        return self._runtime.store.outcomes(keys, self._cache_keys.code, sorted(slices))

    def _cuts(self, k: int) -> tuple[int, int]:
        return self._task.cuts[k], self._task.cuts[k + 1]

    def _slice_key(self, k: int, point: int) -> str:
        return self._cache_keys.slice_key(*self._cuts(k), self._sets[point].context).key

    def _rows(self, k: int, done: SliceOutcomes, guessed: bool) -> list[OutcomeRow]:
        return rows_of(self._cache_keys, self._sets, self._cuts(k), done, guessed)

    def _run(self, k: int, points: Sequence[int], starts: dict[int, bytes] | None) -> SliceOutcomes:
        sets = [(point, self.strategies[point]) for point in points]
        return run_sets(self._task.spec, self._data, self._runtime, self._cuts(k), sets, starts)


def run_sets(
    spec: Spec,
    data: JobData,
    runtime: HandlerContext,
    cuts: tuple[int, int],
    sets: Sequence[tuple[int, Strategy]],
    starts: dict[int, bytes] | None,
) -> SliceOutcomes:
    """Compute the outcomes of parameter sets on the slice between `cuts`, from `starts` or from guesses."""
    if spec.varies:
        spec = spec.at(cuts[0])
        sets = [(point, strategy) for point, _, strategy in grid_points(spec, 0, 1)]
    strategies = [strategy for _, strategy in sets]
    columns = columns_read(spec, strategies)
    if isinstance(data, PanelData):
        context = context_bars(spec, strategies, True)
        panel = panel_window(runtime.candles, runtime.index, spec, data, cuts, context, columns)
        return run_panel_slice(spec, panel, sets, starts)
    context = context_bars(spec, strategies, starts is not None)
    window = runtime.candles.window(spec, *cuts, context, columns)
    if spec.funding:
        funding = runtime.index.funding(spec.symbol)
        window.candles.add_funding(funding.t, funding.rate)
    if spec.marks:
        window = msgspec.structs.replace(window, marks=marks_of(runtime.candles, spec, window.candles))
    return run_slice(spec, window, sets, starts, keeps_tapes(spec))


def execute(event: Event, runtime: HandlerContext) -> list[Event]:
    """Handle slice.requested: write the task's outcomes to the store and return slice.completed."""
    task = events.read(event, events.SliceRequested)
    if task.place is None or event.work:  # of others only a few are under way when the job ends
        job = runtime.store.job(task.job_id)
        if job is not None and job.finished:
            return []
    data = data_with(runtime, task.spec, task.data_digest)
    if job_id(task.spec, data.digest) != task.job_id:
        raise BadInput(
            f"job {task.job_id[:12]} was planned by another release, or with another version of {task.spec.strategy}, "
            "than this executor has: run the same ones everywhere and request it again"
        )
    execution = Execution(task, data, runtime)
    _check_task(task, execution.strategies)
    try:
        outcomes = execution.repairs() if task.repairs else execution.guesses()
    except BeingWritten:
        with suppress(BeingWritten):
            current_data(runtime, task.spec, task.data_digest)  # refuses it for good, if the candles are others
        raise
    runtime.store.put_outcomes(outcomes)
    runtime.store.put_task_records(_log_of(task, event.id))
    completed = events.SliceCompleted(task.job_id, task.batch, task.slice, event.id, task.place)
    return [events.make("execute", events.SLICE_COMPLETED, task.job_id, completed)]


def _log_of(task: events.SliceRequested, name: str) -> list[TaskRecord]:
    """Return a finished task's log rows: one, and of repairs one for each slice."""
    if not task.repairs:
        label = task_name(task.cuts, 0, len(task.cuts) - 1, guess_ending(task.first, task.count, task.run))
        return [TaskRecord(task.job_id, task.batch, GUESS, task.slice, label)]
    numbers = sorted({number for repair in task.repairs for number in range(repair.slice, repair.slice + repair.count)})
    ending = f"/{name}{run_ending(task.run)}"
    return [
        TaskRecord(task.job_id, task.batch, EXACT, number, task_name(task.cuts, k, k + 1, ending))
        for number in numbers
        for k in [number - task.slice]
    ]


def _check_task(task: events.SliceRequested, sets: Container[int]) -> None:
    """Check what the event's schema cannot express. Raises BadInput."""
    slices = len(task.cuts) - 1
    ordered = task.cuts == sorted(set(task.cuts)) and task.spec.start <= task.cuts[0] and task.cuts[-1] <= task.spec.end
    if not ordered:
        raise BadInput(f"slice {task.slice}: cuts {task.cuts[:4]} do not bound its slices in order")
    for repair in task.repairs:
        if repair.point not in sets or not 0 <= repair.slice - task.slice <= slices - repair.count:
            raise BadInput(f"slice {task.slice}: a repair of point {repair.point}, slice {repair.slice} is outside")
        try:
            for state in states_of(repair.start.encode()):
                split_state(state)
        except ValueError:
            raise BadInput(f"slice {task.slice}: {repair.start[:40]!r} is not a state") from None
