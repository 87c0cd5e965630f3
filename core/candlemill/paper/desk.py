"""Paper runs with a store: they begin or go on as their logs say, and what they decide is logged before it leaves.

One desk has the runs of one strategy with one set of options, one for each symbol. It is used by one thread.
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
from candlemill.backtests.spec_rules import context_bars, sees_panel
from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.errors import BadInput, CandlemillError
from candlemill.paper.candles import Row, day_of
from candlemill.paper.log import read_log
from candlemill.paper.run import PaperRun, resume
from candlemill.pipeline.rows import PaperLogRow, PaperRunRow
from candlemill.store.candle_writer import current_days
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import Day
from candlemill.strategies import build
from candlemill.units import FIRST_MS, LAST_MS, SCALE

COLUMNS = ("open", "high", "low", "close", "volume")
SYMBOLS_MAX = 1_000

log = logging.getLogger("candlemill.paper")


def check_spec(spec: Spec) -> None:
    """Raise BadInput for what cannot be run on paper."""
    if sees_panel(spec.strategy):
        raise BadInput(f"{spec.strategy} trades many symbols with one account: paper runs are of one symbol each")
    for name, usual in (("funding", False), ("margin", "none"), ("grid", {}), ("schedule", [])):
        if (given := getattr(spec, name)) != usual:
            raise BadInput(f"{name}={given!r:.60} does not go with a paper run: leave it out")
    if spec.warm_up != "none":
        raise BadInput(f"warm_up={spec.warm_up} does not go with a paper run: let it begin earlier, with --from")
    if spec.path == "both":
        raise BadInput("path=both has two outcomes, and a paper run has one: give path=worst or path=best")


class Desk:
    """Runs by symbol. `claim` numbers this process among those that go on with the same runs."""

    def __init__(self, store: ClickHouseStore) -> None:
        self._store = store
        self._claim = 0
        self._pending: list[PaperLogRow] = []
        self._index: dict[str, dict[int, Day]] = {}
        self.runs: dict[str, PaperRun] = {}
        self.rows: dict[str, PaperRunRow] = {}

    # -- opening ---------------------------------------------------------------------------------------------------

    def open(self, specs: Sequence[Spec], now_ms: int, begin: int | None, since: int | None = None) -> None:
        """Go on with the latest run of each spec, or begin one.

        A new run begins at minute `begin`, and publishes its decisions from minute `since` on; without either from the
        next minute after `now_ms` on. With `begin`, a run goes on only if it began there.
        """
        if not 0 < len(specs) <= SYMBOLS_MAX:
            raise BadInput(f"{len(specs):,} symbols, but paper runs are of 1 to {SYMBOLS_MAX:,}")
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
        days = list(current_days(self._store, row.symbol))
        start = day_of(spec.start)
        logged = self._store.paper_log(row.run_id, 1 << 62)
        closed = [one for one in logged if one.kind == "day"]
        first = min([oldest, max((one.t for one in closed), default=start)])
        first = max(start, min([first, *self._changed_days(days, closed)]))
        if spec.timeframe > 1:  # a late candle of the day may make the last bar before it longer
            first = max(start, max((day.start for day in days if day.start < first), default=first))
        read_from = self._reads_from(spec, days, first)
        columns = self._store.read_columns(row.symbol, read_from, LAST_MS, COLUMNS)
        whole = not any(start <= day.start < read_from for day in days)
        before = [day for day in days if day.start == start]
        rows = self._store.paper_log(row.run_id, first)
        run, new = resume(row.run_id, spec, row.since_ms, columns, first, whole, rows, before)
        self.runs[row.symbol] = run
        self._log(new)

    def _changed_days(self, days: Sequence[Day], closed: Sequence[PaperLogRow]) -> list[int]:
        """Return the days that are over for the run, and have other candles now."""
        now = {day.start: day for day in days}
        return [start for start, one in read_log(closed).days.items() if now.get(start) not in (None, one.day)]

    def _reads_from(self, spec: Spec, days: Sequence[Day], first: int) -> int:
        """Return the midnight from which the candles before the day `first` are enough for its decisions."""
        wanted = context_bars(spec, [build(spec.strategy, dict(spec.params))], exact=True)
        at = first
        for day in reversed([day for day in days if day.start < first]):
            if wanted <= 0 or at <= day_of(spec.start):
                break
            at, wanted = day.start, wanted - day.rows
        return at

    # -- candles in ------------------------------------------------------------------------------------------------

    def take(self, symbol: str, rows: Sequence[Row]) -> None:
        """Use candles of a symbol. Raises StoreError where older ones have to be read and cannot be."""
        run = self.runs[symbol]
        start = day_of(run.spec.start)
        oldest = min((row[0] for row in rows if row[0] >= start), default=1 << 62)
        if oldest < run.kept_from:
            self.commit()
            self._load(self.rows[symbol], oldest)
        self._log(self.runs[symbol].take(rows))

    def check_store(self, symbol: str) -> None:
        """Use the candles that the store has and the run has not, or has otherwise."""
        run = self.runs[symbol]
        seen = self._index.setdefault(symbol, {})
        for day in self._store.days(symbol, day_of(run.spec.start)):
            if not day.digest or seen.get(day.start) == day:
                continue
            if self.runs[symbol].differs_from(day):
                columns = self._store.read_columns(symbol, day.start, day.start + DAY_MS, COLUMNS)
                self.take(symbol, rows_of(columns))
            seen[day.start] = day

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


def rows_of(columns: Mapping[str, NDArray[Any]]) -> list[Row]:
    """Return columns of the store as rows."""
    return list(zip(*(columns[name].astype(np.int64).tolist() for name in ("t", *COLUMNS)), strict=True))
