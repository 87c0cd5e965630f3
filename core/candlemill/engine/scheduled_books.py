"""Books of several parameter sets, one after the other in time: the choices of a walk-forward."""

from collections.abc import Callable
from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import Column, native
from candlemill.engine.decide import BookSource
from candlemill.engine.minute import MinuteEngine

BEFORE: Final = -1  # the turn before the first set's


class ScheduledBooks(BookSource):
    """Source that takes its books from set `k` from decision bar `firsts[k]` on; no book is stated before the first.

    `make(k, bar)` returns the source of set `k` at its beginning, from decision bar `bar` on. No set takes over what
    another one holds: while there is a position, the book is the target 0 and no order; then the next set begins.
    `current` is the source of the set whose turn it is, already begun, or any source before the first turn.
    """

    def __init__(
        self,
        last: Column | None,
        first: int,
        firsts: Column,
        make: Callable[[int, int], BookSource],
        turn: int,
        is_closing: bool,
        current: BookSource,
    ) -> None:
        super().__init__(last, first, current.sees_position, current.sees_best)
        self.firsts: vec[i64] = native(firsts)
        self.make: Callable[[int, int], BookSource] = make
        self.turn: i64 = turn
        self.is_closing: bool = is_closing
        self.current: BookSource = current

    def next_decision(self, i: i64) -> i64:
        found: i64 = super().next_decision(i)
        if self.turn != BEFORE or self.bar >= self.firsts[0]:
            return found
        self.bar = self.firsts[0]
        return super().next_decision(self.bar if self.minutes else i)

    def state(self, engine: MinuteEngine, i: i64) -> None:
        j: i64 = self.bar
        self.bar = j + 1
        turn: i64 = self.turn
        while turn + 1 < len(self.firsts) and self.firsts[turn + 1] <= j:
            turn += 1
        if turn != self.turn:
            self.turn = turn
            self.is_closing = True
        if self.is_closing:
            if engine.now.exposure != 0:
                engine.replace(engine.new_orders(), i, False, 0, 0, 0)
                return
            self.is_closing = False
            self.current = self.make(int(turn), int(j))
        self.current.bar = j
        self.current.state(engine, i)

    def skip(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        if self.is_closing or not self.minutes:
            return i
        if self.turn + 1 < len(self.firsts):
            end = min(end, self.firsts[self.turn + 1])
        return self.current.skip(engine, i, end)
