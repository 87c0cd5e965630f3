"""Figures of an equity curve: drawdown, daily profits, Sharpe and Sortino ratio (SEMANTICS §6)."""

from math import isqrt

from .candles import DAY, SCALE


def round_root(numerator: int, denominator: int) -> int:
    """√(numerator / denominator), rounded half to even."""
    root = isqrt(numerator // denominator)
    # Compare the true value with root + 1/2: (2 root + 1)^2 / 4 against numerator / denominator.
    halfway = (2 * root + 1) ** 2 * denominator
    if 4 * numerator > halfway or (4 * numerator == halfway and root % 2 == 1):
        root += 1
    return root


def annual(total: int, numerator: int, denominator: int) -> int:
    """The sign of `total` times √(numerator / denominator) · √365, times 10^8; 0 with nothing to divide by."""
    if denominator == 0:
        return 0
    root = round_root(numerator * 365 * SCALE * SCALE, denominator)
    return root if total > 0 else -root


def sharpe_ratio(profits: list[int]) -> int:
    """Mean over sample standard deviation, times √365: S² (n − 1) / (n (n Q − S²)) under the root."""
    n, total, squares = len(profits), sum(profits), sum(p * p for p in profits)
    if n < 2:
        return 0
    return annual(total, total * total * (n - 1), n * (n * squares - total * total))


def sortino_ratio(profits: list[int]) -> int:
    """Mean over the root of the mean squared negative profit (over all days), times √365."""
    n, total, squares = len(profits), sum(profits), sum(p * p for p in profits if p < 0)
    if n < 2:
        return 0
    return annual(total, total * total, n * squares)


class Curve:
    """Equity at every mark, as integers of one unit; profit starts at 0."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, int]] = []
        self.peak = 0
        self.drawdown = 0

    def mark(self, t: int, profit: int) -> None:
        self.marks.append((t, profit))
        self.peak = max(self.peak, profit)
        self.drawdown = max(self.drawdown, self.peak - profit)

    def last(self) -> int:
        return self.marks[-1][1] if self.marks else 0

    def days(self) -> list[tuple[int, int]]:
        """(UTC day number, profit at its last mark) of the days that have one."""
        return sorted({t // DAY: profit for t, profit in self.marks}.items())

    def figures(self, unit: int) -> dict[str, object]:
        """Figures in 10^-8; `unit` of the curve's units are one of them; each is rounded down once."""
        ends = self.days()
        exact = [end - before for (_, end), before in zip(ends, [0, *(end for _, end in ends)], strict=False)]
        floors = [end // unit for _, end in ends]
        return {
            "total_pnl": self.last() // unit,
            "max_drawdown": self.drawdown // unit,
            "sharpe_ratio": sharpe_ratio(exact),
            "sortino_ratio": sortino_ratio(exact),
            "days": len(ends),
            "daily_profits": [
                (day, floor - before) for (day, _), floor, before in zip(ends, floors, [0, *floors], strict=False)
            ],
        }
