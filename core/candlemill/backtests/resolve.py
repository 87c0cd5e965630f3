"""Convert a request to a complete, checked spec."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import get_args, get_type_hints

import msgspec

from candlemill.backtests.grid import SETS_LIMIT, _typed_fixed, _typed_values, parameters_of
from candlemill.backtests.long_candles import check_long_candles, usual_timeframe
from candlemill.backtests.spec import (
    CASH_RULES,
    DEFAULT_CAPITAL,
    LEG_OPTIONS,
    RATES,
    SPEC_BYTES_LIMIT,
    Leg,
    ParamValue,
    Spec,
)
from candlemill.backtests.spec_rules import places_orders, sees_panel, walks_minutes
from candlemill.backtests.universe import parse_universe
from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadInput
from candlemill.formatting import rate
from candlemill.strategies import build


def resolve(
    *,
    symbol: str,
    strategy: str,
    span: tuple[int, int],
    params: Mapping[str, object],
    grid: Mapping[str, Sequence[object]] | None = None,
    **rest: object,
) -> Spec:
    """Return a checked spec: typed parameters, defaults set, every grid value valid for its parameter.

    Raises BadInput with the value, the limit and the way out.
    """
    grid = grid or {}
    if rest.get("schedule"):
        rest["schedule"] = _legs(strategy, rest["schedule"], span, params, grid)
    both = set(params) & set(grid)
    if both:
        raise BadInput(f"parameter {sorted(both)[0]!r} is given both as a value and as a grid: keep one")
    size = math.prod(len(values) for values in grid.values())
    if size > SETS_LIMIT:
        raise BadInput(f"the grid has {size:,} points, the limit is {SETS_LIMIT:,}: use wider steps or several sweeps")
    chosen = {name: _typed_values(strategy, name, [value])[0] for name, value in params.items()}
    typed = {name: list(dict.fromkeys(_typed_values(strategy, name, values))) for name, values in grid.items()}
    if rest.get("schedule"):
        fixed: dict[str, ParamValue] = {}
    elif typed:
        fixed = _typed_fixed(strategy, chosen, typed)
    else:
        fixed = parameters_of(build(strategy, dict(chosen)))
    rest.setdefault("timeframe", usual_timeframe(symbol))
    given = {"symbol": symbol, "strategy": strategy, "params": fixed, "grid": typed, "start": span[0], "end": span[1]}
    given |= _completed(rest)
    try:
        spec = msgspec.convert(given, Spec)
    except msgspec.ValidationError as error:
        raise BadInput(_refusal(error, given)) from None
    _check_panel(spec)
    _check_orders(spec)
    if spec.varies:
        _check_variants(spec)
    check_long_candles(spec)
    if len(spec.to_json()) > SPEC_BYTES_LIMIT:
        raise BadInput(f"the grid's values take more than {SPEC_BYTES_LIMIT:,} bytes: use several sweeps")
    return spec


def _check_panel(spec: Spec) -> None:
    """Reject what cannot be combined with a strategy of many symbols. Raises BadInput."""
    if not sees_panel(spec.strategy):
        if spec.universe:
            raise BadInput(
                f"universe={spec.universe[:80]!r} belongs to strategies of many symbols, not {spec.strategy}"
            )
        if spec.delist_after != 1_440:
            raise BadInput(
                f"delist_after={spec.delist_after}m belongs to strategies of many symbols, not {spec.strategy}"
            )
        return
    if spec.account != "cash":
        raise BadInput(f"{spec.strategy} trades many symbols with one account: give account=cash")
    if spec.margin != "none":
        raise BadInput(f"{spec.strategy} trades many symbols, margin={spec.margin} is of one: leave it out")
    if spec.volume_share:
        raise BadInput(f"{spec.strategy} does not go with volume_share={spec.volume_share}: leave it out")


def _check_orders(spec: Spec) -> None:
    """Reject options that cannot be combined with fills decided minute by minute. Raises BadInput."""
    if spec.limit_through and not places_orders(spec.strategy):
        raise BadInput(f"{spec.strategy} places no limit orders: leave limit_through out")
    if not walks_minutes(spec):
        return
    what = f"path={spec.path}" if spec.path != "worst" else spec.strategy
    if spec.sizing != "fixed":
        raise BadInput(f"{what} does not go with sizing {spec.sizing}: give account=cash, with a size")
    if spec.volume_share and spec.account == "units":
        raise BadInput(f"{what} with volume_share={spec.volume_share} needs real money: give account=cash")


def _check_variants(spec: Spec) -> None:
    """Reject options of legs that are out of bounds, or that the job cannot change. Raises BadInput."""
    names = {frozenset(leg.options) for leg in spec.schedule}
    if len(names) > 1 or not min(names) <= set(LEG_OPTIONS):
        raise BadInput(f"legs have the same options, of {', '.join(LEG_OPTIONS)}")
    if any(leg.start % DAY_MS and leg.start != spec.start for leg in spec.schedule):
        raise BadInput("legs with options of their own begin at UTC midnights")
    for one in spec.variants:
        given = msgspec.structs.asdict(one)
        try:
            msgspec.convert(given, Spec)
        except msgspec.ValidationError as error:
            raise BadInput(_refusal(error, given)) from None
        check_long_candles(one)
    if spec.account != "cash" or walks_minutes(spec) or sees_panel(spec.strategy):
        raise BadInput(
            f"{', '.join(sorted(min(names)))} can change from window to window with account=cash, path=worst, no "
            "margin, no volume_share, and a strategy that states positions of -1, 0 and 1: leave that out, make it a "
            "parameter of the strategy, or run a walk-forward for each value"
        )


def _legs(strategy: str, given: object, span: tuple[int, int], *others: object) -> list[Leg]:
    """Return a schedule with complete parameters. Raises BadInput."""
    try:
        legs = msgspec.convert(given, list[Leg])
    except msgspec.ValidationError as error:
        raise BadInput(f"schedule: {error}") from None
    if any(others):
        raise BadInput("a schedule has the parameters of each time: give neither params nor a grid beside it")
    starts = [leg.start for leg in legs]
    if starts != sorted(set(starts)) or not span[0] <= starts[0] <= starts[-1] < span[1]:
        raise BadInput("the schedule's starts are not ascending within the range")
    return [Leg(leg.start, parameters_of(build(strategy, dict(leg.params))), leg.options) for leg in legs]


def _completed(rest: dict[str, object]) -> dict[str, object]:
    """Return the spec in canonical form, so that specs with the same meaning have the same job id."""
    rest["account"] = account_of(rest)
    sizing, fee = rest.get("sizing", "fixed"), rest.get("fee", 1000)
    if rest.get("maker_fee") == fee:
        rest["maker_fee"] = None
    cash = rest["account"] == "cash"
    if universe := rest.get("universe"):
        rest["universe"] = str(parse_universe(str(universe)))
    if (sizing != "fixed" or cash) and rest.get("capital") is None:
        rest["capital"] = DEFAULT_CAPITAL
    if "notional" in (sizing, rest.get("size") if cash else None) and rest.get("notional") is None:
        rest["notional"] = rest["capital"]
    return rest


def account_of(given: Mapping[str, object]) -> object:
    """Return the account that the options of a request mean.

    Where none is named it is one of real money, unless what is given belongs to account units alone: a sizing, a
    quantity without a size, a share of the volume. Raises BadInput for options of both.
    """
    if given.get("account"):
        return given["account"]
    cash = [name for name in CASH_RULES if name in given and (name == "size" or given[name] != CASH_RULES[name])]
    units = [name for name in ("sizing", "volume_share", "quantity") if given.get(name)]
    if given.get("size") == "units" and "quantity" in units:
        units.remove("quantity")
    if cash and units:
        raise BadInput(f"{units[0]} is of account units, {cash[0]} of account cash: leave one out, or name the account")
    return "units" if units else "cash"


def _refusal(error: msgspec.ValidationError, given: Mapping[str, object]) -> str:
    """Return msgspec's message about a field and its limit, with the rejected value."""
    text = str(error)
    choice = re.fullmatch(r"Invalid enum value .* - at `\$\.(\w+)`", text)
    if choice is not None:
        known = ", ".join(get_args(get_type_hints(Spec)[choice[1]]))
        return f"{choice[1]}={given[choice[1]]!r} is none of {known}"
    found = re.fullmatch(r"Expected (.*) - at `\$\.(\w+).*`", text)
    if found is None or found[2] not in given:
        return text
    limit = re.fullmatch(r"`int` (<=|>=) (-?\d+)", found[1])
    if found[2] in RATES and limit is not None:
        most = "at most" if limit[1] == "<=" else "at least"
        return f"{found[2]}={rate(int(str(given[found[2]])))}: give {most} {rate(int(limit[2]))}"
    return f"{found[2]}={given[found[2]]!r}: expected {found[1].replace('`', '')}"
