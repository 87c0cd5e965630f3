"""The account `units`: one quantity, equity from 0, nothing compounds (SEMANTICS §4-§6 with the three corrections).

`decisions_to_fills` is the bar of §4, written from that paragraph alone, for strategies that say −1, 0 or +1.
`units_account` is the money of §6 and correction 1, for the fills of any strategy. Money is exact, in 10^-24.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import costs
from .candles import MINUTE, PPM, SCALE, Bar, cut_candles, is_over, k_bars, settled_in
from .desired import STRATEGIES, desired
from .figures import Curve
from .options import Options

UNIT = 10**16  # a figure (10^-8) in units of 10^-24


@dataclass
class Fill:
    """One fill of one symbol. `before` and `after` are exposures in ppm; `rate` is the fee's in ppm.

    `stage` is open, range or close; `kind` is target, limit, taker (a limit that was not resting), stop_order, stop,
    take, delisted or liquidation; `ordered` and `part` are the order's size or part, `basis` is (equity in 10^-16,
    price) at the statement of the book: these are for the account `cash`.
    """

    t: int
    stage: str
    key: str
    kind: str
    before: int
    after: int
    raw: int
    price: int
    rate: int
    part: int = 0
    basis: Any = None
    rest: bool = False  # of an order that has filled in part: its minimums are judged already


@dataclass
class Decided:
    """What decisions and prices alone give: the fills of each bar, and the bars whose order of events is not known."""

    fills: list[list[Fill]]
    ambiguous: list[int] = field(default_factory=list)  # open times


def beyond(price: int, level: int | None, direction: int) -> bool:
    """Whether a price is at the level or past it, upwards (direction +1) or downwards (−1)."""
    return level is not None and (price - level) * direction >= 0


def decisions_to_fills(bars: list[Bar], wanted: list[int | None], options: Options) -> Decided:
    """§4, bar by bar. `wanted[i]` is the decision at the close of bar i, or None where bar i ends no decision bar."""
    decided = Decided([])
    position = entry = best = 0
    locked: int | None = None
    previous = 0  # `desired` of the previous bar
    late = False  # under `fill = close`: decided at the previous bar, where the k-bar was not known to be over

    def trade(bar: Bar, before: int, after: int, raw: int, stage: str, kind: str, rate: int) -> int:
        """Fill from one position to another, never through 0; returns the price after slippage."""
        price = costs.slipped(raw, 1 if after > before else -1, options.slippage)
        decided.fills[-1].append(Fill(bar.t, stage, kind, kind, before * PPM, after * PPM, raw, price, rate))
        return price

    for i, bar in enumerate(bars):
        decided.fills.append([])

        # 1. Open.
        if locked is not None and previous != locked:
            locked = None
        want = 0 if locked is not None else previous
        entered_now = False
        if (options.fill == "next_open" or late) and want != position:
            if position:
                trade(bar, position, 0, bar.open, "open", "target", options.fee)
                position = 0
            if want:
                entry = trade(bar, 0, want, bar.open, "open", "target", options.fee)
                position, best, entered_now = want, bar.open, True

        # 2. Intrabar.
        if position:
            side = position
            stop = costs.nearest_stop(
                side, costs.stop_levels(side, entry, best, options.stop_loss, options.trailing_stop)
            )
            take = costs.nearest_take(side, costs.take_levels(side, entry, options.take_profit))
            adverse, favourable = (bar.low, bar.high) if side > 0 else (bar.high, bar.low)

            hit: tuple[str, int] | None = None
            if beyond(bar.open, stop, -side):
                assert stop is not None
                hit = ("stop", stop if entered_now else bar.open)
            elif beyond(bar.open, take, side):  # correction 3
                assert take is not None
                hit = ("take", take if entered_now else bar.open)
            elif beyond(adverse, stop, -side):
                assert stop is not None
                hit = ("stop", stop)
                if beyond(favourable, take, side):
                    decided.ambiguous.append(bar.t)
                    if options.path == "best":
                        assert take is not None
                        hit = ("take", take)
            elif beyond(favourable, take, side):
                assert take is not None
                hit = ("take", take)
            if hit:
                kind, raw = hit
                stage = "open" if beyond(bar.open, stop, -side) or beyond(bar.open, take, side) else "range"
                trade(bar, position, 0, raw, stage, kind, options.maker if kind == "take" else options.fee)
                position, locked = 0, want
            else:
                best = max(best, bar.high) if side > 0 else min(best, bar.low)

        # 3. Decide.
        decision = wanted[i]
        current = previous if decision is None else decision
        late = decision is not None and not is_over(bar.t, options.timeframe)
        if options.fill == "close" and decision is not None and not late:
            target = 0 if locked is not None and locked == current else current
            if target != position:
                if position:
                    trade(bar, position, 0, bar.close, "close", "target", options.fee)
                    position = 0
                if target:
                    entry = trade(bar, 0, target, bar.close, "close", "target", options.fee)
                    position, best = target, bar.close
        previous = current
    return decided


def wanted_of(bars: list[Bar], name: str, params: Mapping[str, Any], k: int) -> list[int | None]:
    """Decisions of a version 1 strategy, at the last minute present of each k-minute bar (§2)."""
    grouped = k_bars(bars, k)
    values = desired([group.bar for group in grouped], name, dict(params))
    wanted: list[int | None] = [None] * len(bars)
    for group, value in zip(grouped, values, strict=True):
        wanted[group.last] = value
    return wanted


@dataclass
class Trade:
    """A round trip: the quantity of one unit of exposure, and all money since the entry (10^-24)."""

    base: int
    profit: int = 0
    over_gap: bool = False


def units_account(bars: list[Bar], decided: Decided, options: Options) -> dict[str, Any]:
    """Money of fills (§6; correction 1; docs/semantics.md on funding, `notional`, `volume_share`)."""
    if isinstance(options.funding, Mapping):
        raise ValueError("funding of one symbol is a list of (instant, rate)")
    rates = settled_in(bars, options.funding)
    capital = options.capital if options.notional is None else options.notional
    sums = dict.fromkeys(("fees", "funding", "turnover", "gross_profit", "gross_loss"), 0)
    counts = dict.fromkeys(("trades", "wins", "fills", "exposure_bars", "unfilled", "trades_over_gaps"), 0)
    curve, cash, exposure = Curve(), 0, 0
    trade: Trade | None = None
    events = []

    def quantity(w: int) -> int:
        """Units held at an exposure, toward 0."""
        assert trade is not None
        return (1 if w > 0 else -1) * (abs(w) * trade.base // PPM)

    def pay(amount: int) -> None:
        nonlocal cash
        assert trade is not None
        cash += amount
        trade.profit += amount

    for i, bar in enumerate(bars):
        if exposure and trade is not None and trade.base:
            if bar.t - bars[i - 1].t > MINUTE and not trade.over_gap:
                trade.over_gap = True
                counts["trades_over_gaps"] += 1
            if bar.t in rates:
                amount = quantity(exposure) * bars[i - 1].close * rates[bar.t]
                sums["funding"] += amount
                pay(-amount)
        for fill in decided.fills[i]:
            if fill.before == 0 and fill.after != 0:
                base = options.quantity if options.sizing == "fixed" else capital * SCALE // fill.price
                if options.volume_share is not None:
                    base = min(base, bar.volume * options.volume_share // PPM)
                trade = Trade(base)
                counts["unfilled"] += base == 0
            assert trade is not None
            traded = quantity(fill.after) - quantity(fill.before)
            if traded:
                value = abs(traded) * fill.price * SCALE
                fee = abs(traded) * fill.price * fill.rate * (SCALE // PPM)
                pay(-traded * fill.price * SCALE - fee)
                sums["fees"] += fee
                sums["turnover"] += value
                counts["fills"] += 1
            events.append((fill, traded))
            exposure = fill.after
            if exposure == 0:
                if trade.base:
                    counts["trades"] += 1
                    if trade.profit > 0:
                        counts["wins"] += 1
                        sums["gross_profit"] += trade.profit
                    else:
                        sums["gross_loss"] -= trade.profit
                trade = None
        counts["exposure_bars"] += exposure != 0
        held = quantity(exposure) if exposure else 0
        curve.mark(bar.t, cash + held * bar.close * SCALE)

    start = options.start if options.start is not None else bars[0].t if bars else 0
    end = options.end if options.end is not None else bars[-1].t + MINUTE if bars else 0
    return {
        "bars": len(bars),
        "missing_minutes": (end - start) // MINUTE - len(bars),
        **curve.figures(UNIT),
        **counts,
        **{name: value // UNIT for name, value in sums.items()},
        "open_position": (exposure > 0) - (exposure < 0),
        "ambiguous_bars": len(decided.ambiguous),
        "events": events,
        "ambiguous": decided.ambiguous,
        "equity": curve.marks,  # (open time, profit in 10^-24)
    }


def run_units(bars: list[Bar], strategy: Any, options: Mapping[str, Any] | Options | None = None) -> dict[str, Any]:
    """Figures of one symbol in the account `units`, named as in `--json`; `events` are (Fill, quantity traded).

    `strategy` is a name, (name, parameters), a list with one desired position per decision bar, or an object with
    books (orders_strategies.py).
    """
    chosen = Options.of(options)
    bars = cut_candles(bars, chosen.start, chosen.end)
    name, params = strategy if isinstance(strategy, tuple) else (strategy, {})
    if isinstance(name, list):
        wanted: list[int | None] = [None] * len(bars)
        for group, value in zip(k_bars(bars, chosen.timeframe), name, strict=True):
            wanted[group.last] = value
        decided = decisions_to_fills(bars, wanted, chosen)
    elif isinstance(name, str) and (name in STRATEGIES or name == "schedule"):
        decided = decisions_to_fills(bars, wanted_of(bars, name, params, chosen.timeframe), chosen)
    else:
        from .orders_strategies import decide_alone

        decided = decide_alone(bars, strategy, chosen)
    return units_account(bars, decided, chosen)
