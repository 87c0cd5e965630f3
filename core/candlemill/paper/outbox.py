"""Publish the events of paper runs, each run's in order, at least once. The log is the queue that survives.

A run's events wait in memory, up to a limit; beyond it they are read from the log again when there is room. What has
been accepted is marked in the store, so that a process that goes on publishes the rest, under the same ids.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from candlemill.errors import CandlemillError, StoreError
from candlemill.paper.decision import event_of
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import PaperLogRow
from candlemill.store.clickhouse import ClickHouseStore

WAITING_MAX = 1_000  # events of a run in memory
THREADS = 8
RETRY_SECONDS = 0.25
RETRY_SECONDS_MAX = 30.0

log = logging.getLogger("candlemill.paper")

Post = Callable[[Event], None]


class Outbox:
    """Publishes events with `post`, which raises a CandlemillError for one that was not accepted."""

    def __init__(self, store: ClickHouseStore, post: Post, threads: int = THREADS) -> None:
        self._store, self._post = store, post
        self._waiting: dict[str, deque[PaperLogRow]] = {}
        self._beyond: set[str] = set()  # runs that have more events in the log than wait here
        self._done: dict[str, int] = {}
        self._marked: dict[str, int] = {}
        self._busy: set[str] = set()
        self._ready = threading.Condition()
        self._stopping = threading.Event()
        self.published = 0
        self.failures = 0
        self._threads = [threading.Thread(target=self._work, name=f"publish-{k}", daemon=True) for k in range(threads)]

    def start(self, run_ids: Sequence[str]) -> None:
        """Publish what the logs of these runs have and what is not marked as published."""
        marks = self._store.paper_marks("published", run_ids)
        for run_id in run_ids:
            self._waiting[run_id] = deque()
            self._done[run_id] = self._marked[run_id] = marks.get(run_id, 0)
            self._beyond.add(run_id)
        for thread in self._threads:
            thread.start()
        self.refill()

    def put(self, rows: Sequence[PaperLogRow]) -> None:
        """Queue rows that have been logged."""
        with self._ready:
            for row in rows:
                if row.event and row.run_id not in self._beyond:
                    waiting = self._waiting[row.run_id]
                    if len(waiting) < WAITING_MAX:
                        waiting.append(row)
                    else:
                        self._beyond.add(row.run_id)
            self._ready.notify_all()

    def refill(self) -> None:
        """Read more events from the log where there is room, and mark what has been published. Raises StoreError."""
        with self._ready:
            short = [run_id for run_id in self._beyond if not self._waiting[run_id] and run_id not in self._busy]
        for run_id in short:
            found = self._store.paper_events(run_id, self._done[run_id], WAITING_MAX)
            with self._ready:
                self._waiting[run_id].extend(found)
                if len(found) < WAITING_MAX:
                    self._beyond.discard(run_id)
                self._ready.notify_all()
        new = {run_id: seq for run_id, seq in self._done.items() if seq != self._marked[run_id]}
        if new:
            self._store.put_paper_marks("published", new)
            self._marked |= new

    @property
    def waiting(self) -> int:
        """Return how many events wait in memory."""
        return sum(map(len, self._waiting.values())) + len(self._busy)

    @property
    def idle(self) -> bool:
        return not self.waiting and not self._beyond

    def stop(self, seconds: float) -> bool:
        """Publish what is logged, for at most so many seconds; return whether all was published and marked."""
        until = time.monotonic() + seconds
        published = False
        try:
            while time.monotonic() < until and not published:
                with self._ready:
                    self._ready.wait_for(lambda: not self.waiting, until - time.monotonic())
                published = self.idle
                self.refill()
        except StoreError as error:
            log.warning("what was published cannot be marked, and will be published again: %s", error)
            published = False
        with self._ready:
            self._stopping.set()
            self._ready.notify_all()
        for thread in self._threads:
            thread.join(1.0)
        return published

    # -- threads ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (row := self._next()) is not None:
            accepted = self._deliver(row)
            with self._ready:
                self._busy.discard(row.run_id)
                if accepted:
                    self._waiting[row.run_id].popleft()
                    self._done[row.run_id] = row.seq
                    self.published += 1
                self._ready.notify_all()

    def _next(self) -> PaperLogRow | None:
        """Wait for a run with an event that no other thread publishes; None when there is to be no more."""
        with self._ready:
            while not self._stopping.is_set():
                for run_id, waiting in self._waiting.items():
                    if waiting and run_id not in self._busy:
                        self._busy.add(run_id)
                        return waiting[0]
                self._ready.wait()
            return None

    def _deliver(self, row: PaperLogRow) -> bool:
        """Publish one event, again and again until it is accepted; return whether it was before the end."""
        wait, event = RETRY_SECONDS, event_of(row)
        while True:
            try:
                self._post(event)
                return True
            except CandlemillError as error:
                self.failures += 1
                log.warning("event %s was not accepted, retrying in %.2g s: %s", event.id, wait, error)
            if self._stopping.wait(wait):
                return False
            wait = min(2 * wait, RETRY_SECONDS_MAX)
