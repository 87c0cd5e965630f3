"""The events between the functions: their types, their data, their ids. CloudEvents 1.0, but no transport here."""

import hashlib
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from candlemill.errors import BadInput
from candlemill.model import SETS_LIMIT, Spec, WalkForward
from candlemill.plan import BATCH_SETS, SLICES_LIMIT
from candlemill.reduce import Repair

REQUESTED = "dev.candlemill.backtest.requested.v1"
SLICE_REQUESTED = "dev.candlemill.slice.requested.v1"
SLICE_COMPLETED = "dev.candlemill.slice.completed.v1"
COMPLETED = "dev.candlemill.backtest.completed.v1"
FAILED = "dev.candlemill.backtest.failed.v1"
WATCH = "dev.candlemill.jobs.watch.v1"

EVENT_BYTES_LIMIT = 64 * 1024

JobId = Annotated[str, Meta(pattern="^[0-9a-f]{32}$", max_length=32)]  # `$` alone lets a newline follow
Number = Annotated[int, Meta(ge=0, lt=SETS_LIMIT)]
Stored = Annotated[int, Meta(ge=0, le=2**62)]  # by a column of Int64
SliceNumber = Annotated[int, Meta(ge=0, lt=SLICES_LIMIT)]


class Requested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A backtest or sweep that shall run. `slices` None lets the planner choose.

    With `weights`, scaled by 10^8, it is a portfolio of these symbols, `spec` being that of the first without its
    weight; with `walk_forward` one over the whole range of `spec`, which has a grid.
    """

    spec: Spec
    slices: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    fresh: bool = False  # compute even what is stored
    attempt: Stored = 0  # when it was asked for, in ms: that said late, it begins nothing again
    drive: Stored = 0  # how often it was asked for again because nothing more was heard of it
    heard: Stored = 0  # `drive` when its tasks were heard of last
    weights: dict[str, Annotated[int, Meta(ge=1)]] = {}
    walk_forward: WalkForward | None = None
    parent: Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")] = ""  # the campaign that asks for it, if one does

    @property
    def is_campaign(self) -> bool:
        return bool(self.weights) or self.walk_forward is not None


class SliceRequested(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task. Without `repairs`: grid points `first` to `first + count - 1` over slice `slice`, from guessed starts.
    With them: what each repair says, from its exact start."""

    job_id: JobId
    data_digest: str
    spec: Spec
    batch: Number
    first: Number
    count: Annotated[int, Meta(ge=1, le=BATCH_SETS)]
    slice: SliceNumber
    # The bounds of `slice` and, for repairs, of the slices after it, in ms.
    cuts: Annotated[list[int], Meta(min_length=2, max_length=SLICES_LIMIT + 1)]
    repairs: list[Repair] = []
    run: Annotated[int, Meta(ge=0)] = 0  # the plan's: what it asks for is not mixed with other runs'
    # Which grid points are missing, as a hexadecimal number whose bit k is point `first + k`; empty: all.
    only: Annotated[str, Meta(pattern="^[0-9a-f]*$", max_length=BATCH_SETS // 4)] = ""

    def asks_for(self, point: int) -> bool:
        return not self.only or bool(int(self.only, 16) >> (point - self.first) & 1)


class SliceCompleted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task's outcomes are in the store. `task` is the id of the event that asked for it."""

    job_id: JobId
    batch: Number
    slice: SliceNumber
    task: str


class Completed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job_id: JobId


class Failed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job_id: JobId
    reason: str


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """It is time to look for jobs that nothing is heard of."""


DATA: dict[str, type[msgspec.Struct]] = {
    REQUESTED: Requested,
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
    traceparent: str = ""  # the trace that it belongs to (W3C Trace Context): beside what it says, never part of it


D = TypeVar("D", bound=msgspec.Struct)


def make(source: str, kind: str, job_id: str, data: msgspec.Struct) -> Event:
    """An event whose id is a pure function of what it says: doing a thing twice says it with the same id."""
    body = msgspec.json.encode(data)
    if len(body) > EVENT_BYTES_LIMIT:
        raise BadInput(f"the event's data has {len(body):,} bytes, the limit is {EVENT_BYTES_LIMIT:,}")
    digest = hashlib.sha256(kind.encode() + b"\0" + body).hexdigest()[:32]
    return Event(id=digest, source=f"/candlemill/{source}", type=kind, data=body, partitionkey=job_id)


def read(event: Event, kind: type[D]) -> D:
    """The event's data as `kind`. Raises BadInput for an event of another type and for data of another shape."""
    if DATA.get(event.type) is not kind:
        raise BadInput(f"event type {event.type!r} is not handled here")
    if len(event.data) > EVENT_BYTES_LIMIT:
        raise BadInput(f"the event's data has {len(event.data):,} bytes, the limit is {EVENT_BYTES_LIMIT:,}")
    try:
        return _decoders[kind].decode(event.data)  # type: ignore[return-value]
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"event {event.id}: {error}") from None


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of an event type's data, as published under `schema/events/`."""
    found = msgspec.json.schema(DATA[kind])
    for part in found["$defs"].values():
        if "description" in part:
            part["description"] = " ".join(part["description"].split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, **found}
