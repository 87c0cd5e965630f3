"""Outcomes of a local run: in memory while they are needed, and in the store for later jobs."""

import time
from collections.abc import Iterable, Sequence
from typing import Literal

from candlemill.pipeline.rows import KnownSlice, OutcomeRow
from candlemill.store.base import Store

WRITE_BYTES = 8_000_000
WRITE_SECONDS = 5.0


class LocalOutcomes:
    """Outcomes of a local run, see `JobStore`.
    They are written in few large inserts: when a batch is merged, when there are many or some seconds have passed, and
    at the end. A crash loses what was not written yet.

    `kept`: whether outcomes are written to the store and read from it.
    """

    def __init__(self, store: Store, kept: bool) -> None:
        self._store = store
        self._kept = kept
        self._outcomes: dict[str, dict[tuple[str, str], OutcomeRow]] = {}  # by set, then by slice and start
        self._new: list[OutcomeRow] = []
        self._new_bytes = 0
        self._new_since = time.monotonic()
        self._stored: dict[str, set[str]] = {}  # outcomes known to be in the store: sets by slice

    @property
    def whole_batches(self) -> Literal["no", "results", "outcomes"]:
        """Return whether workers may run whole batches, as `Pool.whole`: not where some outcomes are known."""
        if self._stored:
            return "no"
        return "outcomes" if self._kept else "results"

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        if not self._kept:
            return []
        found = self._store.known_slices(set_keys, code)
        for known in found:
            self._stored.setdefault(known.key, set()).update(known.sets)
        rows = (row for key in set_keys for row in self._outcomes.get(key, {}).values())
        return found + [KnownSlice(r.slice_key, r.first_ms, r.start_ms, r.end_ms, {r.set_key}) for r in rows]

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        return self._store.other_code(set_keys, code)

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        slices, sets = set(slice_keys), set(set_keys)
        found = [
            row
            for key in set_keys
            for (slice_key, _), row in self._outcomes.get(key, {}).items()
            if slice_key in slices
        ]
        stored = [key for key in slice_keys if not sets.isdisjoint(self._stored.get(key, ()))]
        return self._store.outcomes(set_keys, code, stored) + found if stored else found

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        for row in rows:
            self._outcomes.setdefault(row.set_key, {})[row.slice_key, row.start_state] = row
        if not self._kept:
            return
        self._new += rows
        self._new_bytes += sum(row.size for row in rows)
        if self._new_bytes > WRITE_BYTES or time.monotonic() - self._new_since > WRITE_SECONDS:
            self.write_outcomes()

    def release(self, set_keys: Iterable[str]) -> None:
        self.write_outcomes()
        for key in set_keys:
            self._outcomes.pop(key, None)

    def write_outcomes(self) -> None:
        if self._new:
            self._store.put_outcomes(self._new)
        self._new, self._new_bytes, self._new_since = [], 0, time.monotonic()
