"""Which minutes of a symbol are there and which are missing. Pure: times come in, questions for the exchange come out.

Everything before `next` is accounted for, except the `holes`. A final candle moves `next` on, or fills a hole; minutes
that should have come and did not become a hole; the answer to a question fills holes, or shows that the exchange has
nothing there. Times are ms; stretches are `start <= t < end`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from candlemill.exchange import MINUTE_MS

RETRY_MS: Final = 20_000
RETRY_MS_MAX: Final = 900_000
SETTLED_MS: Final = 300_000
"""A minute that the exchange lacks this long after its end, while it has later ones, is an outage of its own."""

Span = tuple[int, int]


class Spans:
    """Disjoint stretches in order, joined where they touch."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: list[Span] = []
        for start, end in spans:
            self.add(start, end)

    def __bool__(self) -> bool:
        return bool(self._spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self._spans)

    def __contains__(self, t: int) -> bool:
        return any(start <= t < end for start, end in self._spans)

    def first(self) -> Span:
        return self._spans[0]

    def last(self) -> Span:
        return self._spans[-1]

    def total(self) -> int:
        """How long they are together."""
        return sum(end - start for start, end in self._spans)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        spans = self._spans
        if spans and spans[-1][1] == start:  # by far the most usual
            spans[-1] = (spans[-1][0], end)
            return
        kept = []
        for a, b in spans:
            if b < start or a > end:
                kept.append((a, b))
            else:
                start, end = min(a, start), max(b, end)
        self._spans = sorted([*kept, (start, end)])

    def remove(self, start: int, end: int) -> None:
        if not self._spans or start >= end:
            return
        out = []
        for a, b in self._spans:
            if b <= start or a >= end:
                out.append((a, b))
                continue
            if a < start:
                out.append((a, start))
            if b > end:
                out.append((end, b))
        self._spans = out

    def within(self, start: int, end: int) -> list[Span]:
        """The parts that lie in `start <= t < end`."""
        return [(max(a, start), min(b, end)) for a, b in self._spans if a < end and b > start]


class Minutes:
    """One symbol's account. At most one question is open at a time."""

    def __init__(self, next_: int, holes: Iterable[Span] = ()) -> None:
        self.next = next_
        self.holes = Spans(holes)
        self.asked: Span | None = None
        self._retry_at = 0
        self._tries = 0

    def edge(self) -> int:
        """The end of the last minute that is there."""
        last = self.holes.last() if self.holes else (0, 0)
        return last[0] if last[1] == self.next else self.next

    def final(self, t: int) -> bool:
        """Take note of a final candle; whether it is one that was not there yet."""
        if t >= self.next:
            self.holes.add(self.next, t)
            self.next = t + MINUTE_MS
            return True
        if self.holes and t in self.holes:
            self.holes.remove(t, t + MINUTE_MS)
            return True
        return False

    def overdue(self, end: int) -> None:
        """Minutes before `end` should have come: those that have not are a hole."""
        if end > self.next:
            self.holes.add(self.next, end)
            self.next = end

    def missing(self, spans: Iterable[Span]) -> None:
        """What is thought to be there is not, or is in doubt: ask for it."""
        for start, end in spans:
            self.holes.add(start, min(end, self.next))
            self._retry_at = 0

    def question(self, now: int, rows: int) -> Span | None:
        """What to ask the exchange now, at most `rows` minutes of it; the caller then waits for its answer."""
        if not self.holes or self.asked is not None or now < self._retry_at:
            return None
        start, end = self.holes.first()
        self.asked = (start, min(end, start + rows * MINUTE_MS))
        return self.asked

    def answered(self, times: Sequence[int], full: bool, now: int) -> tuple[list[int], list[Span]]:
        """Note the answer to the open question: the closed candles from its start on, `full` if more may follow.

        Returns the times that fill holes (they are to be stored), and the stretches that the exchange itself lacks.
        """
        start = self.asked[0] if self.asked else self.next
        self.asked = None
        wanted = [t for t in times if t in self.holes]
        for t in wanted:
            self.holes.remove(t, t + MINUTE_MS)
        # Only before a candle that is there can one be lacking, and only when it can no longer be late.
        until = min(times[-1] if times else start, (now - SETTLED_MS) // MINUTE_MS * MINUTE_MS)
        lacking = self.holes.within(start, until)
        for a, b in lacking:
            self.holes.remove(a, b)
        if wanted or lacking or (full and times):
            self._tries, self._retry_at = 0, 0
        else:
            self._put_off(now)
        return wanted, lacking

    def unanswered(self, now: int) -> None:
        """The open question got no answer: ask again later."""
        self.asked = None
        self._put_off(now)

    def _put_off(self, now: int) -> None:
        self._retry_at = now + min(RETRY_MS << min(self._tries, 10), RETRY_MS_MAX)
        self._tries += 1
