"""One task: some parameter sets over one slice. A pure function of bars, parameters and start states."""

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np

from candlemill.engine.account import COMPOUND, FIXED, NOTIONAL, Sizing, run_account
from candlemill.engine.book import Rules
from candlemill.engine.fills import Fills
from candlemill.engine.loop import run
from candlemill.engine.signals import Bits, Changes, changes_of, changes_of_bits
from candlemill.engine.summary import State, Summary
from candlemill.engine.tape import Bars, Column, Tape, k_minute_bars
from candlemill.errors import TooLarge
from candlemill.model import Spec
from candlemill.strategies import Strategy

WARM_UP_BARS = 4_320  # three days of minutes: nearly every guess is right then
WARM_UP_LIMIT = 262_144  # minutes; past a slice's own length, repairing a wrong guess is cheaper
SHARED_SETS = 4  # from this many sets on, what they share is made beforehand

COLD = b"0,0,0,0,0,0|"
COLUMNS = ("t", "open", "high", "low", "close", "volume")


class Window(msgspec.Struct, frozen=True):
    """Bars `lo` to `hi - 1` of `tape` are the slice; those before are context, those after finish its last k-bar.

    `cold` tells that the tape begins with the job's first bar.
    """

    tape: Tape
    lo: int
    hi: int
    cold: bool


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What one parameter set made of one slice. `end` is the state that the next slice must start from, `daily` the
    profit of each of its days in the account's unit."""

    point: int
    start: str  # digest of the start state
    end: str
    summary: list[int]
    daily: list[int]


class Done(msgspec.Struct, frozen=True):
    """A task's work: outcomes, and which UTC days (counted from 1970) the slice has bars of."""

    days: list[int]
    outcomes: list[Outcome]


def rules_of(spec: Spec) -> Rules:
    return Rules(
        spec.fee,
        spec.slippage,
        spec.stop_loss,
        spec.take_profit,
        spec.trailing_stop,
        spec.fill == "close",
        spec.fee if spec.maker_fee is None else spec.maker_fee,
        spec.sizing == "compound",
    )


def sizing_of(spec: Spec) -> Sizing | None:
    """How large trades are; None where all are one unit, which the book counts alone."""
    if spec.sizing == "compound":
        return Sizing(COMPOUND)
    if spec.sizing == "notional":
        return Sizing(NOTIONAL, 0, spec.notional or 0, spec.volume_share, spec.volume_scale)
    if spec.volume_share:
        return Sizing(FIXED, spec.quantity, 0, spec.volume_share, spec.volume_scale)
    return None


def columns_read(spec: Spec, strategies: Sequence[Strategy]) -> tuple[str, ...]:
    """The columns of candles that are read at all, in the order of `COLUMNS`."""
    names = {"t", "open", "close"}
    if spec.stop_loss or spec.take_profit or spec.trailing_stop:
        names |= {"high", "low"}
    if spec.volume_share:
        names.add("volume")
    for strategy in strategies:
        names |= strategy.needs()
    return tuple(name for name in COLUMNS if name in names)


def context_bars(spec: Spec, strategies: Sequence[Strategy], exact: bool) -> int:
    """How many minute bars before the slice a task reads: lookback, and a warm-up where the start is guessed.

    A k-bar has at most k minutes; one more is read because the first may be cut.
    """
    lookback = max((strategy.lookback() for strategy in strategies), default=0)
    decision_bars = (lookback + 1) * spec.timeframe if spec.timeframe > 1 else lookback
    if exact:
        return decision_bars + 1
    own = max((strategy.warm_up() for strategy in strategies), default=0) * spec.timeframe
    return decision_bars + max(WARM_UP_BARS, 3 * spec.timeframe, min(own, WARM_UP_LIMIT)) + 1


def digest_of(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()[:16]


def run_task(
    spec: Spec, window: Window, sets: Sequence[tuple[int, Strategy]], starts: dict[int, bytes] | None = None
) -> Done:
    """Run each of `sets` over the slice; from `starts` where given, else from a guess that `start` identifies.

    Raises TooLarge where the numbers cannot be carried exactly.
    """
    try:
        task = _Task(spec, window)
        if starts is not None:
            return Done(task.days, [task.run_from(starts[point], point, strategy) for point, strategy in sets])
        together = task.decide_together([strategy for _, strategy in sets]) if len(sets) >= SHARED_SETS else None
        found = [task.run_from_guess(point, strategy, together, k) for k, (point, strategy) in enumerate(sets)]
        return Done(task.days, found)
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use smaller windows or rates") from None


def run_logged(spec: Spec, window: Window, strategy: Strategy, log: Fills) -> tuple[list[int], Outcome]:
    """A whole job in one go, its fills taken down in `log`: its days and its outcome."""
    try:
        task = _Task(spec, window, log)
        return task.days, task.run_from(COLD, 0, strategy)
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use smaller windows or rates") from None


class _Task:
    """One slice, and what its parameter sets have in common."""

    def __init__(self, spec: Spec, window: Window, log: Fills | None = None) -> None:
        self._window = window
        self._log = log
        self._rules = rules_of(spec)
        self._sizing = sizing_of(spec)
        self.days = window.tape.days_ending(window.lo, window.hi)
        self._bars = k_minute_bars(window.tape, spec.timeframe, skip_first=not window.cold)
        self._first, self._end = _decision_bars(self._bars, window)

    def run_from(self, start: bytes, point: int, strategy: Strategy) -> Outcome:
        """Run the slice from a handed-over state."""
        state, memory = split_state(start)
        desired, memory = strategy.decide(self._bars, self._first, self._end, memory)
        changes = changes_of(desired, int(state.desired), self._first, self._bars.last)
        return self._outcome(point, state, start, changes, memory)

    def run_from_guess(self, point: int, strategy: Strategy, together: "_Together | None", k: int) -> Outcome:
        """Run the slice from the state that a flat start some bars earlier leads to: exact from the job's start."""
        warm = together.warm if together else self._warm([strategy])
        if strategy.stateful:
            desired, memory = strategy.decide(self._bars, warm, self._first, b"")
            before = changes_of(desired, 0, warm, self._bars.last)
            start = join_state(self._warmed_up(before, warm), memory)
            return self.run_from(start, point, strategy)
        # What a windowed strategy decides needs no memory, so the warm-up and the slice are decided at once.
        if together:
            changes = together.changes(k, self._end - warm, self._bars.last)
        else:
            desired, _ = strategy.decide(self._bars, warm, self._end, b"")
            changes = changes_of(desired, 0, warm, self._bars.last)
        before, changes = changes.split(self._window.lo)
        state = self._warmed_up(before, warm)
        return self._outcome(point, state, join_state(state, b""), changes, b"")

    def decide_together(self, strategies: Sequence[Strategy]) -> "_Together | None":
        """The decisions of all sets, where the strategy can make them faster together than one after the other."""
        self._window.tape.add_blocks()
        warm = self._warm(strategies)
        found = type(strategies[0]).decide_together(strategies, self._bars, warm, self._end)
        return None if found is None else _Together(warm, *found)

    def _warm(self, strategies: Sequence[Strategy]) -> int:
        """The decision bar from which the warm-up runs."""
        lookback = max(strategy.lookback() for strategy in strategies)
        return min(0 if self._window.cold else lookback, self._first)

    def _warmed_up(self, before: Changes, warm: int) -> State:
        last, lo = self._bars.last, self._window.lo
        begin = warm if last is None or warm == 0 else int(last[warm - 1]) + 1
        return self._run(before, State(), min(begin, lo), lo)[1]

    def _outcome(self, point: int, state: State, start: bytes, changes: Changes, memory: bytes) -> Outcome:
        window = self._window
        summary, after, daily = self._run(changes, state, window.lo, window.hi)
        return Outcome(point, digest_of(start), join_state(after, memory).decode(), summary.to_list(), daily)

    def _run(self, changes: Changes, start: State, lo: int, hi: int) -> tuple[Summary, State, list[int]]:
        if self._sizing is None:
            return run(self._window.tape, changes, self._rules, start, lo, hi, self._log)
        return run_account(self._window.tape, changes, self._rules, self._sizing, start, lo, hi, self._log)


class _Together(msgspec.Struct, frozen=True):
    """Decisions of many sets from decision bar `warm` on, a row of bits each; as changes they would be large."""

    warm: int
    above: Bits
    below: Bits

    def changes(self, k: int, n: int, last: Column | None) -> Changes:
        below = self.below[k] if len(self.below) else None
        return changes_of_bits(self.above[k], below, n, self.warm, last)


def _decision_bars(bars: Bars, window: Window) -> tuple[int, int]:
    """The decision bars whose last minute lies in the slice."""
    if bars.last is None:
        return window.lo, window.hi
    return int(np.searchsorted(bars.last, window.lo)), int(np.searchsorted(bars.last, window.hi))


def join_state(state: State, memory: bytes) -> bytes:
    """Canonical bytes of the engine's state and the strategy's own."""
    return state.to_bytes() + b"|" + memory


def split_state(data: bytes) -> tuple[State, bytes]:
    state, _, memory = data.partition(b"|")
    return State.from_bytes(state), memory


def summary_of(outcome: Outcome) -> Summary:
    return Summary.from_list(outcome.summary)
