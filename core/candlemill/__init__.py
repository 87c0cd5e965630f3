"""candlemill: distributed, exact backtesting over one-minute crypto candles.

The names below are looked up when they are first used: importing the package imports nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from candlemill._version import __version__

if TYPE_CHECKING:
    from candlemill.api import backtest, candles, check, coverage, sweep, walk_forward
    from candlemill.errors import BadInput, CandlemillError
    from candlemill.owndata import Tape
    from candlemill.strategies import Length, Stateful, Strategy, Windowed

__all__ = [
    "BadInput",
    "CandlemillError",
    "Length",
    "Stateful",
    "Strategy",
    "Tape",
    "Windowed",
    "__version__",
    "backtest",
    "candles",
    "check",
    "coverage",
    "sweep",
    "walk_forward",
]

_PLACES = {
    **dict.fromkeys(("backtest", "candles", "check", "coverage", "sweep", "walk_forward"), "api"),
    **dict.fromkeys(("BadInput", "CandlemillError"), "errors"),
    **dict.fromkeys(("Length", "Stateful", "Strategy", "Windowed"), "strategies"),
    "Tape": "owndata",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'candlemill' has no attribute {name!r}")
    found = getattr(import_module(f"candlemill.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
