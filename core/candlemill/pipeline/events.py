"""Events between the functions: their types, data and ids. CloudEvents 1.0, without a transport."""

import hashlib
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, field

from candlemill.backtests.grid import SETS_LIMIT
from candlemill.backtests.merge import Repair
from candlemill.backtests.plan import BATCH_SETS, SLICES_LIMIT, TASKS_LIMIT
from candlemill.backtests.spec import Spec, WalkForward
from candlemill.errors import BadInput

REQUESTED = "dev.candlemill.backtest.requested.v1"
SLICE_REQUESTED = "dev.candlemill.slice.requested.v1"
TASKS_REQUESTED = "dev.candlemill.tasks.requested.v1"
SLICE_COMPLETED = "dev.candlemill.slice.completed.v1"
COMPLETED = "dev.candlemill.backtest.completed.v1"
FAILED = "dev.candlemill.backtest.failed.v1"
WATCH = "dev.candlemill.jobs.watch.v1"

REPAIRS = "/candlemill/aggregate"  # source of the requests of repairs; of all other tasks it is split
EVENT_BYTES_LIMIT = 64 * 1024

JobId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]  # `$` alone lets a newline follow
Number = Annotated[int, Meta(ge=0, lt=SETS_LIMIT)]
Stored = Annotated[int, Meta(ge=0, le=2**62)]  # by a column of Int64
SliceNumber = Annotated[int, Meta(ge=0, lt=SLICES_LIMIT)]
Place = Annotated[int, Meta(ge=0, le=2 * TASKS_LIMIT)]  # in the order in which a job's tasks are requested


class Requested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request to run a backtest or sweep. `slices` None lets the planner choose.

    With `weights`, scaled by 10^8, it is a portfolio of these symbols, `spec` being that of the first without its
    weight; with `walk_forward` one over the whole range of `spec`, which has a grid.
    """

    spec: Spec
    slices: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    fresh: bool = False  # compute again even what is stored
    attempt: Stored = 0  # time of the request in ms; a late delivery does not start an ended attempt again
    retry: Stored = field(default=0, name="drive")  # number of repeated requests since a task of it was last done
    last_progress: Stored = field(default=0, name="heard")  # number of its tasks' rows at the last repeated request
    weights: dict[str, Annotated[int, Meta(ge=1)]] = {}
    walk_forward: WalkForward | None = None
    parent: Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")] = ""  # id of the workflow that requested it, if any

    @property
    def is_workflow(self) -> bool:
        return bool(self.weights) or self.walk_forward is not None


class SliceRequested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request to run one task: grid points `first` to `first + count - 1` over the slices between `cuts`, `slice` being
    the number of the first, each from guessed start states. With `repairs`: the slices and grid points of each repair,
    from its exact start state. The completion of a task with a `place` sets off another one."""

    job_id: JobId
    data_digest: str
    spec: Spec
    batch: Number
    first: Number
    count: Annotated[int, Meta(ge=1, le=BATCH_SETS)]
    slice: SliceNumber
    # The bounds of `slice` and of the slices after it, in ms.
    cuts: Annotated[list[int], Meta(min_length=2, max_length=SLICES_LIMIT + 1)]
    repairs: list[Repair] = []
    run: Annotated[int, Meta(ge=0)] = 0  # the plan's run number: its outcomes are not mixed with other runs'
    place: Place | None = None
    known: bool = True  # false: outcomes of its job are not looked up


class TasksRequested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request to hand out a share of a planned job's tasks: those of the places `first` to `last - 1`."""

    job_id: JobId
    first: Place
    last: Place


class SliceCompleted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task's outcomes are in the store. `task` is the id of the event that requested it, `place` the place of it."""

    job_id: JobId
    batch: Number
    slice: SliceNumber
    task: str
    place: Place | None = None


class Completed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job_id: JobId


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job_id: JobId
    reason: str


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Request of a timer to look for jobs that make no progress."""


DATA: dict[str, type[msgspec.Struct]] = {
    REQUESTED: Requested,
    TASKS_REQUESTED: TasksRequested,
    SLICE_REQUESTED: SliceRequested,
    SLICE_COMPLETED: SliceCompleted,
    COMPLETED: Completed,
    FAILED: Failed,
    WATCH: Watch,
}
_decoders = {kind: msgspec.json.Decoder(kind) for kind in DATA.values()}  # made before there are threads


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A CloudEvent. `data` is JSON; `partitionkey` is the job id, so that a job's events keep to one partition."""

    id: str
    source: str
    type: str
    data: bytes
    partitionkey: str = ""
    work: str = ""  # "long": a task that may outlive a request, see `longtasks`
    error: str = ""  # why a dead letter was given up
    since: int | None = None  # not sent: a process publishes the event once for each value, see `PublishDeduplicator`
    unanswered: bool = False  # a dead letter that no function has answered: it waited too long on its way
    traceparent: str = ""  # the trace that it belongs to (W3C Trace Context): beside what it says, never part of it


D = TypeVar("D", bound=msgspec.Struct)


def make(source: str, kind: str, job_id: str, data: msgspec.Struct) -> Event:
    """Create an event whose id is a pure function of its content, so that a repetition has the same id."""
    body = msgspec.json.encode(data)
    if len(body) > EVENT_BYTES_LIMIT:
        raise BadInput(f"the event's data has {len(body):,} bytes, the limit is {EVENT_BYTES_LIMIT:,}")
    digest = hashlib.sha256(kind.encode() + b"\0" + body).hexdigest()[:32]
    return Event(id=digest, source=f"/candlemill/{source}", type=kind, data=body, partitionkey=job_id)


def read(event: Event, kind: type[D]) -> D:
    """Return the event's data as `kind`. Raises BadInput for an event of another type and for data of another shape."""
    if DATA.get(event.type) is not kind:
        raise BadInput(f"event type {event.type!r} is not handled here")
    if len(event.data) > EVENT_BYTES_LIMIT:
        raise BadInput(f"the event's data has {len(event.data):,} bytes, the limit is {EVENT_BYTES_LIMIT:,}")
    try:
        return _decoders[kind].decode(event.data)  # type: ignore[return-value]
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"event {event.id}: {error}") from None


def schema(kind: str, data: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema of an event type's data, as published under `schema/events/`."""
    found = msgspec.json.schema(data)
    for part in found["$defs"].values():
        if "description" in part:
            part["description"] = " ".join(part["description"].split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, **found}
