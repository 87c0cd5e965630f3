"""Options of a job, with the defaults of the specification. Money and quantities are scaled by 10^8, rates are ppm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .candles import PPM, SCALE

Rates = Sequence[tuple[int, int]]  # (instant in UTC ms, rate times 10^8)


@dataclass(frozen=True)
class Options:
    """All options of all accounts. `of` makes them from a dict and refuses unknown names."""

    start: int | None = None
    end: int | None = None
    # §3-§5, for every account
    fee: int = 1_000
    maker_fee: int | None = None  # the fee unless given
    slippage: int = 0
    stop_loss: int = 0
    take_profit: int = 0
    trailing_stop: int = 0
    fill: str = "next_open"  # or "close"
    timeframe: int = 1  # minutes
    funding: Rates | Mapping[str, Rates] = ()
    quantity: int = SCALE
    path: str = "worst"  # or "best", §10
    limit_through: int = 0  # how far the price must go beyond a resting limit order, docs/orders.md
    # account `units`: docs/semantics.md
    sizing: str = "fixed"  # or "notional"
    volume_share: int | None = None
    volume_scale: int = SCALE  # of volumes, in account `cash`
    # account `cash`, §12; step and minimums may be a dict by symbol
    capital: int = 10_000 * SCALE
    size: str = "equity"  # or "units", "notional"
    notional: int | None = None  # the capital unless given
    step: int | Mapping[str, int] = 1
    min_quantity: int | Mapping[str, int] = 0
    min_notional: int | Mapping[str, int] = 0
    leverage: int = PPM
    borrow: int | Mapping[str, Rates] = 0  # ppm a day, or (instant, rate times 10^8) by symbol
    # §13
    universe: Mapping[str, Any] | None = None
    delist_after: int | None = None  # ms

    @classmethod
    def of(cls, given: "Mapping[str, Any] | Options | None") -> "Options":
        if isinstance(given, Options):
            return given
        given = dict(given or {})
        unknown = set(given) - {item.name for item in fields(cls)}
        if unknown:
            raise ValueError(f"unknown options: {', '.join(sorted(unknown))}")
        return cls(**given)

    @property
    def maker(self) -> int:
        return self.fee if self.maker_fee is None else self.maker_fee

    def for_symbol(self, name: str, symbol: str) -> Any:
        """The option's value for one symbol, where it may differ by symbol."""
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return value
        without = {"step": 1, "funding": (), "borrow": ()}
        return value.get(symbol, without.get(name, 0))
