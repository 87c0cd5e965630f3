"""A job request in JSON: the body of the REST interface, and the flat fields of an event sent by hand.

Times, amounts and grids are texts as on the command line; `model` defines how they are parsed.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from candlemill.backtests.command_line import grid_text, range_of
from candlemill.backtests.grid import SETS_LIMIT, grid_values
from candlemill.backtests.options import Option, options_of
from candlemill.backtests.plan import SLICES_LIMIT
from candlemill.backtests.portfolio import SYMBOLS_LIMIT, parse_weights, symbols_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import (
    OPTIONS,
    SYMBOLS_LENGTH,
    ParamValue,
    Spec,
    WalkForward,
)  # fmt: skip
from candlemill.backtests.spec_rules import sees_panel
from candlemill.errors import BadInput, UnknownName
from candlemill.pipeline import events
from candlemill.pipeline.events import Event, Requested
from candlemill.pipeline.gap_limit import DEFAULT_MAX_GAP, GapLimit, gap_limit
from candlemill.pipeline.interfaces import DayIndex
from candlemill.pipeline.prepare import with_candles
from candlemill.units import FIRST_MS, LAST_MS, SCALE, amount, parse_range

Kind = Literal["backtest", "sweep", "portfolio", "walk_forward", "sweeps", "walk_forwards"]
Symbol = Annotated[str, Meta(min_length=1, max_length=SYMBOLS_LENGTH)]
Values = Annotated[str, Meta(max_length=4_000)] | Annotated[list[ParamValue], Meta(min_length=1, max_length=SETS_LIMIT)]
Amount = Annotated[str, Meta(max_length=40, description="a decimal number, like 0.5")] | int | float

MAX_GAP_HELP = f"refuse a range that misses more minutes (default {DEFAULT_MAX_GAP:,} between candles; range all: any)"

# What JSON may give for an option of each kind; choices and flags are as in a spec.
WRITTEN: Mapping[str, Any] = {
    "rate": Annotated[str, Meta(max_length=40, description="like 0.1%, 10bp or 1000ppm")] | int | float,
    "amount": Amount,
    "leverage": Annotated[str, Meta(max_length=16)] | Annotated[int, Meta(ge=1)],
    "timeframe": Annotated[str, Meta(max_length=8)],
    "flag": bool,
    "text": Annotated[str, Meta(max_length=SYMBOLS_LENGTH)],
}


def _field(option: Option) -> tuple[str, Any, Any]:
    """Return name, type and default of the request's field for an option of a spec."""
    kind: Any = Literal[option.choices] if option.kind == "choice" else WRITTEN[option.kind]
    default = option.default if option.kind in ("rate", "leverage", "flag") else option.default_text()
    default = None if option.inferred else default
    written: Any = kind | None if default is None else kind
    return option.name, Annotated[written, Meta(description=option.help)], default


if TYPE_CHECKING:

    class _OptionFields(msgspec.Struct, frozen=True, kw_only=True):
        def __getattr__(self, name: str) -> Any: ...

else:
    _OptionFields = msgspec.defstruct("_OptionFields", map(_field, OPTIONS.values()), kw_only=True, frozen=True)


class Request(_OptionFields, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A backtest; with a `grid` a sweep, with `walk_forward` that; with several symbols a portfolio, or a sweep or a
    walk-forward for each.

    It has all options of a spec too. Rates are texts like 0.1%, 10bp or 1000ppm, or whole numbers in parts per million.
    Amounts, such as `quantity` and `capital`, are decimals, best as text; `leverage` is parts per million, or text like
    3x. A grid's values are a list, or text like 5:50:5. `max_gap` is how many minutes may be missing (see `gap_limit`).
    `fresh` computes even what is stored.
    """

    symbol: Symbol | Annotated[list[Symbol], Meta(min_length=1, max_length=SYMBOLS_LIMIT)]
    strategy: Annotated[str, Meta(min_length=1, max_length=64)]
    range: Annotated[str, Meta(max_length=64), Option("text", "2023, 2023-05, 2023-01-01..2023-06-30 or all")] = "all"
    params: dict[str, ParamValue] = {}
    grid: dict[str, Values] = {}
    walk_forward: WalkForward | None = None
    weights: dict[str, Amount] = {}
    slices: Annotated[
        Annotated[int, Meta(ge=1, le=SLICES_LIMIT)] | Literal["auto"],
        Option("count", "how many parts the range is cut into", "run", "Slices", "never changes what comes out"),
    ] = "auto"
    max_gap: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Option("minutes", MAX_GAP_HELP, "run", "Most missing minutes", "refuses a range that misses more", "a day"),
    ] = None
    fresh: Annotated[bool, Option("flag", "compute even what is stored", "run", switch="no-cache")] = False

    @property
    def symbols(self) -> str:
        """Return the symbols in the form that `portfolio.symbols_of` takes."""
        return self.symbol if isinstance(self.symbol, str) else ",".join(self.symbol)

    @property
    def kind(self) -> Kind:
        several = names_several(self.symbols) and not sees_panel(self.strategy)
        if self.walk_forward is not None:
            return "walk_forwards" if several else "walk_forward"
        if self.grid:
            return "sweeps" if several else "sweep"
        return "portfolio" if several else "backtest"


_own = options_of(Request)
REQUEST_OPTIONS: Mapping[str, Option] = {"range": _own["range"], **OPTIONS, **_own}


def names_several(symbols: str) -> bool:
    """Return whether a text like `BTCUSDT,ETHUSDT` or `*USDT` names several symbols."""
    return any(mark in symbols for mark in ",*?[")


class ResolvedRequest(msgspec.Struct, frozen=True):
    """A resolved request.
    `spec` is that of the one symbol (of a portfolio the first), complete except for the data that only the index
    has; `weights` are scaled, and present for portfolios only."""

    kind: Kind
    spec: Spec
    weights: dict[str, int]
    walk_forward: WalkForward | None
    slices: int | None
    limit: GapLimit | None
    fresh: bool


def request_of_fields(fields: Mapping[str, Any]) -> Request:
    """Build a request from flat fields, all of which may be texts: `symbol`, `params.fast`, `grid.slow`. Raises
    BadInput.

    Numbers are accepted for texts, because `kn` sends anything that looks like a number (a year, too) as a number.
    """
    nested: dict[str, Any] = {}
    for name, given in fields.items():
        value = str(given) if type(given) in (int, float) else given
        group, dot, key = name.partition(".")
        if dot:
            inner = nested.setdefault(group, {})
            if not isinstance(inner, dict):
                raise BadInput(f"not a request: both {group!r} and {name!r} are given")
            inner[key] = value
        else:
            nested[name] = value
    try:
        return msgspec.convert(nested, Request, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"not a request: {error}") from None


def requested(event: Event, index: DayIndex) -> Requested:
    """Return the data of a backtest.requested event.
    The event holds data as the gateway writes it, or fields sent by hand, which are resolved as in the REST
    interface. Raises BadInput and the errors of `resolve_request`."""
    if len(event.data) > events.EVENT_BYTES_LIMIT or not (fields := _fields(event.data)):
        return events.read(event, Requested)
    request = request_of_fields(fields)
    if request.max_gap is not None:
        raise BadInput("max_gap is no field of an event: request the job from the gateway")
    resolved = resolve_request(request, index)
    weights, walk = resolved.weights, resolved.walk_forward
    return Requested(resolved.spec, resolved.slices, resolved.fresh, weights=weights, walk_forward=walk)


def _fields(data: bytes) -> dict[str, Any] | None:
    """Return the event's data if it is an object without a spec, else None."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) and "spec" not in found and "symbol" in found else None


def resolve_request(request: Request, index: DayIndex) -> ResolvedRequest:
    """Resolve a request against the stored candles, before any work. Raises BadInput, UnknownName and NoData."""
    kind = request.kind
    _check_kind(request, kind)
    if not request.symbols.strip(", "):
        raise BadInput(f"symbol={request.symbols!r} names none: give at least one, like BTCUSDT")
    panel = sees_panel(request.strategy)
    several = names_several(request.symbols) and not panel
    symbols = symbols_of(request.symbols, index.symbols()) if panel or several else [request.symbols]
    spec = spec_of(request, symbols[0])
    if panel:
        spec = of_panel(index, spec, request.symbols)
        symbols = spec.symbols
    if several:
        symbols, _ = with_candles(index, request.symbols, symbols, spec.start, spec.end)
        spec = msgspec.structs.replace(spec, symbol=symbols[0])
    if request.range == "all":
        start, end = full_span(index, symbols)
        spec = msgspec.structs.replace(spec, start=start, end=end)
    weights: dict[str, int] = {}
    if several:
        texts = [f"{name}={amount(weight, f'weight of {name}')}" for name, weight in request.weights.items()]
        weights = parse_weights(texts, symbols)
    slices = None if request.slices == "auto" else request.slices
    limit = gap_limit(request.max_gap, request.range)
    return ResolvedRequest(kind, spec, weights, request.walk_forward, slices, limit, request.fresh)


def _check_kind(request: Request, kind: Kind) -> None:
    if request.walk_forward is not None and not request.grid:
        raise BadInput('a walk-forward chooses among parameter sets: give a grid, like {"fast": "5:50:5"}')
    if request.weights and kind != "portfolio":
        raise BadInput('weights are for portfolios: give several symbols, as in "BTCUSDT,ETHUSDT"')


def of_panel(index: DayIndex, spec: Spec, resolved: str) -> Spec:
    """Return a panel's spec with the symbols of `resolved`: a list, or a glob of those with a candle in the range."""
    symbols = symbols_of(resolved, index.symbols())
    symbols, _ = with_candles(index, resolved, symbols, spec.start, spec.end)
    text = ",".join(sorted(set(symbols)))
    if len(text) > SYMBOLS_LENGTH:
        raise BadInput(
            f"{len(symbols):,} symbols have {len(text):,} characters, the limit is {SYMBOLS_LENGTH:,}: use fewer"
        )
    return msgspec.structs.replace(spec, symbol=text)


def full_span(index: DayIndex, symbols: Sequence[str]) -> tuple[int, int]:
    """Return the time span in ms from the first candle of all symbols to the end of the last. Raises UnknownName."""
    spans = []
    for symbol in symbols:
        days = index.days(symbol)
        if not days:
            raise UnknownName("symbol", symbol, index.symbols(), "`candlemill coverage` lists what is stored")
        spans.append((days[0].first, days[-1].last + 60_000))
    return min(a for a, _ in spans), max(b for _, b in spans)


def spec_of(request: Request, symbol: str) -> Spec:
    """Return the spec of one symbol without use of the index: the range `all` is the widest valid range."""
    span = (FIRST_MS, LAST_MS) if request.range == "all" else parse_range(request.range)
    given = {name: value for name in OPTIONS if (value := getattr(request, name)) is not None}
    return resolve(
        symbol=symbol,
        strategy=request.strategy,
        span=span,
        params=dict(request.params),
        grid={name: _values(name, values) for name, values in request.grid.items()},
        **{name: OPTIONS[name].parse(value) for name, value in given.items()},
    )


def _values(name: str, values: str | list[ParamValue]) -> list[ParamValue]:
    return grid_values(f"{name}={values}", values) if isinstance(values, str) else values


def request_of(spec: Spec, weights: Mapping[str, int] = {}, walk_forward: WalkForward | None = None) -> dict[str, Any]:
    """Return the request body that yields this spec; fields with default values are left out.
    A schedule cannot be requested."""
    body: dict[str, Any] = {"symbol": list(weights) if weights else spec.symbol, "strategy": spec.strategy}
    body["range"] = range_of(spec.start, spec.end)
    if spec.params:
        body["params"] = spec.params
    if spec.grid:
        body["grid"] = {name: axis_text(values) for name, values in spec.grid.items()}
    if any(weight != SCALE for weight in weights.values()):
        body["weights"] = {name: OPTIONS["quantity"].text(weight) for name, weight in weights.items()}
    if walk_forward is not None:
        body["walk_forward"] = msgspec.to_builtins(walk_forward)
    for name, option in OPTIONS.items():
        value = getattr(spec, name)
        if value != option.default:
            body[name] = option.text(value) if option.kind in ("amount", "timeframe") else value
    return body


def axis_text(values: list[ParamValue]) -> str | list[ParamValue]:
    """Return whole numbers as the short text; values that a text might change stay a list."""
    return grid_text(values) if all(type(value) is int for value in values) else values
