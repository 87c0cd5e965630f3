"""Dependencies of the functions' handlers."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from candlemill.backtests.merge import Repair
from candlemill.backtests.plan import Plan
from candlemill.pipeline.interfaces import CandleSource, DayIndex, JobStore
from candlemill.pipeline.prepared import PreparedJob
from candlemill.pipeline.rows import (
    JobRow,
    OutcomeRow,
    ResultRow,
)

UNCHANGED_KEPT = 10_000


class Waves(msgspec.Struct, frozen=True):
    """How functions hand out the tasks of a job: how many at once, and how long a task takes by estimate, in seconds,
    unless one slice takes longer."""

    tasks: int
    seconds: float


class Unchanged:
    """Timer of unchanged states, by a monotonic clock in ms."""

    def __init__(self, monotonic_ms: Callable[[], int]) -> None:
        self._monotonic_ms = monotonic_ms
        self._since: dict[str, tuple[object, int]] = {}

    def for_ms(self, name: str, state: object) -> int:
        """Return for how many ms `name` has had this state, counted from the first call with it; 0 for a new state."""
        now = self._monotonic_ms()
        known = self._since.get(name)
        if known is None or known[0] != state:
            self._since[name] = known = (state, now)
            while len(self._since) > UNCHANGED_KEPT:
                self._since.pop(next(iter(self._since)))
        return now - known[1]


def _nothing() -> None:
    """Read nothing again (the default)."""


def _no_cache_lookup(what: str, found: int, missing: int) -> None:
    """Ignore cache lookups (the default)."""


class HandlerContext(msgspec.Struct, frozen=True):
    """Dependencies of a handler.
    `recall` has the index answer from what earlier requests have read, `renew` from the store. `on_cache_lookup` gets
    the number of hits and misses of each cache lookup. `merge` merges a batch elsewhere, see `aggregate.merge_here`;
    `spread` applies a function to parts, as `map` does, possibly in parallel."""

    store: JobStore
    index: DayIndex
    candles: CandleSource
    clock_ms: Callable[[], int]
    on_cache_lookup: Callable[[str, int, int], None] = _no_cache_lookup  # name of the lookup, hits, misses
    merge: "Merge | None" = None
    spread: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = map
    recall: Callable[[], None] = _nothing
    renew: Callable[[], None] = _nothing
    waves: Waves | None = None  # None: all tasks at once, of a slice each
    unchanged: Unchanged | None = None  # only in a process that watches jobs
    prepared: PreparedJob | None = None  # the job that all events are of, where one process runs it


class MergedSets(msgspec.Struct, frozen=True):
    """Result of merging parameter sets: their results and the outcomes of prefixes (see `pipeline.prefix`), or the
    repairs that must come first."""

    results: list[ResultRow]
    repairs: list[Repair]
    set_keys: list[str]
    prefixes: list[OutcomeRow] = []


# Merge this many grid points of a job's plan from the first on. None: still running; deliver the event again later.
Merge = Callable[[JobRow, Plan, int, int], MergedSets | None]
