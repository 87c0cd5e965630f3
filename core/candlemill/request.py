"""A job as people ask for it, in JSON: the body of the REST interface, and the flat fields of an event sent by hand.

Times, amounts and grids are texts as on the command line; see `model` for what becomes of them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from candlemill import events
from candlemill.command import grid_text, option_text, range_of
from candlemill.errors import BadInput, UnknownName
from candlemill.events import Event, Requested
from candlemill.exact import amount
from candlemill.ledger import Index
from candlemill.model import (
    FIRST_MS,
    LAST_MS,
    SCALE,
    SETS_LIMIT,
    FeePpm,
    ParamValue,
    Ppm,
    Spec,
    WalkForward,
    grid_values,
    parse_decimal,
    parse_range,
    parse_timeframe,
    resolve,
)
from candlemill.plan import SLICES_LIMIT
from candlemill.portfolio import SYMBOLS_LIMIT, parse_weights, symbols_of

Kind = Literal["backtest", "sweep", "portfolio", "walk_forward"]
Symbol = Annotated[str, Meta(min_length=1, max_length=2_000)]
Amount = Annotated[str, Meta(max_length=40)] | int | float
Values = Annotated[str, Meta(max_length=4_000)] | Annotated[list[ParamValue], Meta(min_length=1, max_length=SETS_LIMIT)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A backtest; with a `grid` a sweep, with several symbols a portfolio, with `walk_forward` that.

    Rates are parts per million; `quantity`, `capital` and `notional` are decimals, best as text. A grid's values are a
    list, or text like 5:50:5 or 20,50,100. `max_gap` is how many minutes may be missing. `fresh` computes even what is
    stored.
    """

    symbol: Symbol | Annotated[list[Symbol], Meta(min_length=1, max_length=SYMBOLS_LIMIT)]
    strategy: Annotated[str, Meta(min_length=1, max_length=64)]
    range: Annotated[str, Meta(max_length=64)] = "all"
    params: dict[str, ParamValue] = {}
    grid: dict[str, Values] = {}
    walk_forward: WalkForward | None = None
    weights: dict[str, Amount] = {}
    fee: FeePpm = 1000
    maker_fee: FeePpm | None = None
    slippage: Ppm = 0
    stop_loss: Ppm = 0
    take_profit: Annotated[int, Meta(ge=0, le=100_000_000)] = 0
    trailing_stop: Ppm = 0
    fill: Literal["next_open", "close"] = "next_open"
    sizing: Literal["fixed", "notional", "compound"] = "fixed"
    quantity: Amount = "1"
    capital: Amount | None = None
    notional: Amount | None = None
    volume_share: Ppm = 0
    funding: bool = False
    timeframe: Annotated[str, Meta(max_length=8)] = "1m"
    slices: Annotated[int, Meta(ge=1, le=SLICES_LIMIT)] | Literal["auto"] = "auto"
    max_gap: Annotated[int, Meta(ge=0)] | None = None
    fresh: bool = False

    @property
    def symbols(self) -> str:
        """The symbols as `portfolio.symbols_of` takes them."""
        return self.symbol if isinstance(self.symbol, str) else ",".join(self.symbol)

    @property
    def kind(self) -> Kind:
        if self.walk_forward is not None:
            return "walk_forward"
        if self.grid:
            return "sweep"
        return "portfolio" if any(mark in self.symbols for mark in ",*?[") else "backtest"


_requests = msgspec.json.Decoder(Request)


class Asked(msgspec.Struct, frozen=True):
    """A request that is understood: `spec` is that of one symbol (of a portfolio the first), complete but for the data
    that only the index knows; `weights` are scaled and there for portfolios only."""

    kind: Kind
    spec: Spec
    weights: dict[str, int]
    walk_forward: WalkForward | None
    slices: int | None
    max_gap: int | None
    fresh: bool


def parse_request(body: bytes) -> Request:
    """A request from JSON. Raises BadInput."""
    try:
        return _requests.decode(body)
    except msgspec.DecodeError as error:
        raise BadInput(f"not a request: {error}") from None


def request_of_fields(fields: Mapping[str, Any]) -> Request:
    """A request from flat fields, all of which may be texts: `symbol`, `params.fast`, `grid.slow`. Raises BadInput.

    `kn` sends what looks like a number as one, a year too.
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


def requested(event: Event, index: Index) -> Requested:
    """What a backtest.requested event asks for: its data as the gateway writes it, or fields as people send them by
    hand, resolved as the REST interface does it. Raises BadInput and what comes of it."""
    if len(event.data) > events.EVENT_BYTES_LIMIT or not (fields := _fields(event.data)):
        return events.read(event, Requested)
    asked = understand(request_of_fields(fields), index)
    if asked.max_gap is not None:
        raise BadInput("max_gap cannot be asked for by an event's fields: ask the gateway")
    weights, walk = asked.weights, asked.walk_forward
    return Requested(asked.spec, asked.slices, asked.fresh, weights=weights, walk_forward=walk)


def _fields(data: bytes) -> dict[str, Any] | None:
    """The event's data where it is an object without a spec."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) and "spec" not in found and "symbol" in found else None


def understand(request: Request, index: Index) -> Asked:
    """What a request means with the candles that are there. Raises BadInput and what comes of it, before any work."""
    kind = request.kind
    _check_kind(request, kind)
    symbols = symbols_of(request.symbols, index.symbols()) if kind == "portfolio" else [request.symbols]
    spec = spec_of(request, symbols[0])
    if request.range == "all":
        start, end = full_span(index, symbols)
        spec = msgspec.structs.replace(spec, start=start, end=end)
    weights: dict[str, int] = {}
    if kind == "portfolio":
        texts = [f"{name}={amount(weight, f'weight of {name}')}" for name, weight in request.weights.items()]
        weights = parse_weights(texts, symbols)
    slices = None if request.slices == "auto" else request.slices
    return Asked(kind, spec, weights, request.walk_forward, slices, request.max_gap, request.fresh)


def _check_kind(request: Request, kind: Kind) -> None:
    if request.walk_forward is not None and not request.grid:
        raise BadInput('a walk-forward chooses among parameter sets: give a grid, like {"fast": "5:50:5"}')
    if kind in ("sweep", "walk_forward") and any(mark in request.symbols for mark in ",*?["):
        raise BadInput(f"{request.symbols!r}: a grid is for one symbol; ask for each symbol's sweep by itself")
    if request.weights and kind != "portfolio":
        raise BadInput('weights are for portfolios: give several symbols, as in "BTCUSDT,ETHUSDT"')


def full_span(index: Index, symbols: Sequence[str]) -> tuple[int, int]:
    """From the first candle of all symbols to the end of the last. Raises UnknownName."""
    spans = []
    for symbol in symbols:
        days = index.days(symbol)
        if not days:
            raise UnknownName("symbol", symbol, index.symbols(), "`candlemill coverage` lists what is stored")
        spans.append((days[0].first, days[-1].last + 60_000))
    return min(a for a, _ in spans), max(b for _, b in spans)


def spec_of(request: Request, symbol: str) -> Spec:
    """The spec of one symbol, as far as it needs no index: the range `all` is all that can be."""
    span = (FIRST_MS, LAST_MS) if request.range == "all" else parse_range(request.range)

    def scaled(name: str) -> int | None:
        value = getattr(request, name)
        return None if value is None else parse_decimal(amount(value, name), name)

    return resolve(
        symbol=symbol,
        strategy=request.strategy,
        span=span,
        params=dict(request.params),
        grid={name: _values(name, values) for name, values in request.grid.items()},
        fee=request.fee,
        maker_fee=request.maker_fee,
        slippage=request.slippage,
        stop_loss=request.stop_loss,
        take_profit=request.take_profit,
        trailing_stop=request.trailing_stop,
        fill=request.fill,
        sizing=request.sizing,
        quantity=scaled("quantity"),
        capital=scaled("capital"),
        notional=scaled("notional"),
        volume_share=request.volume_share,
        funding=request.funding,
        timeframe=parse_timeframe(request.timeframe),
    )


def _values(name: str, values: str | list[ParamValue]) -> list[ParamValue]:
    return grid_values(f"{name}={values}", values) if isinstance(values, str) else values


def request_of(spec: Spec, weights: Mapping[str, int] = {}, walk_forward: WalkForward | None = None) -> dict[str, Any]:
    """The body that asks for a spec again; what has its default is left out. A schedule cannot be asked for."""
    body: dict[str, Any] = {"symbol": list(weights) if weights else spec.symbol, "strategy": spec.strategy}
    body["range"] = range_of(spec.start, spec.end)
    if spec.params:
        body["params"] = spec.params
    if spec.grid:
        body["grid"] = {name: _axis(values) for name, values in spec.grid.items()}
    if any(weight != SCALE for weight in weights.values()):
        body["weights"] = {name: option_text("quantity", weight) for name, weight in weights.items()}
    if walk_forward is not None:
        body["walk_forward"] = msgspec.to_builtins(walk_forward)
    defaults = {field.name: field.default for field in msgspec.structs.fields(spec)}
    for field in msgspec.structs.fields(Request):
        value = getattr(spec, field.name, None)
        if field.name in defaults and field.name not in body and value not in (defaults[field.name], {}):
            as_text = field.name in ("quantity", "capital", "notional", "timeframe")
            body[field.name] = option_text(field.name, value) if as_text else value
    return body


def _axis(values: list[ParamValue]) -> str | list[ParamValue]:
    """Whole numbers as the short text; what a text might change stays a list."""
    return grid_text(values) if all(type(value) is int for value in values) else values
