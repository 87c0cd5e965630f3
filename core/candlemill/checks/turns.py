"""Run calls in two threads that change places after each line of a file.

What two threads share then shows on any machine: a busy one may run each call to its end before the other begins.
"""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Condition
from types import FrameType
from typing import Any, TypeVar

LINES = 400  # changes of each thread; later lines run freely
PATIENCE = 2.0  # s that a thread waits for the other, which may be in a long call of compiled code
STARTING = 30.0  # s

T = TypeVar("T")


def in_turns(file: str, first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
    """Return the results of both calls."""
    turns = _Turns(file)
    with ThreadPoolExecutor(2) as pool:
        both = pool.submit(turns.run, 0, first), pool.submit(turns.run, 1, second)
        return both[0].result(), both[1].result()


class _Turns:
    def __init__(self, file: str) -> None:
        self._file = file
        self._start = Barrier(2, timeout=STARTING)
        self._change = Condition()
        self._whose = 0
        self._ended = False
        self._left = [LINES, LINES]

    def run(self, me: int, call: Callable[[], T]) -> T:
        def each_line(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "line" and self._left[me] > 0:
                self._hand_over(me)
            return each_line

        def each_call(frame: FrameType, event: str, arg: Any) -> Any:
            return each_line if frame.f_code.co_filename == self._file and self._left[me] > 0 else None

        self._start.wait()
        sys.settrace(each_call)
        try:
            return call()
        finally:
            sys.settrace(None)
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _hand_over(self, me: int) -> None:
        self._left[me] -= 1
        with self._change:
            self._whose = 1 - me
            self._change.notify_all()
            if not self._change.wait_for(lambda: self._ended or self._whose == me, PATIENCE):
                self._left[me] = 0
