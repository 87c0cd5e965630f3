"""Compute the fills of one symbol over a stretch of bars from prices alone. SEMANTICS-2, "decide, settle, mark".

The result is exact wherever the bars are cut: the next stretch needs only the end state of the stretch before it.
"""

from collections.abc import Callable
from typing import Any, Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.book import Book
from candlemill.engine.book_trace import BookTrace
from candlemill.engine.candles import Bars, CandleColumns, Column, native
from candlemill.engine.fill_tape import LIQUIDATION, ORDER, STOP, TAKE, TARGET, FillTape
from candlemill.engine.levels import FAR, MILLION
from candlemill.engine.margin import MarginAccount
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.position import ExecutionRules
from candlemill.engine.ranges import Ranges
from candlemill.engine.signals import PositionChanges

NONE: Final = "-"
NUMBERS: Final = 11  # integers in the first line of a state
# Status of an order in a state.
GONE: Final = 0
NEW: Final = 1
RESTING: Final = 2
FILLED: Final = 3
TRIGGERED: Final = 4  # a stop order that was met, whose rest fills at the next open


class BookSource:
    """Native side of a strategy, which states the books. Decision bars are minutes, or the bars that end at `last`.

    `sees_position` says whether the source reads the entry, the bars held and the fills; `sees_best` whether it reads
    the best price. Only then are they part of the state passed from one stretch to the next.
    """

    def __init__(self, last: Column | None, first: int, sees_position: bool, sees_best: bool) -> None:
        self.minutes: bool = last is None
        self.last: vec[i64] = vec[i64]() if last is None else native(last)
        self.bar: i64 = first  # the next decision bar
        self.sees_position: bool = sees_position
        self.sees_best: bool = sees_best

    def column(self, minutes: vec[i64], bars: Column) -> vec[i64]:
        """Return a column of the decision bars: the candles' own column if decision bars are minutes."""
        return minutes if self.minutes else native(bars)

    def next_decision(self, i: i64) -> i64:
        """Return the first minute bar from `i` on at whose close a book is stated; FAR if there is none."""
        if self.minutes:
            self.bar = i
            return i
        if self.bar < len(self.last):
            return self.last[self.bar]
        return FAR

    def begin(self, engine: MinuteEngine) -> None:
        """Prepare a new engine before its first bar."""

    def state(self, engine: MinuteEngine, i: i64) -> None:
        """State the book at the close of minute `i`, the last one of decision bar `bar`."""
        raise NotImplementedError

    def skip(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        """Skip minutes from `i` on if that is faster than one by one; return the first minute that is not skipped."""
        return i


class TargetSource(BookSource):
    """Source of targets without orders: `changes` at minute bars, in ppm."""

    def __init__(self, changes: PositionChanges, unit: i64) -> None:
        super().__init__(None, 0, False, False)
        self.changes: PositionChanges = changes
        self.unit: i64 = unit
        self.change: i64 = 0

    def next_decision(self, i: i64) -> i64:
        if self.change < len(self.changes.at):
            return self.changes.at[self.change]
        return FAR

    def begin(self, engine: MinuteEngine) -> None:
        """Treat the target 0 as traded: the states before the first change and after a return to 0 are equal."""
        engine.keep = False
        engine.has_acted = True

    def state(self, engine: MinuteEngine, i: i64) -> None:
        target: i64 = self.changes.value[self.change] * self.unit
        self.change += 1
        engine.replace(engine.new_orders(), i, False, target, 0, 0)


class StepSource(BookSource):
    """Source that calls a strategy's own `step(state, bar, position)` on each bar. `make_bar` builds a bar from six
    numbers.
    """

    def __init__(
        self,
        step: Callable[[Any, Any, Any], Any],
        make_bar: Callable[[int, int, int, int, int, int], Any],
        state: Any,
        candles: CandleColumns,
        bars: Bars,
        first: int,
    ) -> None:
        super().__init__(bars.last, first, True, True)
        self.step: Callable[[Any, Any, Any], Any] = step
        self.make_bar: Callable[[int, int, int, int, int, int], Any] = make_bar
        self.carried: Any = state
        self.t: vec[i64] = self.column(candles.t, bars.t)
        self.open: vec[i64] = self.column(candles.open, bars.open)
        self.high: vec[i64] = self.column(candles.high, bars.high)
        self.low: vec[i64] = self.column(candles.low, bars.low)
        self.close: vec[i64] = self.column(candles.close, bars.close)
        self.volume: vec[i64] = self.column(candles.volume, bars.volume)

    def state(self, engine: MinuteEngine, i: i64) -> None:
        j: i64 = self.bar
        self.bar = j + 1
        volume: i64 = self.volume[j] if len(self.volume) != 0 else 0
        bar = self.make_bar(
            int(self.t[j]), int(self.open[j]), int(self.high[j]), int(self.low[j]), int(self.close[j]), int(volume)
        )
        said = self.step(self.carried, bar, engine.seen())
        if not isinstance(said, tuple) or len(said) != 2 or not isinstance(said[0], Book):
            raise TypeError(f"step() returned {said!r:.100}, expected a Book and the state")
        self.carried = said[1]
        engine.state_book(said[0], i)


def decide(
    candles: CandleColumns,
    source: BookSource,
    rules: ExecutionRules,
    ranges: Ranges,
    start: bytes,
    lo: int,
    hi: int,
    trace: BookTrace | None = None,
    account: MarginAccount | None = None,
) -> tuple[FillTape, bytes]:
    """Return the fills of bars `lo` to `hi - 1` from the state `start` (empty: no bars before), and the state after
    them.

    `ranges` are those of the candles; many sets on the same candles share them. `trace` records what stands after each
    bar; no bar is passed over then. `account` liquidates positions; its start is that of bar `lo`.

    Pure: the same bars, books, rules and state give the same bits. Raises OverflowError for rates that do not fit 64
    bits, ValueError for an invalid state.
    """
    if (int(candles.top) // MILLION + 1) * int(rules.slippage) > FAR >> 2:
        raise OverflowError(
            f"prices up to {candles.top} (scaled) with a slippage of {rules.slippage} ppm leave 64 bits"
        )
    fills = FillTape()
    engine = MinuteEngine(candles, rules, ranges, fills)
    engine.follows_best = rules.trailing_stop != 0 or source.sees_best
    engine.keeps_seen = source.sees_position
    if start:
        restore(engine, start)
    else:
        source.begin(engine)
    if account is not None:
        engine.add_margin(account)
    if trace is not None:
        _run_traced(engine, source, lo, hi, trace)
    else:
        _run(engine, source, lo, hi)
    return fills, state_bytes(engine, source)


def _run(engine: MinuteEngine, source: BookSource, lo: i64, hi: i64) -> None:
    i: i64 = lo
    while i < hi:
        decision: i64 = source.next_decision(i)
        end: i64 = min(decision + 1, hi)
        while i < end:
            i = engine.quiet_until(i, end)
            if i < end:
                engine.minute(i)
                i += 1
        if decision < hi:
            source.state(engine, decision)
            i = source.skip(engine, i, hi)


def _run_traced(engine: MinuteEngine, source: BookSource, lo: i64, hi: i64, trace: BookTrace) -> None:
    i: i64 = lo
    while i < hi:
        decision: i64 = source.next_decision(i)
        while i < min(decision + 1, hi):
            engine.minute(i)
            if i == decision:
                source.state(engine, i)
            trace.note(engine, i)
            i += 1


# -- the state as bytes ----------------------------------------------------------------------------------------------


def state_bytes(engine: MinuteEngine, source: BookSource) -> bytes:
    """Serialize the state after the last bar. Canonical: values without influence on later bars are zero."""
    now, rules = engine.now, engine.rules
    orders = now.orders
    pending = engine.has_pending_target()
    held = now.exposure != 0
    numbers = [
        int(now.exposure),
        int(now.entry) if source.sees_position or rules.needs_entry else 0,
        int(now.best) if source.sees_best or rules.trailing_stop != 0 else 0,
        int(now.held) if source.sees_position else 0,
        int(now.stop) if held else 0,
        int(now.take) if held else 0,
        int(engine.made) if pending or now.alive != 0 else 0,
        int(engine.stop) if pending else 0,
        int(engine.take) if pending else 0,
    ]
    target = NONE if engine.keep else str(int(engine.target))
    acted = str(int(engine.acted)) if engine.has_acted else NONE
    lines = [",".join([str(number) for number in numbers] + [target, acted])]
    matters = now.alive != 0 or engine.filled != 0
    k: i64 = 0
    while matters and k < orders.count:
        status = GONE
        if (now.alive >> k) & 1 != 0:
            status = RESTING if (engine.resting >> k) & 1 != 0 and orders.limit[k] != 0 else NEW
            if (now.triggered >> k) & 1 != 0:
                status = TRIGGERED
        elif (engine.filled >> k) & 1 != 0:
            status = FILLED
        row = [status, orders.side[k], orders.limit[k], orders.price[k], orders.size[k], orders.part[k]]
        row += [orders.oco[k], orders.stop[k], orders.take[k]]
        lines.append("o" + ",".join([str(int(number)) for number in row] + [orders.keys[k]]))
        if now.rest[k] != 0 and status != GONE and status != FILLED:
            lines.append(f"r{now.rest[k]}")
        k += 1
    if pending and now.target_begun:
        lines.append("t")
    j: i64 = 0
    while j < engine.seen_count:
        lines.append(f"f{engine.seen_what[j]},{engine.seen_order[j]},{engine.seen_price[j]}")
        j += 1
    return "\n".join(lines).encode()


def restore(engine: MinuteEngine, data: bytes) -> None:
    """Restore the state written by `state_bytes` into a new engine. Raises ValueError."""
    try:
        _restore(engine, data.decode().split("\n"))
    except (ValueError, IndexError) as error:
        raise ValueError(f"not a state: {data[:120]!r}") from error


def _restore(engine: MinuteEngine, lines: list[str]) -> None:
    texts = lines[0].split(",")
    if len(texts) != NUMBERS:
        raise ValueError("not a state")
    now = engine.now
    now.exposure, now.entry, now.best = int(texts[0]), int(texts[1]), int(texts[2])
    now.held, now.stop, now.take = int(texts[3]), int(texts[4]), int(texts[5])
    engine.made, engine.stop, engine.take = int(texts[6]), int(texts[7]), int(texts[8])
    engine.keep = texts[9] == NONE
    if not engine.keep:
        engine.target = int(texts[9])
    engine.has_acted = texts[10] != NONE
    if engine.has_acted:
        engine.acted = int(texts[10])
    for line in lines[1:]:
        if line.startswith("o"):
            _restore_order(engine, line[1:].split(",", 9))
        elif line.startswith("r"):  # of the order before it
            k: i64 = now.orders.count - 1
            now.rest[k] = int(line[1:])
            engine.filled |= 1 << k
        elif line == "t":
            now.target_begun = True
        elif line.startswith("f"):
            what, order, price = line[1:].split(",")
            if int(what) not in (TARGET, ORDER, STOP, TAKE, LIQUIDATION):
                raise ValueError("not a fill")
            engine.see(int(what), int(order), int(price))
        else:
            raise ValueError("not a state")


def _restore_order(engine: MinuteEngine, texts: list[str]) -> None:
    status, side, limit, price, size, part, oco, stop, take = [int(text) for text in texts[:9]]
    now = engine.now
    bit: i64 = 1 << now.orders.count
    now.orders.put(texts[9], side, limit, price, size, part, oco, stop, take)
    if status == TRIGGERED:
        now.triggered |= bit
    if status in (NEW, RESTING, TRIGGERED):
        now.alive |= bit
    if status == RESTING:
        engine.resting |= bit
    if status == FILLED:
        engine.filled |= bit
