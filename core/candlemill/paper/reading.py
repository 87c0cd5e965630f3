"""Read a run's canonical state, and what a minute recorded, as the parts of a decision."""

from collections.abc import Mapping

import msgspec
import numpy as np

from candlemill.backtests.account import AccountState, Entries
from candlemill.backtests.fill_list import OF_LOG, WHAT, fills_of_log
from candlemill.backtests.recording import Recording
from candlemill.backtests.result import liquidation_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import is_per_unit, sees_panel, walks_minutes
from candlemill.backtests.states import COLD, join_state, split_state
from candlemill.engine.account_events import ENDING, FUNDING
from candlemill.engine.candles import CandleColumns, Column
from candlemill.engine.decide import NEW, NONE, RESTING
from candlemill.engine.fills import BOTH, STOP, TAKE
from candlemill.engine.summary import CarriedState
from candlemill.engine.wide import MILLION
from candlemill.paper.decision import PanelPosition, PaperFill, StandingOrder
from candlemill.strategies.orders import SEPARATOR


class Standing(msgspec.Struct, frozen=True):
    """What a strategy wants after a minute: see the same fields of `Decision`. `targets` are those of a panel."""

    target: int | None = 0
    orders: list[StandingOrder] = []
    stop: int = 0
    take: int = 0
    targets: dict[str, int | None] = {}


class Held(msgspec.Struct, frozen=True):
    """What is held after a minute: see the same fields of `Decision`."""

    exposure: int = 0
    quantity: int | None = None
    equity: int | None = None
    liquidation_price: int | None = None
    positions: list[PanelPosition] = []


def read_state(spec: Spec, data: bytes) -> tuple[Standing, Held]:
    """Return what stands and what is held in a state between two minutes."""
    if data == COLD:
        return Standing(), Held()
    state, memory = split_state(data)
    if sees_panel(spec.strategy):
        return _panel(AccountState.from_bytes(state.account), _memory.decode(memory) if memory else {})
    if walks_minutes(spec):
        standing, exposure = _book(memory.partition(SEPARATOR)[0].decode())
    else:
        standing, exposure = Standing(int(state.desired) * MILLION), int(state.side) * MILLION
    if not state.account:
        return standing, Held(exposure)
    account = AccountState.from_bytes(state.account)
    (holding,) = account.holdings.values()
    liquidated_at = liquidation_of(spec, state)
    return standing, Held(exposure if holding.held else 0, holding.held, account.equity[0], liquidated_at)


_memory = msgspec.json.Decoder(dict[str, str])


def _panel(account: AccountState, states: Mapping[str, str]) -> tuple[Standing, Held]:
    """Return what a panel wants and holds; its targets are a part of what stands, by their positions."""
    positions = []
    for name in sorted(states.keys() | account.holdings.keys()):
        target, exposure = _target(states.get(name, ""))
        quantity = account.holdings[name].held if name in account.holdings else 0
        if target or quantity:
            positions.append(PanelPosition(name, target, exposure if quantity else 0, quantity))
    held = Held(sum(one.exposure for one in positions), None, account.equity[0], None, positions)
    return Standing(None, targets={one.symbol: one.target for one in positions}), held


def _target(text: str) -> tuple[int | None, int]:
    """Return the target and the exposure of a symbol's state, as `engine.panel_targets` has it."""
    if not text:
        return 0, 0
    numbers = text.split("\n")[0].split(",")
    return (None if numbers[9] == NONE else int(numbers[9])), int(numbers[0])


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


def plain_panel(data: bytes) -> bytes:
    """Return a panel's state without what depends on how the time before was cut and has no influence on later fills.

    Symbols that are flat and to stay flat are left out: whether their last target waits for a candle does not matter.
    Of others that are flat, it is the same whether none or 0 was acted on.
    """
    state, memory = split_state(data)
    account = AccountState.from_bytes(state.account)
    texts = _memory.decode(memory) if memory else {}
    states = {name: plain for name, text in texts.items() if (plain := _plain(text))}
    holdings = {name: one for name, one in account.holdings.items() if one.held or name in states}
    kept = CarriedState(account=msgspec.structs.replace(account, holdings=holdings).to_bytes())
    return join_state(kept, msgspec.json.encode(states, order="sorted") if states else b"")


def _plain(text: str) -> str:
    numbers = text.split(",")
    if int(numbers[0]) != 0 or numbers[10] not in (NONE, "0"):
        return text
    numbers[10] = "0"
    return "" if numbers[9] in (NONE, "0") else ",".join(numbers)


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


def panel_fills_of(entries: Entries, closes: Mapping[str, tuple[Column, Column]]) -> list[PaperFill]:
    """Return the fills of a panel's slice, in their order. `closes` are the times and closes of each symbol."""
    found = []
    for k in np.flatnonzero(((entries.what < FUNDING) | (entries.what == ENDING)) & (entries.moved != 0)).tolist():
        name, what, moved = entries.symbols[int(entries.symbol[k])], int(entries.what[k]), int(entries.moved[k])
        price = int(entries.price[k])
        if what == ENDING:  # at the last close
            t, close = closes[name]
            price = int(close[np.searchsorted(t, entries.minute[k], side="right") - 1])
        found.append(PaperFill(1 if moved > 0 else -1, WHAT[OF_LOG[what]], price, abs(moved), name))
    return found
