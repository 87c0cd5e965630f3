"""One task: some parameter sets over one slice. A pure function of bars, parameters and start states."""

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np

from candlemill.engine.loop import Rules, run
from candlemill.engine.signals import Changes, changes_of
from candlemill.engine.summary import State, Summary
from candlemill.engine.tape import Bars, Tape, k_minute_bars
from candlemill.errors import TooLarge
from candlemill.model import Spec
from candlemill.strategies import Strategy

WARM_UP_BARS = 4_320  # three days of minutes: nearly every guess is right then
SHARED_SETS = 4  # from this many sets on, they share columns

COLD = b"0,0,0,0,0|"


class Window(msgspec.Struct, frozen=True):
    """Bars `lo` to `hi - 1` of `tape` are the slice; those before are context, those after finish its last k-bar.

    `cold` tells that the tape begins with the job's first bar.
    """

    tape: Tape
    lo: int
    hi: int
    cold: bool


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What one parameter set made of one slice. `end` is the state that the next slice must start from."""

    point: int
    start: str  # digest of the start state
    end: str
    summary: list[int]


def rules_of(spec: Spec) -> Rules:
    return Rules(spec.fee, spec.slippage, spec.stop_loss, spec.take_profit, spec.trailing_stop, spec.fill == "close")


def needs_range(spec: Spec, strategies: Sequence[Strategy]) -> bool:
    """Whether highs and lows are read at all."""
    stops = spec.stop_loss or spec.take_profit or spec.trailing_stop
    return bool(stops) or any(strategy.needs_range for strategy in strategies)


def context_bars(spec: Spec, strategies: Sequence[Strategy], exact: bool) -> int:
    """How many minute bars before the slice a task reads: lookback, and a warm-up where the start is guessed.

    A k-bar has at most k minutes; one more is read because the first may be cut.
    """
    lookback = max((strategy.lookback() for strategy in strategies), default=0)
    decision_bars = (lookback + 1) * spec.timeframe if spec.timeframe > 1 else lookback
    warm_up = 0 if exact else max(WARM_UP_BARS, 3 * spec.timeframe)
    return decision_bars + warm_up + 1


def digest_of(state: bytes) -> str:
    return hashlib.sha256(state).hexdigest()[:16]


def run_task(
    spec: Spec, window: Window, sets: Sequence[tuple[int, Strategy]], starts: dict[int, bytes] | None = None
) -> list[Outcome]:
    """Run each of `sets` over the slice; from `starts` where given, else from a guess that `start` identifies.

    Raises TooLarge where the numbers cannot be carried exactly.
    """
    bars = k_minute_bars(window.tape, spec.timeframe, skip_first=not window.cold)
    if len(sets) >= SHARED_SETS:
        bars.memo["sets"] = np.empty(0, dtype=np.int64)
    rules = rules_of(spec)
    try:
        return [
            _run_set(window, bars, rules, point, strategy, None if starts is None else starts[point])
            for point, strategy in sets
        ]
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use smaller windows or rates") from None


def _run_set(window: Window, bars: Bars, rules: Rules, point: int, strategy: Strategy, start: bytes | None) -> Outcome:
    first, end = _decision_bars(bars, window)
    if start is None and window.cold and window.lo == 0:
        start = COLD
    if start is None:
        start, changes, memory = _guess(window, bars, rules, strategy, first, end)
        state, _ = split_state(start)
    else:
        state, memory = split_state(start)
        desired, memory = strategy.decide(bars, first, end, memory)
        changes = changes_of(desired, int(state.desired), first, bars.last)
    summary, after = run(window.tape, changes, rules, state, window.lo, window.hi)
    return Outcome(point, digest_of(start), join_state(after, memory).decode(), summary.to_list())


def _guess(
    window: Window, bars: Bars, rules: Rules, strategy: Strategy, first: int, end: int
) -> tuple[bytes, Changes, bytes]:
    """The state at the slice's first bar as a flat start some bars earlier leads to it (exact from the job's start);
    with it the slice's changes and the memory after them."""
    warm = min(0 if window.cold else strategy.lookback(), first)
    begin = warm if bars.last is None or warm == 0 else int(bars.last[warm - 1]) + 1
    middle = first if strategy.stateful else end  # what a windowed strategy decides needs no memory: once is enough
    desired, memory = strategy.decide(bars, warm, middle, b"")
    before, changes = changes_of(desired, 0, warm, bars.last).split(window.lo)
    state = run(window.tape, before, rules, State(), min(begin, window.lo), window.lo)[1]
    start = join_state(state, memory)
    if strategy.stateful:
        desired, memory = strategy.decide(bars, first, end, memory)
        changes = changes_of(desired, int(state.desired), first, bars.last)
    return start, changes, memory


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
