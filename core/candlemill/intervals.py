"""Sets of disjoint intervals of integers."""

from collections.abc import Iterable, Iterator

Interval = tuple[int, int]


class IntervalSet:
    """Disjoint intervals `start <= t < end` in ascending order; adjacent ones are joined."""

    def __init__(self, spans: Iterable[Interval] = ()) -> None:
        self._spans: list[Interval] = []
        for start, end in spans:
            self.add(start, end)

    def __bool__(self) -> bool:
        return bool(self._spans)

    def __iter__(self) -> Iterator[Interval]:
        return iter(self._spans)

    def __contains__(self, t: int) -> bool:
        return any(start <= t < end for start, end in self._spans)

    def first(self) -> Interval:
        return self._spans[0]

    def last(self) -> Interval:
        return self._spans[-1]

    def total(self) -> int:
        """Sum of the lengths."""
        return sum(end - start for start, end in self._spans)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        spans = self._spans
        if spans and spans[-1][1] == start:  # the most frequent case
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

    def within(self, start: int, end: int) -> list[Interval]:
        """Parts of the intervals in `start <= t < end`."""
        return [(max(a, start), min(b, end)) for a, b in self._spans if a < end and b > start]
