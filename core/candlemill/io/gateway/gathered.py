"""Many callers, few calls."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

AT_ONCE = 1_000


class Gathered(Generic[A, R]):
    """One call in a thread at a time; what is asked for meanwhile is asked together by the next. The database takes a
    hundred rows as fast as one."""

    def __init__(self, call: Callable[[list[A]], list[R]]) -> None:
        """`call` answers a list of questions in their order."""
        self._call = call
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, question: A) -> R:
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._running is None or self._running.done():
            # In no caller's context: what is asked for together is no one request's.
            self._running = asyncio.create_task(self._drain(), context=Context())
        return await answer

    async def _drain(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            try:
                answers = await asyncio.to_thread(self._call, [question for question, _ in some])
            except Exception as error:  # each caller is told
                for _, waiting in some:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for (_, waiting), answer in zip(some, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)
