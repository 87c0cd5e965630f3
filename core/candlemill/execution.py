"""One task under way: which of its outcomes there are already, and the others computed."""

from collections.abc import Sequence

from candlemill.addresses import Addresses, Ground
from candlemill.events import SliceRequested
from candlemill.ledger import OutcomeRow, Runtime
from candlemill.model import grid_points
from candlemill.outcomes import rows_of
from candlemill.work import Done, columns_read, context_bars, digest_of, run_task


class Execution:
    """A slice.requested event's work. What somebody has computed since it was asked for is not computed again."""

    def __init__(self, task: SliceRequested, ground: Ground, runtime: Runtime) -> None:
        points = list(grid_points(task.spec, task.first, task.count))
        self._task = task
        self._runtime = runtime
        self._addresses = Addresses(task.spec, ground, task.run)
        self._sets = self._addresses.of(points)
        self.strategies = {point: strategy for point, _, strategy in points}

    def guesses(self) -> list[OutcomeRow]:
        """The outcomes of the sets that are asked for, from guessed starts."""
        chosen = [point for point in self.strategies if self._task.asks_for(point)]
        known = {row.set_key for row in self._known(chosen)}
        missing = [point for point in chosen if self._sets[point].key not in known]
        return self._rows(0, self._run(0, missing, None), True) if missing else []

    def repairs(self) -> list[OutcomeRow]:
        """Each repair's slices in order, every one from the state that the one before it ended in."""
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
        return self._runtime.ledger.outcomes(keys, self._addresses.code, sorted(slices))

    def _cuts(self, k: int) -> tuple[int, int]:
        return self._task.cuts[k], self._task.cuts[k + 1]

    def _slice_key(self, k: int, point: int) -> str:
        return self._addresses.place(*self._cuts(k), self._sets[point].context).key

    def _rows(self, k: int, done: Done, guessed: bool) -> list[OutcomeRow]:
        return rows_of(self._addresses, self._sets, self._cuts(k), done, guessed)

    def _run(self, k: int, points: Sequence[int], starts: dict[int, bytes] | None) -> Done:
        spec = self._task.spec
        strategies = [self.strategies[point] for point in points]
        context = context_bars(spec, strategies, starts is not None)
        window = self._runtime.tapes.window(spec, *self._cuts(k), context, columns_read(spec, strategies))
        if spec.funding:
            funding = self._runtime.index.funding(spec.symbol)
            window.tape.add_funding(funding.t, funding.rate)
        return run_task(spec, window, list(zip(points, strategies, strict=True)), starts)
