"""Paper runs with a store: they begin or go on as their logs say, and what they decide is logged before it leaves.

One desk has the runs of one strategy with one set of options, one for each symbol or one for all. It is used by one
thread.
"""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.identity import job_id
from candlemill.backtests.spec import Spec, spec_from_json
from candlemill.backtests.spec_rules import context_bars
from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput, CandlemillError
from candlemill.paper.candles import Row, day_of
from candlemill.paper.inputs import Facts, RunIndex, facts_of, names_of
from candlemill.paper.log import ClosedDay, read_log
from candlemill.paper.run import LAST, PaperRun, Stored, resume
from candlemill.pipeline.prepare import with_tiers
from candlemill.pipeline.rows import PaperLogRow, PaperRunRow
from candlemill.store.candle_writer import current_days
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import Day, digest_of_days
from candlemill.strategies import build
from candlemill.units import FIRST_MS, LAST_MS, SCALE

COLUMNS = ("open", "high", "low", "close", "volume")
SYMBOLS_MAX = 1_000
AWAITED_SECONDS = 5.0  # a minute waits so long for what has not come yet

log = logging.getLogger("candlemill.paper")


def check_spec(spec: Spec) -> None:
    """Raise BadInput for what cannot be run on paper."""
    for name, usual in (("grid", {}), ("schedule", [])):
        if (given := getattr(spec, name)) != usual:
            raise BadInput(
                f"{name}={given!r:.60} does not go with a paper run, which has one parameter set: leave it out"
            )
    if spec.path == "both":
        raise BadInput("path=both has two outcomes, and a paper run has one: give path=worst or path=best")
    if spec.universe.startswith("top:"):
        raise BadInput(f"universe={spec.universe} does not go with a paper run: name its symbols")


class Desk:
    """Runs by their symbols, with commas between those of a panel; `readers` are the runs that read a name's candles.

    A minute waits `awaited_seconds` for what has not come yet. `claim` numbers this process among those that go on with
    the same runs.
    """

    def __init__(self, store: ClickHouseStore, awaited_seconds: float = AWAITED_SECONDS) -> None:
        self._store, self._awaited_seconds = store, awaited_seconds
        self._claim = 0
        self._pending: list[PaperLogRow] = []
        self._index: dict[tuple[str, str], dict[int, Day]] = {}
        self._waiting: dict[str, tuple[int, float]] = {}  # which minute of a run waits, and since when
        self.readers: dict[str, list[str]] = {}
        self.runs: dict[str, PaperRun] = {}
        self.rows: dict[str, PaperRunRow] = {}

    @property
    def marks(self) -> list[str]:
        """Return the names of mark prices, which no feed brings."""
        return [name for name in self.readers if any(name not in symbol.split(",") for symbol in self.readers[name])]

    # -- opening ---------------------------------------------------------------------------------------------------

    def open(self, specs: Sequence[Spec], now_ms: int, begin: int | None, since: int | None = None) -> None:
        """Go on with the latest run of each spec, or begin one.

        A new run begins at minute `begin`, and publishes its decisions from minute `since` on; without either from the
        next minute after `now_ms` on. With `begin`, a run goes on only if it began there.
        """
        count = sum(len(spec.symbols) for spec in specs)
        if not 0 < count <= SYMBOLS_MAX:
            raise BadInput(f"{count:,} symbols, but paper runs are of 1 to {SYMBOLS_MAX:,}")
        for name, given in (("begin", begin), ("since", since)):
            if given is not None and given % MINUTE_MS:
                raise BadInput(f"{name}={given}: a run begins at a whole minute")
        following = -(-now_ms // MINUTE_MS) * MINUTE_MS
        for spec in specs:
            check_spec(spec)
            scale = self._store.volume_scale(spec.symbol) or SCALE
            spec = msgspec.structs.replace(spec, volume_scale=scale if spec.volume_share else 0, end=LAST_MS)
            key = job_id(msgspec.structs.replace(spec, start=FIRST_MS), "paper")
            row = self._store.latest_paper_run(key) if begin is None else None
            if row is None:
                row = self._new_run(msgspec.structs.replace(spec, start=begin or following), key, since or following)
            self.rows[spec.symbol] = row
            begun = spec_from_json(row.spec)
            with_tiers(RunIndex(begun, self._facts(begun, {}), {}), begun)
            for name in names_of(spec):
                self.readers.setdefault(name, []).append(spec.symbol)
        ids = [row.run_id for row in self.rows.values()]
        self._claim = max([self._store.now_ns(), *(one + 1 for one in self._store.paper_marks("claim", ids).values())])
        self._store.put_paper_marks("claim", dict.fromkeys(ids, self._claim))
        for row in self.rows.values():
            self._load(row)

    def _new_run(self, spec: Spec, key: str, since: int) -> PaperRunRow:
        run_id = hashlib.sha256(f"{job_id(spec, 'paper')} {spec.start}".encode()).hexdigest()[:32]
        known = self._store.paper_run(run_id)
        if known is not None:
            return known
        since = max(since, spec.start)
        row = PaperRunRow(run_id, key, spec.symbol, spec.strategy, spec.to_json().decode(), since)
        self._store.put_paper_run(row)
        return row

    def _load(self, row: PaperRunRow, oldest: int = 1 << 62) -> None:
        """Make a run from its log and the store's candles, so that minutes from the day of `oldest` on can be
        replaced."""
        spec = spec_from_json(row.spec)
        start = day_of(spec.start)
        days = {name: list(current_days(self._store, name)) for name in names_of(spec)}
        history = read_log(self._store.paper_log(row.run_id, LAST))
        closed = history.days
        facts = self._facts(spec, days)
        changed = (history.facts or Facts()).first_change(facts, spec.start) if closed else None
        first = min(oldest, max(closed, default=start), start if changed is None else day_of(changed))
        first = max(start, min([first, *_changed_days(days, closed)]))
        if spec.timeframe > 1:  # a late candle of the day may make the last bar before it longer
            starts = [day.start for of in days.values() for day in of if day.start < first]
            first = max(start, max(starts, default=first))
        candles, whole = {}, set()
        for name, of in days.items():
            read_from = self._reads_from(spec, of, first)
            candles[name] = self._store.read_columns(name, read_from, LAST_MS, COLUMNS)
            readable = FIRST_MS if spec.warm_up == "stored" else start
            if not any(readable <= day.start < read_from for day in of):
                whole.add(name)
        stored = Stored(candles, first, whole, _before(spec, days), facts)
        rows = self._store.paper_log(row.run_id, first)
        run, new = resume(row.run_id, spec, row.since_ms, stored, rows)
        self.runs[row.symbol] = run
        self._log(new)

    def _facts(self, spec: Spec, days: Mapping[str, Sequence[Day]]) -> Facts:
        """Return what the store has beside candles."""
        rates = {name: self._store.funding(name) for name in spec.symbols} if spec.funding else {}
        tiers = {name: self._store.margin_tiers(name) for name in spec.symbols} if spec.margin != "none" else {}
        digests = []
        for name, of in days.items() if spec.warm_up == "stored" else ():
            first, end = self._reads_from(spec, of, day_of(spec.start)), day_of(spec.start)
            digests.append(f"{name} {digest_of_days([day for day in of if first <= day.start < end])}")
        return facts_of(spec, rates, tiers, ", ".join(digests))

    def _reads_from(self, spec: Spec, days: Sequence[Day], first: int) -> int:
        """Return the midnight from which the candles before the day `first` are enough for its decisions."""
        wanted = context_bars(spec, [build(spec.strategy, dict(spec.params))], exact=True)
        at, readable = first, FIRST_MS if spec.warm_up == "stored" else day_of(spec.start)
        for day in reversed([day for day in days if readable <= day.start < first]):
            if wanted <= 0:
                break
            at, wanted = day.start, wanted - day.rows
        return at

    # -- candles in ------------------------------------------------------------------------------------------------

    def by_run(self, candles: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Sequence[Row]]]:
        """Return candles by the runs that read them, and by name."""
        found: dict[str, dict[str, Sequence[Row]]] = {}
        for name, rows in candles.items():
            for symbol in self.readers.get(name, []):
                if symbol in self.runs:
                    found.setdefault(symbol, {})[name] = rows
        return found

    def take(self, symbol: str, candles: Mapping[str, Sequence[Row]]) -> None:
        """Use candles of a run by name. Raises StoreError where older ones have to be read and cannot be."""
        start = day_of(self.runs[symbol].spec.start)
        oldest = min((row[0] for rows in candles.values() for row in rows if row[0] >= start), default=LAST)
        if oldest < self.runs[symbol].kept_from:
            self._reload(symbol, oldest)
        self._log(self.runs[symbol].take(candles))

    def _reload(self, symbol: str, oldest: int) -> None:
        self.commit()
        self._load(self.rows[symbol], oldest)

    def check_store(self, symbol: str) -> None:
        """Use the candles and the facts that the store has and the run has not, or has otherwise."""
        self.check_facts(symbol)
        start = day_of(self.runs[symbol].spec.start)
        for name in names_of(self.runs[symbol].spec):
            seen = self._index.setdefault((symbol, name), {})
            for day in self._store.days(name, start):
                if not day.digest or seen.get(day.start) == day:
                    continue
                if self.runs[symbol].differs_from(name, day):
                    columns = self._store.read_columns(name, day.start, day.start + DAY_MS, COLUMNS)
                    self.take(symbol, {name: rows_of(columns)})
                seen[day.start] = day

    def check_facts(self, symbol: str) -> None:
        """Use the funding rates, tiers and earlier days that the store has now."""
        spec = self.runs[symbol].spec
        if not spec.funding and spec.margin == "none" and spec.warm_up == "none":
            return
        days = {name: self._store.days(name) for name in names_of(spec)} if spec.warm_up == "stored" else {}
        if any(not day.digest for of in days.values() for day in of):
            return  # they are being written
        facts = self._facts(spec, days)
        first = self.runs[symbol].facts.first_change(facts, spec.start)
        if first is not None and first < self.runs[symbol].kept_from:
            self._reload(symbol, max(first, spec.start))
            return
        if spec.warm_up == "stored":
            self.runs[symbol].before = _before(spec, days)
        self._log(self.runs[symbol].learn(facts))

    def go_on(self, symbol: str, now: float) -> None:
        """Let a run go on that has waited long enough, and look for the rate that it waits for; `now` are seconds of a
        clock that is never set."""
        if self.runs[symbol].waiting is None:
            return
        if self.runs[symbol].awaits_rate:
            self.check_facts(symbol)
        run = self.runs[symbol]
        waits, since = self._waiting.get(symbol, (0, 0.0))
        if (minute := run.waiting) is not None and waits != minute:
            self._waiting[symbol] = minute, now
        elif minute is not None and now - since >= self._awaited_seconds:
            self._log(run.advance(minute + MINUTE_MS))

    # -- rows out --------------------------------------------------------------------------------------------------

    def _log(self, rows: Iterable[PaperLogRow]) -> None:
        self._pending += [msgspec.structs.replace(row, claim=self._claim) for row in rows]

    def commit(self) -> list[PaperLogRow]:
        """Write what is new to the log, all of it or nothing; return the rows.

        Raises TakenOver if another process goes on with the runs, StoreError if it fails: call it again then.
        """
        if not self._pending:
            return []
        ids = list({row.run_id for row in self._pending})
        if any(claim != self._claim for claim in self._store.paper_marks("claim", ids).values()):
            raise TakenOver("another process goes on with these paper runs: this one ends")
        self._store.put_paper_log(self._pending)
        written, self._pending = self._pending, []
        return written


class TakenOver(CandlemillError):
    """Another process has begun to run the same paper runs."""

    code = "taken_over"


def _changed_days(days: Mapping[str, Sequence[Day]], closed: Mapping[int, ClosedDay]) -> list[int]:
    """Return the days that are over for the run, and have other candles now."""
    now = {name: {day.start: day for day in of} for name, of in days.items()}
    return [
        start
        for start, one in closed.items()
        if any(of.get(start, mine) != mine for name, of in now.items() if (mine := one.of(name)) is not None)
    ]


def _before(spec: Spec, days: Mapping[str, Sequence[Day]]) -> dict[str, list[Day]]:
    """Return the days until that of the range's start, as far as they are part of the run's data."""
    start, first = day_of(spec.start), FIRST_MS if spec.warm_up == "stored" else day_of(spec.start)
    return {name: [day for day in of if first <= day.start <= start] for name, of in days.items()}


def rows_of(columns: Mapping[str, NDArray[Any]]) -> list[Row]:
    """Return columns of the store as rows."""
    return list(zip(*(columns[name].astype(np.int64).tolist() for name in ("t", *COLUMNS)), strict=True))
