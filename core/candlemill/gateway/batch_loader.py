"""Batches concurrent lookups into one database call."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Generic, TypeVar

A = TypeVar("A")
R = TypeVar("R")

AT_ONCE = 1_000


class BatchLoader(Generic[A, R]):
    """Loader that runs one call in a thread at a time; lookups that arrive meanwhile share the next call. The database
    reads a hundred rows as fast as one."""

    def __init__(self, call: Callable[[list[A]], list[R]]) -> None:
        """`call` returns the results of a list of lookups, in the same order."""
        self._call = call
        self._waiting: list[tuple[A, asyncio.Future[R]]] = []
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, question: A) -> R:
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._running is None or self._running.done():
            # Run in an empty context: a batch belongs to several requests.
            self._running = asyncio.create_task(self._drain(), context=Context())
        return await answer

    async def _drain(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            try:
                answers = await asyncio.to_thread(self._call, [question for question, _ in some])
            except Exception as error:  # every waiting caller gets the error
                for _, waiting in some:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for (_, waiting), answer in zip(some, answers, strict=True):
                if not waiting.done():
                    waiting.set_result(answer)
