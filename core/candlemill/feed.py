"""The feed as a state machine: what happened goes in, what is to be done comes out. No sockets, no clock, no store.

`Lines` keeps connections open; every symbol has an account of its minutes (`Minutes`). Candles that two connections
deliver count once. Whatever a break, a silence or a broken message loses shows as a minute that did not come, and is
asked for over REST.

`now` is the exchange's time in ms, never later than it really is.
"""

import random
from collections.abc import Iterable, Sequence

import msgspec

from candlemill.errors import BadMessage
from candlemill.exchange import MINUTE_MS, Candle, Exchange, GoingAway, Message, Reply
from candlemill.lines import Close, Lines, Open, Send, Tuning
from candlemill.minutes import Minutes, Span


class Question(msgspec.Struct, frozen=True):
    """Ask for the candles of `start <= t < end`; the answer may go on after `end`."""

    symbol: str
    start: int
    end: int


class Outage(msgspec.Struct, frozen=True):
    """The exchange itself has no candles there."""

    symbol: str
    start: int
    end: int


Action = Open | Close | Send | Question | Outage


class Counts(msgspec.Struct):
    """What has happened to messages and minutes since the start."""

    candles: int = 0
    unfinished: int = 0
    duplicates: int = 0
    conflicts: int = 0
    foreign: int = 0
    others: int = 0
    bad: int = 0
    refused: int = 0
    filled: int = 0
    outage_minutes: int = 0


class Feed:
    """Drive it with `want`, `opened`, `received`, `closed`, `tick`, `answered`; then do what `take` returns, and store
    what `fresh` holds, which is the caller's to empty."""

    def __init__(self, exchange: Exchange, tuning: Tuning, rng: random.Random) -> None:
        self.exchange = exchange
        self.tuning = tuning
        self.lines = Lines(exchange, tuning, rng)
        self.fresh: list[Candle] = []
        self.counts = Counts()
        self.last_problem = ""
        self.paused = False  # ask nothing: what comes could not be kept
        self.minutes: dict[str, Minutes] = {}
        self._latest: dict[str, Candle] = {}
        self._actions: list[Question | Outage] = []
        self._open_questions = 0

    def take(self) -> list[Action]:
        """What is to be done now, once."""
        taken: list[Action] = [*self.lines.actions, *self._actions]
        self.lines.actions.clear()
        self._actions.clear()
        return taken

    def want(self, accounts: dict[str, Minutes]) -> None:
        """Follow exactly these symbols from now on; known ones keep their accounts."""
        for symbol in [s for s in self.minutes if s not in accounts]:
            if self.minutes.pop(symbol).asked is not None:
                self._open_questions -= 1
            self._latest.pop(symbol, None)
            self.lines.drop(symbol)
        new = {symbol: account for symbol, account in accounts.items() if symbol not in self.minutes}
        self.minutes |= new
        self.lines.add(new)

    # -- live ----------------------------------------------------------------------------------------------------------

    def opened(self, number: int, now: int) -> None:
        self.lines.opened(number, now)

    def closed(self, number: int, now: int) -> None:
        """A connection ended, or could not be opened."""
        self.lines.closed(number, now)

    def received(self, number: int, raw: bytes | str, now: int) -> None:
        if not self.lines.heard(number, now):
            return
        try:
            messages = self.exchange.decode(raw)
        except BadMessage as error:
            self._refuse(str(error))
            return
        for message in messages:
            if type(message) is Candle:
                self._candle(number, message, now)
            else:
                self._control(number, message, now)

    def _candle(self, number: int, candle: Candle, now: int) -> None:
        if not self.lines.carries(number, candle.symbol, now):
            self.counts.foreign += 1
            return
        if not candle.final:
            self.counts.unfinished += 1
            return
        account = self.minutes[candle.symbol]
        if candle.t >= now + 2 * MINUTE_MS:  # it would hide every minute until then
            self._refuse(f"{candle.symbol}: a final candle of {candle.t}, which is yet to come")
        elif account.final(candle.t):
            self.counts.candles += 1
            self._latest[candle.symbol] = candle
            self.fresh.append(candle)
        else:
            self.counts.duplicates += 1
            latest = self._latest.get(candle.symbol)
            if latest is not None and latest.t == candle.t and latest != candle:  # which is right, REST will say
                self.counts.conflicts += 1
                account.missing([(candle.t, candle.t + MINUTE_MS)])

    def _control(self, number: int, message: Message, now: int) -> None:
        if isinstance(message, GoingAway):
            self.lines.leaving(number, now)
        elif isinstance(message, Reply) and message.problem:
            self.counts.refused += 1
            self.last_problem = message.problem
        else:
            self.counts.others += 1

    def _refuse(self, problem: str) -> None:
        self.counts.bad += 1
        self.last_problem = problem

    def tick(self, now: int) -> None:
        """Call a few times a second."""
        self.lines.tick(now)
        closed_until = (now - self.tuning.grace_ms) // MINUTE_MS * MINUTE_MS
        free = 0 if self.paused else self.tuning.questions - self._open_questions
        rows = self.exchange.limits.rows - 1
        for symbol, account in self.minutes.items():
            if account.next < closed_until:
                account.overdue(closed_until)
            if free > 0 and account.holes and (span := account.question(now, rows)) is not None:
                self._actions.append(Question(symbol, *span))
                self._open_questions += 1
                free -= 1

    # -- history -------------------------------------------------------------------------------------------------------

    def answered(self, question: Question, candles: Sequence[Candle], full: bool, now: int) -> None:
        """The answer to a question: closed candles in time order, `full` if the exchange may have more."""
        account = self._asker(question)
        if account is None:
            return
        wanted, lacking = account.answered([candle.t for candle in candles], full, now)
        chosen = set(wanted)
        self.fresh += [candle for candle in candles if candle.t in chosen]
        self.counts.filled += len(wanted)
        for start, end in lacking:
            self.counts.outage_minutes += (end - start) // MINUTE_MS
            self._actions.append(Outage(question.symbol, start, end))

    def unanswered(self, question: Question, now: int) -> None:
        account = self._asker(question)
        if account is not None:
            account.unanswered(now)

    def _asker(self, question: Question) -> Minutes | None:
        """Whose question it is; None if that is not followed any more, or is again and has asked something else."""
        account = self.minutes.get(question.symbol)
        if account is None or account.asked != (question.start, question.end):
            return None
        self._open_questions -= 1
        return account

    def missing(self, symbol: str, spans: Iterable[Span]) -> None:
        """These are not in the store, or in doubt: have them asked for."""
        if symbol in self.minutes:
            self.minutes[symbol].missing(spans)

    # -- figures -------------------------------------------------------------------------------------------------------

    def lag_ms(self, symbol: str, now: int) -> int:
        """How long ago the last minute that is there ended, but for the one that is under way. Older holes are gaps."""
        return max(0, now - self.minutes[symbol].edge() - MINUTE_MS)

    def hole_minutes(self) -> int:
        return sum(account.holes.total() for account in self.minutes.values()) // MINUTE_MS
