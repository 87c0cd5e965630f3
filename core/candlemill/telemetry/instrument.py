"""Metrics, log lines and spans of events, jobs and the store.

docs/operations.md describes the metrics. Label values come from small fixed sets.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, TypeVar

import msgspec

from candlemill.errors import CandlemillError, StoreDown, StoreError
from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import JobRow
from candlemill.telemetry import logs, tracing
from candlemill.telemetry.prometheus import Counter, Histogram

R = TypeVar("R")
Handle = Callable[[Event, HandlerContext], list[Event]]

OTHER: Final = "other"
DATABASE: Final = {"db.system.name": "clickhouse"}
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TASK: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_JOB: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)

REQUESTS = Histogram(
    "candlemill_gateway_request_seconds",
    "Time until the start of the gateway's response",
    _SHORT,
    "method",
    "route",
    "status",
)
EVENTS = Histogram(
    "candlemill_event_seconds",
    "Handling time of an event; outcome is done, retry, refused or bug",
    _TASK,
    "function",
    "type",
    "outcome",
)
TASKS = Counter("candlemill_tasks", "Requested tasks", "kind", known=["slice", "repair"])
DEAD_LETTERS = Counter(
    "candlemill_dead_letters", "Events that became dead letters", "type", known=[*events.DATA, OTHER]
)
REFUSED_DEAD_LETTERS = Counter(
    "candlemill_dead_letters_refused", "Dead letters that aggregate could not use", "type", known=[*events.DATA, OTHER]
)
REFUSED_CALLERS = Counter("candlemill_callers_refused", "Requests without a token that is accepted")
SINK_ERRORS = Counter("candlemill_sink_errors", "Events that the sink did not accept, after all retries")
JOBS = Counter("candlemill_jobs", "State changes of jobs", "kind", "state")
JOB_SECONDS = Histogram("candlemill_job_seconds", "Time from the request of a job to its end", _JOB, "kind", "state")
CACHE = Counter("candlemill_cache", "Cache lookups: hit or miss", "what", "result")
ROWS = Counter("candlemill_store_rows_read", "Candles read from the store")
STORE = Histogram("candlemill_store_seconds", "Response time of the store", _SHORT, "operation")
STORE_ERRORS = Counter(
    "candlemill_store_errors",
    "Failures of the store: not reachable (down) or an error (refused)",
    "reason",
    known=["down", "refused"],
)

log = logging.getLogger("candlemill.pipeline.events")
log.addHandler(logging.NullHandler())  # the command line reports failures itself


# -- events --------------------------------------------------------------------------------------------------------


class _Identity(msgspec.Struct):
    """Fields of an event's data that identify its task."""

    job_id: str = ""
    batch: int | None = None
    slice: int | None = None
    attempt: int = 0
    run: int = 0


_identities = msgspec.json.Decoder(_Identity)


def identity(event: Event) -> dict[str, Any]:
    """Fields of log lines about an event."""
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
    """Record the handling of an event, also a failed one: one log line, one observation, one span."""
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
            record_handled(function, event, time.perf_counter() - began, error)
            raise
        record_handled(function, event, time.perf_counter() - began)


def _attributes(event: Event, about: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of an event's span."""
    found = {f"candlemill.{name}": about[name] for name in ("job", "slice", "batch") if about[name] is not None}
    return {"cloudevents.event_id": event.id, "cloudevents.event_type": event.type, **found}


def refuse_dead_letter(event: Event | None, about: str, reason: str, error: Exception) -> None:
    """Log and count a dead letter that goes no further; `event` is None if it could not be read."""
    REFUSED_DEAD_LETTERS.add(OTHER if event is None else _type(event))
    message = "a dead letter goes no further: %s; it says: %s; %s"
    log.error(
        message, reason, event.error if event else "", about, exc_info=error if _outcome(error) == "bug" else None
    )


def record_handled(function: str, event: Event, seconds: float, error: Exception | None = None) -> None:
    """Log and count a handled event. Call it inside `logs.about` of the event."""
    outcome = "done" if error is None else _outcome(error)
    EVENTS.observe(seconds, function, _type(event), outcome)
    level = {"done": logging.INFO, "bug": logging.ERROR}.get(outcome, logging.WARNING)
    if not log.isEnabledFor(level):
        return
    message = f"{function}: {outcome}" if error is None else f"{function}: {outcome}: {error or type(error).__name__}"
    extra = {"function": function, "type": event.type, "seconds": round(seconds, 4), "outcome": outcome}
    log.log(level, "%s", message, extra=extra, exc_info=error if outcome == "bug" else None)


def _outcome(error: Exception) -> str:
    if not isinstance(error, CandlemillError):
        return "bug"
    return "retry" if error.retryable or isinstance(error, StoreError) else "refused"


def _type(event: Event) -> str:
    return event.type if event.type in events.DATA else OTHER


def outgoing(event: Event, results: Sequence[Event]) -> list[Event]:
    """Count the events that result from an event, and add the current trace to them."""
    if event.error or event.type not in (events.REQUESTED, events.TASKS_REQUESTED, events.SLICE_COMPLETED):
        return with_trace(results)
    for one in results:
        if one.type == events.SLICE_REQUESTED:
            TASKS.add("repair" if one.source == events.REPAIRS else "slice")
    if event.type == events.REQUESTED and results:
        CACHE.add("job", "hit" if results[0].type == events.COMPLETED else "miss")
    return with_trace(results)


def with_trace(published: Sequence[Event]) -> list[Event]:
    """Add the current trace to events."""
    traceparent = tracing.current()
    if not traceparent:
        return list(published)
    return [msgspec.structs.replace(event, traceparent=traceparent) for event in published]


def observed(function: str, handle: Handle) -> Handle:
    """Add logging, metrics and tracing to a function's handler."""

    @wraps(handle)
    def observing(event: Event, context: HandlerContext) -> list[Event]:
        with handling(function, event):
            return outgoing(event, handle(event, context))

    return observing


@contextmanager
def working(event: Event) -> Iterator[None]:
    """Log and trace the work of a thread on the job of an event."""
    with tracing.continued(event.traceparent), logs.about(**identity(event), trace=tracing.trace_id()):
        yield


Timed = tuple[R | None, float, CandlemillError | None]


def timed(work: Callable[[Event], R], event: Event) -> "Timed[R]":
    """Run `work` in a worker process; return its result, duration (s) and error, for `record_worker_event`."""
    began = time.perf_counter()
    try:
        return work(event), time.perf_counter() - began, None
    except CandlemillError as error:
        return None, time.perf_counter() - began, error


def record_worker_event(function: str, event: Event, outcome: "Timed[R]") -> R:
    """Log, count and trace an event of a worker process; return the result, or raise its error."""
    result, seconds, error = outcome
    with working(event):
        tracing.record(function, "consumer", seconds, _attributes(event, identity(event)), error)
        record_handled(function, event, seconds, error)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def on_cache_lookup(what: str, found: int, missing: int) -> None:
    """Count hits and misses of a cache lookup."""
    CACHE.add(what, "hit", n=found)
    CACHE.add(what, "miss", n=missing)


# -- jobs and the store --------------------------------------------------------------------------------------------


def count_states(rows: Sequence[JobRow], at_ms: Sequence[int], now_ms: int) -> None:
    """Count states of jobs that are being written. A state that is written twice, as after a fault, counts twice."""
    for row, ms in zip(rows, at_ms or [now_ms] * len(rows), strict=True):
        JOBS.add(row.kind, row.state)
        if row.finished and row.attempt:
            JOB_SECONDS.observe(max(0, ms - row.attempt) / 1000, row.kind, row.state)


@contextmanager
def store_query(operation: str) -> Iterator[None]:
    """Measure one query of the store and count its errors; add a span if there is a current trace."""
    began = time.perf_counter()
    with tracing.inside(f"store {operation}", "client", DATABASE):
        try:
            yield
        except StoreError as error:
            STORE_ERRORS.add("down" if isinstance(error, StoreDown) else "refused")
            raise
        finally:
            STORE.observe(time.perf_counter() - began, operation)
