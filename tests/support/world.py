"""A world in memory for the real handlers: candles, index, store, and a delivery that shuffles and doubles events."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import slow_strategies  # noqa: F401 - teaches the reference the other strategies
from candlemill.backtests.daily import unpack
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import TierTable
from candlemill.pipeline import aggregate, events, execute, prepare, split
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import later, steps_of
from candlemill.pipeline.rows import (
    GUESS,
    MERGED_BATCH,
    BatchState,
    JobRow,
    KnownSlice,
    OutcomeRow,
    ResultRow,
    Scores,
    TaskRecord,
    scores_of,
)
from candlemill.store.candle_reader import CandleReader
from candlemill.store.candle_writer import count_days
from candlemill.stored_days import Day, Funding
from candlemill.strategies import build
from slow_engine import DAY, MINUTE, Bar

FIRST_DAY = 1_609_459_200_000  # 2021-01-01
COLUMNS = ("t", "open", "high", "low", "close", "volume")
HANDLERS = {
    events.REQUESTED: split.split,
    events.TASKS_REQUESTED: split.split,
    events.SLICE_REQUESTED: execute.execute,
    events.SLICE_COMPLETED: aggregate.aggregate,
}


class World:
    """One symbol's bars and everything that the handlers keep. `read` months come from the bars, as from a store."""

    def __init__(self, bars: Sequence[Bar], funding: Sequence[tuple[int, int]] = (), volume_scale: int = 10**8) -> None:
        self._volume_scale = volume_scale
        self._funding = Funding(*(np.array([pair[k] for pair in funding], dtype=np.int64) for k in (0, 1)))
        self.tiers: list[TierTable] = []
        self.marks: World | None = None  # its bars are the mark prices
        self.store(bars)
        self.jobs: dict[str, JobRow] = {}
        self.jobs_at: dict[str, int] = {}  # when they, and their tasks, were written last
        self.tasks_at: dict[str, int] = {}
        self.rows: dict[tuple[str, int, str, int, str], TaskRecord] = {}
        self.kept: dict[tuple[str, str, str, str], OutcomeRow] = {}  # outcomes by set, code, slice and start
        self.results: dict[str, dict[str, Any]] = {}
        self.result_rows: dict[str, ResultRow] = {}
        self.runtime = HandlerContext(self, self, CandleReader(self.days, self), lambda: 0)  # type: ignore[arg-type]

    def store(self, bars: Sequence[Bar]) -> None:
        """Have these bars instead of what was there."""
        rows = sorted({bar.t: bar for bar in bars}.values(), key=lambda bar: bar.t)
        self.columns: dict[str, Any] = {
            name: np.array([getattr(bar, name) for bar in rows], dtype=np.uint64 if name == "volume" else np.int64)
            for name in COLUMNS
        }
        self._days = count_days(self.columns)

    # the store, as far as the candle reader uses it
    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, Any]:
        columns = self.marks.columns if self.marks and "-MARK:" in symbol else self.columns
        inside = (columns["t"] >= start) & (columns["t"] < end)
        return {name: columns[name][inside] for name in ("t", *names)}

    # the index
    def symbols(self) -> list[str]:
        return ["X"]

    def days(self, symbol: str, start: int = 0, end: int = 1 << 62) -> list[Day]:
        if "-MARK:" in symbol:
            return self.marks.days(symbol.replace("-MARK", "")) if self.marks else []
        return self._days

    def volume_scale(self, symbol: str) -> int:
        return self._volume_scale

    def funding(self, symbol: str) -> Funding:
        return self._funding

    def margin_tiers(self, symbol: str) -> list[TierTable]:
        return self.tiers

    # the store
    def count_sweep(self, sweep_id: str) -> int:
        return sum(row.sweep_id == sweep_id for row in self.result_rows.values())

    def sweep_scores(self, sweep_id: str) -> Scores:
        return scores_of([row for row in self.result_rows.values() if row.sweep_id == sweep_id])

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        return {job_id: self.result_rows[job_id].daily for job_id in job_ids}

    def job(self, job_id: str) -> JobRow | None:
        return self.jobs.get(job_id)

    def put_job(self, job: JobRow, at_ms: int | None = None) -> None:
        self.jobs[job.job_id] = later(self.jobs.get(job.job_id), job)
        self.jobs_at[job.job_id] = self.runtime.clock_ms() if at_ms is None else at_ms

    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None:
        for k, job in enumerate(jobs):
            self.put_job(job, at_ms[k] if at_ms else None)

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        return [(self.jobs_at[job_id], self.jobs[job_id])]

    def unfinished_jobs(self) -> list[JobRow]:
        return [row for row in self.jobs.values() if not row.finished]

    def last_activity_ms(self, job_id: str) -> int:
        return max(self.jobs_at[job_id], self.tasks_at.get(job_id, 0))

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        return {one: self.jobs[one] for one in job_ids if one in self.jobs}

    def waiting_for(self, job_id: str) -> list[JobRow]:
        return [row for row in self.unfinished_jobs() if any(step.job_id == job_id for step in steps_of(row))]

    def results_of(self, job_ids: Sequence[str]) -> list[ResultRow]:
        return [self.result_rows[one] for one in job_ids if one in self.result_rows]

    def has_result(self, job_id: str) -> bool:
        return job_id in self.result_rows

    def partials(self, job_id: str, batch: int | None = None) -> list[TaskRecord]:
        return [r for r in self.rows.values() if r.job_id == job_id and batch in (None, r.batch)]

    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        return {row.slice: row.part for row in self.partials(job_id, MERGED_BATCH) if row.task == merged}

    def put_task_records(self, partials: Sequence[TaskRecord]) -> None:
        for row in partials:
            self.tasks_at[row.job_id] = self.runtime.clock_ms()
            key = (row.job_id, row.batch, row.kind, row.slice, row.task)
            assert self.rows.get(key, row) == row, "a task that runs twice writes the same bytes"
            self.rows[key] = row

    def tasks_done(self, job_id: str) -> int:
        return len(self.partials(job_id))

    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str, enough: int) -> BatchState:
        done = {row.slice for row in self.partials(job_id, MERGED_BATCH) if row.task == merged}
        found = [row for row in self.partials(job_id, batch) if row.kind == GUESS and row.task.endswith(tasks)]
        names = frozenset(row.task for row in found) if len(found) >= enough else frozenset[str]()
        return BatchState(len(found), batch in done, len(done), names)

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        for row in rows:
            key = (row.set_key, row.code, row.slice_key, row.start_state)
            known = self.kept.setdefault(key, row)
            assert msgspec.structs.replace(known, guessed=row.guessed) == row, "one address, one outcome"

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        return [
            KnownSlice(row.slice_key, row.first_ms, row.start_ms, row.end_ms, {row.set_key})
            for row in self.kept.values()
            if row.code == code and row.set_key in set_keys
        ]

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        return any(row.code != code and row.set_key in set_keys for row in self.kept.values())

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        return [
            row
            for row in self.kept.values()
            if row.code == code and row.set_key in set_keys and row.slice_key in slice_keys
        ]

    def release(self, set_keys: Sequence[str]) -> None:
        """Everything is kept."""

    def put_results(self, results: Sequence[ResultRow]) -> None:
        for row in results:
            found = {**msgspec.json.decode(row.result), "daily": row.daily}
            self.result_rows[row.job_id] = row
            known = self.results.setdefault(row.job_id, found)
            assert all(known[name] == found[name] for name in ("result_digest", "daily"))

    def run(self, spec: Spec, slices: int | None = None, rng: random.Random | None = None) -> list[dict[str, Any]]:
        """Deliver until all is quiet: in order, or shuffled and one time in four doubled. All results, in any order."""
        queue = [events.make("test", events.REQUESTED, "", events.Requested(spec, slices))]
        finished: list[Event] = []
        for _ in range(100_000):
            if not queue:
                break
            event = queue.pop(rng.randrange(len(queue)) if rng else 0)
            if rng and rng.random() < 0.25:
                queue.append(event)
            for answer in HANDLERS[event.type](event, self.runtime):
                (queue if answer.type in HANDLERS else finished).append(answer)
        assert {event.type for event in finished} == {events.COMPLETED}
        return list(self.results.values())


def daily_of(result: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The midnights and profits of a result's days."""
    days, profits = unpack(result["daily"])
    return days.tolist(), profits.tolist()


@dataclass(frozen=True)
class Market:
    """What a job sees of its symbol; `funding` as pairs of instant (ms) and rate."""

    bars: list[Bar]
    funding: list[tuple[int, int]] = field(default_factory=list)
    volume_scale: int = 10**8

    def world(self) -> World:
        return World(self.bars, self.funding, self.volume_scale)


# -- hypothesis ----------------------------------------------------------------------------------------------------


@st.composite
def bar_lists(draw: st.DrawFn, bars_max: int = 300) -> list[Bar]:
    """Random walks with gaps, ties, days of one bar, prices from 1 to 10^14, and volumes from 0 to 10^14."""
    days = draw(st.integers(1, 7))
    rng = draw(st.randoms(use_true_random=False))
    dense = draw(st.booleans())
    if dense:
        begin = draw(st.integers(0, days * 1440 - 1))
        most = min(bars_max, days * 1440 - begin)
        count = draw(st.integers(1, most) | st.just(most))
        minutes = list(range(begin, begin + count))
        holes = draw(st.lists(st.tuples(st.sampled_from(minutes), st.integers(1, 90)), max_size=4))
        missing = {m for a, n in holes for m in range(a, a + n)} - {minutes[0]}
        minutes = [m for m in minutes if m not in missing]
    else:
        count = draw(st.integers(1, min(60, bars_max)))
        minutes = sorted(rng.sample(range(days * 1440), count))
    tick = 10 ** draw(st.integers(0, 12))
    lot = 10 ** draw(st.integers(0, 10))
    price, wild = draw(st.integers(1, 100)), draw(st.sampled_from([1, 3, 20]))
    bars = []
    for minute in minutes:
        opened = max(1, price + (rng.randint(-wild, wild) if rng.random() < 0.3 else 0))
        price = min(100, max(1, opened + rng.randint(-wild, wild)))
        high = max(opened, price) + rng.choice([0, 0, 1, wild])
        low = max(1, min(opened, price) - rng.choice([0, 0, 1, wild]))
        volume = rng.choice([0, 1, lot * rng.randint(1, 9_999)])
        bars.append(Bar(FIRST_DAY + minute * MINUTE, opened * tick, high * tick, low * tick, price * tick, volume))
    return bars


FUNDING_RATES = [10_000, -10_000, 7_777, -123_457, 3_000_000, -20_000_000]


@st.composite
def markets(draw: st.DrawFn, bars_max: int = 300) -> Market:
    """Funding comes every 8 hours, or often and at any millisecond: in gaps, and several times in one bar."""
    bars = draw(bar_lists(bars_max))
    rng = draw(st.randoms(use_true_random=False))
    first, last = bars[0].t, bars[-1].t
    instants = set(range(FIRST_DAY, last + MINUTE, DAY // 3))
    if draw(st.booleans()):
        count = draw(st.integers(1, 60))
        instants = {rng.choice([rng.choice(bars).t, rng.randint(first - MINUTE, last + MINUTE)]) for _ in range(count)}
    funding = [(t, rng.choice(FUNDING_RATES)) for t in sorted(instants)]
    return Market(bars, funding, draw(st.sampled_from([1, 10**5, 10**8])))


LENGTHS = st.integers(1, 20)
WINDOWS = st.integers(2, 20)
HUNDREDTHS = st.sampled_from([0, 50, 100, 141, 200, 300])  # two closes are one deviation from their mean: ties


def _levels(levels: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(("low", "exit", "high"), sorted(levels), strict=True))


RATES = st.sampled_from([0, 0, 1_000, 20_000, 150_000, 1_000_000])
PARAMS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "sma_cross": st.builds(
        lambda fast, more, short: {"fast": fast, "slow": fast + more, "allow_short": short},
        LENGTHS, LENGTHS, st.booleans(),
    ),
    "momentum_v1": st.fixed_dictionaries(
        {"lookback": LENGTHS, "threshold": st.sampled_from([0, 5_000, 100_000]), "allow_short": st.booleans()}
    ),
    "donchian": st.fixed_dictionaries({"entry": LENGTHS, "exit": LENGTHS}),
    "buy_and_hold": st.just({}),
    "ema_cross": st.builds(
        lambda fast, more, short: {"fast": fast, "slow": fast + more, "allow_short": short},
        LENGTHS, LENGTHS, st.booleans(),
    ),
    "macd": st.builds(
        lambda fast, more, signal, short: {"fast": fast, "slow": fast + more, "signal": signal, "allow_short": short},
        LENGTHS, LENGTHS, LENGTHS, st.booleans(),
    ),
    "rsi_reversion": st.builds(
        lambda length, levels, short: {"length": length, "allow_short": short, **_levels(levels)},
        LENGTHS, st.tuples(*[st.integers(0, 100)] * 3), st.booleans(),
    ),
    "bollinger": st.fixed_dictionaries({"length": WINDOWS, "width": HUNDREDTHS, "allow_short": st.booleans()}),
    "zscore_reversion": st.builds(
        lambda length, exit, more, short: {"length": length, "entry": exit + more, "exit": exit, "allow_short": short},
        WINDOWS, HUNDREDTHS, HUNDREDTHS, st.booleans(),
    ),
    "keltner": st.fixed_dictionaries(
        {"length": LENGTHS, "range_length": LENGTHS, "width": HUNDREDTHS, "allow_short": st.booleans()}
    ),
    "supertrend": st.fixed_dictionaries({"length": LENGTHS, "multiple": HUNDREDTHS, "allow_short": st.booleans()}),
    "atr_stop": st.fixed_dictionaries({"length": LENGTHS, "multiple": HUNDREDTHS, "allow_short": st.booleans()}),
    "dual_momentum": st.builds(lambda fast, more: {"fast": fast, "slow": fast + more}, LENGTHS, LENGTHS),
    "time_of_day": st.tuples(st.integers(0, 1439), st.integers(0, 1439))
        .filter(lambda ends: ends[0] != ends[1]).map(lambda ends: {"start": ends[0], "end": ends[1]}),
}  # fmt: skip


CAPITALS = st.sampled_from([None, 1, 123_456_789, 10**12])
SHARES = st.sampled_from([0, 0, 1, 10_000, 1_000_000])
ACCOUNTS: list[st.SearchStrategy[dict[str, Any]]] = [
    st.fixed_dictionaries(
        {
            "sizing": st.just("fixed"),
            "quantity": st.sampled_from([10**8, 1, 123_456_789, 10**13]),
            "capital": CAPITALS,
            "volume_share": SHARES,
        }
    ),
    st.fixed_dictionaries(
        {
            "sizing": st.just("notional"),
            "capital": CAPITALS,
            "notional": st.sampled_from([None, 1, 10**11, 2**50]),
            "volume_share": SHARES,
        }
    ),
    st.fixed_dictionaries({"sizing": st.just("compound"), "capital": CAPITALS}),
]
FEES = RATES | st.sampled_from([-500, -100_000])


@st.composite
def specs(draw: st.DrawFn, market: Market) -> Spec:
    """A job over the bars' days, its ends at midnights or within a day."""
    bars = market.bars
    name = draw(st.sampled_from(sorted(PARAMS)))
    days = (bars[-1].t - FIRST_DAY) // DAY + 1
    begin, end = FIRST_DAY, FIRST_DAY + days * DAY
    if draw(st.booleans()):
        begin = draw(st.sampled_from([bars[0].t, bars[len(bars) // 2].t]))
        end = draw(st.sampled_from([bars[-1].t + MINUTE, end]))
    has_funding = any(begin <= t < end for t, _ in market.funding)
    spec = Spec(
        symbol="X",
        account="units",
        strategy=name,
        params=parameters_of(build(name, draw(PARAMS[name]))),
        start=begin,
        end=end,
        fee=draw(FEES),
        maker_fee=draw(st.none() | FEES),
        slippage=draw(RATES),
        stop_loss=draw(RATES),
        take_profit=draw(st.sampled_from([0, 0, 10_000, 200_000, 5_000_000])),
        trailing_stop=draw(RATES),
        fill=draw(st.sampled_from(["next_open", "close"])),
        timeframe=draw(st.sampled_from([1] * 8 + [2, 5, 7, 60, 1440, 1441, 4_320, 10_080])),
        funding=has_funding and draw(st.sampled_from([True, True, False])),
        **draw(st.one_of(ACCOUNTS)),
    )
    return prepare.validated(spec)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[Market, Spec]:
    market = draw(markets())
    return market, draw(specs(market))
