"""The break-even fee of a result, and its profit at other fees."""

import msgspec

from candlemill.units import divide

PPM = 1_000_000
STEPS = (0, 50, 100, 150, 200, 300, 500)  # per cent of the fee paid


class Costs(msgspec.Struct, frozen=True):
    """Money scaled by 10^8, rates in ppm of the value of fills. None without fills.

    `fee`: the average fee paid, rounded. `break_even_fee`: the fee at which the profit is 0, rounded down; if it is
    below 0, the trades lose even without fees. `table`: (fee, profit) pairs, by the fee in ascending order.
    """

    fee: int | None
    break_even_fee: int | None
    table: list[tuple[int, int]]


def costs(total_pnl: int, fees: int, turnover: int) -> Costs:
    """Compute the costs of one result.

    `fees` is the sum of all fees paid (negative for rebates), `turnover` the sum of the values of all fills. With a
    fixed quantity the fee changes no fill, so the profit at another fee is exact except for the rounding of the three
    arguments. When profits are reinvested (`compound`), it is the profit of the same fills at the other fee.
    """
    if turnover <= 0:
        return Costs(None, None, [])
    gross = total_pnl + fees
    paid = divide(fees * PPM, turnover) or 0
    tried = sorted({paid * step // 100 for step in STEPS}) if paid > 0 else [0, 250, 500, 750, 1000]
    table = [(fee, gross - turnover * fee // PPM) for fee in tried]
    return Costs(paid, gross * PPM // turnover, table)
