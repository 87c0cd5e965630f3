"""Strategies decide, the engine's loop trades."""

from candlemill.strategies.base import LOOKBACK_LIMIT, RATE_LIMIT, Bar, Length, Stateful, Strategy, Windowed
from candlemill.strategies.registry import REGISTERED, build, parameter_fields, register, source_digest

__all__ = [
    "LOOKBACK_LIMIT",
    "RATE_LIMIT",
    "REGISTERED",
    "Bar",
    "Length",
    "Stateful",
    "Strategy",
    "Windowed",
    "build",
    "parameter_fields",
    "register",
    "source_digest",
]
