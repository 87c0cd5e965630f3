"""One task: some parameter sets over one slice. A pure function of bars, parameters and start states."""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from candlemill.backtests.gaps import gap_bars, gap_profit
from candlemill.backtests.margin import margin_account, settling_of
from candlemill.backtests.recording import Recording
from candlemill.backtests.single import run_cash
from candlemill.backtests.single_orders import account_before, account_for_orders
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import account_rules, rules_of, sizing_of, walks_minutes
from candlemill.backtests.states import COLD, HALVES, digest_of, digest_of_both, join_state, split_state, states_of
from candlemill.backtests.tapes import packed, tape_of
from candlemill.backtests.unit_orders import units_for_orders
from candlemill.engine.account import COMPOUND, run_account
from candlemill.engine.candles import Bars, CandleColumns, k_minute_bars
from candlemill.engine.fills import Fills
from candlemill.engine.ranges import prepare_falls, ranges_of
from candlemill.engine.signals import BitReader, Bits, Desired, PositionChanges, changes_of
from candlemill.engine.simulate import run
from candlemill.engine.summary import CarriedState, Summary
from candlemill.engine.unstopped import is_unstopped, state_after
from candlemill.errors import BadInput, TooLarge
from candlemill.strategies import OrderStrategy, Strategy, Weighted
from candlemill.strategies.base import blamed, decided, lookback_of, warm_up_of
from candlemill.strategies.orders import SEPARATOR, decide_fills, exposure_of, waiting_since

PATHS = ("worst", "best")  # what `path=both` runs, in this order
SUMMARY_WIDTH = len(Summary().to_list())
SHARED_SETS = 4  # from this many sets on, their common data is computed beforehand
TOGETHER_SETS = 128  # at most, whose decisions are in memory at once: 8 MB of a year

FLAT = CarriedState()


class SliceWindow(msgspec.Struct, frozen=True):
    """Slice and its context: bars `lo` to `hi - 1` of `candles` are the slice.

    The bars before it are context; the bars after it complete its last k-bar. `cold` says that the candles begin with
    the first bar that the job may read. `marks` are the mark prices of at least the slice, if the job has them. `begin`
    is the job's first bar (0 if the candles begin after it): those before it are seen by decisions with `warm_up`
    stored.
    """

    candles: CandleColumns
    lo: int
    hi: int
    cold: bool
    marks: CandleColumns | None = None
    begin: int = 0


class SliceOutcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Outcome of one parameter set for one slice.

    `end` is the state from which the next slice must start, `daily` the profit of each of its days in the account's
    unit, or the `DAY_SHARES` of each day of a compound account. With a `tape` there is no money in it: see `tapes`.
    """

    point: int
    start: str  # digest of the start state
    end: str
    summary: list[int]
    daily: list[int]
    sums: list[int] = []
    tape: str = ""


class SliceOutcomes(msgspec.Struct, frozen=True):
    """Outcomes of a task, and the UTC days (counted from 1970) on which the slice has bars."""

    days: list[int]
    outcomes: list[SliceOutcome]


def run_slice(
    spec: Spec,
    window: SliceWindow,
    sets: Sequence[tuple[int, Strategy]],
    starts: dict[int, bytes] | None = None,
    tapes: bool = False,
) -> SliceOutcomes:
    """Run each of `sets` over the slice, from `starts` if given, otherwise from a guess that `start` identifies.

    With `tapes`, of a job that `keeps_tapes`, outcomes have tapes of fills and no money. With `path=both`, states and
    summaries are those of both paths. Raises TooLarge where the numbers cannot be computed exactly.
    """
    if spec.path == "both":
        return _run_both(spec, window, sets, starts)
    try:
        task = _Task(spec, window, None, tapes)
        if walks_minutes(spec) and len(sets) >= SHARED_SETS:
            task.share()
        if starts is not None:
            return SliceOutcomes(task.days, [task.run_from(starts[point], point, strategy) for point, strategy in sets])
        if len(sets) >= SHARED_SETS and not walks_minutes(spec):
            return SliceOutcomes(task.days, task.run_together(sets))
        return SliceOutcomes(task.days, [task.run_from_guess(point, strategy, None, 0) for point, strategy in sets])
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use smaller windows or rates") from None


def _run_both(
    spec: Spec, window: SliceWindow, sets: Sequence[tuple[int, Strategy]], starts: dict[int, bytes] | None
) -> SliceOutcomes:
    """Run the slice once for each path and join the outcomes of each set."""
    return both_paths(spec, starts, lambda one, own: run_slice(one, window, sets, own))


def both_paths(
    spec: Spec, starts: Mapping[int, bytes] | None, run: Callable[[Spec, dict[int, bytes] | None], SliceOutcomes]
) -> SliceOutcomes:
    """Return the outcomes of `run` for each path, joined."""
    done = []
    for k, path in enumerate(PATHS):
        own = None if starts is None else {point: states_of(state)[k] for point, state in starts.items()}
        done.append(run(msgspec.structs.replace(spec, path=path), own))
    worst, best = done
    return SliceOutcomes(worst.days, list(map(_joined, worst.outcomes, best.outcomes)))


def _joined(worst: SliceOutcome, best: SliceOutcome) -> SliceOutcome:
    """Return the outcomes of both paths as one: a pair of states, and numbers one after the other."""
    end = worst.end if worst.end == best.end else f"{worst.end}{HALVES.decode()}{best.end}"
    start = digest_of_both(worst.start, best.start)
    lists = (worst.summary + best.summary, worst.daily + best.daily, worst.sums + best.sums)
    return SliceOutcome(worst.point, start, end, *lists)


def paths_of(outcome: SliceOutcome) -> list[SliceOutcome]:
    """Return the outcome of each path: one, or the worst and the best."""
    width, days, sums = SUMMARY_WIDTH, len(outcome.daily) // 2, len(outcome.sums) // 2
    if len(outcome.summary) == width:
        return [outcome]
    ends = [state.decode() for state in states_of(outcome.end.encode())]
    halves = (
        (outcome.summary[:width], outcome.daily[:days], outcome.sums[:sums]),
        (outcome.summary[width:], outcome.daily[days:], outcome.sums[sums:]),
    )
    return [SliceOutcome(outcome.point, outcome.start, end, *half) for end, half in zip(ends, halves, strict=True)]


def run_recorded(
    spec: Spec, window: SliceWindow, strategy: Strategy, record: Recording, start: bytes = COLD
) -> tuple[list[int], SliceOutcome]:
    """Run one slice from the state `start`, or a whole job; return its days and its outcome. `record` records its
    fills."""
    try:
        task = _Task(spec, window, record)
        return task.days, task.run_from(start, 0, strategy)
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use smaller windows or rates") from None


class Decisions(Strategy, frozen=True):
    """Decisions that were made before: of each decision bar of candles that begin with the job's first bar."""

    desired: Desired

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        return self.desired[lo:hi], memory


def decisions_of(spec: Spec, window: SliceWindow, strategy: Strategy) -> Decisions:
    """Return the decisions of a whole job, for candles without the bars before it.

    Raises BadInput for orders and weights, which are no decisions of -1, 0 and 1.
    """
    if isinstance(strategy, OrderStrategy | Weighted) or spec.varies:
        raise BadInput(f"a run of {spec.strategy} with warm_up=stored is not shown yet: leave reports and tables out")
    return Decisions(_Task(spec, window).decisions(strategy))


class _Task:
    """One slice, and the data that its parameter sets have in common."""

    def __init__(self, spec: Spec, window: SliceWindow, record: Recording | None = None, tapes: bool = False) -> None:
        self._window = window
        self._record = record
        self._rules = rules_of(spec)
        self._sizing = sizing_of(spec)
        self._tapes = tapes
        self._account = None if tapes else account_rules(spec)
        self._timeframe, self._quantity = spec.timeframe, spec.quantity
        self._ranges = ranges_of(window.candles) if walks_minutes(spec) else None
        self._settling = settling_of(spec, window.candles, window.marks)
        self.days = window.candles.days_ending(window.lo, window.hi)
        self._bars = k_minute_bars(window.candles, spec.timeframe, skip_first=not window.cold)
        self._first, self._end = _decision_bars(self._bars, window)
        last = self._bars.last
        self._begin = window.begin if last is None else int(np.searchsorted(last, window.begin))
        self._begins_leg = spec.varies and _is_first(window, spec.schedule[0].start)
        self._reader: BitReader | None = None  # of decisions that were made together

    def share(self) -> None:
        """Compute what only pays for many sets whose fills are decided minute by minute."""
        candles = self._window.candles
        candles.add_blocks()
        if self._ranges is not None:
            prepare_falls(candles, self._ranges)

    def decisions(self, strategy: Strategy) -> Desired:
        """Return the desired position at each decision bar of a slice that is the whole job."""
        return decided(strategy, self._bars, self._first, self._end, self._memory_at(strategy, self._first))[0]

    def run_from(self, start: bytes, point: int, strategy: Strategy) -> SliceOutcome:
        """Run the slice from the end state of the slice before."""
        if self._ranges is not None:
            window = self._window
            summary, end, daily = self._run_orders(strategy, start, window.lo, window.hi)
            return SliceOutcome(point, digest_of(start), end.decode(), summary.to_list(), daily)
        state, memory = split_state(start)
        if self._begins_leg:
            # Nothing but the money passes from leg to leg: what is held is sold at the first open.
            state, memory = CarriedState(state.side, account=state.account), b""
        if start == COLD and self._window.lo == self._window.begin:
            memory = self._memory_at(strategy, self._first)
        desired, memory = decided(strategy, self._bars, self._first, self._end, memory)
        changes = changes_of(desired, int(state.desired), self._first, self._bars.last)
        return self._outcome(point, state, start, changes, memory)

    def run_from_guess(self, point: int, strategy: Strategy, together: "_Together | None", k: int) -> SliceOutcome:
        """Run the slice from the end state of a warm-up that starts flat some bars earlier. Exact at job start."""
        warm = together.warm if together else self._warm([strategy])
        if self._ranges is not None:
            begin = self._warm_minute(warm)
            return self.run_from(self._run_orders(strategy, COLD, begin, self._window.lo)[1], point, strategy)
        if strategy.stateful:
            memory = self._memory_at(strategy, warm) if warm < self._first else b""
            desired, memory = decided(strategy, self._bars, warm, self._first, memory)
            before = changes_of(desired, 0, warm, self._bars.last)
            start = join_state(self._warmed_up(before, warm), memory)
            return self.run_from(start, point, strategy)
        # A windowed strategy decides without memory, so the warm-up and the slice are decided together.
        if together:
            changes = together.changes(k)
        else:
            desired, _ = decided(strategy, self._bars, warm, self._end, b"")
            changes = changes_of(desired, 0, warm, self._bars.last)
        before, changes = changes.split(self._window.lo)
        state = self._warmed_up(before, warm)
        return self._outcome(point, state, join_state(state, b""), changes, b"")

    def run_together(self, sets: Sequence[tuple[int, Strategy]]) -> list[SliceOutcome]:
        """Run the slice from guesses, and decide for many sets at once if the strategy can do this faster."""
        self._window.candles.add_blocks()
        warm = self._warm([strategy for _, strategy in sets])
        found: dict[int, SliceOutcome] = {}
        for group in _groups(sets):
            together = self._decide_together([strategy for _, strategy in group], warm)
            for k, (point, strategy) in enumerate(group):
                found[point] = self.run_from_guess(point, strategy, together, k)
            del together  # before there are the decisions of the next group
        return [found[point] for point, _ in sets]

    def _decide_together(self, strategies: Sequence[Strategy], warm: int) -> "_Together | None":
        with blamed(strategies[0]):
            found = type(strategies[0]).decide_together(strategies, self._bars, warm, self._end)
        if found is None:
            return None
        if self._reader is None:
            self._reader = BitReader(self._end - warm, warm, self._bars.last)
        above, below = (_whole_words(bits) for bits in found)
        return _Together(warm, above, below, self._reader)

    def _warm(self, strategies: Sequence[Strategy]) -> int:
        """Return the decision bar at which the warm-up begins."""
        lookback = max(map(lookback_of, strategies))
        return max(min(0 if self._window.cold else lookback, self._first), self._begin)

    def _memory_at(self, strategy: Strategy, first: int) -> bytes:
        """Return the memory with which a strategy begins at decision bar `first`: at the job's first one that of a run
        without trades over the `warm_up()` bars before it, as far as there are some.
        """
        begin = max(0, first - warm_up_of(strategy))
        if not strategy.stateful or first != self._begin or begin == first:
            return b""
        return decided(strategy, self._bars, begin, first, b"")[1]

    def _warmed_up(self, before: PositionChanges, warm: int) -> CarriedState:
        if self._account is None and self._sizing is None and is_unstopped(self._window.candles, self._rules, FLAT):
            return state_after(before, self._window.lo)
        return self._run(before, CarriedState(), self._warm_minute(warm), self._window.lo)[1]

    def _warm_minute(self, warm: int) -> int:
        """Return the minute bar with which decision bar `warm` begins, or the slice's first bar if that is earlier."""
        last, lo = self._bars.last, self._window.lo
        begin = warm if last is None or warm == 0 else int(last[warm - 1]) + 1
        return min(max(begin, self._window.begin), lo)

    def _run_orders(self, strategy: Strategy, start: bytes, lo: int, hi: int) -> tuple[Summary, bytes, list[int]]:
        """Run a strategy whose fills are decided minute by minute; its memory includes the state of these fills."""
        if lo >= hi:
            return Summary(), start, []
        candles, bars = self._window.candles, self._bars
        state, memory = split_state(start)
        before = exposure_of(memory)
        if start == COLD and lo == self._window.begin and not isinstance(strategy, OrderStrategy | Weighted):
            memory = SEPARATOR + self._memory_at(strategy, self._begin)
        account, decided_with = None, None
        if self._account is not None:
            account = account_before(self._account, state)
            if self._settling is not None:
                decided_with = margin_account(candles, self._settling, self._account, account, lo, hi)
        fills, memory = decide_fills(
            candles,
            self._timeframe,
            strategy,
            self._rules,
            memory,
            lo,
            hi,
            ranges=self._ranges,
            bars=bars,
            account=decided_with,
        )
        if self._account is not None and account is not None:
            summary, state, daily = account_for_orders(
                candles, bars, fills, self._account, account, lo, hi, self._record,
                self._settling.funded if self._settling else None, waiting_since(memory),
            )  # fmt: skip
        else:
            summary, daily = units_for_orders(candles, fills, self._quantity, before, lo, hi, self._record)
            exposure = exposure_of(memory)
            state = CarriedState((exposure > 0) - (exposure < 0))
        return summary, join_state(state, memory), daily

    def _outcome(
        self, point: int, state: CarriedState, start: bytes, changes: PositionChanges, memory: bytes
    ) -> SliceOutcome:
        window = self._window
        if self._tapes:
            log = Fills()
            unit, after, _ = run(window.candles, changes, self._rules, state, window.lo, window.hi, log)
            own = Summary()
            own.bars, own.first, own.last = window.hi - window.lo, unit.first, unit.last
            tape = packed(tape_of(window.candles, self._rules, log, int(state.side), window.lo, window.hi))
            return SliceOutcome(
                point, digest_of(start), join_state(after, memory).decode(), own.to_list(), [], [], tape
            )
        summary, after, daily = self._run(changes, state, window.lo, window.hi)
        return SliceOutcome(point, digest_of(start), join_state(after, memory).decode(), summary.to_list(), daily)

    def _run(
        self, changes: PositionChanges, start: CarriedState, lo: int, hi: int
    ) -> tuple[Summary, CarriedState, list[int]]:
        if self._account is not None:
            return run_cash(self._window.candles, changes, self._rules, self._account, start, lo, hi, self._record)
        candles = self._window.candles
        if self._sizing is None:
            return run(candles, changes, self._rules, start, lo, hi, self._record.fills if self._record else None)
        compounds = self._sizing.kind == COMPOUND
        gaps = gap_bars(candles, lo, hi)
        log = self._record.fills if self._record else Fills() if len(gaps) and not compounds else None
        summary, after, daily = run_account(candles, changes, self._rules, self._sizing, start, lo, hi, log)
        if log is not None and not compounds:
            summary.gap_profit = gap_profit(candles, gaps, log, start, self._sizing)
        return summary, after, daily


class _Together(msgspec.Struct, frozen=True):
    """Decisions of many sets from decision bar `warm` on, one row of bits each; changes would need more memory."""

    warm: int
    above: Bits
    below: Bits
    reader: BitReader

    def changes(self, k: int) -> PositionChanges:
        return self.reader.changes(self.above[k], self.below[k] if len(self.below) else None)


def _groups(sets: Sequence[tuple[int, Strategy]]) -> list[Sequence[tuple[int, Strategy]]]:
    """Return the sets in groups of `TOGETHER_SETS`.

    Of a grid, sets with the same last parameters come together. There are few values of the first parameters among
    consecutive sets, so a group computes little that another one computes too.
    """
    if len(sets) <= TOGETHER_SETS:
        return [sets]
    values = [msgspec.structs.astuple(strategy)[::-1] for _, strategy in sets]
    ranks = [{value: rank for rank, value in enumerate(dict.fromkeys(column))} for column in zip(*values, strict=True)]
    keys = [tuple(rank[value] for rank, value in zip(ranks, own, strict=True)) for own in values]
    ordered = [sets[k] for k in sorted(range(len(sets)), key=keys.__getitem__)]
    return [ordered[k : k + TOGETHER_SETS] for k in range(0, len(ordered), TOGETHER_SETS)]


def _whole_words(bits: Bits) -> Bits:
    """Return rows of whole 64-bit words: a strategy may give fewer bytes."""
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))) if bits.shape[1] % 8 else bits


def _is_first(window: SliceWindow, start: int) -> bool:
    """Return whether the slice's first bar is the first from `start` (ms) on."""
    t, lo = window.candles.columns()["t"], window.lo
    return lo < len(t) and int(t[lo]) >= start and (lo == 0 or int(t[lo - 1]) < start)


def _decision_bars(bars: Bars, window: SliceWindow) -> tuple[int, int]:
    """Return the decision bars whose last minute is in the slice."""
    if bars.last is None:
        return window.lo, window.hi
    return int(np.searchsorted(bars.last, window.lo)), int(np.searchsorted(bars.last, window.hi))


def summary_of(outcome: SliceOutcome) -> Summary:
    return Summary.from_list(outcome.summary)
