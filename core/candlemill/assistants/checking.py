"""A check of a built-in strategy, for assistants."""

from typing import Any

import msgspec

from candlemill.checks.runner import check
from candlemill.errors import BadInput, UnknownName
from candlemill.strategies import REGISTERED, build, loader


def check_built_in(strategy: str, params: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the findings of a check on synthetic markets. Raises UnknownName, and BadInput for a strategy from a file,
    whose code must not run here."""
    if strategy not in REGISTERED:
        raise UnknownName("strategy", strategy, sorted(REGISTERED), "`strategies` lists them")
    if loader.is_plugin(strategy):
        raise BadInput(f"{strategy} comes from a file: check it with `candlemill check`, which an assistant may not")
    report = check(build(strategy, dict(params)), None, timeframes=[1, 15], seed=1, seconds=seconds)
    found: dict[str, Any] = msgspec.to_builtins(report, enc_hook=str)
    return {"honest": report.honest, **found} if isinstance(found, dict) else {"honest": report.honest}
