"""The shapes of answers. Money is scaled by 10^8, rates are parts per million, times UTC milliseconds."""

from typing import Any

import msgspec

from candlemill.request import Kind


class Links(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where to go on from a job; those that a kind of job does not have are left out."""

    self: str
    events: str
    cancel: str
    equity: str | None = None
    trades: str | None = None
    monthly: str | None = None
    results: str | None = None
    heatmap: str | None = None
    report: str | None = None


def links_of(job_id: str, kind: str) -> Links:
    base = f"/api/v1/backtest/{job_id}"
    more: tuple[str, ...]
    if kind == "sweep":
        more = ("results", "heatmap", "report")
    elif kind == "backtest":
        more = ("equity", "trades", "monthly", "report")
    else:
        more = ("equity", "monthly")
    return Links(base, f"{base}/events", f"{base}/cancel", **{name: f"{base}/{name}" for name in more})


class PlanTold(msgspec.Struct, frozen=True):
    """What a job will do: `rows` candles, in `slices` times batches of `sets` parameter sets; `cached` tells that its
    result is stored and nothing will be done."""

    slices: int
    tasks: int
    rows: int
    sets: int
    estimated_seconds: float
    cached: bool
    reuse: dict[str, Any] | None = None


class Accepted(msgspec.Struct, frozen=True):
    """A job that is under way, or done already."""

    job_id: str
    kind: Kind
    state: str
    links: Links
    plan: PlanTold


class Planned(msgspec.Struct, frozen=True):
    """What a request would do."""

    job_id: str
    kind: Kind
    plan: PlanTold


class Progress(msgspec.Struct, frozen=True):
    """`done` of `total` tasks; `repairs` are slices that ran again because their start was guessed wrong."""

    state: str
    done: int
    total: int
    repairs: int
    fraction: float


class Job(msgspec.Struct, frozen=True):
    """A job with its result once it has one. `request` is the body that asks for the same again."""

    job_id: str
    kind: Kind
    state: str
    reason: str
    progress: Progress
    created_ms: int
    spec: dict[str, Any]
    request: dict[str, Any]
    links: Links
    result: dict[str, Any] | None = None


class Cancelled(msgspec.Struct, frozen=True):
    job_id: str
    state: str
