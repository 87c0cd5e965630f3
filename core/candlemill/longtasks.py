"""Tasks that may take longer than a request may: on a cluster they become Kubernetes Jobs.

Strategies that answer for whole columns never come near: a task of theirs is seconds of work. One that is asked bar by
bar (`Stateful.step`) runs in Python, a thousand times slower.
"""

import msgspec

from candlemill.events import Event, SliceRequested
from candlemill.strategies.base import Stateful
from candlemill.strategies.registry import REGISTERED

STEP_SECONDS = 1e-6  # a bar of the simplest step takes 0.6 of that; others several times as much
LONG_TASK_SECONDS = 60.0  # of the 600 that a request may take: an estimate may be off by ten
LONG = "long"


def sized(event: Event, task: SliceRequested) -> Event:
    """The event, marked where its task may be long."""
    return msgspec.structs.replace(event, work=LONG) if task_seconds(task) > LONG_TASK_SECONDS else event


def task_seconds(task: SliceRequested) -> float:
    """A task's time in a strategy that is asked bar by bar, roughly; of others 0."""
    kind = REGISTERED.get(task.spec.strategy)
    if kind is None or not issubclass(kind, Stateful) or kind.step is Stateful.step:
        return 0.0
    bar_ms = task.spec.timeframe * 60_000
    if not task.repairs:
        return (task.cuts[1] - task.cuts[0]) / bar_ms * task.count * STEP_SECONDS
    spans = (task.cuts[one.slice - task.slice + one.count] - task.cuts[one.slice - task.slice] for one in task.repairs)
    return sum(spans) / bar_ms * STEP_SECONDS
