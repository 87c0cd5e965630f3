"""Track which minutes of a symbol are present and which are missing. No I/O.

All minutes before `next` are present, except the `gaps`. A final candle moves `next` forward or fills a gap. Overdue
minutes become gaps. The response to a back-fill request fills gaps, or shows that the exchange has no candles there.
Times are ms; intervals are `start <= t < end`.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from candlemill.exchanges.base import MINUTE_MS
from candlemill.intervals import Interval, IntervalSet

RETRY_MS: Final = 20_000
RETRY_MS_MAX: Final = 900_000
SETTLED_MS: Final = 300_000
"""A minute that the exchange lacks this long after its end, while it has later ones, is an outage of the exchange."""


class GapTracker:
    """Present and missing minutes of one symbol. At most one back-fill request is open at a time."""

    def __init__(self, next_: int, gaps: Iterable[Interval] = ()) -> None:
        self.next = next_
        self.gaps = IntervalSet(gaps)
        self.requested: Interval | None = None
        self._retry_at = 0
        self._failures = 0

    def edge(self) -> int:
        """End of the last present minute (ms)."""
        last = self.gaps.last() if self.gaps else (0, 0)
        return last[0] if last[1] == self.next else self.next

    def record(self, t: int) -> bool:
        """Record a final candle; return whether it is new."""
        if t >= self.next:
            self.gaps.add(self.next, t)
            self.next = t + MINUTE_MS
            return True
        if self.gaps and t in self.gaps:
            self.gaps.remove(t, t + MINUTE_MS)
            return True
        return False

    def mark_overdue(self, end: int) -> None:
        """Add the minutes from `next` to `end` to the gaps."""
        if end > self.next:
            self.gaps.add(self.next, end)
            self.next = end

    def mark_missing(self, spans: Iterable[Interval]) -> None:
        """Add intervals that are not stored, or may be wrong, to the gaps."""
        for start, end in spans:
            self.gaps.add(start, min(end, self.next))
            self._retry_at = 0

    def open_request(self, now: int, rows: int) -> Interval | None:
        """Open a request for the first gap, of at most `rows` minutes; None if there is no gap, or it must wait."""
        if not self.gaps or self.requested is not None or now < self._retry_at:
            return None
        start, end = self.gaps.first()
        self.requested = (start, min(end, start + rows * MINUTE_MS))
        return self.requested

    def fill(self, times: Sequence[int], full: bool, now: int) -> tuple[list[int], list[Interval]]:
        """Handle the response to the open request: open times from its start on, `full` if more may follow.

        Returns the times that fill gaps (to be stored) and the intervals that the exchange lacks.
        """
        start = self.requested[0] if self.requested else self.next
        self.requested = None
        new = [t for t in times if t in self.gaps]
        for t in new:
            self.gaps.remove(t, t + MINUTE_MS)
        # A minute is an outage only before a later candle, and only when it can no longer be late.
        until = min(times[-1] if times else start, (now - SETTLED_MS) // MINUTE_MS * MINUTE_MS)
        outages = self.gaps.within(start, until)
        for a, b in outages:
            self.gaps.remove(a, b)
        if new or outages or (full and times):
            self._failures, self._retry_at = 0, 0
        else:
            self._back_off(now)
        return new, outages

    def request_failed(self, now: int) -> None:
        """Handle the failure of the open request: retry later."""
        self.requested = None
        self._back_off(now)

    def _back_off(self, now: int) -> None:
        self._retry_at = now + min(RETRY_MS << min(self._failures, 10), RETRY_MS_MAX)
        self._failures += 1
