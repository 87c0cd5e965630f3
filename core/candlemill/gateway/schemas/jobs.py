"""Responses about jobs: what was accepted or planned, their progress, and lists of them."""

from typing import Annotated, Any

import msgspec

from candlemill.gateway.schemas.units import Moment, Money, Ratio
from candlemill.pipeline.reuse import Reuse


class Links(msgspec.Struct, frozen=True, omit_defaults=True):
    """Addresses of a job's parts. Those that this kind of job does not have are left out."""

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
    elif kind == "portfolio":
        more = ("equity", "monthly")
    elif kind == "sweeps":
        more = ("results",)
    elif kind in ("walk_forwards", "study"):
        more = ()
    else:
        more = ("equity", "trades", "monthly", "report")
    return Links(base, f"{base}/events", f"{base}/cancel", **{name: f"{base}/{name}" for name in more})


class PlanDetails(msgspec.Struct, frozen=True):
    """Plan of a job: `rows` candles from `start` to `end`, cut into `slices`, for `sets` parameter sets in batches.

    `cached`: the result is stored, nothing will be computed. `reuse`: the part of the work that is stored. The numbers
    of a portfolio are those of all its symbols, the numbers of a walk-forward those of its sweep."""

    slices: int
    tasks: int
    rows: int
    sets: int
    estimated_seconds: float
    cached: bool
    start: Moment
    end: Moment
    reuse: Reuse | None = None


class Accepted(msgspec.Struct, frozen=True):
    """A job that is running, or is finished already."""

    job_id: str
    kind: str
    state: str
    links: Links
    plan: PlanDetails


class Planned(msgspec.Struct, frozen=True):
    """Plan of a request, without running it."""

    job_id: str
    kind: str
    plan: PlanDetails


class Progress(msgspec.Struct, frozen=True):
    """`done` of `total` tasks; `repairs` are slices that ran again because their start was guessed wrong."""

    state: str
    done: int
    total: int
    repairs: int
    fraction: float


class JobNotes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What users have written about a job: a label of one line, a note, and tags. The job itself does not depend on
    them."""

    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
    note: Annotated[str, msgspec.Meta(max_length=4_000)] = ""
    tags: Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=40)]], msgspec.Meta(max_length=20)] = []


class Begun(msgspec.Struct, frozen=True):
    """A study that runs or waits, or has as many trials already (`state` is done)."""

    job_id: str
    kind: str
    state: str
    links: Links
    trials: int


class Job(msgspec.Struct, frozen=True):
    """A job with its result once it has one. `request` is the body that asks for the same again, `settings` what
    differs from the usual, as text: parameters, axes, options.

    GET /api/v1/metrics has the unit and scale of each of the result's figures; other money and prices are times 10^8,
    rates of the spec parts per million.
    """

    job_id: str
    kind: str
    state: str
    reason: str
    progress: Progress
    created_ms: Moment
    spec: dict[str, Any]
    request: dict[str, Any]
    links: Links
    result: dict[str, Any] | None = None
    settings: dict[str, str] = {}


class JobLine(msgspec.Struct, frozen=True):
    """A job in a list. A compound account's drawdown is a share of its peak. Only finished jobs have figures: a sweep
    has those of its best set, and the number of its sets, a study those of its best trial, and the number of its
    trials. Label and tags are those of `/notes`, `settings` those of the job."""

    job_id: str
    kind: str
    state: str
    reason: str
    created_ms: Moment
    updated_ms: Moment
    symbol: str
    strategy: str
    start: Moment
    end: Moment
    params: dict[str, Any]
    grid: dict[str, list[Any]]
    sizing: str
    progress: Progress
    total_pnl: Money | None = None
    sharpe_ratio: Ratio | None = None
    max_drawdown: Money | None = None
    sets: int | None = None
    label: str = ""
    tags: list[str] = []
    settings: dict[str, str] = {}


class Jobs(msgspec.Struct, frozen=True):
    """`next` is the cursor of the page that follows; null on the last."""

    items: list[JobLine]
    next: str | None
