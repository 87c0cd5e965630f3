"""Settlement of an account from the tapes of a job's slices: another capital, fee or step costs the settling alone."""

from librt.vecs import append
from mypy_extensions import i64

from candlemill.engine.candles import DAY_MS, Column, native
from candlemill.engine.mark import Marks
from candlemill.engine.position import MILLION, SCALE
from candlemill.engine.settle_rules import SettleRules
from candlemill.engine.single_account import SingleAccount
from candlemill.engine.summary import Summary
from candlemill.engine.tape import AMBIGUOUS, AT_ITS_CLOSE, TAKEN, Tape
from candlemill.engine.wide import below_limit, product


class TapeRun:
    """Settlement of a new account from the tapes of a job's slices, one after the other.

    `borrow` is in ppm a day. Once `is_ruined`, nothing is traded. `minute` and `close` are those with which the last
    piece begins and ends.
    """

    def __init__(self, rules: SettleRules, fee: i64, maker_fee: i64, borrow: i64, capital: i64) -> None:
        self.fee: i64 = fee
        self.maker_fee: i64 = maker_fee
        self.borrow: i64 = borrow
        self.account: SingleAccount = SingleAccount(rules, capital)
        self.marks: Marks = Marks(capital, 0, False)
        self.is_ruined: bool = False
        self.bars: i64 = 0
        self.ambiguous: i64 = 0
        self.day: i64 = -1
        self.minute: i64 = -1
        self.close: i64 = 0
        self.side: i64 = 0  # of the position as decided
        self.fill: i64 = 0  # the next fill, piece, piece with a position and gap of the present tape
        self.piece: i64 = 0
        self.shape: i64 = 0
        self.gap: i64 = 0

    def settle(self, tape: Tape) -> bool:
        """Settle the rest of a tape. Return False if a close of the present piece ruins the account: see `end_at`.

        Raises OverflowError for amounts from 2^60 on.
        """
        n: i64 = len(tape.begin)
        while self.piece < n:
            self.begin_piece(tape, self.piece)
            if not self.mark(tape, self.piece):
                return False
            self.end_piece(tape)
        self.cross_gaps(tape, tape.bars)
        self.bars += tape.bars
        self.fill = self.piece = self.shape = self.gap = 0
        return True

    def begin_piece(self, tape: Tape, p: i64) -> None:
        """Settle what happens before the piece is marked: missing minutes, funding and borrow, and its fills."""
        account = self.account
        bar: i64 = tape.begin[p]
        self.cross_gaps(tape, bar)
        account.note(self.close)
        if len(tape.funded) != 0 and tape.funded[p] != 0:
            account.pay_funding(self.close, tape.rate[p])
        self.minute = tape.minute[p]
        day: i64 = self.minute // DAY_MS
        if day != self.day:
            if self.day >= 0:
                self.end_day()
                if self.borrow != 0:
                    account.pay_borrow(self.close, self.borrow * (SCALE // MILLION) * (day - self.day))
            self.day = day
        closed: bool = False
        n: i64 = len(tape.bar)
        while self.fill < n and tape.bar[self.fill] == bar:
            k: i64 = self.fill
            self.fill += 1
            self.side = tape.side[k]
            if self.is_ruined:
                continue
            code: i64 = tape.code[k]
            made_price: i64 = self.close
            if code & AT_ITS_CLOSE != 0:
                made_price = tape.raw[k]
                if not closed:
                    account.note(made_price)
                closed = True
            if code & AMBIGUOUS != 0:
                self.ambiguous += 1
            if self.side == 0:
                account.leave(tape.price[k], self.maker_fee if code & TAKEN != 0 else self.fee)
            else:
                account.enter(self.side, tape.price[k], self.fee, made_price)

    def cross_gaps(self, tape: Tape, upto: i64) -> None:
        """Hold the position over the missing minutes before bars up to `upto`."""
        while self.gap < len(tape.gap) and tape.gap[self.gap] <= upto:
            self.account.cross_gap(tape.gap_close[self.gap], tape.gap_open[self.gap])
            self.gap += 1

    def mark(self, tape: Tape, p: i64) -> bool:
        """Mark a piece by its extremes; return False, and mark nothing, if it ruins the account."""
        cash: i64 = self.account.cash
        held: i64 = self.account.held
        marks = self.marks
        if held == 0:
            if cash <= 0 and not self.is_ruined:
                return False
            marks.see(cash, 0, cash, 0)
            marks.last, marks.last_rest = cash, 0
            return True
        top: i64 = tape.top[self.shape]
        bottom: i64 = tape.bottom[self.shape]
        if held < 0:
            top, bottom = bottom, top
        one, high_rest = product(held, top)
        high: i64 = below_limit(cash + one)
        one, low_rest = product(held, bottom)
        low: i64 = below_limit(cash + one)
        if low < 0 or (low == 0 and low_rest == 0):
            return False
        end: i64 = tape.begin[p + 1] if p + 1 < len(tape.begin) else tape.bars
        marks.exposure += end - tape.begin[p]
        above = high > marks.peak or (high == marks.peak and high_rest > marks.peak_rest)
        if above and high - low >= marks.fall:
            one, fine = product(held if held > 0 else -held, tape.fall[self.shape])
            marks.see_fall(one, fine)
        marks.see(high, high_rest, low, low_rest)
        one, marks.last_rest = product(held, tape.last[p])
        marks.last = cash + one
        return True

    def end_at(self, tape: Tape, closes: Column) -> None:
        """End the account in the present piece, at the first of its closes with an equity of 0 or less."""
        account, marks = self.account, self.marks
        prices = native(closes)
        i: i64 = 0
        while not self.is_ruined:
            one, fine = product(account.held, prices[i])
            equity: i64 = below_limit(account.cash + one)
            if account.held != 0:
                marks.exposure += 1
            if equity < 0 or (equity == 0 and fine == 0):
                self.cross_gaps(tape, tape.begin[self.piece] + i)
                account.end_at(prices[i])
                self.is_ruined = True
                equity, fine = account.cash, 0
            marks.see(equity, fine, equity, fine)
            marks.last, marks.last_rest = equity, fine
            i += 1
        self.end_piece(tape)

    def end_piece(self, tape: Tape) -> None:
        self.close = tape.last[self.piece]
        self.piece += 1
        if self.side != 0:
            self.shape += 1

    def end_day(self) -> None:
        self.marks.day = append(self.marks.day, self.marks.last)
        self.marks.day_rest = append(self.marks.day_rest, self.marks.last_rest)

    def summary(self) -> tuple[Summary, list[int]]:
        """Return the Summary and the daily profits of all tapes; no more can follow."""
        if self.day >= 0:
            self.end_day()
        out, daily = self.account.summary(self.marks, int(self.bars))
        out.ambiguous = int(self.ambiguous)
        return out, daily
