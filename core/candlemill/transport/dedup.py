"""Publish each task and each job's end only once per process."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from candlemill.errors import SinkDown
from candlemill.pipeline.events import Event

KEYS_LIMIT = 65_536


class PublishDeduplicator:
    """Memory of the tasks and job ends that this process has published.

    Several completions result in the same task: the last ones of a batch in a repair, every duplicate in that and in
    the next task of its lane. Each copy of a task is completed and would result in copies of the next one, so copies
    would multiply along a chain. Completions after a job's end result in its end again. A job that is requested again
    may publish the same events, so the time of that, the event's `since`, is part of the key.
    """

    def __init__(self) -> None:
        self._published: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._publishing: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    @contextmanager
    def new(self, events: Sequence[Event]) -> Iterator[list[Event]]:
        """Yield the events that are not published yet; they count as published if the block succeeds.

        Raises SinkDown if another thread is publishing one of them, since it may fail: the delivery must be retried.
        """
        keys = {(event.id, event.since) for event in events if event.since is not None}
        with self._lock:
            old = keys & self._published.keys()
            new = keys - old
            if new & self._publishing:
                raise SinkDown("another delivery is publishing the same event: retry")
            self._publishing |= new
        try:
            yield [event for event in events if (event.id, event.since) not in old]
            with self._lock:
                self._published.update(dict.fromkeys(new))
                while len(self._published) > KEYS_LIMIT:
                    self._published.popitem(last=False)
        finally:
            with self._lock:
                self._publishing -= new
