"""candlemill: distributed, exact backtesting over one-minute crypto candles."""

from candlemill._version import __version__

__all__ = ["__version__"]
