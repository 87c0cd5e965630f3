"""The settings of a job that are not the usual ones: what tells jobs of a list apart, and names a job in a title."""

from collections.abc import Container, Mapping
from typing import Any

import msgspec

from candlemill.backtests.command_line import option_text, value_text
from candlemill.backtests.spec import DEFAULT_CAPITAL, OPTIONS, ParamValue, Spec
from candlemill.formatting import exact, rate
from candlemill.strategies import REGISTERED


def declared(strategy: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in the order in which the strategy declares them; those of an unknown strategy as they are."""
    known = _defaults(strategy)
    return {name: params[name] for name in [*known, *params] if name in params}


def unusual_params(strategy: str, params: Mapping[str, ParamValue]) -> dict[str, str]:
    """Return the parameters that differ from their defaults, in the declared order."""
    known = _defaults(strategy)
    found = declared(strategy, params)
    return {name: value_text(value) for name, value in found.items() if name not in known or value != known[name]}


def settings_of(spec: Spec, apart: Container[str] = ()) -> dict[str, str]:
    """Return parameters, axes and options that differ from their defaults, as text; without the names in `apart`."""
    found = unusual_params(spec.strategy, spec.params)
    found |= {name: f"{len(values):,} values" for name, values in declared(spec.strategy, spec.grid).items()}
    for name, option in OPTIONS.items():
        value = getattr(spec, name)
        if value != option.default and option.belongs(spec) and not _is_usual(spec, name):
            found[name] = _text(name, value)
    return {name: text for name, text in found.items() if name not in apart}


def settings_text(found: Mapping[str, str]) -> str:
    """Return settings in a line: `fast=240, slow: 7 values`."""
    return ", ".join(
        f"{name}: {text}" if text.endswith(" values") else f"{name}={text}" for name, text in found.items()
    )


def _is_usual(spec: Spec, name: str) -> bool:
    """Return whether a value follows from the account: its capital is computed, or the usual one."""
    return name == "capital" and (spec.account == "units" or spec.capital == DEFAULT_CAPITAL)


def _text(name: str, value: Any) -> str:
    kind = OPTIONS[name].kind
    if kind == "rate":
        return rate(value)
    if kind == "leverage":
        return f"{value / 1e6:g}x"
    return "yes" if value is True else exact(value) if kind == "amount" else option_text(name, value)


def _defaults(strategy: str) -> dict[str, Any]:
    """Return the parameters of a strategy with their defaults, in the declared order."""
    if strategy not in REGISTERED:
        return {}
    return {field.encode_name: field.default for field in msgspec.structs.fields(REGISTERED[strategy])}
