"""Response schemas. Money is scaled by 10^8, rates are parts per million, times UTC milliseconds.

With `as=decimal` the fields with `x-scale` 100000000 are decimal texts.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec

from candlemill.backtests.options import Group, Kind, Option
from candlemill.formatting import Unit
from candlemill.paper.decision import Decision
from candlemill.pipeline.reuse import Reuse
from candlemill.units import SCALE


def _meta(unit: str, scale: int, text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra_json_schema={"x-unit": unit, "x-scale": scale})


Money = Annotated[int, _meta(Unit.MONEY, SCALE, "money, times 10^8")]
Price = Annotated[int, _meta("price", SCALE, "price, times 10^8")]
Quantity = Annotated[int, _meta("quantity", SCALE, "units of base, times 10^8")]
Volume = Annotated[int, _meta("volume", SCALE, "units of base, times `volume_scale`")]
Share = Annotated[int, _meta(Unit.SHARE, SCALE, "share, times 10^8: 100000000 is 100 %")]
Ratio = Annotated[int, _meta(Unit.RATIO, SCALE, "ratio, times 10^8")]
Moment = Annotated[int, _meta("ms", 1, "UTC ms since 1970")]


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
    has those of its best set, and the number of its sets, a study that of its trials. Label and tags are those of
    `/notes`, `settings` those of the job."""

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


class Equity(msgspec.Struct, frozen=True):
    """Columns of one length: profit so far, how far it is below its peak (<= 0), and what buying at the first open and
    holding would have made (empty for portfolios). `breaks` are the positions in them before which candles are
    missing: a line ends there."""

    capital: Money
    t: list[Moment]
    equity: list[Money]
    drawdown: list[Money]
    benchmark: list[Money]
    breaks: list[int] = []


class Excursions(msgspec.Struct, frozen=True):
    """Columns of one length, a trade each: its side, its profit, the worst and the best mark while it was held. Of more
    than 1,500 trades the best, the worst and some at even distances; `total` counts all."""

    total: int
    side: list[int]
    pnl: list[Money]
    mae: list[Money]
    mfe: list[Money]


class Histogram(msgspec.Struct, frozen=True):
    """`counts` of trades by profit; bin k begins at (first + k) times `width`, which is in units of money. The outer
    two hold the `beyond` trades outside of plus and minus `reach` too."""

    width: float
    first: int
    counts: list[int]
    reach: float
    beyond: int
    mean: Money
    median: Money


class DrawdownRow(msgspec.Struct, frozen=True):
    """A time below the peak, `end_ms` null if it lasts still; `depth` from the peak, `share` of its value."""

    start_ms: Moment
    bottom_ms: Moment
    end_ms: Moment | None
    depth: Money
    share: Share


class Profile(msgspec.Struct, frozen=True):
    """How a run came to its profit: the Sharpe ratio of the `window` days until each day `t`, the histogram and the
    excursions of its trades (null for portfolios, and without trades), its deepest drawdowns."""

    window: int
    t: list[Moment]
    sharpe: list[Ratio]
    profits: Histogram | None
    excursions: Excursions | None
    drawdowns: list[DrawdownRow]


class MonthRow(msgspec.Struct, frozen=True):
    """`return` is the profit over the account's value at the month's start, times 10^8."""

    year: int
    month: int
    pnl: Money
    gain: Share | None = msgspec.field(name="return")


class Months(msgspec.Struct, frozen=True):
    months: list[MonthRow]


class TradeRow(msgspec.Struct, frozen=True):
    """`side` is 1 long, -1 short. `gap`: minutes were missing while the position was held.

    Where several fills enlarge or reduce a position, `quantity` is all that was added, prices are means by quantity.
    """

    entry_ms: Moment
    exit_ms: Moment
    side: int
    entry_price: Price
    exit_price: Price
    quantity: Quantity
    pnl: Money
    fees: Money
    funding: Money
    bars: int
    reason: str
    gap: bool
    borrow: Money
    symbol: str


class TradesPage(msgspec.Struct, frozen=True):
    total: int
    items: list[TradeRow]
    next: str | None


class OrderLine(msgspec.Struct, frozen=True):
    """An order or level at one price, from its first minute to the end of its last. `key` is the order's, or `stop`,
    `take` or `liquidation` of the position; `side` is 1 (buys), -1 (sells), or 0 of levels. `ended`: `filled`, `moved`
    (stated again elsewhere), `gone` (cancelled, replaced, or the position has ended), `standing` (until the end of what
    is shown).
    """

    key: str
    kind: Literal["limit", "stop", "level"]
    side: int
    price: Price
    start_ms: Moment
    end_ms: Moment
    ended: Literal["filled", "moved", "gone", "standing"]


class OrderFill(msgspec.Struct, frozen=True):
    """`what` filled: an order's key, `target`, `stop`, `take` or `liquidation`, at `price` after slippage. `before` and
    `after` are exposures in ppm. `ambiguous`: the order of events in its minute is unknown."""

    t: Moment
    what: str
    price: Price
    before: int
    after: int
    ambiguous: bool


class OrdersShown(msgspec.Struct, frozen=True):
    """`ambiguous` are the open times of the minutes whose order of events is unknown."""

    lines: list[OrderLine]
    fills: list[OrderFill]
    ambiguous: list[Moment]


class Page(msgspec.Struct, frozen=True):
    """`next` is the cursor of the page that follows; null on the last."""

    items: list[dict[str, Any]]
    next: str | None
    total: int


class Axis(msgspec.Struct, frozen=True):
    """A parameter and its values as texts; many values are grouped to spans. `name` is null if there is no second
    parameter."""

    name: str | None
    values: list[str]


class HeatMap(msgspec.Struct, frozen=True):
    """`z[j][k]` is the figure at `y.values[j]`, `x.values[k]`, null without a set; `job_ids` are those of the best
    sets of each cell. `better`: whether high or low values of the figure are good."""

    metric: str
    better: Literal["high", "low"]
    x: Axis
    y: Axis
    z: list[list[int | None]]
    job_ids: list[list[str | None]]


class SymbolDetails(msgspec.Struct, frozen=True):
    symbol: str
    first_ms: Moment
    last_ms: Moment
    bars: int
    missing_minutes: int
    days: int


class Symbols(msgspec.Struct, frozen=True):
    symbols: list[SymbolDetails]


class CalendarDay(msgspec.Struct, frozen=True):
    """`day` is its midnight; `missing` minutes are counted from the symbol's first candle to its last."""

    day: int
    rows: int
    missing: int


class SymbolDays(msgspec.Struct, frozen=True):
    symbol: SymbolDetails
    calendar: list[CalendarDay]


class Candles(msgspec.Struct, frozen=True):
    """Columns of candles of `minutes` each; volumes are scaled by `volume_scale`."""

    minutes: int
    volume_scale: int
    t: list[Moment]
    open: list[Price]
    high: list[Price]
    low: list[Price]
    close: list[Price]
    volume: list[Volume]


class StrategyDetails(msgspec.Struct, frozen=True):
    name: str
    summary: str
    schema: dict[str, Any]


class Strategies(msgspec.Struct, frozen=True):
    strategies: list[StrategyDetails]


class About(msgspec.Struct, frozen=True):
    """`figures` are what results can be ordered by; `keys`: whether requests need an API key."""

    version: str
    keys: bool
    figures: list[str]


class MetricRow(msgspec.Struct, frozen=True):
    """`scale` of its integers make 1; shares are shown in percent. `better`: whether high or low values are good, null
    if neither. `place` is where the figure is: in a `result`, its `metrics` or its `guards`. `main` ones are columns of
    tables.

    In a compound account `max_drawdown` is a share of the peak.
    """

    key: str
    label: str
    unit: str
    scale: int
    better: Literal["high", "low"] | None
    definition: str
    place: Literal["result", "metrics", "guards"]
    main: bool


class Metrics(msgspec.Struct, frozen=True):
    metrics: list[MetricRow]


class OptionRow(msgspec.Struct, frozen=True):
    """An option of a request: how it is written (`kind`), its default as text (null: nothing), the choices where only
    these are allowed, what it means (`help`), and its field in the dashboard's form: `group`, `label`, `hint`, `usual`,
    `notes` of choices. `when` lists the settings that it belongs to; with all others it must be left out. `flag` is its
    name on the command line."""

    name: str
    kind: Kind
    default: str | None
    choices: tuple[str, ...]
    help: str
    group: Group
    label: str
    hint: str
    usual: str
    notes: dict[str, str]
    when: list[dict[str, str]]
    flag: str


def option_row(option: Option) -> OptionRow:
    return OptionRow(
        option.name,
        option.kind,
        option.default_text(),
        option.choices,
        option.help,
        option.group,
        option.label,
        option.hint,
        option.usual,
        dict(option.notes),
        [dict(one) for one in option.when],
        option.flag,
    )


class Options(msgspec.Struct, frozen=True):
    options: list[OptionRow]


def units_of(struct: type[msgspec.Struct]) -> dict[str, dict[str, Any]]:
    """Return the unit, scale and description of each annotated field of a struct, as keys of its JSON schema."""
    _, components = msgspec.json.schema_components([struct])
    properties = components.get(struct.__name__, {}).get("properties", {})
    found = {name: next(iter(_marked(schema)), {}) for name, schema in properties.items()}
    return {name: marks for name, marks in found.items() if marks}


def _marked(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "x-unit" in schema:
        yield {name: schema[name] for name in ("x-unit", "x-scale", "description")}
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if isinstance(schema.get("items"), dict) else ())):
        yield from _marked(inner)


class PaperRunSummary(msgspec.Struct, frozen=True):
    """A paper run: it began at `start`, and has published its decisions from `since` on. `last` is the newest one."""

    run: str
    symbol: str
    strategy: str
    params: dict[str, Any]
    start: Moment
    since: Moment
    last: Decision | None


class PaperRuns(msgspec.Struct, frozen=True):
    runs: list[PaperRunSummary]


class PaperRunDetails(msgspec.Struct, frozen=True):
    """A paper run and its last decisions, the newest first. The valid decision of a minute has the highest attempt."""

    run: PaperRunSummary
    decisions: list[Decision]
