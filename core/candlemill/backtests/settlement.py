"""Account of a whole job of one symbol, settled and marked from the tapes that its slices have kept."""

from collections.abc import Callable, Iterable

import msgspec

from candlemill.backtests.account import AccountRules, AccountState, Holding
from candlemill.backtests.merge import MergedSlices
from candlemill.backtests.single import SYMBOL
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import account_rules, rules_of
from candlemill.backtests.states import join_state, split_state
from candlemill.backtests.tapes import TAPES
from candlemill.engine.candles import DAY_MS, Column
from candlemill.engine.position import SCALE, ExecutionRules
from candlemill.engine.summary import Summary
from candlemill.engine.tape import Tape
from candlemill.engine.tape_run import TapeRun
from candlemill.errors import TooLarge

Read = Callable[[int, int], tuple[Column, Column]]  # the times and closes of the bars of `start <= t < end` (ms)


def with_account(spec: Spec, merged: MergedSlices, read: Read) -> MergedSlices:
    """Return merged slices with their account settled; as they are, if they have no tapes.

    `read` returns the times and closes of the bars of `start <= t < end` (ms). Raises TooLarge where the numbers cannot
    be computed exactly.
    """
    account = account_rules(spec)
    if account is None or not merged.tapes:
        return merged
    try:
        found = settled(map(TAPES.get, merged.tapes), rules_of(spec), account, read)
    except OverflowError as error:
        raise TooLarge(f"{spec.symbol} {spec.strategy}: {error}; use less capital or smaller rates") from None
    total = found.summary
    total.first, total.last = merged.summary.first, merged.summary.last
    state, memory = split_state(merged.end)
    state.account = found.end.to_bytes()
    return msgspec.structs.replace(merged, summary=total, daily=found.daily, end=join_state(state, memory), tapes=[])


class Settlement(msgspec.Struct, frozen=True):
    """Account of a whole job: figures and daily profits in 10^-16, and the quantity held at the end."""

    summary: Summary
    daily: list[int]
    end: AccountState


def settled(tapes: Iterable[Tape], rules: ExecutionRules, account: AccountRules, read: Read) -> Settlement:
    """Settle and mark a whole job from the tapes of its slices: as `single.run_cash` does with its candles.

    `read` is called for the bars of one piece if a mark in it ruins the account. Raises OverflowError for amounts from
    2^60 on.
    """
    run = TapeRun(account.of([SYMBOL]), rules.fee, rules.maker_fee, account.borrow, account.capital)
    for tape in tapes:
        while not run.settle(tape):
            minute = int(run.minute)
            run.end_at(tape, read(minute, (minute // DAY_MS + 1) * DAY_MS)[1])
    summary, daily = run.summary()
    whole, rest = divmod(run.marks.totals()["last"], SCALE)
    holding = Holding(int(run.account.held), 0, int(run.minute), int(run.close))
    end = AccountState(int(run.account.cash), (whole, rest), int(run.minute), run.is_ruined, {SYMBOL: holding})
    return Settlement(summary, daily, end)
