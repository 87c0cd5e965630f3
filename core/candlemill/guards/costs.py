"""How much of a result the costs may take."""

import msgspec

from candlemill.rounding import divide

PPM = 1_000_000
STEPS = (0, 50, 100, 150, 200, 300, 500)  # per cent of the fee paid


class Costs(msgspec.Struct, frozen=True):
    """Money scaled by 10^8, rates in ppm of the value of fills. None without fills.

    `fee`: paid on average, rounded. `break_even_fee`: at which the profit is gone, rounded down; below 0, the
    trades lose even without fees. `table`: (fee, profit) pairs, by the fee in ascending order.
    """

    fee: int | None
    break_even_fee: int | None
    table: list[tuple[int, int]]


def costs(total_pnl: int, fees: int, turnover: int) -> Costs:
    """Of one result: `fees` are all that were paid (negative for rebates), `turnover` the sum of the values of fills.

    With a fixed quantity the fee moves no fill, so the profit at another fee is exact but for the rounding of each
    fill's fee; where profits are put back in (`compound`), it is what the same fills would have cost.
    """
    if turnover <= 0:
        return Costs(None, None, [])
    gross = total_pnl + fees
    paid = divide(fees * PPM, turnover) or 0
    tried = sorted({paid * step // 100 for step in STEPS}) if paid > 0 else [0, 250, 500, 750, 1000]
    table = [(fee, gross - turnover * fee // PPM) for fee in tried]
    return Costs(paid, gross * PPM // turnover, table)
