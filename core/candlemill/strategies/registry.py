"""Strategies by name: the built-in ones, and those that plugins have added to this process."""

import re
from collections.abc import Mapping
from functools import cache

import msgspec

from candlemill.errors import BadInput, BadPlugin, UnknownName, one_line
from candlemill.strategies.averages import EmaCross, Macd, SmaCross
from candlemill.strategies.base import Strategy
from candlemill.strategies.channels import Bollinger, Donchian, Keltner
from candlemill.strategies.momentum import BuyAndHold, DualMomentum, Momentum, TimeOfDay
from candlemill.strategies.reversion import RsiReversion, ZscoreReversion
from candlemill.strategies.trailing import AtrStop, Supertrend

REGISTERED: dict[str, type[Strategy]] = {
    "sma_cross": SmaCross,
    "momentum_v1": Momentum,
    "donchian": Donchian,
    "buy_and_hold": BuyAndHold,
    "ema_cross": EmaCross,
    "macd": Macd,
    "rsi_reversion": RsiReversion,
    "bollinger": Bollinger,
    "zscore_reversion": ZscoreReversion,
    "keltner": Keltner,
    "supertrend": Supertrend,
    "atr_stop": AtrStop,
    "time_of_day": TimeOfDay,
    "dual_momentum": DualMomentum,
}
BUILT_IN = frozenset(REGISTERED)

for _kind in REGISTERED.values():
    msgspec.json.Decoder(_kind)  # meets the type before there are threads, see `model.spec_from_json`
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
PARAMETER_TYPES = frozenset({"integer", "number", "boolean", "string"})

_sources: dict[str, tuple[str, str]] = {}  # of plugins: where they come from, and the digest of their source


def register(name: str, kind: object, origin: str, digest: str) -> None:
    """Add a plugin's strategy, or its newer version from the same `origin`.

    `digest` identifies its source and becomes part of its jobs' addresses. Raises BadPlugin for a name that is taken by
    other code, and for what is no strategy.
    """
    if not NAME.fullmatch(name):
        raise BadPlugin(f"strategy name {name!r} is not made of a-z, 0-9 and _, at most 64, a letter first")
    if not (isinstance(kind, type) and issubclass(kind, Strategy)):
        raise BadPlugin(f"strategy {name!r}: {kind!r:.80} is not a class derived from candlemill.strategies.Strategy")
    if kind.decide is Strategy.decide:
        raise BadPlugin(f"strategy {name!r}: {kind.__name__} decides nothing: derive it from Windowed or Stateful")
    if name in BUILT_IN:
        raise BadPlugin(f"strategy name {name!r} is a built-in strategy's: rename the class")
    first, known = _sources.get(name, (origin, digest))
    same_source = known == digest
    if (same_source and REGISTERED.get(name, kind).__name__ != kind.__name__) or not (same_source or first == origin):
        raise BadPlugin(f"strategy name {name!r} of {origin} is taken by {first}: rename the class")
    _check_parameters(name, kind)
    msgspec.json.Decoder(kind)
    REGISTERED[name] = kind
    _sources[name] = (first, digest)


def _check_parameters(name: str, kind: type[Strategy]) -> None:
    """Parameters travel as JSON and in grids: each is a number, a boolean or a text."""
    try:
        properties = properties_of(kind)
    except (TypeError, NameError) as error:
        raise BadPlugin(one_line(f"strategy {name!r}: its parameters have no JSON Schema: {error}")) from None
    for param, info in properties.items():
        if info.get("type") not in PARAMETER_TYPES and "enum" not in info:
            raise BadPlugin(f"strategy {name!r}: parameter {param!r} is not an int, float, bool or str")


def properties_of(kind: type[Strategy]) -> dict[str, dict[str, object]]:
    """The parameters in JSON Schema, by public name."""
    schema = msgspec.json.schema(kind)
    found: dict[str, dict[str, object]] = schema["$defs"][schema["$ref"].rsplit("/", 1)[-1]]["properties"]
    return found


def source_digest(name: str) -> str:
    """The digest of a plugin's source; empty for a built-in strategy, which the program's own digest covers."""
    return _sources[name][1] if name in _sources else ""


@cache
def parameter_fields(kind: type[Strategy]) -> dict[str, str]:
    """The parameters' public names, each with its attribute's name."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}


def build(name: str, params: Mapping[str, object]) -> Strategy:
    """The strategy `name` with `params` checked. Texts are read as numbers or booleans.

    Raises UnknownName and BadInput.
    """
    if name not in REGISTERED:
        raise UnknownName("strategy", name, sorted(REGISTERED), f"known are {', '.join(sorted(REGISTERED))}")
    fields = list(parameter_fields(REGISTERED[name]))
    for key in params:
        if key not in fields:
            takes = ", ".join(fields) or "no parameters"
            raise UnknownName(f"parameter of {name}", key, fields, f"it takes {takes}")
    try:
        return msgspec.convert(params, REGISTERED[name], strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(f"{name}: {error}") from None
