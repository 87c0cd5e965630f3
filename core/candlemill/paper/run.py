"""A paper run of one symbol: candles in, decisions out. Pure: no I/O, no clock.

The run is a backtest that grows by a minute: each candle is a slice of one bar, computed from the state after the bar
before it. Each UTC day that is over is also computed as one slice, so that the days add up to the result of a backtest
over the same candles, bit by bit. A candle that comes late or is corrected takes the run back to the state before it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from candlemill.backtests.identity import job_id
from candlemill.backtests.merge import MergedSlices, Outcomes, merge_slices
from candlemill.backtests.plan import plan_of
from candlemill.backtests.recording import Recording
from candlemill.backtests.result import result_of
from candlemill.backtests.slice import SliceOutcomes, SliceWindow, run_recorded, run_slice
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import columns_read, context_bars
from candlemill.backtests.states import COLD, digest_of
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Column, bar_origin, is_cut
from candlemill.errors import NoData
from candlemill.paper.candles import NAMES, CandleBuffer, Change, Row, day_of
from candlemill.paper.decision import DECISION, REPLAYED, Decision, Replayed
from candlemill.paper.log import ClosedDay, History, read_log
from candlemill.paper.reading import fills_of, read_state
from candlemill.pipeline.cache_keys import JobData
from candlemill.pipeline.rows import PaperLogRow
from candlemill.store.candle_writer import count_days
from candlemill.stored_days import Day
from candlemill.strategies import build
from candlemill.units import iso

BARS_WITHOUT_DECISION = 2  # read before a minute at which nothing is decided


class PaperRun:
    """A run of `spec`, whose range is open: its decisions are published from minute `since` on.

    `candles` are those that the run has used, from the midnight `kept_from` on, with those before it that decisions
    read; none before it can be replaced. `history` is what the run's log says from that midnight on. `before` are the
    days until that of the range's start, as far as they are part of the run's data.
    """

    def __init__(
        self,
        run_id: str,
        spec: Spec,
        since: int,
        candles: CandleBuffer,
        history: History,
        kept_from: int,
        before: Sequence[Day] = (),
    ) -> None:
        self.run_id, self.spec, self.since = run_id, spec, since
        self._strategy = build(spec.strategy, dict(spec.params))
        self._context = context_bars(spec, [self._strategy], exact=True)
        self._candles, self._before = candles, before
        self._states, self._published, self._days = history.states, history.published, history.days
        self._seq, self._replays = history.seq, history.replays
        self._rows: list[PaperLogRow] = []
        self.kept_from = kept_from
        self.last = spec.start - MINUTE_MS  # the last minute that was used
        self._is_open = True  # whether the state was computed without the next candle
        self._state = self._day_state = COLD
        self.last = max([*self._states, *(start + DAY_MS - MINUTE_MS for start in self._days)], default=self.last)
        self._restore(self.last + 1)

    # -- candles in ------------------------------------------------------------------------------------------------

    def take(self, rows: Iterable[Row]) -> list[PaperLogRow]:
        """Use candles, in any order and any number of times; return the rows to log, some of which are published.

        None may be before `kept_from`, unless it is before the range.
        """
        first, why = 1 << 62, ""
        for row in rows:
            change: Change = self._candles.put(row) if row[0] >= self._reads_from() else ""
            if change and self.spec.start <= self.last and row[0] <= self.last and row[0] < first:
                first, why = row[0], change
        if why:
            self._replay(max(first, self.spec.start), "late" if why == "late" else "corrected")
        return self.advance()

    def advance(self) -> list[PaperLogRow]:
        """Use the candles after the last one that was used; return the rows to log."""
        while True:
            self._run_to(self.since, log=True)
            at = self._candles.index(self.last + 1)
            if at == self._candles.n:
                break
            if self._ended_bar_early(at):
                self._restore(self.last)
            else:
                self._close_day_before(self._candles.time(at))  # which may forget candles, so numbers change
                self._step(self._candles.index(self.last + 1))
        rows, self._rows = self._rows, []
        return rows

    def differs_from(self, day: Day) -> bool:
        """Return whether the run has used other candles than these of a whole day, or of the present one so far."""
        closed = self._days.get(day.start)
        mine = closed.day if closed is not None else self._day_at(day.start, self._candles.n)
        return mine != day

    def first_changed_day(self) -> int | None:
        """Return the first day that is over and whose candles are not those that it was computed from."""
        held = self._candles.time(0) if self._candles.n else 1 << 62
        for start, closed in self._days.items():
            if start >= held and self._day_at(start, self._candles.index(start + DAY_MS)) != closed.day:
                return start
        return None

    def _reads_from(self) -> int:
        """Return the time (ms) from which candles are part of the run or of its data."""
        if self.spec.warm_up != "stored":
            return day_of(self.spec.start)
        return 0 if self._candles.whole or not self._candles.n else self._candles.time(0)

    # -- minutes ---------------------------------------------------------------------------------------------------

    def _step(self, at: int) -> None:
        """Run candle number `at` from the state before it."""
        t, decides = self._candles.time(at), self._decides(at)
        window = self._window(at, at + 1, self._context if decides else BARS_WITHOUT_DECISION)
        record = Recording()
        start = self._state
        _, outcome = run_recorded(self.spec, window, self._strategy, record, start)
        self._state, self.last, self._is_open = outcome.end.encode(), t, at + 1 == self._candles.n
        self._states[t] = self._state
        fills = fills_of(self.spec, window.candles, record, start)
        standing, held = read_state(self.spec, self._state)
        attempt, published = self._published.get(t, (1, ""))
        if not decides and not fills and not published:
            self._log("minute", t, self._candles.row(at), outcome.end)
            return
        decision = Decision(
            run=self.run_id,
            symbol=self.spec.symbol,
            strategy=self.spec.strategy,
            minute=t,
            attempt=attempt,
            decides=decides,
            changed=standing != read_state(self.spec, start)[0],
            target=standing.target,
            exposure=held.exposure,
            stop=standing.stop,
            take=standing.take,
            orders=standing.orders,
            fills=fills,
            quantity=held.quantity,
            equity=held.equity,
            state=digest_of(self._state),
        )
        text = msgspec.json.encode(decision).decode()
        event = ""
        if text != published:
            if published:
                attempt += 1
                text = msgspec.json.encode(msgspec.structs.replace(decision, attempt=attempt)).decode()
            event, self._published[t] = DECISION, (attempt, text)
        self._log(
            "minute", t, self._candles.row(at), outcome.end, event, attempt if event else 0, text if event else ""
        )

    def _decides(self, at: int) -> bool:
        """Return whether a decision bar ends with candle number `at`, as far as that is known."""
        k, t = self.spec.timeframe, self._candles.time(at)
        return not is_cut(t, k) or (at + 1 < self._candles.n and _bar(self._candles.time(at + 1), k) != _bar(t, k))

    def _ended_bar_early(self, at: int) -> bool:
        """Return whether candle number `at` shows that the last one used, which was not known to be, ended a bar."""
        k = self.spec.timeframe
        if self.last < self.spec.start:
            return False
        return self._is_open and is_cut(self.last, k) and _bar(self.last, k) != _bar(self._candles.time(at), k)

    def _window(self, lo: int, hi: int, context: int, is_last: bool = False) -> SliceWindow:
        """Return the slice of candles `lo` to `hi - 1`, and `context` ones before it that the run may read."""
        begin = self._candles.index(self.spec.start)
        readable = 0 if self.spec.warm_up == "stored" else begin
        first = max(readable, lo - context)
        window = self._candles.window(lo, hi, first, begin, is_last)
        return msgspec.structs.replace(window, cold=self._candles.whole and first == readable)

    def _log(
        self,
        kind: Literal["minute", "replay", "day"],
        t: int,
        candle: Row | None = None,
        state: str = "",
        event: str = "",
        attempt: int = 0,
        data: str = "",
    ) -> None:
        self._seq += 1
        prices = candle[1:] if candle is not None else (0, 0, 0, 0, 0)
        self._rows.append(PaperLogRow(self.run_id, self._seq, kind, t, *prices, state, event, attempt, data))

    # -- going back ------------------------------------------------------------------------------------------------

    def replay_from(self, t: int) -> None:
        """Go back to the state before minute `t`, whose candle or a later one is not the one that was used."""
        self._replay(max(t, self.spec.start), "corrected")

    def _replay(self, t: int, reason: Literal["late", "corrected"]) -> None:
        self._replays += 1
        replayed = Replayed(
            run=self.run_id,
            symbol=self.spec.symbol,
            strategy=self.spec.strategy,
            minute=t,
            reason=reason,
            replay=self._replays,
        )
        self._log("replay", t, event=REPLAYED, attempt=self._replays, data=msgspec.json.encode(replayed).decode())
        at = self._candles.index(t)
        if self.spec.timeframe > 1 and at > self._candles.index(
            self.spec.start
        ):  # the candle before it may end a bar no more, or only now
            t = self._candles.time(at - 1)
        self._restore(t)

    def _restore(self, t: int) -> None:
        """Go back to the state before minute `t`: to one that is kept, and from there on by slices."""
        for minute in [one for one in self._states if one >= t]:
            del self._states[minute]
        for day in [one for one in self._days if one + DAY_MS > t]:
            del self._days[day]
        newest, was_open = self.last, self._is_open
        self._day_state, self.last = COLD, self.spec.start - MINUTE_MS
        if self._days:
            start, closed = next(reversed(self._days.items()))
            self._day_state, self.last = closed.outcome.end.encode(), start + DAY_MS - MINUTE_MS
        self._state = self._day_state
        if (found := max(self._states, default=self.last)) > self.last:
            self.last, self._state = found, self._states[found]
        self._is_open = was_open and self.last == newest
        self._run_to(t, log=False)

    # -- slices ----------------------------------------------------------------------------------------------------

    def _run_to(self, end: int, log: bool) -> None:
        """Use the candles before minute `end`, a day at a time; publish nothing."""
        while (lo := self._candles.index(self.last + 1)) < (hi := self._candles.index(end)):
            if self._ended_bar_early(lo):
                self._restore(self.last)
                continue
            t = self._candles.time(lo)
            self._close_day_before(t)
            lo, hi = self._candles.index(t), self._candles.index(end)
            hi = min(hi, self._candles.index(day_of(t) + DAY_MS))
            window = self._window(lo, hi, self._context)
            (outcome,) = run_slice(self.spec, window, [(0, self._strategy)], {0: self._state}).outcomes
            self._state, self.last = outcome.end.encode(), self._candles.time(hi - 1)
            self._is_open = hi == self._candles.n
            self._states[self.last] = self._state
            for at in range(lo, hi) if log and day_of(t) == day_of(self.since - MINUTE_MS) else ():
                self._log("minute", self._candles.time(at), self._candles.row(at), outcome.end if at == hi - 1 else "")

    def _close_day_before(self, t: int) -> None:
        """Compute the day of the last minute as one slice, if minute `t` is in a later one."""
        start = day_of(self.last)
        if self.last < self.spec.start or start == day_of(t) or start in self._days:
            return
        hi = self._candles.index(start + DAY_MS)
        done = self._run_day(start, hi, self._day_state)
        (outcome,) = done.outcomes
        if outcome.end.encode() != self._state:
            raise RuntimeError(f"{self.spec.symbol}: the day {iso(start)} ends in another state than its minutes")
        closed = ClosedDay(self._day_at(start, hi), outcome, done.days)
        self._days[start] = closed
        self._day_state = self._state
        self._log("day", start, state=msgspec.json.encode(closed).decode())
        at = self._candles.index(start)
        if self.spec.timeframe > 1 and at and self._candles.time(at - 1) >= self.spec.start:
            start = day_of(self._candles.time(at - 1))  # whose last bar a late candle of the day may make longer
        self._forget_before(start)

    def _run_day(self, start: int, hi: int, state: bytes, is_last: bool = False) -> SliceOutcomes:
        lo = self._candles.index(max(start, self.spec.start))
        window = self._window(lo, hi, self._context, is_last)
        return run_slice(self.spec, window, [(0, self._strategy)], {0: state})

    def _day_at(self, start: int, hi: int) -> Day:
        """Return the index of a day up to candle number `hi`, as a store would have it."""
        columns: dict[str, Column] = self._candles.columns(self._candles.index(start), hi)
        found = count_days(columns)
        return found[0] if found else Day(start, 0, start, start, "")

    def _forget_before(self, t: int) -> None:
        self.kept_from = max(self.kept_from, t)
        for minute in [one for one in self._states if one < t]:
            del self._states[minute]
        for minute in [one for one in self._published if one < t]:
            del self._published[minute]
        self._candles.drop_before(t, self._context)

    # -- the result ------------------------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        """Return the result so far: that of a backtest from the run's start to the end of its last minute, bit by bit.

        Raises NoData before the first candle.
        """
        today, hi = day_of(self.last), self._candles.index(self.last + 1)
        if self.last < self.spec.start:
            raise NoData(f"{self.spec.symbol} has had no candle since {iso(self.spec.start)}: wait for its first")
        spec = msgspec.structs.replace(self.spec, end=self.last + MINUTE_MS)
        slices = [closed for start, closed in self._days.items() if start < today]
        state = slices[-1].outcome.end.encode() if slices else COLD
        done = self._run_day(today, hi, state, is_last=True)
        slices.append(ClosedDay(self._day_at(today, hi), done.outcomes[0], done.days))
        outcomes = Outcomes()
        for number, one in enumerate(slices):
            outcomes.put(number, True, one.days, one.outcome)
        merged = merge_slices(outcomes, 0, len(slices))
        assert isinstance(merged, MergedSlices), "each day was computed from the end of the day before it"
        days = [one.day for one in slices]
        before = [day for day in self._before if day.start < days[0].start]
        data = JobData([*before, *days], None, spec.start, spec.end, spec.warm_up == "stored")
        cuts = [spec.start, *(day.start for day in days[1:]), spec.end]
        plan = plan_of(spec, cuts, sum(day.rows for day in days))
        return result_of(spec, plan, merged, job_id(spec, data.digest), data.digest)[0]


def _bar(t: int, k: int) -> int:
    """Return the number of the bar of `k` minutes that minute `t` belongs to."""
    return (t - bar_origin(k)) // (k * MINUTE_MS)


def resume(
    run_id: str,
    spec: Spec,
    since: int,
    candles: dict[str, Column],
    kept_from: int,
    whole: bool,
    rows: Iterable[PaperLogRow],
    before: Sequence[Day] = (),
) -> tuple[PaperRun, list[PaperLogRow]]:
    """Begin a run, or go on with one as its log and the store have it; return it with the rows to log.

    `candles` are the store's, from the midnight `kept_from` on, with those before it that decisions read; `whole` says
    that the run may read none before them. `rows` are those of the log from that midnight on, and of all days. What the
    store has of the minutes in the log replaces what the log says where they differ.
    """
    history = read_log(rows)
    t = candles["t"]
    first = min(history.candles, default=max([spec.start, *(day + DAY_MS for day in history.days)]))
    edge = int(np.searchsorted(t, first))
    used = np.array([history.candles[minute] for minute in sorted(history.candles)], dtype=np.int64).reshape(-1, 6)
    columns = {name: np.append(candles[name][:edge].astype(np.int64), used[:, k]) for k, name in enumerate(NAMES)}
    names = columns_read(spec, [build(spec.strategy, dict(spec.params))])
    run = PaperRun(run_id, spec, since, CandleBuffer(columns, whole, names), history, kept_from, before)
    if (changed := run.first_changed_day()) is not None:
        run.replay_from(changed)
    stored = zip(*(candles[name][edge:].astype(np.int64).tolist() for name in NAMES), strict=True)
    return run, run.take(stored)
