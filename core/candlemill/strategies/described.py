"""A strategy whose code does not run in this process."""

from candlemill.strategies.base import Strategy


class Described(Strategy, frozen=True):
    """The description of a plugin's strategy with its parameters, used for planning. Workers run its code."""

    parameters: dict[str, int | float | bool | str]
    bars: int
    warm_up_bars: int
    columns: frozenset[str]

    def needs(self) -> frozenset[str]:
        return self.columns

    def lookback(self) -> int:
        return self.bars

    def warm_up(self) -> int:
        return self.warm_up_bars
