"""Orders of a run as a chart shows them: where each stood, and how it ended. Computed again from the candles.

Times are UTC milliseconds, prices times 10^8, exposures ppm.
"""

from typing import Literal

import msgspec
import numpy as np

from candlemill.backtests.margin import margin_account, settling_of
from candlemill.backtests.single_orders import account_before, account_for_orders
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import account_rules, places_orders, rules_of, sees_panel
from candlemill.engine.book_trace import LEVEL_LIQUIDATION, LEVEL_STOP, LEVEL_TAKE, BookTrace
from candlemill.engine.candles import MINUTE_MS, CandleColumns, Column, k_minute_bars
from candlemill.engine.fill_tape import LIQUIDATION, NO_KEY, STOP, TAKE, TARGET, FillTape
from candlemill.engine.ranges import ranges_of
from candlemill.engine.summary import CarriedState
from candlemill.errors import BadInput, TooLarge
from candlemill.strategies import Strategy
from candlemill.strategies.orders import decide_fills, waiting_since

BARS_LIMIT = 20_000  # minute bars of one chart
REPORT_BARS = 360  # minute bars of the chart in a report
LEVELS = {LEVEL_STOP: "stop", LEVEL_TAKE: "take", LEVEL_LIQUIDATION: "liquidation"}
NAMES = {TARGET: "target", STOP: "stop", TAKE: "take", LIQUIDATION: "liquidation"}

Kind = Literal["limit", "stop", "level"]
End = Literal["filled", "moved", "gone", "standing"]


class OrderLine(msgspec.Struct, frozen=True):
    """An order or level at one price, from its first minute to the end of its last.

    `key` is the order's, or "stop", "take" or "liquidation" of the position; `kind` is "limit", "stop" or "level".
    `side` is 1 (buys), -1 (sells) or 0 of levels. `ended` says how: "filled", "moved" (stated again elsewhere),
    "gone" (cancelled, replaced, or the position has ended), "standing" (until the chart's end).
    """

    key: str
    kind: Kind
    side: int
    price: int
    start_ms: int
    end_ms: int
    ended: End


class OrderFill(msgspec.Struct, frozen=True):
    """One fill: `what` is an order's key, or "target", "stop", "take" or "liquidation"; `price` is after slippage.

    `before` and `after` are exposures. `ambiguous`: the order of events in its minute is unknown.
    """

    t: int
    what: str
    price: int
    before: int
    after: int
    ambiguous: bool


class OrderChart(msgspec.Struct, frozen=True):
    """Orders, levels and fills of `start_ms <= t < end_ms`; `ambiguous` are the minutes whose order of events is
    unknown.
    """

    lines: list[OrderLine]
    fills: list[OrderFill]
    ambiguous: list[int]
    start_ms: int = 0
    end_ms: int = 0


def check_shown(spec: Spec) -> None:
    """Raise BadInput for a job whose orders no chart shows."""
    if spec.warm_up != "none":
        raise BadInput("orders of jobs with warm_up=stored are not shown yet")


def has_chart(spec: Spec) -> bool:
    """Return whether a job has orders, or a price of liquidation, that a chart can show."""
    return not sees_panel(spec.strategy) and (places_orders(spec.strategy) or spec.margin != "none")


def last_orders(
    spec: Spec, candles: CandleColumns, strategy: Strategy, marks: CandleColumns | None, fills: Column
) -> OrderChart | None:
    """Return the chart of the REPORT_BARS minutes that end a little after the last of `fills` (times of their bars);
    None without one, and for jobs that have no chart.
    """
    if not has_chart(spec) or spec.warm_up != "none" or not len(fills):
        return None
    t = candles.columns()["t"]
    end = min(int(np.searchsorted(t, fills[-1])) + REPORT_BARS // 6, len(t))
    first = max(end - REPORT_BARS, 0)
    return order_chart(spec, candles, strategy, int(t[first]), int(t[end - 1]) + MINUTE_MS, marks)


def order_chart(
    spec: Spec,
    candles: CandleColumns,
    strategy: Strategy,
    start_ms: int,
    end_ms: int,
    marks: CandleColumns | None = None,
) -> OrderChart:
    """Return the chart of `start_ms <= t < end_ms`. `candles` begin with the job's first bar; `marks` are the mark
    prices of a job with margin, if it uses any.

    With `path=both` it is that of the worst path. Raises TooLarge for more than BARS_LIMIT minute bars, and for numbers
    that cannot be computed exactly.
    """
    t = candles.columns()["t"]
    lo, hi = (int(bar) for bar in np.searchsorted(t, [start_ms, end_ms]))
    if hi - lo > BARS_LIMIT:
        raise TooLarge(f"{hi - lo:,} minutes, a chart of orders has at most {BARS_LIMIT:,}: choose a shorter span")
    first = max(lo - 1, 0)  # what stands in the first minute is known after the one before
    trace = BookTrace()
    try:
        fills = _traced(spec, candles, strategy, marks, (first, hi), trace)
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use smaller windows or rates") from None
    lines = [line for line in _lines(trace, fills, t, hi) if line.end_ms > start_ms]
    ambiguous = [one for one in fills.ambiguous()["minute"].tolist() if one >= start_ms]
    return OrderChart(lines, [fill for fill in _fills(fills) if fill.t >= start_ms], ambiguous, start_ms, end_ms)


def _traced(
    spec: Spec,
    candles: CandleColumns,
    strategy: Strategy,
    marks: CandleColumns | None,
    cuts: tuple[int, int],
    trace: BookTrace,
) -> FillTape:
    """Return the fills between the bars of `cuts`, and trace them. Where they depend on the account, it is carried to
    the first.
    """
    first, hi = cuts
    ranges, bars = ranges_of(candles), k_minute_bars(candles, spec.timeframe, skip_first=False)
    common = (candles, spec.timeframe, strategy, rules_of(spec))
    account = account_rules(spec)
    settling = settling_of(spec, candles, marks)
    if account is None or settling is None:
        _, state = decide_fills(*common, b"", 0, first, ranges=ranges, bars=bars)
        return decide_fills(*common, state, first, hi, ranges=ranges, bars=bars, trace=trace)[0]
    before, state = account_before(account, CarriedState()), b""
    if first:
        money = margin_account(candles, settling, account, before, 0, first)
        fills, state = decide_fills(*common, b"", 0, first, ranges=ranges, bars=bars, account=money)
        _, carried, _ = account_for_orders(
            candles, bars, fills, account, before, 0, first, None, settling.funded, waiting_since(state)
        )
        before = account_before(account, carried)
    money = margin_account(candles, settling, account, before, first, hi)
    return decide_fills(*common, state, first, hi, ranges=ranges, bars=bars, trace=trace, account=money)[0]


def _lines(trace: BookTrace, fills: FillTape, t: Column, hi: int) -> list[OrderLine]:
    """Join the rows of consecutive bars that have the same order at the same price. `hi` is the bar after the last."""
    rows = trace.columns()
    order = np.lexsort((rows["bar"], rows["key"]))
    bar, key, side, limit, price = (rows[name][order] for name in ("bar", "key", "side", "limit", "price"))
    if not len(bar):
        return []
    same = (np.diff(bar) == 1) & (np.diff(key) == 0) & (np.diff(price) == 0)
    same &= (np.diff(side) == 0) & (np.diff(limit) == 0)
    names = [LEVELS.get(one) or trace.keys[one] for one in key.tolist()]
    filled = {(fill.t, fill.what) for fill in _fills(fills)}
    hit = [(when, name) in filled for when, name in zip(t[np.minimum(bar + 1, hi - 1)].tolist(), names, strict=True)]
    same &= ~np.array(hit[:-1], dtype=np.bool_)  # stated again after its fill it is another order
    first = np.flatnonzero(np.append(True, ~same))
    last = np.append(first[1:] - 1, len(bar) - 1)
    goes_on = np.append((np.diff(bar) == 1) & (np.diff(key) == 0), False)
    found = []
    for a, b in zip(first.tolist(), last.tolist(), strict=True):
        start, end = int(bar[a]) + 1, int(bar[b]) + 1  # it stands in the bars after those that noted it
        if start >= hi:
            continue
        ended: End = "gone"
        if end >= hi:
            ended = "standing"
        elif hit[b]:
            ended = "filled"
        elif goes_on[b]:
            ended = "moved"
        kind: Kind = "level" if key[a] < 0 else "limit" if limit[a] else "stop"
        end_ms = int(t[min(end, hi - 1)]) + MINUTE_MS
        found.append(OrderLine(names[a], kind, int(side[a]), int(price[a]), int(t[start]), end_ms, ended))
    return sorted(found, key=lambda line: (line.start_ms, line.key))


def _fills(fills: FillTape) -> list[OrderFill]:
    columns, keys = fills.columns(), fills.keys
    unknown = set(fills.ambiguous()["minute"].tolist())
    rows = zip(*(columns[name].tolist() for name in ("minute", "what", "key", "price", "before", "after")), strict=True)
    return [
        OrderFill(t, keys[key] if key != NO_KEY else NAMES[what], price, before, after, t in unknown)
        for t, what, key, price, before, after in rows
    ]
