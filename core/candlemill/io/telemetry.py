"""What operators are told: candlemill's metrics, and what is logged, counted and traced of each event.

docs/operations.md lists the metrics with what to watch. A metric's labels have few values, all of them known here.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, TypeVar

import msgspec

from candlemill import events
from candlemill.errors import CandlemillError, StoreDown, StoreError
from candlemill.events import Event
from candlemill.io import logs, tracing
from candlemill.io.meters import Counter, Histogram
from candlemill.ledger import JobRow, Runtime

R = TypeVar("R")
Handle = Callable[[Event, Runtime], list[Event]]

OTHER: Final = "other"
DATABASE: Final = {"db.system.name": "clickhouse"}
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TASK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_JOB: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)

REQUESTS = Histogram(
    "candlemill_gateway_request_seconds",
    "Time until the gateway's answer began",
    _SHORT,
    "method",
    "route",
    "status",
)
EVENTS = Histogram(
    "candlemill_event_seconds",
    "Time that an event took; outcome is done, retry, refused or bug",
    _TASK,
    "function",
    "type",
    "outcome",
)
TASKS = Counter("candlemill_tasks", "Tasks that were asked for", "kind", known=["slice", "repair"])
DEAD_LETTERS = Counter("candlemill_dead_letters", "Events that were given up", "type", known=[*events.DATA, OTHER])
SINK_ERRORS = Counter("candlemill_sink_errors", "Events that the sink did not take, after all retries")
JOBS = Counter("candlemill_jobs", "States that jobs came to", "kind", "state")
JOB_SECONDS = Histogram("candlemill_job_seconds", "Time from a job's request to its end", _JOB, "kind", "state")
CACHE = Counter("candlemill_cache", "What was found (hit) and what had to be computed or read (miss)", "what", "result")
ROWS = Counter("candlemill_store_rows_read", "Candles that were read from the store")
STORE = Histogram("candlemill_store_seconds", "Time that the store took to answer", _SHORT, "operation")
STORE_ERRORS = Counter(
    "candlemill_store_errors", "Failures: it does not answer, or it refuses", "reason", known=["down", "refused"]
)

log = logging.getLogger("candlemill.events")
log.addHandler(logging.NullHandler())  # the command line says what failed by itself


# -- events --------------------------------------------------------------------------------------------------------


class _Identity(msgspec.Struct):
    """What an event is about, as far as its data says so."""

    job_id: str = ""
    batch: int | None = None
    slice: int | None = None
    attempt: int = 0
    run: int = 0


_identities = msgspec.json.Decoder(_Identity)


def identity(event: Event) -> dict[str, Any]:
    """The fields of log lines about an event."""
    try:
        found = _identities.decode(event.data)
    except (msgspec.DecodeError, RecursionError):
        found = _Identity()
    return {
        "job": event.partitionkey or found.job_id,
        "slice": found.slice,
        "batch": found.batch,
        "event": event.id,
        "attempt": found.attempt or found.run or None,
    }


@contextmanager
def handling(function: str, event: Event) -> Iterator[None]:
    """An event being handled by a function: one line, one observation, one span, whatever becomes of it."""
    about = identity(event)
    if event.error:
        DEAD_LETTERS.add(_type(event))
    began = time.perf_counter()
    with (
        tracing.span(function, "consumer", event.traceparent or tracing.current(), _attributes(event, about)),
        logs.about(**about, trace=tracing.trace_id()),
    ):
        try:
            yield
        except Exception as error:
            handled(function, event, time.perf_counter() - began, error)
            raise
        handled(function, event, time.perf_counter() - began)


def _attributes(event: Event, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a span says of an event."""
    found = {f"candlemill.{name}": about[name] for name in ("job", "slice", "batch") if about[name] is not None}
    return {"cloudevents.event_id": event.id, "cloudevents.event_type": event.type, **found}


def handled(function: str, event: Event, seconds: float, error: Exception | None = None) -> None:
    """Tell of an event that was handled. To be called with the log lines about it."""
    outcome = "done" if error is None else _outcome(error)
    EVENTS.observe(seconds, function, _type(event), outcome)
    level = {"done": logging.INFO, "bug": logging.ERROR}.get(outcome, logging.WARNING)
    if not log.isEnabledFor(level):
        return
    said = f"{function}: {outcome}" if error is None else f"{function}: {outcome}: {error or type(error).__name__}"
    more = {"function": function, "type": event.type, "seconds": round(seconds, 4), "outcome": outcome}
    log.log(level, "%s", said, extra=more, exc_info=error if outcome == "bug" else None)


def _outcome(error: Exception) -> str:
    if not isinstance(error, CandlemillError):
        return "bug"
    return "retry" if error.retryable or isinstance(error, StoreError) else "refused"


def _type(event: Event) -> str:
    return event.type if event.type in events.DATA else OTHER


def followed(event: Event, answer: Sequence[Event]) -> list[Event]:
    """What follows from an event, counted, and told to belong to the trace under way."""
    tasks = sum(one.type == events.SLICE_REQUESTED for one in answer)
    if event.error or event.type not in (events.REQUESTED, events.SLICE_COMPLETED):
        return stamped(answer)
    if tasks:
        TASKS.add("slice" if event.type == events.REQUESTED else "repair", n=tasks)
    if event.type == events.REQUESTED and answer:
        CACHE.add("job", "hit" if answer[0].type == events.COMPLETED else "miss")
    return stamped(answer)


def stamped(published: Sequence[Event]) -> list[Event]:
    """The events, told to belong to the trace under way."""
    traceparent = tracing.current()
    if not traceparent:
        return list(published)
    return [msgspec.structs.replace(event, traceparent=traceparent) for event in published]


def observed(function: str, handle: Handle) -> Handle:
    """A function's handler that tells what it does."""

    @wraps(handle)
    def observing(event: Event, runtime: Runtime) -> list[Event]:
        with handling(function, event):
            return followed(event, handle(event, runtime))

    return observing


@contextmanager
def working(event: Event) -> Iterator[None]:
    """A thread at work on a job that an event has asked for."""
    with tracing.continued(event.traceparent), logs.about(**identity(event), trace=tracing.trace_id()):
        yield


Timed = tuple[R | None, float, CandlemillError | None]


def timed(work: Callable[[Event], R], event: Event) -> "Timed[R]":
    """Work in a process that nobody asks for its metrics: what it gave, how long it took, why it failed."""
    began = time.perf_counter()
    try:
        return work(event), time.perf_counter() - began, None
    except CandlemillError as error:
        return None, time.perf_counter() - began, error


def taken(function: str, event: Event, found: "Timed[R]") -> R:
    """What `timed` gave elsewhere, told of here. Raises why it failed."""
    result, seconds, error = found
    with working(event):
        tracing.record(function, "consumer", seconds, _attributes(event, identity(event)), error)
        handled(function, event, seconds, error)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def looked(what: str, found: int, missing: int) -> None:
    """Something was looked for where it may be known already."""
    CACHE.add(what, "hit", n=found)
    CACHE.add(what, "miss", n=missing)


# -- jobs and the store --------------------------------------------------------------------------------------------


def count_states(rows: Sequence[JobRow], at_ms: Sequence[int], now_ms: int) -> None:
    """States of jobs that are being written. One that is said twice, as after a fault, counts twice."""
    for row, ms in zip(rows, at_ms or [now_ms] * len(rows), strict=True):
        JOBS.add(row.kind, row.state)
        if row.finished and row.attempt:
            JOB_SECONDS.observe(max(0, ms - row.attempt) / 1000, row.kind, row.state)


@contextmanager
def asking(operation: str) -> Iterator[None]:
    """One question to the store: timed, its errors counted, a span where it is part of a trace."""
    began = time.perf_counter()
    with tracing.inside(f"store {operation}", "client", DATABASE):
        try:
            yield
        except StoreError as error:
            STORE_ERRORS.add("down" if isinstance(error, StoreDown) else "refused")
            raise
        finally:
            STORE.observe(time.perf_counter() - began, operation)
