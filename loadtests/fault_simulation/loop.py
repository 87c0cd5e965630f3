"""Virtual time. A task is a function call that can wait in its middle, as if it had a process of its own."""

import heapq
from collections.abc import Callable

from greenlet import GreenletExit, getcurrent, greenlet


class Process:
    """Where tasks run. When it dies, none of them does anything any more."""

    def __init__(self, name: str, skew_ms: int = 0) -> None:
        self.name = name
        self.skew_ms = skew_ms
        self.tasks = 0
        self.dead = False


class Task(greenlet):
    """`place` names it to the dice; `calls` counts what it requested of the world. Keeps what is local to a request."""

    def __init__(self, run: Callable[[], None], process: Process, place: tuple[int, ...]) -> None:
        super().__init__(run)
        self.process, self.place, self.calls = process, place, 0


def this_task() -> Task:
    task = getcurrent()
    assert isinstance(task, Task), "only what a task runs may wait"
    return task


class Loop:
    """Does things in the order of their time, and things of the same time in the order in which they were said."""

    def __init__(self, now: int) -> None:
        self.now = now
        self._said = 0
        self._waiting: list[tuple[int, int, Callable[[], object]]] = []
        self._hub = getcurrent()

    def after(self, ms: int, call: Callable[[], object]) -> None:
        self._said += 1
        heapq.heappush(self._waiting, (self.now + ms, self._said, call))

    def run(self, until: int) -> None:
        """Until that time, or until nothing is left to do."""
        waiting = self._waiting
        while waiting and waiting[0][0] <= until:
            self.now, _, call = heapq.heappop(waiting)
            call()

    def start(self, task: Task) -> None:
        task.parent = self._hub
        task.process.tasks += 1
        self.after(0, task.switch)

    def pause(self, ms: int) -> None:
        """Let others go on. Does not return in a process that died meanwhile."""
        task = this_task()
        self.after(ms, task.switch)
        self._hub.switch()
        if task.process.dead:
            raise GreenletExit

    def idle(self) -> bool:
        return not self._waiting
