"""Strategies decide, the engine's loop trades."""

from candlemill.engine.book import Book, Order
from candlemill.engine.books import PositionView
from candlemill.engine.panel_targets import KEEP
from candlemill.strategies.array_orders import BookArrays, WindowedOrders
from candlemill.strategies.base import LOOKBACK_LIMIT, RATE_LIMIT, Bar, Length, Stateful, Strategy, Windowed
from candlemill.strategies.orders import OrderStrategy, Weighted
from candlemill.strategies.panels import Panel, PanelStrategy
from candlemill.strategies.registry import REGISTERED, build, parameter_fields, register, source_digest

__all__ = [
    "KEEP",
    "LOOKBACK_LIMIT",
    "RATE_LIMIT",
    "REGISTERED",
    "Bar",
    "Book",
    "BookArrays",
    "Length",
    "Order",
    "OrderStrategy",
    "Panel",
    "PanelStrategy",
    "PositionView",
    "Stateful",
    "Strategy",
    "Weighted",
    "Windowed",
    "WindowedOrders",
    "build",
    "parameter_fields",
    "register",
    "source_digest",
]
