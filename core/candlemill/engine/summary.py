"""Sums of a stretch of bars as integers that can be merged, and the state between two stretches."""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

FINE: Final = 10**8  # the book's unit: parts of 10^-8 of money per unit of base

CLOSED: Final = 1  # the position held at the start was closed in this stretch
THROUGH: Final = 2  # the position held at the start is still open at the end

# The order is the wire format of `Summary.to_list`.
FIELDS: Final = (
    "bars",
    "profit",
    "peak",
    "low",
    "drawdown",
    "fees",
    "funding",
    "turnover",
    "fills",
    "trades",
    "wins",
    "gross_profit",
    "gross_loss",
    "exposure",
    "ambiguous",
    "over_gaps",
    "days",
    "squares",
    "loss_squares",
    "head",
    "head_cash",
    "head_gap",
    "tail",
    "tail_cash",
    "tail_gap",
    "first",
    "last",
    "unfilled",
    "borrow",
    "cut",
    "rejected",
    "liquidations",
    "gap_profit",
)


class CarriedState:
    """State between two bars (SEMANTICS section 4), canonical: values without influence on later bars are zero.

    `side` is the position, `desired` the strategy's last decision, `locked` whether a stop or target has ended the
    position that `desired` requested. `entry` and `extreme` are kept only if a stop or the account depends on them,
    `quantity` only if trades differ in it. `account` has the canonical bytes of an account of real money, empty before
    its first bar.
    """

    def __init__(
        self,
        side: i64 = 0,
        desired: i64 = 0,
        locked: bool = False,
        entry: i64 = 0,
        extreme: i64 = 0,
        quantity: int = 0,
        account: bytes = b"",
    ) -> None:
        self.side: i64 = side
        self.desired: i64 = desired
        self.locked: bool = locked
        self.entry: i64 = entry
        self.extreme: i64 = extreme
        self.quantity: int = quantity
        self.account: bytes = account

    def to_bytes(self) -> bytes:
        locked = 1 if self.locked else 0
        own = f"{self.side},{self.desired},{locked},{self.entry},{self.extreme},{self.quantity}".encode()
        return own + b"@" + self.account if self.account else own

    @staticmethod
    def from_bytes(data: bytes) -> "CarriedState":
        own, _, account = data.partition(b"@")
        side, desired, locked, entry, extreme, quantity = [int(x) for x in own.split(b",")]
        if side not in (-1, 0, 1) or desired not in (-1, 0, 1) or locked not in (0, 1):
            raise ValueError(f"not a state: {data!r}")
        if min(entry, extreme, quantity) < 0:
            raise ValueError(f"not a state: {data!r}")
        return CarriedState(side, desired, locked == 1, entry, extreme, quantity, account)


class Summary:
    """Sums of a stretch of bars in exact integers.

    A monoid: `merge` is associative, and a stretch without bars is its identity.

    Money is relative to the equity at the last mark before the stretch, in the account's unit. In the book this is
    10^-16 per unit of base; module `account` describes the other units. `peak` and `low` include the equity at that
    mark. A trade over several stretches has the cash of its entry in the `tail` of one and the cash of its exit in the
    `head` of another; merging completes it. Stretches of whole UTC days add up `days`, `squares` and `loss_squares` of
    the daily profits. `first` and `last` are the first bar's open and the last bar's close. `gap_profit` is the profit
    from closes before missing minutes to opens after them.
    """

    def __init__(self) -> None:
        self.bars: int = 0
        self.profit: int = 0
        self.peak: int = 0
        self.low: int = 0
        self.drawdown: int = 0
        self.fees: int = 0
        self.funding: int = 0
        self.turnover: int = 0
        self.fills: int = 0
        self.trades: int = 0
        self.wins: int = 0
        self.gross_profit: int = 0
        self.gross_loss: int = 0
        self.exposure: int = 0
        self.ambiguous: int = 0
        self.over_gaps: int = 0
        self.days: int = 0
        self.squares: int = 0
        self.loss_squares: int = 0
        self.head: int = 0
        self.head_cash: int = 0
        self.head_gap: int = 0
        self.tail: int = 0
        self.tail_cash: int = 0
        self.tail_gap: int = 0
        self.first: int = 0
        self.last: int = 0
        self.unfilled: int = 0
        self.borrow: int = 0
        self.cut: int = 0
        self.rejected: int = 0
        self.liquidations: int = 0
        self.gap_profit: int = 0

    def merge(self, after: "Summary") -> "Summary":
        """Return the Summary of this stretch followed by `after`."""
        if after.bars == 0:
            return self
        if self.bars == 0:
            return after
        out = Summary()
        out.bars = self.bars + after.bars
        out.profit = self.profit + after.profit
        out.peak = max(self.peak, self.profit + after.peak)
        out.low = min(self.low, self.profit + after.low)
        out.drawdown = max(self.drawdown, after.drawdown, self.peak - self.profit - after.low)
        out.fees = self.fees + after.fees
        out.funding = self.funding + after.funding
        out.turnover = self.turnover + after.turnover
        out.fills = self.fills + after.fills
        out.trades = self.trades + after.trades
        out.wins = self.wins + after.wins
        out.gross_profit = self.gross_profit + after.gross_profit
        out.gross_loss = self.gross_loss + after.gross_loss
        out.exposure = self.exposure + after.exposure
        out.ambiguous = self.ambiguous + after.ambiguous
        out.over_gaps = self.over_gaps + after.over_gaps
        out.days = self.days + after.days
        out.squares = self.squares + after.squares
        out.loss_squares = self.loss_squares + after.loss_squares
        out.first, out.last = self.first, after.last
        out.unfilled = self.unfilled + after.unfilled
        out.borrow = self.borrow + after.borrow
        out.cut = self.cut + after.cut
        out.rejected = self.rejected + after.rejected
        out.liquidations = self.liquidations + after.liquidations
        out.gap_profit = self.gap_profit + after.gap_profit
        out._join_ends(self, after)
        return out

    def _join_ends(self, a: "Summary", b: "Summary") -> None:
        """Join the head of the first, the tail of the second, and the trade that spans the cut between them."""
        self.head, self.head_cash, self.head_gap = a.head, a.head_cash, a.head_gap
        if a.head == THROUGH:
            self.head, self.head_cash, self.head_gap = b.head, a.head_cash + b.head_cash, a.head_gap | b.head_gap
        self.tail, self.tail_cash, self.tail_gap = b.tail, b.tail_cash, b.tail_gap
        if a.tail and b.head == THROUGH:
            self.tail, self.tail_cash, self.tail_gap = 1, a.tail_cash + b.head_cash, a.tail_gap | b.head_gap
        if a.tail and b.head == CLOSED:
            self.count_trade(a.tail_cash + b.head_cash, a.tail_gap | b.head_gap)

    def count_trade(self, profit: int, over_gap: int) -> None:
        self.trades += 1
        self.over_gaps += over_gap
        if profit > 0:
            self.wins += 1
            self.gross_profit += profit
        else:
            self.gross_loss -= profit

    def count_days(self, daily: list[int]) -> None:
        """Add the profits of whole UTC days."""
        self.days += len(daily)
        for profit in daily:
            square = profit * profit
            self.squares += square
            if profit < 0:
                self.loss_squares += square

    def to_list(self) -> list[int]:
        """Return the fields in the order of `FIELDS`."""
        return [
            self.bars, self.profit, self.peak, self.low, self.drawdown, self.fees, self.funding, self.turnover,
            self.fills, self.trades, self.wins, self.gross_profit, self.gross_loss, self.exposure, self.ambiguous,
            self.over_gaps, self.days, self.squares, self.loss_squares, self.head, self.head_cash, self.head_gap,
            self.tail, self.tail_cash, self.tail_gap, self.first, self.last, self.unfilled, self.borrow,
            self.cut, self.rejected, self.liquidations, self.gap_profit,
        ]  # fmt: skip

    @staticmethod
    def from_list(values: list[int]) -> "Summary":
        if len(values) != len(FIELDS):
            raise ValueError(f"a summary has {len(FIELDS)} fields, not {len(values)}")
        out = Summary()
        (
            out.bars, out.profit, out.peak, out.low, out.drawdown, out.fees, out.funding, out.turnover,
            out.fills, out.trades, out.wins, out.gross_profit, out.gross_loss, out.exposure, out.ambiguous,
            out.over_gaps, out.days, out.squares, out.loss_squares, out.head, out.head_cash, out.head_gap,
            out.tail, out.tail_cash, out.tail_gap, out.first, out.last, out.unfilled, out.borrow,
            out.cut, out.rejected, out.liquidations, out.gap_profit,
        ) = values  # fmt: skip
        return out


def count_equity(total: Summary, equity: vec[i64], rest: vec[i64]) -> list[int]:
    """Add whole UTC days by the equity at their ends; return their profits in the book's unit.

    An equity is an amount below 2^61 and its rest in 10^-8 of that. A profit has up to 89 bits, so it is squared in
    limbs of 31 bits.
    """
    daily: list[int] = [0] * len(equity)
    squares, loss_squares = _Squares(), _Squares()
    before: i64 = 0
    rest_before: i64 = 0
    n: i64 = len(equity)
    i: i64 = 0
    while i < n:
        size: i64 = equity[i] - before
        part: i64 = rest[i] - rest_before
        before, rest_before = equity[i], rest[i]
        if part < 0:
            size -= 1
            part += FINE
        if -SMALL < size < SMALL:
            daily[i] = int(size * FINE + part)
        else:
            daily[i] = int(size) * FINE + int(part)
        loses: bool = size < 0
        if loses:
            size = -size
            if part != 0:
                size -= 1
                part = FINE - part
        low: i64 = (size & MASK) * FINE + part
        high: i64 = (size >> LIMB) * FINE + (low >> LIMB)
        squares.add(low & MASK, high & MASK, high >> LIMB)
        if loses:
            loss_squares.add(low & MASK, high & MASK, high >> LIMB)
        i += 1
    total.days += len(daily)
    total.squares += squares.total()
    total.loss_squares += loss_squares.total()
    return daily


SMALL: Final = 92_000_000_000  # an amount below it fits 64 bits in the book's unit
LIMB: Final = 31
MASK: Final = (1 << 31) - 1


class _Squares:
    """Sum of squares of numbers in three limbs of 31 bits, stored in six limbs that cannot overflow."""

    def __init__(self) -> None:
        self.s0: i64 = 0
        self.s1: i64 = 0
        self.s2: i64 = 0
        self.s3: i64 = 0
        self.s4: i64 = 0
        self.s5: i64 = 0

    def add(self, a: i64, b: i64, c: i64) -> None:
        aa: i64 = a * a
        ab: i64 = a * b
        ac: i64 = a * c
        bb: i64 = b * b
        bc: i64 = b * c
        cc: i64 = c * c
        self.s0 += aa & MASK
        self.s1 += (aa >> LIMB) + 2 * (ab & MASK)
        self.s2 += 2 * (ab >> LIMB) + 2 * (ac & MASK) + (bb & MASK)
        self.s3 += 2 * (ac >> LIMB) + (bb >> LIMB) + 2 * (bc & MASK)
        self.s4 += 2 * (bc >> LIMB) + (cc & MASK)
        self.s5 += cc >> LIMB

    def total(self) -> int:
        high = int(self.s3) + (int(self.s4) << LIMB) + (int(self.s5) << 2 * LIMB)
        return int(self.s0) + (int(self.s1) << LIMB) + (int(self.s2) << 2 * LIMB) + (high << 3 * LIMB)
