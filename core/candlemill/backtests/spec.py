"""Job specifications: a request as people write it, and the complete spec.

The functions here are pure. Times are UTC milliseconds, money is scaled by 10^8, rates are ppm.
"""

import math
from copy import copy
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from candlemill.backtests.options import Option, options_of
from candlemill.backtests.tiers import TierTable, check_tables
from candlemill.engine.candles import MINUTE_MS
from candlemill.errors import BadInput
from candlemill.units import FIRST_MS, LAST_MS, SCALE, TIMEFRAME_LIMIT

LEGS_LIMIT = 256
SPEC_BYTES_LIMIT = 32 * 1024  # a spec travels in every task's event, and an event is at most 64 KiB
SYMBOLS_LENGTH = 20_000  # characters

DEFAULT_CAPITAL = 10_000 * SCALE
# What the legs of a schedule can have of their own: stops, costs and the timeframe.
LEG_OPTIONS: Final = (
    "fee", "maker_fee", "slippage", "stop_loss", "take_profit", "trailing_stop", "borrow", "timeframe",
)  # fmt: skip

Ppm = Annotated[int, Meta(ge=0, le=1_000_000)]
FeePpm = Annotated[int, Meta(ge=-100_000, le=1_000_000)]  # negative: a rebate
Amount = Annotated[int, Meta(ge=1, le=2**62)]
AmountOrZero = Annotated[int, Meta(ge=0, le=2**62)]
RATE_HELP = "like 2%, 20bp or 2000 (ppm)"
ParamValue = int | float | bool | str
Score = Literal["sharpe_ratio", "sortino_ratio", "total_pnl"]  # metrics that sets can be chosen by

# What options belong to: `Option.when`.
UNITS, CASH = {"account": "units"}, {"account": "cash"}
FIXED, NOTIONAL = {**UNITS, "sizing": "fixed"}, {**UNITS, "sizing": "notional"}


class Leg(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Section of a schedule: from `start` (ms) on, the strategy runs with these parameters.

    With `options`, of LEG_OPTIONS, the leg has stops, costs and a timeframe of its own, in the units of a spec.
    """

    start: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    params: dict[str, ParamValue]
    options: dict[str, int] = {}


class WalkForward(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of a walk-forward: spans such as 90d or 6mo, and the metric that selects the sets.

    `options` are values of LEG_OPTIONS, as texts like 1% and 15m, that are chosen together with the parameters.
    """

    train: Annotated[str, Meta(max_length=16)] = "6mo"
    test: Annotated[str, Meta(max_length=16)] = "1mo"
    anchored: bool = False
    score: Score = "sharpe_ratio"
    options: dict[str, Annotated[list[str | int], Meta(min_length=1, max_length=LEGS_LIMIT)]] = {}


class Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Complete specification of a job. Two specs with the same bytes on the same candles have the same result.

    `symbol` is one symbol, or those of a panel, in alphabetical order with commas between them. `params` are complete
    (with defaults) unless `grid` varies them; `grid` maps a parameter to its values. A `schedule` has different
    parameter sets for consecutive periods instead. `account` "cash" is an account of real money. Only this account has
    the rules CASH_RULES: `step`, `min_quantity` and `min_notional` are scaled, `leverage` and `borrow` (a day) are ppm.
    `path` selects the outcome that counts of a minute in which the order of events is unknown; `both` runs each set
    with either, and its figures are those of the worst. `maker_fee` None is the same as `fee`; `capital` None, with
    fixed sizing only, is the cost of the job's quantity at the first open. With `margin` positions are liquidated;
    `tiers` are the maintenance tiers of each symbol that are in force in the range, as stored, and `marks` is the
    digest of its mark prices, empty without any. Only panels have `universe` (see `universe.parse_universe`) and
    `delist_after` (minutes). `volume_scale` is the symbol's if `volume_share` limits trades, otherwise 0. With
    `warm_up` stored, decisions see the candles before `start`.
    """

    symbol: Annotated[str, Meta(min_length=1, max_length=SYMBOLS_LENGTH)]
    strategy: Annotated[str, Meta(min_length=1, max_length=64)]
    params: dict[str, ParamValue]
    grid: dict[str, list[ParamValue]] = {}
    schedule: Annotated[list[Leg], Meta(max_length=LEGS_LIMIT)] = []
    start: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    end: Annotated[int, Meta(ge=FIRST_MS, le=LAST_MS)]
    fee: Annotated[
        FeePpm, Option("rate", "of every fill: 0.1%, 10bp or 1000 (ppm); default 0.1%", "costs", "Fee of each fill")
    ] = 1000
    maker_fee: Annotated[
        FeePpm | None,
        Option("rate", "of take-profit exits; below 0 a rebate", "costs", "Maker fee", usual="as the fee"),
    ] = None
    slippage: Annotated[Ppm, Option("rate", RATE_HELP, "costs", "Slippage")] = 0
    stop_loss: Annotated[Ppm, Option("rate", RATE_HELP, "costs", "Stop loss")] = 0
    take_profit: Annotated[int, Meta(ge=0, le=100_000_000), Option("rate", RATE_HELP, "costs", "Take profit")] = 0
    trailing_stop: Annotated[Ppm, Option("rate", RATE_HELP, "costs", "Trailing stop")] = 0
    limit_through: Annotated[
        AmountOrZero,
        Option(
            "amount",
            "how far the price must pass a resting limit order before it fills (default 0: any)",
            "costs",
            "Beyond limit orders",
            hint="a difference of prices, such as one tick",
            zero=True,
        ),
    ] = 0
    funding: Annotated[bool, Option("flag", "apply the symbol's stored funding rates", "costs")] = False
    fill: Annotated[
        Literal["next_open", "close"], Option("choice", "the price of a decision's fill", "account", "Filled at")
    ] = "next_open"
    path: Annotated[
        Literal["worst", "best", "both"],
        Option(
            "choice",
            "outcome of an ambiguous minute; both: the figures of worst, and the interval (default worst)",
            "account",
            "Ambiguous minutes",
            notes={
                "best": "What cannot be known of a minute is taken as lucky.",
                "both": "The figures of worst, and how far those of best are from them.",
            },
        ),
    ] = "worst"
    account: Annotated[
        Literal["cash", "units"],
        Option(
            "choice",
            "cash: real money (default); units: quantities without cash; an option of either one chooses it",
            "account",
            "Account",
            notes={
                "cash": "Real money: what is bought is paid for.",
                "units": "Quantities alone: nothing is cut or rejected.",
            },
            inferred=True,
        ),
    ] = "cash"
    sizing: Annotated[
        Literal["fixed", "notional", "compound"],
        Option(
            "choice",
            "of each trade, in account units (default fixed)",
            "account",
            "Sizing",
            when=(UNITS,),
            inferred=True,
            notes={
                "fixed": "The same quantity in each trade; nothing compounds.",
                "notional": "The same money in each trade.",
                "compound": "All of the equity in each trade.",
            },
        ),
    ] = "fixed"
    size: Annotated[
        Literal["units", "notional", "equity"],
        Option(
            "choice",
            "what a full position is (default equity: all of it)",
            "account",
            "Exposure of",
            when=(CASH,),
            inferred=True,
        ),
    ] = "equity"
    quantity: Annotated[
        Amount,
        Option(
            "amount",
            "quantity of the base currency (default 1); without --size it chooses account units",
            "account",
            "Quantity",
            hint="units of base in each trade",
            inferred=True,
            when=(FIXED, {**CASH, "size": "units"}),
        ),
    ] = SCALE
    capital: Annotated[
        Amount | None,
        Option(
            "amount",
            "cash at the start (default 10000)",
            "account",
            "Capital",
            usual="10000; of fixed trades their cost",
        ),
    ] = None
    notional: Annotated[
        Amount | None,
        Option(
            "amount",
            "quote money in each trade, with size or sizing notional (default the capital)",
            "account",
            "Money in each trade",
            usual="the capital",
            when=(NOTIONAL, {**CASH, "size": "notional"}),
        ),
    ] = None
    step: Annotated[
        Amount, Option("amount", "orders are whole numbers of it", "account", "Step of quantities", when=(CASH,))
    ] = 1
    min_quantity: Annotated[
        AmountOrZero,
        Option(
            "amount", "smallest quantity that an order may add", "account", "Least quantity", zero=True, when=(CASH,)
        ),
    ] = 0
    min_notional: Annotated[
        AmountOrZero,
        Option("amount", "smallest value that an order may add", "account", "Least value", zero=True, when=(CASH,)),
    ] = 0
    leverage: Annotated[
        int,
        Meta(ge=1, le=1_000_000_000),
        Option(
            "leverage",
            "largest position as a multiple of equity (default 1x)",
            "account",
            "Leverage",
            hint="like 3x or 2.5x",
            usual="1x",
            when=(CASH,),
        ),
    ] = 1_000_000
    margin: Annotated[
        Literal["none", "isolated", "cross"],
        Option(
            "choice",
            "liquidate a perpetual's positions, by the maintenance tiers that are stored (default none)",
            "account",
            "Margin",
            when=(CASH,),
            notes={
                "isolated": "A position's own margin answers for it, its value divided by the leverage.",
                "cross": "The whole equity answers for all positions.",
            },
        ),
    ] = "none"
    tiers: dict[str, list[TierTable]] = {}
    marks: Annotated[str, Meta(max_length=64)] = ""
    borrow: Annotated[Ppm, Option("rate", "what shorts pay a day", "account", "Borrowing a day", when=(CASH,))] = 0
    volume_share: Annotated[
        Ppm,
        Option(
            "rate",
            "largest share of a bar's volume in a fill; with account cash the rest of an order waits",
            "account",
            "Most of a bar's volume",
            usual="no limit",
            inferred=True,
            when=(FIXED, NOTIONAL, CASH),
        ),
    ] = 0
    timeframe: Annotated[
        int,
        Meta(ge=1, le=TIMEFRAME_LIMIT),
        Option(
            "timeframe",
            "length of decision bars: 1m, 5m, 1h, 1d … (default 1m, or what SYMBOL@1h says)",
            "account",
            "Decided on bars of",
            hint="fills and stops stay on minutes",
            inferred=True,
        ),
    ] = 1
    warm_up: Annotated[
        Literal["none", "stored"],
        Option(
            "choice",
            "stored: decisions see the candles stored before the range; nothing trades before it (default none)",
            "account",
            "Warm-up",
            notes={"stored": "Indicators see the candles before the range, as far as they are stored."},
        ),
    ] = "none"
    universe: Annotated[
        str,
        Meta(max_length=SYMBOLS_LENGTH),
        Option(
            "text",
            "symbols that a panel may hold: top:50:by=turnover:over=30d:every=7d, or a list (default all)",
            "account",
            "Universe of a panel",
            usual="all its symbols",
        ),
    ] = ""
    delist_after: Annotated[
        int,
        Meta(ge=1, le=TIMEFRAME_LIMIT),
        Option(
            "timeframe",
            "sell a panel's symbol that has had no candle for this time (default 1d)",
            "account",
            "Ended without candles for",
            hint="symbols of a panel",
        ),
    ] = 1_440
    volume_scale: Annotated[int, Meta(ge=0, le=10**18)] = 0

    def __post_init__(self) -> None:
        for option in _RULED:
            option.check(self)
        for tables in self.tiers.values():
            check_tables(tables)

    @property
    def read_from(self) -> int:
        """Time in ms from which candles may be read: the job's start, or any before it with `warm_up` stored."""
        return self.start if self.warm_up == "none" else FIRST_MS

    @property
    def varies(self) -> bool:
        """Whether the legs of the schedule have options of their own. Then each begins a slice."""
        return any(leg.options for leg in self.schedule)

    @property
    def variants(self) -> list["Spec"]:
        """The specs in force one after the other; without options of legs this one."""
        return [self.at(leg.start) for leg in self.schedule] if self.varies else [self]

    def at(self, start: int) -> "Spec":
        """Return the spec of a slice from `start` (ms) on: that of its leg, if legs have options of their own."""
        if not self.varies:
            return self
        leg = next((leg for leg in reversed(self.schedule) if leg.start <= start), self.schedule[0])
        return msgspec.structs.replace(self, schedule=[leg], **leg.options)

    @property
    def longest_timeframe(self) -> int:
        return max(one.timeframe for one in self.variants)

    @property
    def symbols(self) -> list[str]:
        return self.symbol.split(",")

    @property
    def shown_symbols(self) -> str:
        """Return the symbols for a message: the first of many."""
        first, more = self.symbols[:3], len(self.symbols) - 3
        return ", ".join(first) + (f" and {more:,} more" if more > 0 else "")

    @property
    def minutes(self) -> int:
        return (self.end - self.start) // MINUTE_MS

    @property
    def combinations(self) -> int:
        """Return the number of points of the grid, valid or not; 1 without a grid."""
        return math.prod(len(values) for values in self.grid.values())

    def single(self, params: dict[str, ParamValue]) -> "Spec":
        """Return the spec of one point of the grid, equal to the spec of a job for this point alone.

        No option changes, so none is checked again: this is done for every set of a sweep.
        """
        found = copy(self)
        msgspec.structs.force_setattr(found, "params", params)
        msgspec.structs.force_setattr(found, "grid", {})
        return found

    def to_json(self) -> bytes:
        """Return canonical bytes: equal specs have equal bytes."""
        return msgspec.json.encode(self, order="sorted")


# Every option of a spec; rates are in ppm, amounts times 10^8; and the rules that only an account of real money has.
OPTIONS: Final = options_of(Spec)
RATES: Final = tuple(name for name, option in OPTIONS.items() if option.kind == "rate")
AMOUNTS: Final = tuple(name for name, option in OPTIONS.items() if option.kind == "amount")
_RULED: Final = tuple(option for option in OPTIONS.values() if option.when)
CASH_RULES: Final = {name: option.default for name, option in OPTIONS.items() if option.when == (CASH,)}

# Here and elsewhere: msgspec analyses a type at its first use, and two threads that do this at the same time can
# crash the process. So decoders are made while modules are imported, before any thread starts.
_specs = msgspec.json.Decoder(Spec)


def spec_from_json(data: bytes | str) -> Spec:
    try:
        return _specs.decode(data)
    except msgspec.DecodeError as error:
        raise BadInput(f"not a job: {error}") from None
