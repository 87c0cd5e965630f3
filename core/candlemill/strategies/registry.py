"""Registry of strategies by name: the built-in ones, and those that plugins have added to this process."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite

import msgspec

from candlemill.errors import BadInput, BadPlugin, UnknownName, one_line
from candlemill.strategies.base import Strategy, blamed
from candlemill.strategies.builtin.channels import Bollinger, Donchian, Keltner
from candlemill.strategies.builtin.mean_reversion import RsiReversion, ZscoreReversion
from candlemill.strategies.builtin.momentum import BuyAndHold, DualMomentum, Momentum, TimeOfDay
from candlemill.strategies.builtin.moving_averages import EmaCross, Macd, SmaCross
from candlemill.strategies.builtin.orders import AtrBracket, BreakEven, BreakoutStop, Dca, Grid, PullbackLimit
from candlemill.strategies.builtin.panels import InverseVolatility, PairReversion
from candlemill.strategies.builtin.trailing_stop import AtrStop, Supertrend
from candlemill.strategies.orders import OrderStrategy
from candlemill.strategies.panels import PanelStrategy, XsMomentum

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
    "pullback_limit": PullbackLimit,
    "breakout_stop": BreakoutStop,
    "grid": Grid,
    "atr_bracket": AtrBracket,
    "break_even": BreakEven,
    "dca": Dca,
    "xs_momentum": XsMomentum,
    "pair_reversion": PairReversion,
    "inverse_volatility": InverseVolatility,
}
BUILT_IN = frozenset(REGISTERED)
ORDER_STRATEGIES = frozenset(name for name, kind in REGISTERED.items() if issubclass(kind, OrderStrategy))
PANEL_STRATEGIES = frozenset(name for name, kind in REGISTERED.items() if issubclass(kind, PanelStrategy))

for _kind in REGISTERED.values():
    msgspec.json.Decoder(_kind)  # prepares the type before threads start, see `model.spec_from_json`
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
PARAMETER_TYPES = frozenset({"integer", "number", "boolean", "string"})

Describe = Callable[[str, Mapping[str, object]], Strategy]

_describe: list[Describe] = []  # one at most
_sources: dict[str, tuple[str, str]] = {}  # of plugins: origin and digest of the source


def register(name: str, kind: object, origin: str, digest: str) -> None:
    """Add a plugin's strategy, or its newer version from the same `origin`.

    `digest` identifies its source and becomes part of its jobs' addresses. Raises BadPlugin for a name that is used by
    other code, and for an object that is no strategy.
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
    """Check that each parameter is a number, a boolean or a text, as JSON and grids need it."""
    try:
        properties = properties_of(kind)
    except (TypeError, NameError) as error:
        raise BadPlugin(one_line(f"strategy {name!r}: its parameters have no JSON Schema: {error}")) from None
    for param, info in properties.items():
        if info.get("type") not in PARAMETER_TYPES and "enum" not in info:
            raise BadPlugin(f"strategy {name!r}: parameter {param!r} is not an int, float, bool or str")


def properties_of(kind: type[Strategy]) -> dict[str, dict[str, object]]:
    """Return the parameters in JSON Schema, by public name."""
    schema = msgspec.json.schema(kind)
    found: dict[str, dict[str, object]] = schema["$defs"][schema["$ref"].rsplit("/", 1)[-1]]["properties"]
    return found


def source_digest(name: str) -> str:
    """Return the digest of a plugin's source; empty for a built-in strategy, which the program's digest covers."""
    return _sources[name][1] if name in _sources else ""


def origin(name: str) -> str:
    """Return the origin of a plugin's strategy: a path, or an entry point as NAME = VALUE; empty if built-in."""
    return _sources[name][0] if name in _sources else ""


@cache
def parameter_fields(kind: type[Strategy]) -> dict[str, str]:
    """Return the attribute name of each parameter, by its public name."""
    return {field.encode_name: field.name for field in msgspec.structs.fields(kind)}


def describe_by(describe: Describe | None) -> None:
    """Set the function from which `build` gets plugins' strategies; None: `build` creates them itself."""
    _describe[:] = [] if describe is None else [describe]


def build(name: str, params: Mapping[str, object]) -> Strategy:
    """Create the strategy `name` with validated `params`. Texts are converted to numbers or booleans.

    Raises UnknownName, BadInput, and BadStrategy for errors of its code.
    """
    if name not in REGISTERED:
        raise UnknownName("strategy", name, sorted(REGISTERED), f"known are {', '.join(sorted(REGISTERED))}")
    fields = list(parameter_fields(REGISTERED[name]))
    for key in params:
        if key not in fields:
            takes = ", ".join(fields) or "no parameters"
            raise UnknownName(f"parameter of {name}", key, fields, f"it takes {takes}")
    if _describe and name in _sources:
        return _describe[0](name, params)
    with blamed(REGISTERED[name]):
        try:
            made = msgspec.convert(params, REGISTERED[name], strict=False)
        except msgspec.ValidationError as error:
            refusal = f"{name}: {error}"
        else:
            for key, field in parameter_fields(REGISTERED[name]).items():
                check_finite(name, key, getattr(made, field))
            return made
    raise BadInput(refusal)


def check_finite(strategy: str, name: str, value: object) -> None:
    """Raise BadInput for NaN and the infinities, because parameters are sent as JSON, which has no such numbers."""
    if isinstance(value, float) and not isfinite(value):
        raise BadInput(f"{strategy}: {name}={value} is not a finite number: give another value or leave it out")


def summary_of(kind: type) -> str:
    """Return the first paragraph of a strategy's docstring."""
    text = (kind.__doc__ or "").strip()
    return "" if text.startswith(f"{kind.__name__}(") else " ".join(text.partition("\n\n")[0].split())
