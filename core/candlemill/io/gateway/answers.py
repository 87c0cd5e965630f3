"""The shapes of answers. Money is scaled by 10^8, rates are parts per million, times UTC milliseconds."""

from typing import Any, Literal

import msgspec

from candlemill.reuse import Reuse


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
    elif kind == "portfolio":
        more = ("equity", "monthly")
    else:
        more = ("equity", "trades", "monthly", "report")
    return Links(base, f"{base}/events", f"{base}/cancel", **{name: f"{base}/{name}" for name in more})


class PlanTold(msgspec.Struct, frozen=True):
    """What a job will do: `rows` candles from `start` to `end`, in `slices` times batches of `sets` parameter sets;
    `cached` tells that its result is stored and nothing will be done, `reuse` what of it is known. Of a portfolio all
    symbols' together, of a walk-forward its sweep's."""

    slices: int
    tasks: int
    rows: int
    sets: int
    estimated_seconds: float
    cached: bool
    start: int
    end: int
    reuse: Reuse | None = None


class Accepted(msgspec.Struct, frozen=True):
    """A job that is under way, or done already."""

    job_id: str
    kind: str
    state: str
    links: Links
    plan: PlanTold


class Planned(msgspec.Struct, frozen=True):
    """What a request would do."""

    job_id: str
    kind: str
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
    kind: str
    state: str
    reason: str
    progress: Progress
    created_ms: int
    spec: dict[str, Any]
    request: dict[str, Any]
    links: Links
    result: dict[str, Any] | None = None


class JobLine(msgspec.Struct, frozen=True):
    """A job in a list. The last four are of a finished one: of a sweep its best set's, and how many sets it has."""

    job_id: str
    kind: str
    state: str
    reason: str
    created_ms: int
    updated_ms: int
    symbol: str
    strategy: str
    start: int
    end: int
    params: dict[str, Any]
    grid: dict[str, list[Any]]
    sizing: str
    progress: Progress
    total_pnl: int | None = None
    sharpe_ratio: int | None = None
    max_drawdown: int | None = None
    sets: int | None = None


class Jobs(msgspec.Struct, frozen=True):
    """`next` is the cursor of the page that follows; null on the last."""

    items: list[JobLine]
    next: str | None


class Equity(msgspec.Struct, frozen=True):
    """Columns of one length: profit so far, how far it is below its peak (<= 0), and what buying at the first open and
    holding would have made (empty for portfolios)."""

    capital: int
    t: list[int]
    equity: list[int]
    drawdown: list[int]
    benchmark: list[int]


class MonthRow(msgspec.Struct, frozen=True):
    """`return` is the profit over the account's value at the month's start, times 10^8."""

    year: int
    month: int
    pnl: int
    gain: int | None = msgspec.field(name="return")


class Months(msgspec.Struct, frozen=True):
    months: list[MonthRow]


class TradeRow(msgspec.Struct, frozen=True):
    """`side` is 1 long, -1 short; `gap` tells that minutes were missing while it was held."""

    entry_ms: int
    exit_ms: int
    side: int
    entry_price: int
    exit_price: int
    quantity: int
    pnl: int
    fees: int
    funding: int
    bars: int
    reason: str
    gap: bool


class TradesPage(msgspec.Struct, frozen=True):
    total: int
    items: list[TradeRow]
    next: str | None


class Page(msgspec.Struct, frozen=True):
    """`next` is the cursor of the page that follows; null on the last."""

    items: list[dict[str, Any]]
    next: str | None
    total: int


class Axis(msgspec.Struct, frozen=True):
    """A parameter and its values as texts, spans of neighbouring ones where there are many; no name where there is
    none."""

    name: str | None
    values: list[str]


class HeatMap(msgspec.Struct, frozen=True):
    """`z[j][k]` is the figure at `y.values[j]`, `x.values[k]`, null where no set is; `job_ids` are those of the best
    sets there. `better` tells which end of the figure is good."""

    metric: str
    better: Literal["high", "low"]
    x: Axis
    y: Axis
    z: list[list[int | None]]
    job_ids: list[list[str | None]]


class SymbolTold(msgspec.Struct, frozen=True):
    symbol: str
    first_ms: int
    last_ms: int
    bars: int
    missing_minutes: int
    days: int


class Symbols(msgspec.Struct, frozen=True):
    symbols: list[SymbolTold]


class CalendarDay(msgspec.Struct, frozen=True):
    """`day` is its midnight; `missing` minutes are counted from the symbol's first candle to its last."""

    day: int
    rows: int
    missing: int


class SymbolDays(msgspec.Struct, frozen=True):
    symbol: SymbolTold
    calendar: list[CalendarDay]


class Candles(msgspec.Struct, frozen=True):
    """Columns of candles of `minutes` each; volumes are scaled by `volume_scale`."""

    minutes: int
    volume_scale: int
    t: list[int]
    open: list[int]
    high: list[int]
    low: list[int]
    close: list[int]
    volume: list[int]


class StrategyTold(msgspec.Struct, frozen=True):
    name: str
    summary: str
    schema: dict[str, Any]


class Strategies(msgspec.Struct, frozen=True):
    strategies: list[StrategyTold]


class About(msgspec.Struct, frozen=True):
    """`figures` are what results can be ordered by; `keys` tells that requests need one."""

    version: str
    keys: bool
    figures: list[str]
