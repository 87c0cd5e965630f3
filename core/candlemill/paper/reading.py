"""Read a run's canonical state, and what a minute recorded, as the parts of a decision."""

import msgspec

from candlemill.backtests.account import AccountState
from candlemill.backtests.fill_list import WHAT, fills_of_log
from candlemill.backtests.recording import Recording
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import is_per_unit, walks_minutes
from candlemill.backtests.states import COLD, split_state
from candlemill.engine.candles import CandleColumns
from candlemill.engine.decide import NEW, NONE, RESTING
from candlemill.engine.fills import BOTH, STOP, TAKE
from candlemill.engine.summary import CarriedState
from candlemill.engine.wide import MILLION
from candlemill.paper.decision import PaperFill, StandingOrder
from candlemill.strategies.orders import SEPARATOR


class Standing(msgspec.Struct, frozen=True):
    """What a strategy wants after a minute: see the same fields of `Decision`."""

    target: int | None = 0
    orders: list[StandingOrder] = []
    stop: int = 0
    take: int = 0


class Held(msgspec.Struct, frozen=True):
    """What is held after a minute: see the same fields of `Decision`."""

    exposure: int = 0
    quantity: int | None = None
    equity: int | None = None


def read_state(spec: Spec, data: bytes) -> tuple[Standing, Held]:
    """Return what stands and what is held in a state between two minutes."""
    if data == COLD:
        return Standing(), Held()
    state, memory = split_state(data)
    if walks_minutes(spec):
        standing, exposure = _book(memory.partition(SEPARATOR)[0].decode())
    else:
        standing, exposure = Standing(int(state.desired) * MILLION), int(state.side) * MILLION
    if not state.account:
        return standing, Held(exposure)
    account = AccountState.from_bytes(state.account)
    (holding,) = account.holdings.values()
    return standing, Held(exposure if holding.held else 0, holding.held, account.equity[0])


def _book(text: str) -> tuple[Standing, int]:
    """Return the book and the exposure of a state of `engine.decide`."""
    first, *rest = text.split("\n")
    numbers = first.split(",")
    exposure, stop, take = int(numbers[0]), int(numbers[4]), int(numbers[5])
    pending_stop, pending_take = int(numbers[7]), int(numbers[8])
    target = None if numbers[9] == NONE else int(numbers[9])
    orders = [_order(line[1:].split(",", 9)) for line in rest if line[:1] == "o" and int(line[1]) in (NEW, RESTING)]
    return Standing(target, orders, pending_stop or stop, pending_take or take), exposure


def _order(texts: list[str]) -> StandingOrder:
    _, side, limit, price, size, part, oco, stop, take = map(int, texts[:9])
    kind = "limit" if limit else "stop"
    return StandingOrder(texts[9], side, kind, price, size, part, oco, stop, take)  # type: ignore[arg-type]


def fills_of(spec: Spec, candles: CandleColumns, record: Recording, start: bytes) -> list[PaperFill]:
    """Return the fills that a slice recorded from the state `start`, in their order."""
    if record.account is not None:
        found = fills_of_log(record.account, candles.columns()["t"])
        rows = zip(found.side.tolist(), found.what.tolist(), found.price.tolist(), found.quantity.tolist(), strict=True)
        return [PaperFill(side, WHAT[what], price, quantity) for side, what, price, quantity in rows]
    state: CarriedState = split_state(start)[0]
    columns = record.fills.columns()
    quantity = spec.quantity if is_per_unit(spec) else None
    out, before = [], int(state.side)
    for after, price, reason in zip(*(columns[name].tolist() for name in ("side", "price", "reason")), strict=True):
        what = "stop" if reason in (STOP, BOTH) else "take" if reason == TAKE else "target"
        out.append(PaperFill(1 if after > before else -1, what, price, quantity))
        before = after
    return out
