"""What a stretch of bars amounts to, as integers that merge, and the state that one stretch hands to the next."""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

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
)


class State:
    """The behavioural state between two bars (SEMANTICS section 4), canonical: what cannot matter is zero.

    `side` is the position, `desired` what the strategy said last, `locked` whether a stop or target has ended the
    position that `desired` asked for. `entry` and `extreme` are kept only where a stop or the account depends on
    them, `quantity` only where trades differ in it.
    """

    def __init__(
        self,
        side: i64 = 0,
        desired: i64 = 0,
        locked: bool = False,
        entry: i64 = 0,
        extreme: i64 = 0,
        quantity: int = 0,
    ) -> None:
        self.side: i64 = side
        self.desired: i64 = desired
        self.locked: bool = locked
        self.entry: i64 = entry
        self.extreme: i64 = extreme
        self.quantity: int = quantity

    def to_bytes(self) -> bytes:
        locked = 1 if self.locked else 0
        return f"{self.side},{self.desired},{locked},{self.entry},{self.extreme},{self.quantity}".encode()

    @staticmethod
    def from_bytes(data: bytes) -> "State":
        side, desired, locked, entry, extreme, quantity = [int(x) for x in data.split(b",")]
        if side not in (-1, 0, 1) or desired not in (-1, 0, 1) or locked not in (0, 1):
            raise ValueError(f"not a state: {data!r}")
        if min(entry, extreme, quantity) < 0:
            raise ValueError(f"not a state: {data!r}")
        return State(side, desired, locked == 1, entry, extreme, quantity)


class Summary:
    """A monoid over exact integers: `merge` is associative and any stretch without bars is its identity.

    Money is relative to the equity at the last mark before the stretch, in the account's unit: in the book per unit of
    base, scaled by 10^8; `account` tells the others. `peak` and `low` include that starting point. A trade that spans
    stretches leaves the cash of its entry in the `tail` of one and that of its exit in the `head` of another; merging
    completes it. Stretches that hold whole UTC days add up `days`, `squares` and `loss_squares` of the daily profits.
    `first` and `last` are the first bar's open and the last one's close.
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

    def merge(self, after: "Summary") -> "Summary":
        """This stretch followed by `after`."""
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
        out._join_ends(self, after)
        return out

    def _join_ends(self, a: "Summary", b: "Summary") -> None:
        """The head of the first, the tail of the second, and the trade that spans the cut between them."""
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
        """Take in the profits of whole UTC days."""
        self.days += len(daily)
        for profit in daily:
            self.squares += profit * profit
            if profit < 0:
                self.loss_squares += profit * profit

    def to_list(self) -> list[int]:
        """The fields in the order of `FIELDS`."""
        return [
            self.bars, self.profit, self.peak, self.low, self.drawdown, self.fees, self.funding, self.turnover,
            self.fills, self.trades, self.wins, self.gross_profit, self.gross_loss, self.exposure, self.ambiguous,
            self.over_gaps, self.days, self.squares, self.loss_squares, self.head, self.head_cash, self.head_gap,
            self.tail, self.tail_cash, self.tail_gap, self.first, self.last, self.unfilled,
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
            out.tail, out.tail_cash, out.tail_gap, out.first, out.last, out.unfilled,
        ) = values  # fmt: skip
        return out


LIMB: Final = 31
MASK: Final = (1 << 31) - 1


def square_sums(day_equity: vec[i64]) -> tuple[int, int]:
    """Sums of squares of the daily profits and of the losing ones, exact; |profit| < 2^62.

    A square has up to 124 bits, so both sums are carried in four limbs of 31 bits that cannot overflow.
    """
    a0: i64 = 0
    a1: i64 = 0
    a2: i64 = 0
    a3: i64 = 0
    b0: i64 = 0
    b1: i64 = 0
    b2: i64 = 0
    b3: i64 = 0
    before: i64 = 0
    n: i64 = len(day_equity)
    i: i64 = 0
    while i < n:
        equity: i64 = day_equity[i]
        profit: i64 = equity - before
        before = equity
        size: i64 = profit
        if profit < 0:
            size = -profit
        high: i64 = size >> LIMB
        low: i64 = size & MASK
        low_square: i64 = low * low
        cross: i64 = high * low
        high_square: i64 = high * high
        s0: i64 = low_square & MASK
        s1: i64 = (low_square >> LIMB) + 2 * (cross & MASK)
        s2: i64 = 2 * (cross >> LIMB) + (high_square & MASK)
        s3: i64 = high_square >> LIMB
        a0 += s0
        a1 += s1
        a2 += s2
        a3 += s3
        if profit < 0:
            b0 += s0
            b1 += s1
            b2 += s2
            b3 += s3
        i += 1
    return _from_limbs(a0, a1, a2, a3), _from_limbs(b0, b1, b2, b3)


def _from_limbs(s0: i64, s1: i64, s2: i64, s3: i64) -> int:
    return int(s0) + (int(s1) << 31) + (int(s2) << 62) + (int(s3) << 93)
