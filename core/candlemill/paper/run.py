"""A paper run: candles in, decisions out. Pure: no I/O, no clock.

The run is a backtest that grows by a minute: each minute is a slice, computed from the state after the one before it.
Each UTC day that is over is also computed as one slice, so that the days add up to the result of a backtest over the
same candles, bit by bit. A candle that comes late or is corrected takes the run back to the state before it; so does a
mark price, a funding rate or a maintenance tier.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from candlemill.backtests.identity import job_id
from candlemill.backtests.merge import MergedSlices, Outcomes, merge_slices
from candlemill.backtests.plan import plan_of
from candlemill.backtests.result import result_of
from candlemill.backtests.slice import SliceOutcome
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import columns_read, context_bars
from candlemill.backtests.states import COLD, digest_of
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Column, bar_origin, is_cut
from candlemill.errors import NoData
from candlemill.paper.candles import NAMES, CandleBuffer, Row, day_of
from candlemill.paper.decision import DECISION, REPLAYED, Decision, Replayed
from candlemill.paper.inputs import Facts, Inputs, RunIndex, joined
from candlemill.paper.log import ClosedDay, History, read_log
from candlemill.paper.reading import read_state
from candlemill.paper.slices import slices_of
from candlemill.pipeline.cache_keys import job_data
from candlemill.pipeline.prepare import with_tiers
from candlemill.pipeline.rows import PaperLogRow
from candlemill.stored_days import Day
from candlemill.strategies import build
from candlemill.units import iso

BARS_WITHOUT_DECISION = 2  # read before a minute at which nothing is decided
LAST = 1 << 62  # later than any minute


class PaperRun:
    """A run of `spec`, whose range is open: its decisions are published from minute `since` on.

    `inputs` are those that the run has used, from the midnight `kept_from` on, with candles before it that decisions
    read; none before it can be replaced. `history` is what the run's log says from that midnight on. `before` are the
    days until that of the range's start by name, as far as they are part of the run's data.
    """

    def __init__(
        self,
        run_id: str,
        spec: Spec,
        since: int,
        inputs: Inputs,
        history: History,
        kept_from: int,
        before: Mapping[str, Sequence[Day]],
    ) -> None:
        self.run_id, self.spec, self.since, self.before = run_id, spec, since, before
        strategy = build(spec.strategy, dict(spec.params))
        self._context = context_bars(spec, [strategy], exact=True)
        self._inputs, self._slices = inputs, slices_of(spec, strategy, inputs)
        self._states, self._published, self._days = history.states, history.published, history.days
        self._seq, self._replays = history.seq, history.replays
        self._rows: list[PaperLogRow] = []
        self._due = 0  # minutes before it do not wait for anything
        self.kept_from = kept_from
        self.last = spec.start - MINUTE_MS  # the last minute that was used
        self._is_open = True  # whether the state was computed without the next candle
        self._state = self._day_state = COLD
        self.last = max([*self._states, *(start + DAY_MS - MINUTE_MS for start in self._days)], default=self.last)
        self._restore(self.last + MINUTE_MS)

    # -- candles in ------------------------------------------------------------------------------------------------

    def take(self, candles: Mapping[str, Iterable[Row]], due: int = 0) -> list[PaperLogRow]:
        """Use candles by name, in any order and any number of times; return the rows to log, some of which are
        published.

        None may be before `kept_from`, unless it is before the range. Minutes before `due` (ms) wait for nothing.
        """
        found = [
            self._inputs.put(name, rows, self._reads_from(name), self.last) for name, rows in sorted(candles.items())
        ]
        first, why = min(found, default=(LAST, ""))
        if why and self.spec.start <= self.last:
            self._replay(max(first, self.spec.start), "late" if why == "late" else "corrected")
        return self.advance(due)

    def learn(self, facts: Facts) -> list[PaperLogRow]:
        """Use these facts from now on, and replay the minutes that had others; return the rows to log."""
        first = self._inputs.facts.first_change(facts, self.spec.start)
        if first is None:
            return []
        known = max((t for rates in self._inputs.facts.rates.values() for t, _ in rates), default=0)
        self._inputs.facts = facts
        self._log("facts", 0, state=msgspec.json.encode(facts).decode())
        if self.spec.start <= self.last and first <= self.last:
            self._replay(max(first, self.spec.start), "late" if first > known else "corrected")
        return self.advance()

    def advance(self, due: int = 0) -> list[PaperLogRow]:
        """Use the minutes after the last one that was used, as far as they wait for nothing or are before `due` (ms);
        return the rows to log."""
        self._due = max(self._due, due)
        while True:
            self._run_to(self.since, log=True)
            t = self._inputs.next(self.last + 1)
            if t is None or (t >= self._due and self._inputs.awaited(t, self.last)):
                break
            if self._ended_bar_early(t):
                self._restore(self.last)
            else:
                self._close_day_before(t)
                self._step(t)
        rows, self._rows = self._rows, []
        return rows

    @property
    def facts(self) -> Facts:
        return self._inputs.facts

    @property
    def waiting(self) -> int | None:
        """Return the minute (ms) that waits for candles of other names, or for a rate; None without one."""
        return self._inputs.next(self.last + 1)

    @property
    def awaits_rate(self) -> bool:
        t = self.waiting
        return t is not None and any(name in self._inputs.facts.rates for name in self._inputs.awaited(t, self.last))

    def differs_from(self, name: str, day: Day) -> bool:
        """Return whether the run has used other candles than these of a whole day, or of the present one so far."""
        closed = self._days.get(day.start)
        mine = closed.of(name) if closed is not None else self._inputs.day(name, day.start, day.start + DAY_MS)
        return mine != day

    def first_changed_day(self) -> int | None:
        """Return the first day that is over and whose candles are not those that it was computed from."""
        for start, closed in self._days.items():
            if start >= self.kept_from and self._inputs.days(start, start + DAY_MS) != closed.all(
                list(self._inputs.buffers)
            ):
                return start
        return None

    def _reads_from(self, name: str) -> int:
        """Return the time (ms) from which candles are part of the run or of its data."""
        if self.spec.warm_up != "stored":
            return day_of(self.spec.start)
        one = self._inputs.buffers[name]
        return 0 if one.whole or not one.n else one.time(0)

    # -- minutes ---------------------------------------------------------------------------------------------------

    def _step(self, t: int) -> None:
        """Run minute `t` from the state before it."""
        decides, start = self._decides(t), self._state
        context = self._context if decides else BARS_WITHOUT_DECISION
        state, fills = self._slices.record(t, t + MINUTE_MS, context, start)
        self._state, self.last = state.encode(), t
        self._is_open = self._inputs.next(t + 1) is None
        self._states[t] = self._state
        spec = self._inputs.complete
        standing, held = read_state(spec, self._state)
        attempt, published = self._published.get(t, (1, ""))
        if not decides and not fills and not published:
            self._log_minute(t, state)
            return
        decision = Decision(
            run=self.run_id,
            symbol=self.spec.symbol,
            strategy=self.spec.strategy,
            minute=t,
            attempt=attempt,
            decides=decides,
            changed=standing != read_state(spec, start)[0],
            target=standing.target,
            exposure=held.exposure,
            stop=standing.stop,
            take=standing.take,
            orders=standing.orders,
            fills=fills,
            quantity=held.quantity,
            equity=held.equity,
            state=digest_of(self._state),
            liquidation_price=held.liquidation_price,
            positions=held.positions,
        )
        text = msgspec.json.encode(decision).decode()
        event = ""
        if text != published:
            if published:
                attempt += 1
                text = msgspec.json.encode(msgspec.structs.replace(decision, attempt=attempt)).decode()
            event, self._published[t] = DECISION, (attempt, text)
        self._log_minute(t, state, event, attempt if event else 0, text if event else "")

    def _decides(self, t: int) -> bool:
        """Return whether a decision bar ends with minute `t`, as far as that is known."""
        k = self.spec.timeframe
        if not is_cut(t, k):
            return True
        following = self._inputs.next(t + 1)
        return following is not None and _bar(following, k) != _bar(t, k)

    def _ended_bar_early(self, t: int) -> bool:
        """Return whether minute `t` shows that the last one used, which was not known to be, ended a bar."""
        k = self.spec.timeframe
        if self.last < self.spec.start:
            return False
        return self._is_open and is_cut(self.last, k) and _bar(self.last, k) != _bar(t, k)

    def _log_minute(self, t: int, state: str, event: str = "", attempt: int = 0, data: str = "") -> None:
        if others := self._inputs.others(t):
            self._log("inputs", t, state=msgspec.json.encode(others).decode())
        self._log("minute", t, self._inputs.row(t), state, event, attempt, data)

    def _log(
        self,
        kind: Literal["minute", "inputs", "replay", "day", "facts"],
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
        self._due = max(self._due, self.last + MINUTE_MS)
        replayed = Replayed(
            run=self.run_id,
            symbol=self.spec.symbol,
            strategy=self.spec.strategy,
            minute=t,
            reason=reason,
            replay=self._replays,
        )
        self._log("replay", t, event=REPLAYED, attempt=self._replays, data=msgspec.json.encode(replayed).decode())
        before = self._inputs.previous(t)
        if self.spec.timeframe > 1 and before is not None and before >= self.spec.start:
            t = before  # which may end a bar no more, or only now
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
        """Use the minutes before `end`, a day at a time; publish nothing."""
        while (t := self._inputs.next(self.last + 1)) is not None and t < end:
            if self._ended_bar_early(t):
                self._restore(self.last)
                continue
            self._close_day_before(t)
            until = min(end, day_of(t) + DAY_MS)
            (outcome,) = self._slices.run(t, until, self._context, self._state).outcomes
            last = self._inputs.previous(until)
            assert last is not None, "minute t is before"
            self._state, self.last, self._is_open = outcome.end.encode(), last, self._inputs.next(until) is None
            self._states[last] = self._state
            minute: int | None = t if log and day_of(t) == day_of(self.since - MINUTE_MS) else None
            while minute is not None and minute <= last:
                self._log_minute(minute, outcome.end if minute == last else "")
                minute = self._inputs.next(minute + 1)

    def _close_day_before(self, t: int) -> None:
        """Compute the day of the last minute as one slice, if minute `t` is in a later one."""
        start = day_of(self.last)
        if self.last < self.spec.start or start == day_of(t) or start in self._days:
            return
        done = self._slices.run(max(start, self.spec.start), start + DAY_MS, self._context, self._day_state)
        (outcome,) = done.outcomes
        if outcome.end.encode() != self._state:
            raise RuntimeError(f"{self.spec.symbol}: the day {iso(start)} ends in another state than its minutes")
        closed = self._closed(start, start + DAY_MS, outcome, done.days)
        self._days[start] = closed
        self._day_state = self._state
        self._log("day", start, state=msgspec.json.encode(closed).decode())
        before = self._inputs.previous(start)
        if self.spec.timeframe > 1 and before is not None and before >= self.spec.start:
            start = day_of(before)  # whose last bar a late candle of the day may make longer
        self._forget_before(start)

    def _closed(self, start: int, end: int, outcome: SliceOutcome, days: list[int]) -> ClosedDay:
        found = self._inputs.days(start, end)
        if len(found) == 1:
            return ClosedDay(found[self.spec.symbol], outcome, days)
        return ClosedDay(None, outcome, days, found)

    def _forget_before(self, t: int) -> None:
        self.kept_from = max(self.kept_from, t)
        for minute in [one for one in self._states if one < t]:
            del self._states[minute]
        for minute in [one for one in self._published if one < t]:
            del self._published[minute]
        self._inputs.drop_before(t, self._context)

    # -- the result ------------------------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        """Return the result so far: that of a backtest from the run's start to the end of its last minute, bit by bit.

        Raises NoData before the first candle, and with funding before the first rate.
        """
        today, end = day_of(self.last), self.last + MINUTE_MS
        if self.last < self.spec.start:
            raise NoData(f"{self.spec.symbol} has had no candle since {iso(self.spec.start)}: wait for its first")
        slices = [closed for start, closed in self._days.items() if start < today]
        state = slices[-1].outcome.end.encode() if slices else COLD
        done = self._slices.run(max(today, self.spec.start), end, self._context, state, is_last=True)
        slices.append(self._closed(today, end, done.outcomes[0], done.days))
        outcomes = Outcomes()
        for number, one in enumerate(slices):
            outcomes.put(number, True, one.days, one.outcome)
        merged = merge_slices(outcomes, 0, len(slices))
        assert isinstance(merged, MergedSlices), "each day was computed from the end of the day before it"
        names, starts = list(self._inputs.buffers), [*(start for start in self._days if start < today), today]
        days = joined(one.all(names) for one in slices)
        for name, before in self.before.items():
            days[name] = [*(day for day in before if day.start < starts[0]), *days.get(name, [])]
        index = RunIndex(self.spec, self._inputs.facts, days)
        spec = with_tiers(index, msgspec.structs.replace(self.spec, end=end))
        digest = job_data(index, spec).digest
        rows = sum(day.rows for of in days.values() for day in of)
        plan = plan_of(spec, [spec.start, *starts[1:], spec.end], rows)
        return result_of(spec, plan, merged, job_id(spec, digest), digest)[0]


def _bar(t: int, k: int) -> int:
    """Return the number of the bar of `k` minutes that minute `t` belongs to."""
    return (t - bar_origin(k)) // (k * MINUTE_MS)


class Stored(msgspec.Struct, frozen=True):
    """What a store has for a run: `candles` by name, from the midnight `kept_from` on, with those before it that
    decisions read; `whole` are the names of which there are none before them that the run may read. `before` are the
    days until that of the range's start."""

    candles: Mapping[str, Mapping[str, Column]]
    kept_from: int
    whole: Container[str]
    before: Mapping[str, Sequence[Day]] = {}
    facts: Facts = Facts()


def resume(
    run_id: str, spec: Spec, since: int, stored: Stored, rows: Iterable[PaperLogRow]
) -> tuple[PaperRun, list[PaperLogRow]]:
    """Begin a run, or go on with one as its log and the store have it; return it with the rows to log.

    `rows` are those of the log from the midnight `kept_from` on, and of all days. What the store has of the minutes in
    the log replaces what the log says where they differ.
    """
    history = read_log(rows)
    used = {*history.candles, *history.others}
    first = min(used, default=max([spec.start, *(day + DAY_MS for day in history.days)]))
    names = columns_read(spec, [build(spec.strategy, dict(spec.params))])
    buffers, new = {}, {}
    for name, candles in stored.candles.items():
        edge = int(np.searchsorted(candles["t"], first))
        mine = history.candles if name == spec.symbol else history.of(name)
        logged = np.array([mine[t] for t in sorted(mine)], dtype=np.int64).reshape(-1, 6)
        columns = {one: np.append(candles[one][:edge].astype(np.int64), logged[:, k]) for k, one in enumerate(NAMES)}
        buffers[name] = CandleBuffer(columns, name in stored.whole, names if name in spec.symbols else NAMES)
        new[name] = list(zip(*(candles[one][edge:].astype(np.int64).tolist() for one in NAMES), strict=True))
    inputs = Inputs(spec, buffers, history.facts or Facts())
    run = PaperRun(run_id, spec, since, inputs, history, stored.kept_from, stored.before)
    if (changed := run.first_changed_day()) is not None:
        run.replay_from(changed)
    newest = max((one[-1][0] for one in new.values() if one), default=0)
    return run, [*run.learn(stored.facts), *run.take(new, newest + MINUTE_MS)]
