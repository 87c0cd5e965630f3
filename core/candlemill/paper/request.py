"""What a process is to run on paper, from a request as the REST interface takes it."""

import msgspec

from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import sees_panel
from candlemill.errors import BadInput
from candlemill.paper.desk import check_spec
from candlemill.paper.order import Order
from candlemill.pipeline.request import Request, spec_of
from candlemill.strategies import loader
from candlemill.units import parse_range


def order_of(text: str, begin: str, sink: str) -> Order:
    """Return the order of a request in JSON; `begin` and `sink` may be empty. Raises BadInput."""
    if not text:
        raise BadInput('CANDLEMILL_PAPER_REQUEST is empty: set it to a request like {"symbol": "BTCUSDT", …}')
    try:
        fields = msgspec.json.decode(text, type=dict)
        request = msgspec.convert({"range": "all", **fields}, Request)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"CANDLEMILL_PAPER_REQUEST is no request: {error}") from None
    loader.load(request.strategy)
    symbols = [symbol.strip() for symbol in request.symbols.split(",") if symbol.strip()]
    if not symbols:
        raise BadInput("CANDLEMILL_PAPER_REQUEST names no symbol: give at least one, like BTCUSDT")
    return Order(specs_of(request, symbols), parse_range(begin)[0] if begin else None, None, sink)


def specs_of(request: Request, symbols: list[str]) -> list[Spec]:
    """Return the spec of each symbol, or that of a panel, with the widest range. Raises BadInput for what cannot be run
    on paper."""
    spec = spec_of(request, symbols[0])
    check_spec(spec)
    if sees_panel(spec.strategy):
        return [msgspec.structs.replace(spec, symbol=",".join(sorted(set(symbols))))]
    return [msgspec.structs.replace(spec, symbol=symbol) for symbol in dict.fromkeys(symbols)]
