"""candlemill: distributed, exact backtesting over one-minute crypto candles.

The public names are imported at their first use, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from candlemill._version import __version__

if TYPE_CHECKING:
    from candlemill.api.calls import backtest, candles, check, coverage, optimize, sweep, walk_forward
    from candlemill.api.candles import Candles
    from candlemill.api.opened import open
    from candlemill.api.stored import diff, jobs, label, load
    from candlemill.errors import BadInput, CandlemillError
    from candlemill.strategies import Length, Stateful, Strategy, Windowed

__all__ = [
    "BadInput",
    "CandlemillError",
    "Candles",
    "Length",
    "Stateful",
    "Strategy",
    "Windowed",
    "__version__",
    "backtest",
    "candles",
    "check",
    "coverage",
    "diff",
    "jobs",
    "label",
    "load",
    "open",
    "optimize",
    "sweep",
    "walk_forward",
]

_MODULES = {
    **dict.fromkeys(("backtest", "candles", "check", "coverage", "optimize", "sweep", "walk_forward"), "api.calls"),
    **dict.fromkeys(("BadInput", "CandlemillError"), "errors"),
    **dict.fromkeys(("Length", "Stateful", "Strategy", "Windowed"), "strategies"),
    "Candles": "api.candles",
    "open": "api.opened",
    **dict.fromkeys(("diff", "jobs", "label", "load"), "api.stored"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'candlemill' has no attribute {name!r}")
    found = getattr(import_module(f"candlemill.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
