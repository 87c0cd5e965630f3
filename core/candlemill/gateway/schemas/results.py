"""Responses with what finished jobs have found: curves, trades, orders, months, sets."""

from typing import Any, Literal

import msgspec

from candlemill.gateway.schemas.units import Moment, Money, Price, Quantity, Ratio, Share


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
